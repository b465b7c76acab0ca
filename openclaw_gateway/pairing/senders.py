"""The gate of message channels: every adapter asks it whether a message may reach an agent.

Owns what is measured for `policy.senders.decide` and what follows from its verdict: a durable request, the one text
with a code, the word to a sender who was let in. Who waits and who is paired is the sender book's; adapters bring
messages and register a `ChannelOutbox`.

Invariants: a code leaves once, for a live direct message, after its request is durable (PAIR-10); a direct chat's
decisions are not even looked up for any other context (V27); no text of a message is ever taken for a decision: there
is no chat command that approves (V19); trouble with the store admits nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Literal, Protocol

import attrs
import trio

from openclaw_gateway.config.schema import ChannelConfig
from openclaw_gateway.errors import LocalProtocolError
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.sender_book import (
    SenderBook,
    SenderBookUnreadable,
    SenderLimit,
    UnknownSenderRequest,
    log_request,
    open_sender_book,
)
from openclaw_gateway.pairing.sender_codes import SenderCodes, load_sender_codes
from openclaw_gateway.pairing.sender_records import (
    DEFAULT_ACCOUNT,
    InboundMessage,
    Sender,
    SenderKey,
    SenderRequest,
    label_of,
    request_to_wire,
)
from openclaw_gateway.policy.senders import (
    MAX_PENDING_PER_ACCOUNT,
    SenderQuestion,
    SenderRules,
    canonical_sender,
    decide,
    read_allow_from,
)
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = [
    "ChannelOutbox",
    "InboundMessage",
    "Notification",
    "SenderBook",
    "SenderBookUnreadable",
    "SenderCodes",
    "SenderGate",
    "SenderLimit",
    "UnknownSenderRequest",
    "Verdict",
    "load_sender_codes",
    "open_sender_book",
]

MAX_ACCOUNTS: Final = 256
NOTIFY_SECONDS: Final = 10.0

Notification = Literal["not-requested", "sent", "unsupported", "failed"]

log = get_logger("pairing")


@attrs.frozen(eq=False, repr=False)
class Verdict(Value):
    """What an adapter does with a message: ``allow`` hands it on, ``challenge`` sends ``text`` back, ``deny`` and
    ``silent`` drop it without a word."""

    kind: Literal["allow", "deny", "challenge", "silent"]
    trail: tuple[str, ...]
    text: str | None = None


class ChannelOutbox(Protocol):
    """How a word goes back to a sender; an adapter registers one per channel."""

    async def send(self, account: str, sender_id: str, text: str) -> None: ...


class SenderGate:
    """What a channel adapter asks about each message, and where it says how to reach a sender."""

    def __init__(self, book: SenderBook, channels: Mapping[str, ChannelConfig], *, clock: Callable[[], int]) -> None:
        self.book = book
        self._clock = clock
        self._rules: dict[str, SenderRules] = {}
        self._outboxes: dict[tuple[str, str], ChannelOutbox] = {}
        self.faults: tuple[tuple[str, str], ...] = ()
        self.configure(channels)

    def configure(self, channels: Mapping[str, ChannelConfig]) -> None:
        """Use other rules from now on. Entries of ``allowFrom`` that are no ids are named in `faults` (path, why) and
        in the log, and let nobody in (V28)."""
        faults: list[tuple[str, str]] = []
        self._rules = {}
        for name, config in channels.items():
            ids, wrong = read_allow_from(name, config.dm.allow_from, policy=config.dm.policy)
            self._rules[name] = SenderRules(policy=config.dm.policy, allow_from=ids, enabled=config.enabled)
            faults += [(f"channels.{name}.dm.allowFrom", why) for why in wrong]
        if tuple(faults) != self.faults:
            for path, why in faults:
                log.warning("pairing: configuration fault", key=path, issue=why)
        self.faults = tuple(faults)

    def register(self, channel: str, outbox: ChannelOutbox, *, account: str = DEFAULT_ACCOUNT) -> None:
        """Say how senders on one account are reached; the last one registered counts. Raises `LocalProtocolError`
        over `MAX_ACCOUNTS`."""
        if (channel, account) not in self._outboxes and len(self._outboxes) >= MAX_ACCOUNTS:
            raise LocalProtocolError(f"more than {MAX_ACCOUNTS} channel accounts")
        self._outboxes[channel, account] = outbox

    def unregister(self, channel: str, outbox: ChannelOutbox, *, account: str = DEFAULT_ACCOUNT) -> None:
        """Take back `register`, unless somebody else registered since."""
        if self._outboxes.get((channel, account)) is outbox:
            del self._outboxes[channel, account]

    async def admit(self, message: InboundMessage) -> Verdict:
        """May this message reach an agent? A ``challenge`` is durable when this returns; cancelled before that, no
        code was given. Never raises for trouble with the store: then nobody is let in, and nothing is said."""
        sender_id = canonical_sender(message.channel, message.sender_id)
        question = self._question(message, sender_id)
        verdict = decide(question)
        kind, trail = verdict.kind, verdict.trail
        text = None
        if kind == "challenge" and sender_id is not None:
            key = SenderKey(message.channel, message.account, sender_id)
            try:
                request = await self.book.ask(key, message.display_name)
            except (StoreError, SenderBookUnreadable) as exc:
                log.error("pairing request cannot be written", channel=message.channel, error=str(exc))
                return Verdict("silent", (*trail, "the request could not be written"))
            if request is None:
                return Verdict("silent", (*trail, "no new request: one waits, or there is no room"))
            log_request("requested", request, trail[-1])
            text = self._challenge(request)
        else:
            await trio.lowlevel.checkpoint()
        if kind in {"deny", "silent"}:
            log.debug("pairing: message dropped", channel=message.channel, sender=sender_id, trail=trail)
        return Verdict(kind, trail, text)

    def _question(self, message: InboundMessage, sender_id: str | None) -> SenderQuestion:
        book, rules = self.book, self._rules.get(message.channel, SenderRules())
        ask = partial(
            SenderQuestion,
            channel=message.channel,
            context=message.context,
            sender_id=sender_id,
            rules=rules,
            readable=book.readable,
            live=message.live,
            age_ms=self._clock() - message.sent_at_ms,
        )
        # Outside of a direct chat no decision about a direct chat is even looked up (V27).
        if message.context != "dm" or sender_id is None or not book.readable:
            return ask()
        key = SenderKey(message.channel, message.account, sender_id)
        book.seen(key)
        account = [row for row in book.waiting() if (row.channel, row.account) == (key.channel, key.account)]
        return ask(session=book.policy_of(key), pending=book.is_held(key), account_pending=len(account))

    def _challenge(self, request: SenderRequest) -> str:
        code = self.book.codes.code(request)
        minutes = max(1, round(self.book.code_ttl_ms / 60_000))
        life = f"{minutes // 60} h" if minutes % 60 == 0 else f"{minutes} min"
        return (
            f"You are not paired with this assistant yet.\n"
            f"Pairing code: {code}\n"
            f"Its owner lets you in with: openclaw pairing approve {request.channel} {code}\n"
            f"The code is good for {life}."
        )

    async def notify(self, sender: Sender) -> Notification:
        """Tell a sender that they were let in, within `NOTIFY_SECONDS`. An adapter's failure is logged, not raised."""
        outbox = self._outboxes.get((sender.channel, sender.account))
        if outbox is None:
            return "unsupported"
        text = "You are paired now. Write your message again."
        try:
            with trio.fail_after(NOTIFY_SECONDS):
                await outbox.send(sender.account, sender.sender_id, text)
        except Exception as exc:  # noqa: BLE001 - an adapter's fault must not undo an approval
            log.warning("pairing notice not sent", channel=sender.channel, sender=sender.sender_id, error=str(exc))
            return "failed"
        return "sent"

    def to_wire(self, *, channel: str | None = None, account: str | None = None) -> dict[str, Any]:
        """The result of `channels.pairing.list`. Raises `SenderBookUnreadable`."""
        book = self.book
        waiting = [row for row in book.waiting() if channel in {None, row.channel} and account in {None, row.account}]
        named = {(row.channel, row.account) for row in waiting} | {
            key for key in self._outboxes if channel in {None, key[0]} and account in {None, key[1]}
        }
        return {
            "accounts": [
                {
                    "channel": name,
                    "channelLabel": label_of(name),
                    "accountId": account_id,
                    "notifySupported": (name, account_id) in self._outboxes,
                }
                for name, account_id in sorted(named)
            ],
            "requests": [
                request_to_wire(row, last_seen_ms=book.last_seen_ms(row), notify=row_account in self._outboxes)
                for row in waiting
                for row_account in ((row.channel, row.account),)
            ],
            "commandOwnerConfigured": False,
            "limits": {"pendingPerAccount": MAX_PENDING_PER_ACCOUNT, "ttlMs": book.code_ttl_ms},
        }
