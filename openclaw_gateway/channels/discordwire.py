"""What Discord says and wants to hear: gateway payloads, close codes, messages, rate-limit buckets.

Owns the shapes. Pure: no sockets, no clock. Source: docs.discord.com/developers (Gateway, Gateway Events, Opcodes and
Status Codes, Rate Limits, Create Message; a message has at most 2000 characters).

Invariants: the sender of a message is its numeric id; a message that is not from a person, or not in a direct chat, is
told apart here; what is kept of rate limits is capped.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from openclaw_gateway.channels.adapter import Incoming

__all__ = [
    "DISPATCH",
    "HEARTBEAT",
    "HEARTBEAT_ACK",
    "HELLO",
    "INVALID_SESSION",
    "RECONNECT",
    "Buckets",
    "after_close",
    "heartbeat",
    "identify",
    "nonce_of",
    "read_message",
    "resume",
    "same_service",
]

DISPATCH: Final = 0
HEARTBEAT: Final = 1
_IDENTIFY: Final = 2
_RESUME: Final = 6
RECONNECT: Final = 7
INVALID_SESSION: Final = 9
HELLO: Final = 10
HEARTBEAT_ACK: Final = 11

DIRECT_MESSAGES: Final = 1 << 12  # what is asked for: direct messages and nothing else
MAX_BUCKETS: Final = 1_000
MAX_NONCE: Final = 25
_EPOCH_MS: Final = 1_420_070_400_000  # of snowflakes
_GROUP_DM: Final = 3
_SPOKEN: Final = frozenset({0, 19})  # an ordinary message, a reply

After = Literal["resume", "identify", "token", "intents", "fatal"]
_AFTER: Final[Mapping[int, After]] = {
    4003: "identify",
    4004: "token",
    4007: "identify",
    4009: "identify",
    4010: "fatal",
    4011: "fatal",
    4012: "fatal",
    4013: "intents",
    4014: "intents",
}


def after_close(code: int | None) -> After:
    """What may be done after the gateway closed with ``code``; a session survives what is not known to end it."""
    return _AFTER.get(code or 0, "resume")


def identify(token: str) -> bytes:
    properties = {"os": "linux", "browser": "openclaw-gateway", "device": "openclaw-gateway"}
    body = {"token": token, "intents": DIRECT_MESSAGES, "properties": properties}
    return msgspec.json.encode({"op": _IDENTIFY, "d": body})


def resume(token: str, session_id: str, seq: int) -> bytes:
    return msgspec.json.encode({"op": _RESUME, "d": {"token": token, "session_id": session_id, "seq": seq}})


def heartbeat(seq: int | None) -> bytes:
    return msgspec.json.encode({"op": HEARTBEAT, "d": seq})


def nonce_of(key: str) -> str:
    """The nonce that names a message: the same key gives the same one, which Discord knows for some minutes."""
    return hashlib.sha256(key.encode()).hexdigest()[:MAX_NONCE]


def same_service(url: str, first: str) -> bool:
    """Whether ``url`` (for resuming, as Discord said) is a place where the token may go: the host of ``first`` or one
    beside it, and encrypted where that is (V56).
    """
    try:
        new, old = urlsplit(url), urlsplit(first)
        hosts = (new.hostname or "").lower(), (old.hostname or "").lower()
        known = new.scheme == old.scheme and new.username is None and (new.port is None or new.port == old.port)
    except ValueError:
        return False
    if not known or not hosts[0]:
        return False
    parent = hosts[1].partition(".")[2]
    beside = parent.count(".") >= 1 and not parent.replace(".", "").isdigit() and hosts[0].endswith(f".{parent}")
    return hosts[0] == hosts[1] or beside


def read_message(data: Any, *, own_id: str) -> Incoming | None:
    """A MESSAGE_CREATE as a message; None for what no person wrote."""
    if not isinstance(data, dict):
        return None
    author, id_, chat = data.get("author"), data.get("id"), data.get("channel_id")
    if not isinstance(author, dict) or not isinstance(id_, str) or not id_.isdecimal() or len(id_) > 20:
        return None
    sender = author.get("id")
    if not isinstance(sender, str) or not isinstance(chat, str) or not chat.isdecimal() or len(chat) > 20:
        return None
    if sender == own_id or author.get("bot") is True or author.get("system") is True or "webhook_id" in data:
        return None
    if data.get("type", 0) not in _SPOKEN:
        return None
    name = author.get("global_name") or author.get("username")
    text = data.get("content")
    direct = data.get("guild_id") is None and data.get("channel_type") != _GROUP_DM
    return Incoming(
        key=id_,
        message_id=id_,
        conversation=chat,
        context="dm" if direct else "group",
        sender_id=sender,
        sender_name=name if isinstance(name, str) else "",
        text=text if isinstance(text, str) else "",
        sent_at_ms=(int(id_) >> 22) + _EPOCH_MS,
        attachments=tuple(_attachments(data)),
    )


def _attachments(data: Mapping[str, Any]) -> list[str]:
    told = []
    for key, word in (("attachments", "file"), ("sticker_items", "sticker")):
        items = data.get(key)
        for item in items[:20] if isinstance(items, list) else ():
            name = item.get("filename", item.get("name")) if isinstance(item, dict) else None
            told.append(f"[{word}: {name[:200]}]" if isinstance(name, str) else f"[{word}]")
    return told


class Buckets:
    """How long each route has to be left alone. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._until: OrderedDict[str, float] = OrderedDict()
        self._all_until = 0.0

    def __len__(self) -> int:
        return len(self._until)

    def wait(self, route: str, now: float) -> float:
        """Seconds until ``route`` may be asked; 0 where it may now."""
        return max(0.0, self._until.get(route, 0.0) - now, self._all_until - now)

    def learn(self, route: str, status: int, headers: Mapping[str, str], body: Any, now: float) -> None:
        """Take over what an answer says about its bucket (``X-RateLimit-*``, and the body of a 429)."""
        after = _seconds(headers.get("x-ratelimit-reset-after"))
        if status == 429:
            told = body.get("retry_after") if isinstance(body, dict) else None
            asked = _seconds(told) or _seconds(headers.get("retry-after")) or after or 1.0
            everywhere = isinstance(body, dict) and body.get("global") is True
            if everywhere or headers.get("x-ratelimit-global") == "true":
                self._all_until = now + asked
            else:
                self._hold(route, now + asked, now)
        elif headers.get("x-ratelimit-remaining") == "0" and after:
            self._hold(route, now + after, now)

    def _hold(self, route: str, until: float, now: float) -> None:
        self._until[route] = until
        self._until.move_to_end(route)
        for known in [known for known, over in self._until.items() if over <= now]:
            del self._until[known]
        while len(self._until) > MAX_BUCKETS:
            self._until.popitem(last=False)


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if 0 < seconds <= 86_400 else None
