"""How a session says its frames: OpenClaw's JSON, or Protocol Buffers for who asked for that subprotocol (C21).

Owns the choice of a dialect by `Sec-WebSocket-Protocol` and what sessions need of one. It must not know sessions,
admission or methods: all of these are the same for every dialect. JSON-RPC is told by the first frame instead
(`server.handshake`) and spoken in `server.calls`.

Invariants: who does not ask is not affected; the Protocol Buffers runtime (7 MB, 50 ms) is imported when the first
client asks for it; an event is encoded once per dialect, whoever hears it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import attrs

from openclaw_gateway.events.bus import OutgoingEvent
from openclaw_gateway.protocol import frames, jsonrpc
from openclaw_gateway.server.writer import SharedFrame, text_frame, text_head
from openclaw_gateway.value import Value

__all__ = [
    "OPENCLAW",
    "PROTOBUF",
    "Dialect",
    "EventParts",
    "binary_frame",
    "choose_subprotocol",
    "dialect_of",
    "event_frame",
    "event_parts",
]

PROTOBUF: Final = "openclaw.v4.proto"
SHARED_BYTES: Final = 4 * 1024  # from here on three pieces in one system call cost no more than a copy
_OURS: Final = "openclaw."

EventParts = tuple[bytes, bytes | memoryview, bytes]  # a message: its own beginning, what is shared, its own end


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Dialect(Value):
    """``decode(message, limit)``: `limit` in bytes of JSON; ``ok(id, method, payload)``; ``event(event, seq)``: ``seq``
    None for an event without a number; ``head(size)`` is what stands in a WebSocket frame before ``size`` bytes,
    ``wrap`` makes the frame around a body.
    """

    name: str
    decode: Callable[[bytes, int], frames.Request | frames.FrameFault]
    ok: Callable[[str, str, Any], bytes]
    error: Callable[[str, dict[str, Any]], bytes]
    event: Callable[[OutgoingEvent, int | None], EventParts]
    greeting: Callable[[str, Any], bytes]
    find_id: Callable[[bytes], str | None]
    head: Callable[[int], bytes]
    wrap: Callable[[bytes], bytes]


def event_parts(dialect: Dialect, spoken: str, event: OutgoingEvent, seq: int | None) -> EventParts:
    """The message of an event for who speaks ``spoken`` (`Dialect.name`, or ``jsonrpc`` over OpenClaw's frames)."""
    return _jsonrpc_event(event, seq) if spoken == "jsonrpc" else dialect.event(event, seq)


def event_frame(dialect: Dialect, spoken: str, event: OutgoingEvent, seq: int | None) -> bytes | SharedFrame:
    """The WebSocket frame of an event, as it leaves a connection in the clear; large ones share what they can."""
    if spoken == "openclaw":
        tail = frames.event_tail(seq)
        lead = event.leads.get(len(tail))
        if lead is not None:
            return lead + tail
    before, shared, tail = event_parts(dialect, spoken, event, seq)
    size = len(shared)
    head = dialect.head(len(before) + size + len(tail)) + before
    if size >= SHARED_BYTES and tail:
        return SharedFrame(head, shared, tail)
    lead = b"".join((head, shared))
    if spoken == "openclaw":
        event.leads[len(tail)] = lead
    return lead + tail


def _stem(encoded: bytes, end: int) -> bytes | memoryview:
    """``encoded`` without its last ``end`` bytes; what is large is not copied for that."""
    return encoded[:-end] if len(encoded) < SHARED_BYTES else memoryview(encoded)[:-end]


def _json_event(event: OutgoingEvent, seq: int | None) -> EventParts:
    stem = event.shared.get("openclaw")
    if stem is None:
        stem = event.shared["openclaw"] = _stem(event.body, frames.EVENT_END)
    return b"", stem, frames.event_tail(seq)


def _jsonrpc_event(event: OutgoingEvent, seq: int | None) -> EventParts:
    """`Dialect.event` of who speaks JSON-RPC."""
    stem = event.shared.get("jsonrpc")
    if stem is None:
        encoded = jsonrpc.encode_event(event.name, event.payload, state_version=event.state_version)
        stem = event.shared["jsonrpc"] = _stem(encoded, jsonrpc.EVENT_END)
    return b"", stem, jsonrpc.event_tail(seq)


OPENCLAW: Final = Dialect(
    name="openclaw",
    decode=lambda data, limit: frames.decode_request(data),
    ok=lambda id_, method, payload: frames.encode_ok(id_, payload),
    error=frames.encode_error,
    event=_json_event,
    greeting=frames.encode_event,
    find_id=frames.find_id,
    head=text_head,
    wrap=text_frame,
)


def dialect_of(subprotocol: str | None) -> Dialect:
    """The dialect that goes with the subprotocol that was agreed on."""
    return _protocol_buffers() if subprotocol == PROTOBUF else OPENCLAW


def choose_subprotocol(offered: Sequence[str]) -> str | None:
    """The first of ours, for clients list them in the order of their liking (RFC 6455 section 4.1, item 10); where none
    is ours, the first is echoed and means OpenClaw's JSON (spec wire.md section 1).
    """
    ours = (name for name in offered if name.startswith(_OURS))
    return next(ours, offered[0] if offered else None)


def binary_head(size: int) -> bytes:
    """What stands before ``size`` bytes of an unmasked, unfragmented binary frame (RFC 6455 section 5.2)."""
    if size < 126:
        return b"\x82%c" % size
    return b"\x82\x7e%b" % struct.pack("!H", size) if size < 65536 else b"\x82\x7f%b" % struct.pack("!Q", size)


def binary_frame(payload: bytes) -> bytes:
    """One unmasked, unfragmented binary frame."""
    return binary_head(len(payload)) + payload


@cache
def _protocol_buffers() -> Dialect:
    from openclaw_gateway.protocol import protobuf

    def event(event: OutgoingEvent, seq: int | None) -> EventParts:
        shared = event.shared.get("protobuf")
        if shared is None:
            encoded = protobuf.encode_event(event.name, event.payload, state_version=event.state_version)
            shared = event.shared["protobuf"] = encoded
        head, tail = protobuf.event_ends(len(shared), seq)
        return head, shared, tail

    return Dialect(
        name="protobuf",
        decode=protobuf.decode_request,
        ok=protobuf.encode_ok,
        error=protobuf.encode_error,
        event=event,
        greeting=lambda name, payload: protobuf.number_event(protobuf.encode_event(name, payload), None),
        find_id=protobuf.find_id,
        head=binary_head,
        wrap=binary_frame,
    )
