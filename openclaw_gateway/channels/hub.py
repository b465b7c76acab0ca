"""All channel accounts: started, watched, restarted, stopped.

Owns which accounts run, the state of each, and the backoff of each state. It must not know any service: adapters are
made by name; nor what becomes of a message (`intake`, `delivery`).

Theory of operation. One task per account runs its adapter under `_keep`; what ends it decides the state and the wait.
A new task of an account waits until the one before has unwound, so two never talk to a service in its name.

Invariants: an account is one task and one state at any time; a failure is the account's alone; states hold no secrets.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.channels.accounts import Account, configured_accounts, default_account, show_accounts
from openclaw_gateway.channels.adapter import (
    RETRY_MS,
    Adapter,
    AdapterFailed,
    Incoming,
    MakeAdapter,
    Outgoing,
    State,
    WebhookReply,
    WebhookRequest,
)
from openclaw_gateway.channels.delivery import Delivery
from openclaw_gateway.channels.intake import Intake
from openclaw_gateway.config.schema import ChannelConfig
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.senders import SenderGate
from openclaw_gateway.policy.backoff import backoff_ms
from openclaw_gateway.queues import Effect, QueuedMessage, RetryLater

__all__ = ["ChannelHub", "UnknownChannel"]

MAX_ACCOUNTS: Final = 64
MAX_WEBHOOKS: Final = 8  # requests of one account that are worked on at a time; a body is up to 1 MiB
HEALTHY_SECONDS: Final = 60.0
PROBE_SECONDS: Final = 10.0

log = get_logger("channels")


@attrs.define(eq=False)
class UnknownChannel(GatewayError):
    channel: str
    account: str | None
    known: tuple[str, ...]

    def __str__(self) -> str:
        name = self.channel[:64] + (f"/{self.account[:64]}" if self.account else "")
        return f"there is no channel account {name} (there are: {', '.join(self.known) or 'none'})"


class ChannelHub:
    """``makers``: channel name → what makes an account's adapter from its settings (raises `AdapterFailed`).

    ``on_connected(account)`` is called when its answers can go out again; ``on_change(account)`` when an account
    entered a state, or (``None``) when accounts came or went.
    """

    def __init__(
        self,
        gate: SenderGate,
        runs: AgentRuns,
        router: AgentRouter,
        *,
        makers: Mapping[str, MakeAdapter],
        clock: Callable[[], int],
    ) -> None:
        self._gate = gate
        self._makers = dict(makers)
        self._clock = clock
        self._accounts: dict[tuple[str, str], Account] = {}
        self._intake = Intake(gate, runs, router, clock=clock)
        self._delivery = Delivery(self._accounts, clock=clock)
        self._outboxes: dict[str, _Outbox] = {}
        self._unwinding: dict[tuple[str, str], trio.Event] = {}
        self._nursery: trio.Nursery | None = None
        self._configured: Mapping[str, ChannelConfig] = {}
        self.on_change: Callable[[Account | None], None] = lambda account: None
        self.on_connected: Callable[[Account], None] = lambda account: None

    def add_maker(self, channel: str, make: MakeAdapter) -> None:
        """Serve a channel of another name from now on (an embedding program's own). Takes effect with `configure`."""
        self._makers[channel] = make

    # --- which accounts there are

    def configure(self, channels: Mapping[str, ChannelConfig]) -> None:
        """Run these from now on: new accounts start, changed ones start anew, others stop; the rest is left alone."""
        self._configured = channels
        wanted: dict[tuple[str, str], dict[str, Any]] = {}
        for name, config in channels.items():
            if config.enabled and name in self._makers:
                for account, settings in configured_accounts(config).items():
                    wanted[name, account] = settings
        if len(wanted) > MAX_ACCOUNTS:
            log.error("too many channel accounts; the others stay off", limit=MAX_ACCOUNTS, count=len(wanted))
            wanted = dict(list(wanted.items())[:MAX_ACCOUNTS])
        for key, known in list(self._accounts.items()):
            if wanted.get(key) != known.settings:
                self._end(known)
                del self._accounts[key]
        for (name, account_id), chosen in wanted.items():
            if (name, account_id) not in self._accounts:
                self._outboxes.setdefault(name, _Outbox(self, name))
                fresh = self._accounts[name, account_id] = Account(name, account_id, chosen)
                self._begin(fresh)
        self.on_change(None)

    @property
    def accounts(self) -> list[Account]:
        """In the order of the configuration."""
        return sorted(self._accounts.values(), key=lambda one: list(self._configured).index(one.channel))

    def account(self, channel: str, name: str | None = None) -> Account:
        """``name`` None or empty: the channel's default account. Raises `UnknownChannel`."""
        names = [one.name for one in self.accounts if one.channel == channel]
        chosen = name or (default_account(self._configured.get(channel), names) if names else "")
        found = self._accounts.get((channel, chosen))
        if found is None:
            raise UnknownChannel(channel, name, tuple(one.label for one in self.accounts))
        return found

    async def serve(self) -> None:
        """Keep the accounts running. Never returns; cancelled, every account is."""
        async with trio.open_nursery() as nursery:
            self._nursery = self._intake.nursery = nursery
            try:
                for account in self._accounts.values():
                    self._begin(account)
                await trio.sleep_forever()
            finally:
                self._nursery = self._intake.nursery = None
                for account in self._accounts.values():
                    account.task = None

    def start(self, channel: str, name: str | None = None) -> Account:
        """Run an account that was stopped, or try again now one that waits. Raises `UnknownChannel`."""
        account = self.account(channel, name)
        account.wanted = True
        account.nudge.set()
        if account.task is None:
            self._begin(account)
        return account

    def stop(self, channel: str, name: str | None = None) -> Account:
        """Stop an account until `start`, or until the gateway starts anew. Raises `UnknownChannel`."""
        account = self.account(channel, name)
        account.wanted = False
        self._end(account)
        account.last_stop_ms = self._clock()
        self._enter(account, "stopped")
        return account

    async def logout(self, channel: str, name: str | None = None) -> tuple[Account, bool]:
        """Stop, and give back what the service keeps for us. Raises `UnknownChannel`, `AdapterFailed`."""
        account = self.account(channel, name)
        adapter = account.adapter or self._make(account)
        given = await adapter.logout()
        return self.stop(channel, name), given

    async def probe(self, account: Account, seconds: float = PROBE_SECONDS) -> Mapping[str, Any]:
        """Ask the service who we are; ``{"ok": …}`` with the identity, or with what is wrong. Never raises."""
        began = trio.current_time()
        found: dict[str, Any] = {"ok": False, "error": f"no answer within {seconds:g} s"}
        with trio.move_on_after(seconds):
            try:
                adapter = account.adapter or self._make(account)
                found = {"ok": True, **({"bot": dict(identity)} if (identity := await adapter.probe()) else {})}
            except AdapterFailed as exc:
                found = {"ok": False, "error": exc.why, "state": exc.state, "fix": exc.fix}
            except Exception as exc:
                log.exception("channel probe broke", exc=exc, channel=account.channel, account=account.name)
                found = {"ok": False, "error": f"broke: {type(exc).__name__}"}
        found["elapsedMs"] = round((trio.current_time() - began) * 1000)
        account.last_probe_ms, account.probe = self._clock(), found
        return found

    # --- keeping one running

    def _begin(self, account: Account) -> None:
        if self._nursery is not None and account.task is None and account.wanted:
            account.task = trio.CancelScope()
            before = self._unwinding.get(account.key)
            ended = self._unwinding[account.key] = trio.Event()
            self._nursery.start_soon(self._live, account, account.task, before, ended)

    def _end(self, account: Account) -> None:
        outbox = self._outboxes.get(account.channel)
        if outbox is not None:
            self._gate.unregister(account.channel, outbox, account=account.name)
        if account.task is not None:
            account.task.cancel()
            account.task = None
        account.adapter = None

    def _make(self, account: Account) -> Adapter:
        return self._makers[account.channel](account.name, account.settings)

    async def _live(
        self, account: Account, scope: trio.CancelScope, before: trio.Event | None, ended: trio.Event
    ) -> None:
        """One task of an account, after the one before it; ``ended`` is set when this one has unwound."""
        try:
            if before is not None:
                await before.wait()
            with scope:
                await self._keep(account, scope)
        finally:
            ended.set()
            if self._unwinding.get(account.key) is ended:
                del self._unwinding[account.key]

    async def _keep(self, account: Account, scope: trio.CancelScope) -> None:
        tries = 0
        port = _Port(self, account, scope, self._intake)
        kept: Adapter | None = None  # through a reconnect, with the session it may have
        while True:
            await trio.lowlevel.checkpoint_if_cancelled()
            began = trio.current_time()
            account.last_start_ms = self._clock()
            self._enter(account, "starting")
            try:
                adapter = account.adapter = kept or self._make(account)
                kept = None
                self._gate.register(account.channel, self._outboxes[account.channel], account=account.name)
                await adapter.run(port)
                failure = AdapterFailed("reconnecting", "the service ended the connection")
            except AdapterFailed as exc:
                failure = exc
                kept = account.adapter if exc.state == "reconnecting" else None
            except Exception as exc:
                log.exception("channel broke", exc=exc, channel=account.channel, account=account.name)
                failure = AdapterFailed("reconnecting", f"broke: {type(exc).__name__}")
            tries = 1 if trio.current_time() - began >= HEALTHY_SECONDS else tries + 1
            account.adapter = None
            account.restarts += 1
            await self._wait(account, failure, tries)

    async def _wait(self, account: Account, failure: AdapterFailed, tries: int) -> None:
        self._enter(account, failure.state, failure.why, failure.fix)
        span = RETRY_MS.get(failure.state, RETRY_MS["reconnecting"])
        account.nudge = trio.Event()
        if span is None:
            await account.nudge.wait()
            return
        wait = backoff_ms(tries, first_ms=span[0], cap_ms=span[1], jitter=random.random())  # noqa: S311 - spreads tries
        with trio.move_on_after(max(wait, failure.after_ms or 0) / 1000):
            await account.nudge.wait()

    def _enter(self, account: Account, state: State, why: str | None = None, fix: str | None = None) -> None:
        if (account.state, account.why) == (state, why):
            return
        tell = log.info if state in {"starting", "connected", "stopped", "off"} else log.warning
        tell("channel state", channel=account.channel, account=account.name, state=state, reason=why, fix=fix)
        if account.state == "connected":
            account.last_stop_ms = self._clock()
        account.state, account.why, account.fix = state, why, fix
        account.since_ms = self._clock()
        self.on_change(account)

    # --- out

    async def deliver(self, message: QueuedMessage) -> Sequence[Effect] | None:
        """The handler of ``channel.send``: see `Delivery.deliver`."""
        return await self._delivery.deliver(message)

    async def notify(self, channel: str, account_name: str, sender_id: str, text: str) -> None:
        """A word to a sender in their direct chat (`ChannelOutbox`). Raises what the adapter raises."""
        account = self.account(channel, account_name)
        if account.adapter is None:
            raise RetryLater(f"{account.label} is {account.state}")
        conversation = await account.adapter.conversation_with(sender_id)
        key = f"notice:{sender_id}:{self._clock()}"
        await account.adapter.send(Outgoing(key=key, conversation=conversation, text=text))

    async def webhook(self, channel: str, name: str, request: WebhookRequest) -> WebhookReply:
        """A request to an account's webhook. What has none is answered like an unknown account: 404."""
        account = self._accounts.get((channel, name))
        if account is None:
            return WebhookReply(404, b"Not Found")
        adapter = account.adapter
        if adapter is None or account.webhooks >= MAX_WEBHOOKS:
            return WebhookReply(503, b"Try again")
        account.webhooks += 1
        try:
            return await adapter.webhook(_Port(self, account, account.task, self._intake), request)
        finally:
            account.webhooks -= 1

    # --- what people see

    def status(self) -> dict[str, Any]:
        """The members of ``channels.status`` that tell of channels and accounts."""
        return show_accounts(self.accounts, self._configured)

    @property
    def trouble(self) -> str | None:
        """What is wrong with accounts that should run; None where nothing is."""
        return "; ".join(told for account in self.accounts if (told := account.trouble)) or None


@attrs.define(eq=False)
class _Port:
    """The side of the hub that an adapter sees; of a task that was cancelled it says nothing any more."""

    hub: ChannelHub
    account: Account
    task: trio.CancelScope | None
    intake: Intake

    async def incoming(self, message: Incoming) -> None:
        await self.intake.take(self.account, message)

    def connected(self, identity: Mapping[str, Any]) -> None:
        if self.account.task is self.task:
            self.account.identity = dict(identity)
            self.account.last_connected_ms = self.hub._clock()  # noqa: SLF001 - the two halves of one object
            self.hub._enter(self.account, "connected")  # noqa: SLF001
            self.hub.on_connected(self.account)

    def activity(self) -> None:
        self.account.last_activity_ms = self.hub._clock()  # noqa: SLF001


@attrs.define(eq=False)
class _Outbox:
    hub: ChannelHub
    channel: str

    async def send(self, account: str, sender_id: str, text: str) -> None:
        await self.hub.notify(self.channel, account, sender_id, text)
