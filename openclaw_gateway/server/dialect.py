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
from openclaw_gateway.protocol import frames
from openclaw_gateway.server.writer import text_frame
from openclaw_gateway.value import Value

__all__ = ["OPENCLAW", "PROTOBUF", "Dialect", "binary_frame", "choose_subprotocol", "dialect_of"]

PROTOBUF: Final = "openclaw.v4.proto"
_OURS: Final = "openclaw."


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Dialect(Value):
    """``decode(message, limit)``: `limit` in bytes of JSON; ``ok(id, method, payload)``; ``event(event, seq)``: ``seq``
    None for an event without a number; ``wrap`` makes the WebSocket frame around a body.
    """

    name: str
    decode: Callable[[bytes, int], frames.Request | frames.FrameFault]
    ok: Callable[[str, str, Any], bytes]
    error: Callable[[str, dict[str, Any]], bytes]
    event: Callable[[OutgoingEvent, int | None], bytes]
    greeting: Callable[[str, Any], bytes]
    find_id: Callable[[bytes], str | None]
    wrap: Callable[[bytes], bytes]


def _json_event(event: OutgoingEvent, seq: int | None) -> bytes:
    return event.body if seq is None else frames.splice_seq(event.body, seq)


OPENCLAW: Final = Dialect(
    name="openclaw",
    decode=lambda data, limit: frames.decode_request(data),
    ok=lambda id_, method, payload: frames.encode_ok(id_, payload),
    error=frames.encode_error,
    event=_json_event,
    greeting=frames.encode_event,
    find_id=frames.find_id,
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


def binary_frame(payload: bytes) -> bytes:
    """One unmasked, unfragmented binary frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x82%c%b" % (size, payload)
    if size < 65536:
        return b"\x82\x7e%b%b" % (struct.pack("!H", size), payload)
    return b"\x82\x7f%b%b" % (struct.pack("!Q", size), payload)


@cache
def _protocol_buffers() -> Dialect:
    from openclaw_gateway.protocol import protobuf

    def event(event: OutgoingEvent, seq: int | None) -> bytes:
        if event.protobuf is None:
            event.protobuf = protobuf.encode_event(event.name, event.payload, state_version=event.state_version)
        return protobuf.number_event(event.protobuf, seq)

    return Dialect(
        name="protobuf",
        decode=protobuf.decode_request,
        ok=protobuf.encode_ok,
        error=protobuf.encode_error,
        event=event,
        greeting=lambda name, payload: protobuf.number_event(protobuf.encode_event(name, payload), None),
        find_id=protobuf.find_id,
        wrap=binary_frame,
    )
