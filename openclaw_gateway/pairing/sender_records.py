"""What is known about people on message channels, as values, and their wire shapes.

Owns the records (a request that waits, a decision about a sender, a line of history) and how they look in
`channels.pairing.*` (OpenClaw's protocol schema) and in events. Pure: no clock, no randomness, no files.

Invariants: a display name is clipped, printable, and never part of a key; a record's repr holds no salt; a code
appears in no record at all (it is derived, see `pairing.senders`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import attrs

from openclaw_gateway.pairing.records import BookEvent
from openclaw_gateway.policy.senders import Context, SessionPolicy
from openclaw_gateway.value import Value

__all__ = [
    "DEFAULT_ACCOUNT",
    "HistoryEntry",
    "InboundMessage",
    "Sender",
    "SenderKey",
    "SenderRequest",
    "label_of",
    "requested_event",
    "resolved_event",
]

DEFAULT_ACCOUNT: Final = "default"
MAX_NAME: Final = 128
_LABELS: Final = {"telegram": "Telegram", "discord": "Discord", "whatsapp": "WhatsApp"}


def _plain(text: str) -> str:
    return "".join(c for c in text[: 4 * MAX_NAME] if c.isprintable())[:MAX_NAME].strip()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class InboundMessage(Value):
    """One message as an adapter got it. ``live``: it came in now, not out of a backlog; times are Unix milliseconds."""

    channel: str
    account: str = DEFAULT_ACCOUNT
    sender_id: str
    display_name: str = attrs.field(default="", converter=_plain)
    context: Context = "dm"
    text: str = attrs.field(default="", repr=False)
    live: bool = True
    sent_at_ms: int


@attrs.frozen(eq=False, repr=False)
class SenderKey(Value):
    """Whom a decision is about: always a direct chat (V27). ``sender_id`` is canonical (`canonical_sender`)."""

    channel: str
    account: str
    sender_id: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SenderRequest(Value):
    """A stranger who waits. ``rejected``: turned down; the row stays until its time is over, so that no second code
    goes out before."""

    request_id: str
    channel: str
    account: str
    sender_id: str
    display_name: str
    salt: bytes = attrs.field(repr=False)
    rejected: bool
    created_at_ms: int
    expires_at_ms: int

    @property
    def key(self) -> SenderKey:
        return SenderKey(self.channel, self.account, self.sender_id)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Sender(Value):
    """What an operator decided about a sender: the session policy (S080)."""

    channel: str
    account: str
    sender_id: str
    display_name: str
    policy: SessionPolicy
    decided_at_ms: int
    decided_by: str

    @property
    def key(self) -> SenderKey:
        return SenderKey(self.channel, self.account, self.sender_id)

    def to_wire(self) -> dict[str, Any]:
        return {
            "channel": self.channel,
            "accountId": self.account,
            "senderId": self.sender_id,
            "senderLabel": self.display_name or self.sender_id,
            "policy": self.policy,
            "decidedAtMs": self.decided_at_ms,
            "decidedBy": self.decided_by,
        }


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HistoryEntry(Value):
    """One thing that happened (S081). ``event``: requested, approved, rejected, expired, codes-expired, policy-…."""

    at_ms: int
    event: str
    channel: str
    account: str
    sender_id: str
    display_name: str
    actor: str
    request_id: str | None

    def to_wire(self) -> dict[str, Any]:
        row = {
            "atMs": self.at_ms,
            "event": self.event,
            "channel": self.channel,
            "accountId": self.account,
            "senderId": self.sender_id,
            "senderLabel": self.display_name or self.sender_id,
            "actor": self.actor,
            "requestId": self.request_id,
        }
        return {key: value for key, value in row.items() if value is not None}


def label_of(channel: str) -> str:
    """How people write a channel's name."""
    return _LABELS.get(channel, channel)


def request_to_wire(request: SenderRequest, *, last_seen_ms: int, notify: bool) -> dict[str, Any]:
    """A row of `channels.pairing.list`; times are ISO 8601 there. Holds no code: the schema has no place for one."""
    row: dict[str, Any] = {
        "requestId": request.request_id,
        "channel": request.channel,
        "channelLabel": label_of(request.channel),
        "accountId": request.account,
        "senderId": request.sender_id,
        "senderLabel": request.display_name or request.sender_id,
        "createdAt": _iso(request.created_at_ms),
        "lastSeenAt": _iso(last_seen_ms),
        "expiresAt": _iso(request.expires_at_ms),
        "notifySupported": notify,
    }
    if request.display_name:
        row["metadata"] = {"name": request.display_name}
    return row


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def requested_event(request: SenderRequest) -> BookEvent:
    """`channel.pairing.requested`, for holders of operator.pairing."""
    payload = {
        "requestId": request.request_id,
        "channel": request.channel,
        "accountId": request.account,
        "senderId": request.sender_id,
        "senderLabel": request.display_name or request.sender_id,
        "expiresAtMs": request.expires_at_ms,
        "ts": request.created_at_ms,
    }
    return BookEvent("channel.pairing.requested", payload)


def resolved_event(request: SenderRequest, decision: str, now: int) -> BookEvent:
    """`channel.pairing.resolved`: approved, rejected or expired."""
    payload = {
        "requestId": request.request_id,
        "channel": request.channel,
        "accountId": request.account,
        "senderId": request.sender_id,
        "decision": decision,
        "ts": now,
    }
    return BookEvent("channel.pairing.resolved", payload)
