"""The Protocol Buffers dialect: the frames of `protocol.frames` as binary messages (S017, C21).

Owns which message carries which method or event, for both ends (docs/reference/protobuf.md). What a payload means is
the same in either dialect: requests come out with their parameters as JSON text, so that everything behind the edge
works unchanged. It must not know sessions. Importing it loads the Protocol Buffers runtime (7 MB): only for who asked
for the subprotocol.

Invariants: any bytes give a `Request` or a `FrameFault` on the gateway's side, a frame or `NotJson` on the client's; a
request never becomes longer JSON than its limit, however much its text has to be escaped; a payload that no typed
message is meant for travels as JSON text.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.frames import MAX_ID_CHARS, MAX_METHOD_CHARS, NO_PARAMS, FrameFault, Request
from openclaw_gateway.protocol.pb import frames_pb2 as pb
from openclaw_gateway.protocol.protojson import DECODE_ERRORS, NotJson, decode_raw, fill, plain, read

__all__ = [
    "EVENTS",
    "PARAMS",
    "RESULTS",
    "NotJson",
    "decode_request",
    "decode_server_frame",
    "encode_error",
    "encode_event",
    "encode_ok",
    "encode_request",
    "find_id",
    "number_event",
]

PARAMS: Final = {
    "connect": "connect",
    "chat.send": "chat_send",
    "chat.history": "chat_history",
    "node.invoke": "node_invoke",
    "node.invoke.result": "node_invoke_result",
    "node.invoke.progress": "node_invoke_progress",
    "node.event": "node_event",
    "logs.tail": "logs_tail",
}
RESULTS: Final = {
    "connect": "hello_ok",
    "chat.send": "chat_send",
    "chat.history": "chat_history",
    "node.invoke": "node_invoke",
    "logs.tail": "logs_tail",
    "health": "health",
}
EVENTS: Final = {
    "connect.challenge": "connect_challenge",
    "chat": "chat",
    "agent": "agent",
    "presence": "presence",
    "health": "health",
    "tick": "tick",
    "node.invoke.request": "node_invoke_request",
    "node.invoke.progress": "node_invoke_progress",
}
_METHOD_OF: Final = {member: method for method, member in PARAMS.items()}
_UNSPOKEN: Final = "not a frame of openclaw.v4.proto"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

# What JSON writes longer than it is: \b \t \n \f \r " and \ by one byte, every other control character by five.
_UNESCAPED: Final = bytes(byte for byte in range(256) if byte >= 0x20 and byte not in b'"\\')
_SHORT_ESCAPES: Final = b'\b\t\n\f\r"\\'
_LONGEST_ESCAPE: Final = 6


# --- the gateway's side


def decode_request(data: bytes, limit: int) -> Request | FrameFault:
    """Read one message of a client. ``limit``: how long its parameters may be as JSON, in bytes.

    A fault is ``fatal`` where the bytes are no Protocol Buffers at all, so that nothing behind them can be believed.
    """
    frame = pb.ClientFrame()
    try:
        frame.ParseFromString(data)
    except DecodeError:
        return FrameFault(_UNSPOKEN, json=False, fatal=CloseCode.INVALID_DATA)
    request = frame.request
    known = request.id if 0 < len(request.id) <= MAX_ID_CHARS else None
    if not frame.HasField("request") or len(UnknownFieldSet(frame)):
        return FrameFault("must be a ClientFrame with a request", json=True, id=known)
    if len(UnknownFieldSet(request)):
        return FrameFault("Request has a field that is not known here", json=True, id=known)
    if not request.id or not request.method:
        return FrameFault("id and method must not be empty", json=True, id=known)
    if len(request.id) > MAX_ID_CHARS or len(request.method) > MAX_METHOD_CHARS:
        return FrameFault("id and method must be at most 256 characters", json=True, id=known)
    if len(data) * _LONGEST_ESCAPE > limit and _escaped_size(data) > limit:
        return FrameFault("too long as JSON", json=True, id=known, fatal=CloseCode.TOO_BIG)
    try:
        return Request("req", request.id, request.method, _params(request))
    except NotJson as exc:
        return FrameFault(str(exc), json=True, id=known)


def _params(request: pb.Request) -> msgspec.Raw:
    member = request.WhichOneof("params")
    if member is None:
        return NO_PARAMS
    if member == "json":
        return decode_raw(request.json)
    if request.method != _METHOD_OF[member]:
        raise NotJson(f"Request.{member} is not for the method that it names")
    return msgspec.Raw(_encode(read(getattr(request, member), strict=True)))


def _escaped_size(data: bytes) -> int:
    escaped = data.translate(None, _UNESCAPED)
    short = len(escaped) - len(escaped.translate(None, _SHORT_ESCAPES))
    return len(data) + short + (_LONGEST_ESCAPE - 1) * (len(escaped) - short)


def encode_ok(id_: str, method: str, payload: Any) -> bytes:
    """The answer to ``method``. Raises as msgspec does where ``payload`` cannot be JSON."""
    frame = pb.ServerFrame()
    response = frame.response
    response.id = id_
    _put_payload(response, RESULTS.get(method), payload)
    return frame.SerializeToString()


def encode_error(id_: str, error: dict[str, Any]) -> bytes:
    frame = pb.ServerFrame()
    response = frame.response
    response.id = id_
    response.error.SetInParent()
    fill(response.error, error)
    return frame.SerializeToString()


def encode_event(event: str, payload: Any, *, state_version: dict[str, int] | None = None) -> bytes:
    """An `Event` without ``seq``, the same for every connection; `number_event` makes a frame of it."""
    message = pb.Event(event=event)
    if state_version is not None:
        message.state_version.SetInParent()
        fill(message.state_version, state_version)
    _put_payload(message, EVENTS.get(event), payload)
    return message.SerializeToString()


def event_ends(size: int, seq: int | None) -> tuple[bytes, bytes]:
    """What stands before and behind an encoded event of ``size`` bytes in its ServerFrame. Fields may come in any
    order, so ``seq`` goes behind the others.
    """
    tail = b"" if seq is None else b"\x10" + _varint(seq)
    return b"\x1a" + _varint(size + len(tail)), tail


def number_event(encoded: bytes, seq: int | None) -> bytes:
    """The ServerFrame of an encoded event."""
    head, tail = event_ends(len(encoded), seq)
    return b"%b%b%b" % (head, encoded, tail)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _put_payload(message: pb.Request | pb.Response | pb.Event, member: str | None, payload: Any) -> None:
    """Into the typed member where there is one and the payload is an object, else as JSON text."""
    if member is not None:
        value = plain(payload) if type(payload) is msgspec.Raw else payload
        if type(value) is dict:
            inner: Message = getattr(message, member)
            inner.SetInParent()
            fill(inner, value)
            return
    message.json = bytes(payload) if type(payload) is msgspec.Raw and payload else _encode(payload)


def find_id(start: bytes) -> str | None:
    """The id of a request of which only the beginning is there (it is over the limit)."""
    try:
        place, _ = _head(start, 0, 0x0A)
        place, size = _head(start, place, 0x0A)
        id_ = start[place : place + size].decode()
    except (IndexError, ValueError):
        return None
    return id_ if 0 < len(id_) <= MAX_ID_CHARS and len(start) >= place + size else None


def _head(data: bytes, place: int, tag: int) -> tuple[int, int]:
    if data[place] != tag:
        raise ValueError
    size = 0
    for index in range(10):
        byte = data[place + 1 + index]
        size |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return place + 2 + index, size
    raise ValueError


# --- the client's side


def encode_request(id_: str, method: str, params: Any) -> bytes:
    """A request; ``params``: anything that msgspec can encode, None for none. Raises as msgspec does."""
    frame = pb.ClientFrame()
    request = frame.request
    request.id, request.method = id_, method
    if params is not None:
        _put_payload(request, PARAMS.get(method), params)
    return frame.SerializeToString()


def decode_server_frame(data: bytes) -> dict[str, Any]:
    """What the gateway says, as the JSON frame of the same meaning. Raises `NotJson` for bytes that say nothing."""
    frame = pb.ServerFrame()
    try:
        frame.ParseFromString(data)
    except DecodeError as exc:
        raise NotJson(_UNSPOKEN) from exc
    kind = frame.WhichOneof("kind")
    if kind == "response":
        return _response(frame.response)
    if kind == "event":
        return _event(frame.event)
    raise NotJson("a ServerFrame of a kind that is not known here")


def _response(response: pb.Response) -> dict[str, Any]:
    if response.HasField("error"):
        error = read(response.error, strict=False)
        return {"type": "res", "id": response.id, "ok": False, "error": error}
    payload = _payload(response, response.WhichOneof("result"))
    return {"type": "res", "id": response.id, "ok": True, "payload": payload}


def _event(event: pb.Event) -> dict[str, Any]:
    payload = _payload(event, event.WhichOneof("payload"))
    out: dict[str, Any] = {"type": "event", "event": event.event, "payload": payload}
    if event.HasField("seq"):
        out["seq"] = event.seq
    if event.HasField("state_version"):
        out["stateVersion"] = read(event.state_version, strict=False)
    return out


def _payload(message: pb.Response | pb.Event, member: str | None) -> Any:
    if member is None:
        raise NotJson("no payload, or of a kind that is not known here")
    if member != "json":
        return read(getattr(message, member), strict=False)
    try:
        return _decode(message.json)
    except DECODE_ERRORS as exc:
        raise NotJson("the payload is not JSON") from exc
