"""All channel accounts: started, watched, restarted, stopped; their messages in and out.

Owns which accounts run, the state of each, the backoff of each state, and the way of a message: through the sender gate
into a run, and out of the outbound queue to the account it belongs to. It must not know any service: adapters are made
by name.

Theory of operation. One task per account runs its adapter under `_keep`; what ends it decides the state and the wait.
A message that comes in is asked of the gate: a challenge is answered at once, an admitted message becomes a run whose
id is the delivery's key, so a delivery that comes twice is one run. What goes out is handed to the adapter piece by
piece; how many pieces are out already is kept until the message is done, so a retry goes on where it stopped.

Invariants: an account is one task and one state at any time; a failure is the account's alone; nothing is said to
anybody whom the gate did not let in, but the one challenge; states hold no secrets.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec
import trio

from openclaw_gateway.agents.keys import channel_key
from openclaw_gateway.agents.records import Reply, RunRequest
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.runs import AgentRuns
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
from openclaw_gateway.channels.text import pieces
from openclaw_gateway.config.schema import ChannelConfig
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.sender_records import DEFAULT_ACCOUNT, InboundMessage, label_of
from openclaw_gateway.pairing.senders import SenderGate
from openclaw_gateway.policy.backoff import backoff_ms
from openclaw_gateway.policy.senders import canonical_sender
from openclaw_gateway.queues import Effect, QueuedMessage, RetryLater, Undeliverable

__all__ = ["Account", "ChannelHub", "UnknownChannel"]

MAX_ACCOUNTS: Final = 64
MAX_PROGRESS: Final = 1_000
SEND_SECONDS: Final = 60.0
HEALTHY_SECONDS: Final = 60.0
_CHANNEL_WIDE: Final = frozenset({"accounts", "defaultAccount"})

log = get_logger("channels")


@attrs.define(eq=False)
class UnknownChannel(GatewayError):
    channel: str
    account: str | None
    known: tuple[str, ...]

    def __str__(self) -> str:
        name = self.channel[:64] + (f"/{self.account[:64]}" if self.account else "")
        return f"there is no channel {name} (there are: {', '.join(self.known) or 'none'})"


@attrs.define(eq=False)
class Account:
    """One account of one channel, as it stands now."""

    channel: str
    name: str
    settings: Mapping[str, Any] = attrs.field(repr=False)
    state: State = "off"
    why: str | None = None
    fix: str | None = None
    identity: Mapping[str, Any] = attrs.field(factory=dict)
    since_ms: int = 0
    last_in_ms: int | None = None
    last_out_ms: int | None = None
    last_activity_ms: int | None = None
    restarts: int = 0
    adapter: Adapter | None = None
    scope: trio.CancelScope | None = None
    wanted: bool = True
    nudge: trio.Event = attrs.field(factory=trio.Event)
    outbox: Any = None

    @property
    def running(self) -> bool:
        return self.state == "connected"


class ChannelHub:
    """``makers``: channel name → what makes an account's adapter from its settings (raises `AdapterFailed`)."""

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
        self._runs = runs
        self._router = router
        self._makers = dict(makers)
        self._clock = clock
        self._accounts: dict[tuple[str, str], Account] = {}
        self._progress: OrderedDict[str, int] = OrderedDict()
        self._nursery: trio.Nursery | None = None
        self._configured: Mapping[str, ChannelConfig] = {}
        self.on_change: Callable[[Account], None] = lambda account: None

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
                for account, settings in _accounts(config).items():
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
                fresh = self._accounts[name, account_id] = Account(name, account_id, chosen)
                fresh.outbox = _Outbox(self, name)
                self._begin(fresh)

    @property
    def accounts(self) -> list[Account]:
        return list(self._accounts.values())

    def account(self, channel: str, name: str | None = None) -> Account:
        """Raises `UnknownChannel`."""
        found = self._accounts.get((channel, name)) if name else None
        if found is None and not name:
            found = next((one for one in self._accounts.values() if one.channel == channel), None)
        if found is None:
            raise UnknownChannel(channel, name, tuple(f"{one.channel}/{one.name}" for one in self.accounts))
        return found

    async def serve(self) -> None:
        """Keep the accounts running. Never returns; cancelled, every account is."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for account in self._accounts.values():
                    self._begin(account)
                await trio.sleep_forever()
            finally:
                self._nursery = None

    def start(self, channel: str, name: str | None = None) -> Account:
        """Run an account that was stopped, or try again now one that waits. Raises `UnknownChannel`."""
        account = self.account(channel, name)
        account.wanted = True
        account.nudge.set()
        if account.scope is None:
            self._begin(account)
        return account

    def stop(self, channel: str, name: str | None = None) -> Account:
        """Stop an account until `start`, or until the gateway starts anew. Raises `UnknownChannel`."""
        account = self.account(channel, name)
        account.wanted = False
        self._end(account)
        self._enter(account, "stopped")
        return account

    async def logout(self, channel: str, name: str | None = None) -> tuple[Account, bool]:
        """Stop, and give back what the service keeps for us. Raises `UnknownChannel`, `AdapterFailed`."""
        account = self.account(channel, name)
        adapter = account.adapter or self._make(account)
        given = await adapter.logout()
        return self.stop(channel, name), given

    # --- keeping one running

    def _begin(self, account: Account) -> None:
        if self._nursery is not None and account.scope is None and account.wanted:
            account.scope = trio.CancelScope()
            self._nursery.start_soon(self._keep, account, account.scope)

    def _end(self, account: Account) -> None:
        self._gate.unregister(account.channel, account.outbox, account=account.name)
        if account.scope is not None:
            account.scope.cancel()
            account.scope = None

    def _make(self, account: Account) -> Adapter:
        return self._makers[account.channel](account.name, account.settings)

    async def _keep(self, account: Account, scope: trio.CancelScope) -> None:
        tries = 0
        port = _Port(self, account)
        with scope:
            while True:
                began = trio.current_time()
                self._enter(account, "starting")
                try:
                    if account.adapter is None:
                        account.adapter = self._make(account)
                    self._gate.register(account.channel, account.outbox, account=account.name)
                    await account.adapter.run(port)
                    failure = AdapterFailed("reconnecting", "the service ended the connection")
                except AdapterFailed as exc:
                    failure = exc
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
        if (account.state, account.why) != (state, why):
            tell = log.info if state in {"starting", "connected", "stopped", "off"} else log.warning
            tell("channel state", channel=account.channel, account=account.name, state=state, reason=why, fix=fix)
        account.state, account.why, account.fix = state, why, fix
        account.since_ms = self._clock()
        self.on_change(account)

    # --- in

    async def take(self, account: Account, message: Incoming) -> None:
        """One message from an account's service: through the gate, into a run."""
        now = self._clock()
        account.last_in_ms = account.last_activity_ms = now
        verdict = await self._gate.admit(
            InboundMessage(
                channel=account.channel,
                account=account.name,
                sender_id=message.sender_id,
                display_name=message.sender_name,
                context=message.context,
                text=message.text,
                live=message.live,
                sent_at_ms=message.sent_at_ms,
            )
        )
        if verdict.kind == "challenge" and verdict.text is not None:
            await self._say(account, message.conversation, verdict.text, key=f"challenge:{message.key}")
        if verdict.kind != "allow":
            return
        sender = canonical_sender(account.channel, message.sender_id) or message.sender_id
        agent = self._router.default_id
        text = "\n".join((*([message.text] if message.text.strip() else ()), *message.attachments))
        if not text.strip():
            return
        request = RunRequest(
            run_id=f"{account.channel}:{account.name}:{message.key}"[:256],
            agent_id=agent,
            session_key=channel_key(
                agent,
                channel=account.channel,
                account=account.name,
                context=message.context,
                peer=sender if message.context == "dm" else message.conversation,
                thread=message.thread,
                scope=self._router.session.dm_scope,
            ),
            text=text,
            source=f"channel:{account.channel}:{account.name}"[:256],
            accepted_at_ms=now,
            sender=sender,
            sender_name=message.sender_name[:128] or None,
            reply=Reply(account.channel, account.name, message.conversation, message.thread, message.message_id),
        )
        await self._runs.start(request)

    async def _say(self, account: Account, conversation: str, text: str, *, key: str) -> None:
        """A word outside of any run: said now or not at all."""
        adapter = account.adapter
        if adapter is None:
            return
        try:
            with trio.fail_after(SEND_SECONDS):
                await adapter.send(Outgoing(key=key, conversation=conversation, text=text))
        except (RetryLater, Undeliverable, trio.TooSlowError) as exc:
            log.warning("channel message not sent", channel=account.channel, account=account.name, error=str(exc))

    # --- out

    async def deliver(self, message: QueuedMessage) -> Sequence[Effect] | None:
        """The handler of ``channel.send``: every piece in order, going on where an earlier try stopped."""
        body = msgspec.json.decode(message.payload)
        account = self._accounts.get((body["channel"], body["account"]))
        if account is None:
            raise Undeliverable(f"there is no account {body['channel']}/{body['account']} any more")
        adapter = account.adapter
        if adapter is None or account.state not in {"connected", "starting"}:
            raise RetryLater(f"{account.channel}/{account.name} is {account.state}", 5_000)
        parts = pieces(body["text"], adapter.limit)
        first = self._progress.get(message.id, 0)
        for number in range(first, len(parts)):
            outgoing = Outgoing(
                key=f"{message.id}:{number}",
                conversation=body["conversationId"],
                text=parts[number],
                thread=body.get("threadId"),
                reply_to=body.get("replyTo") if number == 0 else None,
                uncertain=message.uncertain,
            )
            try:
                with trio.fail_after(SEND_SECONDS):
                    await adapter.send(outgoing)
            except trio.TooSlowError as exc:
                raise RetryLater(f"not sent within {SEND_SECONDS:g} s") from exc
            self._progress[message.id] = number + 1
            while len(self._progress) > MAX_PROGRESS:
                self._progress.popitem(last=False)
        account.last_out_ms = self._clock()
        self._progress.pop(message.id, None)
        return None

    async def notify(self, channel: str, account_name: str, sender_id: str, text: str) -> None:
        """A word to a sender in their direct chat (`ChannelOutbox`). Raises what the adapter raises."""
        account = self.account(channel, account_name)
        if account.adapter is None:
            raise RetryLater(f"{channel}/{account_name} is {account.state}")
        await account.adapter.send(Outgoing(key=f"notice:{sender_id}", conversation=sender_id, text=text))

    async def webhook(self, channel: str, name: str, request: WebhookRequest) -> WebhookReply:
        """A request to an account's webhook. An unknown account is answered like one that has none."""
        account = self._accounts.get((channel, name))
        if account is None or account.adapter is None:
            return WebhookReply(404 if account is None else 503)
        return await account.adapter.webhook(_Port(self, account), request)

    # --- what people see

    def status(self) -> dict[str, Any]:
        """The members of ``channels.status`` that tell of channels and accounts."""
        names = sorted({one.channel for one in self.accounts})
        by_name = {name: [_shown(one) for one in self.accounts if one.channel == name] for name in names}
        return {
            "channelOrder": names,
            "channelLabels": {name: label_of(name) for name in names},
            "channels": {name: {"configured": True, **_summary(rows)} for name, rows in by_name.items()},
            "channelAccounts": by_name,
            "channelDefaultAccountId": {name: rows[0]["accountId"] for name, rows in by_name.items()},
        }


@attrs.define(eq=False)
class _Port:
    """The side of the hub that an adapter sees."""

    hub: ChannelHub
    account: Account

    async def incoming(self, message: Incoming) -> None:
        await self.hub.take(self.account, message)

    def connected(self, identity: Mapping[str, Any]) -> None:
        self.account.identity = dict(identity)
        self.hub._enter(self.account, "connected")  # noqa: SLF001 - the two halves of one object

    def activity(self) -> None:
        self.account.last_activity_ms = self.hub._clock()  # noqa: SLF001


@attrs.define(eq=False)
class _Outbox:
    hub: ChannelHub
    channel: str

    async def send(self, account: str, sender_id: str, text: str) -> None:
        await self.hub.notify(self.channel, account, sender_id, text)


def _accounts(config: ChannelConfig) -> dict[str, dict[str, Any]]:
    """The accounts of a channel: ``accounts.<name>``, each over what stands beside it; without any, one by default."""
    common = {key: value for key, value in config.extra.items() if key not in _CHANNEL_WIDE}
    named = config.extra.get("accounts")
    if isinstance(named, Mapping) and named:
        found = {}
        for name, settings in named.items():
            if isinstance(settings, Mapping) and settings.get("enabled", True) is not False:
                found[str(name)[:64]] = {**common, **settings}
        return found
    return {DEFAULT_ACCOUNT: common}


def _shown(account: Account) -> dict[str, Any]:
    return {
        "accountId": account.name,
        "enabled": account.wanted,
        "configured": account.state != "misconfigured",
        "running": account.scope is not None,
        "connected": account.running,
        "state": account.state,
        "lastError": account.why,
        "fix": account.fix,
        "identity": dict(account.identity),
        "stateSinceMs": account.since_ms,
        "lastInboundAt": account.last_in_ms,
        "lastOutboundAt": account.last_out_ms,
        "lastActivityAt": account.last_activity_ms,
        "restarts": account.restarts,
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "running": any(row["running"] for row in rows),
        "connected": all(row["connected"] for row in rows),
        "lastError": next((row["lastError"] for row in rows if row["lastError"]), None),
    }
