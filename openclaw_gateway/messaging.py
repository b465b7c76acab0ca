"""The message side of a gateway, composed: queues, and who fills and empties them.

Owns which parts there are and how they meet, as `app` does for the whole. It must not know how any of them works, nor
connections and admission.

Invariants: what was accepted lies in a queue before anybody is told so; the parts that call out (channels, model
services, webhooks) are loaded when the configuration asks for them, and none of them can harm another (ROB-1).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from openclaw_gateway.agents.agent import Agent, AgentRegistry
from openclaw_gateway.agents.broadcast import Broadcast
from openclaw_gateway.agents.records import Reply, RunRequest
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.runs import AgentRuns, waiting_runs
from openclaw_gateway.agents.runstate import KINDS as RUNS
from openclaw_gateway.agents.runstate import Run
from openclaw_gateway.agents.sessions import Sessions, open_sessions
from openclaw_gateway.agents.trimming import TranscriptLimits
from openclaw_gateway.config.schema import AgentEntry, GatewayConfig
from openclaw_gateway.events.bus import EventBus
from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.pairing.senders import SenderGate
from openclaw_gateway.queues import Effect, MessageQueue, NewMessage, QueuedMessage, Undeliverable, open_queues
from openclaw_gateway.queues.records import MAX_PAYLOAD
from openclaw_gateway.rpc import agent as agent_methods
from openclaw_gateway.rpc import chat as chat_methods
from openclaw_gateway.rpc import chatstartup as startup_methods
from openclaw_gateway.rpc import history as history_methods
from openclaw_gateway.rpc import models as model_methods
from openclaw_gateway.rpc import queues as queue_methods
from openclaw_gateway.rpc import sending as sending_methods
from openclaw_gateway.rpc import sessionmany as many_methods
from openclaw_gateway.rpc import sessions as session_methods
from openclaw_gateway.rpc import sessionstart as start_methods
from openclaw_gateway.rpc import usage as usage_methods
from openclaw_gateway.rpc.asking import Asking
from openclaw_gateway.rpc.table import MethodTable
from openclaw_gateway.store import Store

if TYPE_CHECKING:
    from openclaw_gateway.channels.adapter import Adapter, MakeAdapter
    from openclaw_gateway.channels.hub import ChannelHub
    from openclaw_gateway.hooks.outbound import OutboundHooks
    from openclaw_gateway.models.services import ModelServices

__all__ = ["CHANNEL_SEND", "Messaging", "open_messaging"]

CHANNEL_SEND: Final = "channel.send"
CHANNELS: Final = ("telegram", "discord", "whatsapp")  # one module of `channels` each
INBOUND_CONCURRENCY: Final = 128  # runs at once
OUTBOUND_CONCURRENCY: Final = 32

Task = Callable[[], Coroutine[Any, Any, None]]
Handler = Callable[[QueuedMessage], Coroutine[Any, Any, Sequence[Effect] | None]]


class Messaging:
    """``inbound`` holds what people and services sent, ``outbound`` what goes to them; ``inbound_kinds`` and
    ``outbound_kinds`` say who handles what, by the kind of a message."""

    def __init__(
        self, inbound: MessageQueue, outbound: MessageQueue, sessions: Sessions, waiting: Sequence[Run] = ()
    ) -> None:
        self.inbound = inbound
        self.outbound = outbound
        self.sessions = sessions
        self._waiting = waiting  # runs that an earlier process accepted
        self.agents = AgentRegistry()
        self.channels: ChannelHub | None = None  # made when the configuration names a channel that can be served
        self.channel_makers: dict[str, MakeAdapter] = {}  # channels of an embedding program, by name
        self.gate: SenderGate | None = None
        self._channels_wanted = trio.Event()
        self.webhooks: OutboundHooks | None = None  # made when the configuration names a target
        self._webhooks_wanted = trio.Event()
        self._models: ModelServices | None = None  # made when somebody asks for a model
        self._env: Mapping[str, str] = {}
        self.inbound_kinds: dict[str, Handler] = {}
        self.outbound_kinds: dict[str, Handler] = {}

    def attach(self, config: GatewayConfig, bus: EventBus, gate: SenderGate, env: Mapping[str, str]) -> None:
        """Become part of a gateway: before any task runs. ``env`` may hold keys of model services."""
        self._env = env
        self._bus = bus
        self.gate = gate
        self.broadcast = Broadcast(bus, clock=now_ms, session_view=session_methods.session_view)
        bus.on_gone.append(lambda listener: self.broadcast.forget(getattr(listener, "conn_id", "")))
        self.router = AgentRouter(config, self.agents, {"model": self._model_agent, "subprocess": _subprocess_agent})
        self.sessions.rule = self.router.reset_rule
        self.sessions.on_change = self.broadcast.session_changed
        self.sessions.on_message = self.broadcast.message_written
        self.runs = AgentRuns(
            self.inbound,
            self.sessions,
            agents=self.router.agent,
            outbound=self.reply_effects,
            events=self.broadcast,
            clock=now_ms,
        )
        self.runs.restore(self._waiting)
        self.inbound_kinds.update(dict.fromkeys(RUNS, self.runs.handle))
        self.inbound.on_dead = self.inbound.on_dropped = self.runs.gone
        self.configure(config)

    def configure(self, config: GatewayConfig) -> None:
        """Use another configuration from now on."""
        self._config = config
        self.router.configure(config)
        if self._models is not None:
            self._models.configure(config)
        kept = config.session.transcript
        self.sessions.limits = TranscriptLimits(max_bytes=kept.max_bytes, max_total_bytes=kept.max_total_bytes)
        self.runs.timeout_seconds = config.agents.defaults.timeout_seconds
        if self.channels is None and self.gate is not None and any(map(self._is_served, config.channels)):
            self._open_channels(self.gate)
        if self.channels is not None:
            self.channels.configure(config.channels)
        if self.webhooks is None and config.hooks.outbound:
            self._open_webhooks()
        if self.webhooks is not None:
            self.webhooks.configure(config.hooks.outbound)

    @property
    def models(self) -> ModelServices:
        """The model services; the module is loaded when they are first asked for."""
        if self._models is None:
            from openclaw_gateway.models.services import ModelServices

            self._models = ModelServices(self._config, self._env, clock=now_ms)
        return self._models

    def _model_agent(self, entry: AgentEntry) -> Agent:
        from openclaw_gateway.agents.modelagent import ModelAgent

        return ModelAgent(entry, self.models, context_tokens=self.router.agents.defaults.context_tokens)

    async def aclose(self) -> None:
        """Let go of what calls out; runs have ended by now."""
        if self._models is not None:
            await self._models.aclose()
        if self.webhooks is not None:
            await self.webhooks.aclose()

    def _is_served(self, channel: str) -> bool:
        return channel in CHANNELS or channel in self.channel_makers

    def _open_channels(self, gate: SenderGate) -> None:
        from openclaw_gateway.channels.hub import ChannelHub

        makers: dict[str, MakeAdapter] = {
            **{name: partial(_make_adapter, name) for name in CHANNELS},
            **self.channel_makers,
        }
        self.channels = ChannelHub(gate, self.runs, self.router, makers=makers, clock=now_ms)
        self.channels.on_connected = lambda account: self.outbound.hurry(f"{account.channel}:{account.name}:")
        self.outbound_kinds[CHANNEL_SEND] = self.channels.deliver
        self._channels_wanted.set()

    def _open_webhooks(self) -> None:
        from openclaw_gateway.hooks.outbound import KIND, OutboundHooks

        self.webhooks = OutboundHooks(self._bus, self.outbound, clock=now_ms)
        self.outbound_kinds[KIND] = self.webhooks.deliver
        self.broadcast.on_end = partial(self.webhooks.effects, "chat")
        self._webhooks_wanted.set()

    async def _serve_webhooks(self) -> None:
        await self._webhooks_wanted.wait()
        assert self.webhooks is not None
        await self.webhooks.serve()

    async def _serve_channels(self) -> None:
        await self._channels_wanted.wait()
        assert self.channels is not None
        await self.channels.serve()

    def register(self, table: MethodTable, *, audit: AuditTrail) -> None:
        """Put the methods of all parts into ``table``."""
        at_once = {self.inbound.name: INBOUND_CONCURRENCY, self.outbound.name: OUTBOUND_CONCURRENCY}
        queue_methods.register(table, queues=(self.inbound, self.outbound), at_once=at_once, audit=audit)
        models = model_methods.ModelMethods(lambda: self.models, clock=now_ms)
        model_methods.register(table, models)
        asking = Asking(self.runs, self.router, clock=now_ms)
        chat = chat_methods.ChatMethods(asking, self.runs, self.router, clock=now_ms)
        chat_methods.register(table, chat)
        history = history_methods.HistoryMethods(self.runs, self.router, view=session_methods.session_view)
        history_methods.register(table, history)
        startup = startup_methods.StartupMethods(history, self.sessions, self.router, models=models.models)
        startup_methods.register(table, startup)
        agent_methods.register(table, agent_methods.AgentMethods(asking, self.runs))
        sessions = session_methods.SessionMethods(self.runs, self.router, self.broadcast, clock=now_ms)
        session_methods.register(table, sessions)
        many_methods.register(table, many_methods.SessionManyMethods(self.sessions, self.router, sessions))
        starts = start_methods.SessionStartMethods(
            self.runs, self.router, chat, view=session_methods.session_view, clock=now_ms
        )
        start_methods.register(table, starts)
        usage_methods.register(table, usage_methods.UsageMethods(self.sessions, self.router, clock=now_ms))
        sending_methods.register(table, hub=lambda: self.channels, outbound=self.outbound, kind=CHANNEL_SEND)

    def reply_effects(self, request: RunRequest, reply: Reply, text: str) -> Sequence[Effect]:
        """An answer on its way to a channel, as part of the transaction that ends its question."""
        body = {
            "channel": reply.channel,
            "account": reply.account,
            "conversationId": reply.conversation,
            "threadId": reply.thread,
            "replyTo": reply.reply_to,
            "text": text,
            "runId": request.run_id,
        }
        payload = msgspec.json.encode(body)
        if len(payload) > MAX_PAYLOAD:  # spelled as JSON, a character may take six bytes
            payload = msgspec.json.encode({**body, "text": text[: MAX_PAYLOAD // 8]})
        lane = f"{reply.channel}:{reply.account}:{reply.conversation}"[:500]
        message = NewMessage(lane, f"reply:{request.run_id}", "agent", CHANNEL_SEND, payload)
        return (self.outbound.put_effect(message),)

    def tasks(self) -> Iterator[tuple[str, Task]]:
        """The tasks that run as long as the gateway, by name; each is supervised by itself."""
        for queue, kinds, concurrency in (
            (self.inbound, self.inbound_kinds, INBOUND_CONCURRENCY),
            (self.outbound, self.outbound_kinds, OUTBOUND_CONCURRENCY),
        ):
            yield f"{queue.name}-queue", partial(queue.serve, partial(_by_kind, kinds), concurrency=concurrency)
            yield f"{queue.name}-upkeep", queue.supervise_upkeep
        yield "channels", self._serve_channels
        yield "webhooks", self._serve_webhooks


def _make_adapter(channel: str, account: str, settings: Mapping[str, Any]) -> Adapter:
    """The adapter of a service, its module loaded when the first account needs it."""
    module = import_module(f"openclaw_gateway.channels.{channel}")
    adapter: Adapter = module.open_adapter(account, settings)
    return adapter


async def _by_kind(kinds: dict[str, Handler], message: QueuedMessage) -> Sequence[Effect] | None:
    handler = kinds.get(message.kind)
    if handler is None:
        raise Undeliverable(f"nobody here handles {message.kind} (is the channel or webhook still configured?)")
    return await handler(message)


def _subprocess_agent(entry: AgentEntry) -> Agent:
    from openclaw_gateway.agents.subprocess import SubprocessAgent

    return SubprocessAgent(entry)


@asynccontextmanager
async def open_messaging(store: Store) -> AsyncIterator[Messaging]:
    """The message side with what the store holds of it. Raises `StoreError`."""
    async with (
        open_queues(store, "inbound", "outbound", clock=now_ms) as (inbound, outbound),
        open_sessions(store, clock=now_ms) as sessions,
    ):
        messaging = Messaging(inbound, outbound, sessions, await waiting_runs(inbound))
        try:
            yield messaging
        finally:
            await messaging.aclose()
