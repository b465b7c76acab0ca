"""OpenClaw's own frames: requests in, replies and events out.

Owns the shapes of the OpenClaw dialect (spec wire.md section 1) and nothing else: it does not know what a method means,
who the peer is, or how bytes travel. Decoding happens in two stages: the envelope first, with ``params`` left as raw
JSON, then (elsewhere) the method's own type.

Invariants: any bytes give a `Request` or a `FrameFault`, never another exception; what is encoded is one JSON object
without trailing bytes; a reply always repeats the id that came in.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.wholetext import decode_whole
from openclaw_gateway.value import Value

__all__ = [
    "EVENT_END",
    "MAX_ID_CHARS",
    "MAX_METHOD_CHARS",
    "NO_PARAMS",
    "FrameFault",
    "Request",
    "decode_request",
    "encode_error",
    "encode_event",
    "encode_ok",
    "event_tail",
    "find_id",
    "splice_seq",
]

NO_PARAMS: Final = msgspec.Raw(b"")
MAX_ID_CHARS: Final = 256
MAX_METHOD_CHARS: Final = 256
_ID: Final = re.compile(rb'"id"\s*:\s*"([^"\\]{1,256})"')


class Request(msgspec.Struct, frozen=True, gc=False):
    """``{"type":"req","id","method","params"?}``. ``params`` is raw JSON, empty when absent."""

    type: str
    id: str
    method: str
    params: msgspec.Raw = NO_PARAMS


@attrs.frozen(eq=False, repr=False)
class FrameFault(Value):
    """Why some bytes are not a request. ``id`` is the sender's id where one could be read; ``json`` says they were
    JSON (or a message of another dialect); ``fatal``: the connection cannot go on and ends with this code.
    """

    fault: str
    json: bool
    id: str | None = None
    fatal: CloseCode | None = None


class _Ok(msgspec.Struct, gc=False):
    id: str
    payload: Any
    type: str = "res"
    ok: bool = True


class _Failed(msgspec.Struct, gc=False):
    id: str
    error: Any
    type: str = "res"
    ok: bool = False


_decoder = msgspec.json.Decoder(Request)
_any = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def decode_request(data: bytes | bytearray | memoryview) -> Request | FrameFault:
    """Read one message. Text and binary messages carry the same JSON."""
    try:
        request = decode_whole(_decoder.decode, data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _explain(data)
    if request.type != "req" or not request.id or not request.method:
        return _explain(data)
    if len(request.id) > MAX_ID_CHARS or len(request.method) > MAX_METHOD_CHARS:
        return FrameFault("id and method must be at most 256 characters", json=True)
    return request


def _explain(data: bytes | bytearray | memoryview) -> FrameFault:
    try:
        value = decode_whole(_any.decode, data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return FrameFault("not JSON", json=False)
    if not isinstance(value, dict):
        return FrameFault("must be an object", json=True)
    id_ = value.get("id")
    known = id_ if isinstance(id_, str) and 0 < len(id_) <= MAX_ID_CHARS else None
    if value.get("type") != "req":
        return FrameFault("at /type: must be equal to constant", json=True, id=known)
    for key in ("id", "method"):
        if key not in value:
            return FrameFault(f"at root: must have required property '{key}'", json=True, id=known)
        if not isinstance(value[key], str):
            return FrameFault(f"at /{key}: must be string", json=True, id=known)
        if not value[key]:
            return FrameFault(f"at /{key}: must NOT have fewer than 1 characters", json=True, id=known)
    return FrameFault("at root: must be a request frame", json=True, id=known)


def encode_ok(id_: str, payload: Any) -> bytes:
    """``{"type":"res","id","ok":true,"payload"}``. ``payload`` may be a `msgspec.Raw` that was encoded before."""
    return _encoder.encode(_Ok(id_, payload))


def encode_error(id_: str, error: dict[str, Any]) -> bytes:
    return _encoder.encode(_Failed(id_, error))


def encode_event(event: str, payload: Any, *, state_version: dict[str, int] | None = None) -> bytes:
    """An event without a ``seq``; `splice_seq` adds one per connection without encoding the payload again."""
    body: dict[str, Any] = {"type": "event", "event": event, "payload": payload}
    if state_version is not None:
        body["stateVersion"] = state_version
    return _encoder.encode(body)


EVENT_END: Final = 1  # how many of an encoded event's last bytes `event_tail` stands for


def event_tail(seq: int | None) -> bytes:
    """What an encoded event ends with in place of its last `EVENT_END` bytes: all that differs between connections."""
    return b"}" if seq is None else b',"seq":%d}' % seq


def splice_seq(encoded: bytes, seq: int) -> bytes:
    """Add ``"seq":n`` to an encoded event. Per-connection numbering must not cost an encoding per connection."""
    return encoded[:-EVENT_END] + event_tail(seq)


def find_id(start: bytes) -> str | None:
    """The id of a request of which only the beginning is there (it is over the limit)."""
    found = _ID.search(start)
    return found.group(1).decode("utf-8", "replace") if found is not None else None
