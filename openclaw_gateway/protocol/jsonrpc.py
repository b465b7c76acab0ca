"""The JSON-RPC 2.0 dialect, and which dialect a first frame speaks (C15).

Owns the shapes of JSON-RPC 2.0 (https://www.jsonrpc.org/specification) with the seed's short form ``{method, params}``:
without ``jsonrpc`` and without ``id`` a call is answered with ``"id": null``; only ``"jsonrpc":"2.0"`` without ``id``
is a notification. It must not know what a method means or who asks.

Invariants: any bytes give a `Call`, an `Invalid` or a `Batch`; a batch has 1 to 100 items; a notification is never
answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import attrs
import msgspec

from openclaw_gateway.protocol.errors import FORBIDDEN, INVALID_REQUEST, NOT_PAIRED, UNAVAILABLE, WireError
from openclaw_gateway.protocol.wholetext import decode_whole
from openclaw_gateway.value import Value

__all__ = [
    "EVENT_END",
    "Batch",
    "Call",
    "Invalid",
    "decode_message",
    "encode_batch",
    "encode_error",
    "encode_event",
    "encode_invalid",
    "encode_result",
    "event_tail",
    "sniff",
    "splice_seq",
]

MAX_BATCH: Final = 100
MAX_ID: Final = 256
MAX_METHOD: Final = 256

Id = str | int | float | None

_PARSE_ERROR: Final = -32700
_INVALID_REQUEST: Final = -32600
_METHOD_NOT_FOUND: Final = -32601
_INVALID_PARAMS: Final = -32602
_INTERNAL_ERROR: Final = -32603
_CODES: Final = {UNAVAILABLE: -32000, NOT_PAIRED: -32001, FORBIDDEN: -32002, INVALID_REQUEST: _INVALID_REQUEST}
_BY_ROW: Final = {
    "unknown-method": _METHOD_NOT_FOUND,
    "invalid-params": _INVALID_PARAMS,
    "internal": _INTERNAL_ERROR,
}


@attrs.frozen(eq=False, repr=False)
class Call(Value):
    """One call. ``params`` is raw JSON (an object or an array), empty when absent; a notification gets no reply."""

    id: Id
    method: str
    params: msgspec.Raw
    notification: bool = False


@attrs.frozen(eq=False, repr=False)
class Invalid(Value):
    """Not a call: answer it with `encode_invalid`. ``code`` is -32700 (not JSON) or -32600."""

    code: int
    message: str
    id: Id = None


@attrs.frozen(eq=False, repr=False)
class Batch(Value):
    """Answer with one array of the replies of its items, in any order; nothing at all when no item is answered."""

    items: tuple[Call | Invalid, ...]


_NO_PARAMS: Final = msgspec.Raw(b"")
_DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Wire(msgspec.Struct, frozen=True, gc=False):
    method: Any = msgspec.UNSET
    params: msgspec.Raw = _NO_PARAMS
    id: Any = msgspec.UNSET
    jsonrpc: Any = msgspec.UNSET


_wire = msgspec.json.Decoder(_Wire)
_items = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder()
_encoder = msgspec.json.Encoder()


def sniff(data: bytes | bytearray | memoryview) -> Literal["openclaw", "jsonrpc"] | None:
    """Which dialect a first frame speaks; None: neither (not JSON, or JSON of another shape)."""
    try:
        value = decode_whole(_any.decode, data)
    except _DECODE_ERRORS:
        return None
    if isinstance(value, dict) and "type" in value:
        return "openclaw"
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, dict) and ("method" in first or "jsonrpc" in first):
        return "jsonrpc"
    return None


def decode_message(data: bytes | bytearray | memoryview) -> Call | Invalid | Batch:
    """Read one message."""
    try:
        # The envelope has no required member, so whatever fails here is not JSON or not an object.
        return _call(decode_whole(_wire.decode, data))
    except _DECODE_ERRORS:
        pass
    try:
        items = decode_whole(_items.decode, data)
    except _DECODE_ERRORS:
        return _not_a_message(data)
    if not items:
        return Invalid(_INVALID_REQUEST, "a batch must not be empty")
    if len(items) > MAX_BATCH:
        return Invalid(_INVALID_REQUEST, f"a batch has at most {MAX_BATCH} calls")
    return Batch(tuple(_item(item) for item in items))


def _not_a_message(data: bytes | bytearray | memoryview) -> Invalid:
    try:
        decode_whole(_any.decode, data)
    except _DECODE_ERRORS:
        return Invalid(_PARSE_ERROR, "not JSON")
    return Invalid(_INVALID_REQUEST, "must be an object or an array of objects")


def _item(raw: msgspec.Raw) -> Call | Invalid:
    try:
        return _call(decode_whole(_wire.decode, raw))
    except _DECODE_ERRORS:
        return Invalid(_INVALID_REQUEST, "must be an object")


def _call(wire: _Wire) -> Call | Invalid:
    strict = wire.jsonrpc is not msgspec.UNSET
    id_ = None if wire.id is msgspec.UNSET else wire.id
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, str | int | float)):
        return Invalid(_INVALID_REQUEST, "id must be a string, a number or null")
    if isinstance(id_, str) and len(id_) > MAX_ID:
        return Invalid(_INVALID_REQUEST, f"id must be at most {MAX_ID} characters")
    fault = None
    if strict and wire.jsonrpc != "2.0":
        fault = 'jsonrpc must be "2.0"'
    elif not isinstance(wire.method, str) or not wire.method:
        fault = "method must be a string of at least one character"
    elif len(wire.method) > MAX_METHOD:
        fault = f"method must be at most {MAX_METHOD} characters"
    elif wire.params and bytes(memoryview(wire.params)[:1]) not in (b"{", b"["):
        fault = "params must be an object or an array"
    if fault is not None:
        return Invalid(_INVALID_REQUEST, fault, id_)
    return Call(id_, wire.method, wire.params, notification=strict and wire.id is msgspec.UNSET)


def encode_result(id_: Id, result: Any) -> bytes:
    """``{"jsonrpc":"2.0","id","result"}``; ``result`` may be a `msgspec.Raw`."""
    return _encoder.encode({"jsonrpc": "2.0", "id": id_, "result": result})


def encode_error(id_: Id, error: WireError) -> bytes:
    """Our error as a JSON-RPC error; the wire's own fields go under ``data``."""
    data = error.to_wire()
    message = data.pop("message")
    code = _BY_ROW.get(error.key or "", _CODES.get(error.code, _CODES[UNAVAILABLE]))
    return _encoder.encode({"jsonrpc": "2.0", "id": id_, "error": {"code": code, "message": message, "data": data}})


def encode_invalid(invalid: Invalid) -> bytes:
    """The answer to what is not a call."""
    error = {"code": invalid.code, "message": invalid.message}
    return _encoder.encode({"jsonrpc": "2.0", "id": invalid.id, "error": error})


def encode_batch(replies: Sequence[bytes]) -> bytes:
    """Join encoded replies; call it only when there is at least one."""
    return b"[%b]" % b",".join(replies)


def encode_event(event: str, payload: Any, *, state_version: dict[str, int] | None = None) -> bytes:
    """An event as the notification ``{"jsonrpc":"2.0","method":"event","params":{event,payload}}``, without ``seq``."""
    params: dict[str, Any] = {"event": event, "payload": payload}
    if state_version is not None:
        params["stateVersion"] = state_version
    return _encoder.encode({"jsonrpc": "2.0", "method": "event", "params": params})


EVENT_END: Final = 2  # as in `protocol.frames`


def event_tail(seq: int | None) -> bytes:
    """What an encoded event ends with in place of its last `EVENT_END` bytes."""
    return b"}}" if seq is None else b',"seq":%d}}' % seq


def splice_seq(encoded: bytes, seq: int) -> bytes:
    """Add ``"seq":n`` to the params of an encoded event."""
    return encoded[:-EVENT_END] + event_tail(seq)
