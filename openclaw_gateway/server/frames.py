"""What the sans-IO core leaves to us of frames: joining fragments, UTF-8, Close frames, the id in what is too big.

Owns bytes alone: nothing here reads a clock, a stream or a configuration. It must not know what a message says. The
size cap over a whole message is the core's ``max_size``, so what is joined here is bounded by it.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable

from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode

from openclaw_gateway.protocol.close import Close, CloseCode

__all__ = ["Fragments", "close_frame", "id_of_oversized", "is_utf8", "known_code"]


class Fragments:
    """One message that comes in pieces (RFC 6455 section 5.4). Text is checked as it comes, so that a peer learns of
    bytes that are no UTF-8 before its last frame."""

    __slots__ = ("_joined", "_utf8")

    def __init__(self, *, text: bool) -> None:
        self._joined = bytearray()
        self._utf8 = codecs.getincrementaldecoder("utf-8")() if text else None

    def add(self, frame: Frame) -> bytes | None:
        """The whole message with its last frame, until then None. Raises `UnicodeDecodeError`."""
        self._joined += frame.data
        if self._utf8 is not None:
            self._utf8.decode(bytes(frame.data), frame.fin)
        return bytes(self._joined) if frame.fin else None


def close_frame(close: Close) -> bytes:
    """The frame that ends a connection (RFC 6455 section 5.5.1)."""
    return Frame(Opcode.CLOSE, _close_payload(close)).serialize(mask=False)


def _close_payload(close: Close) -> bytes:
    if close.code is CloseCode.NO_STATUS:
        return b""
    return CloseFrame(int(close.code), close.reason).serialize()


def known_code(code: int) -> CloseCode:
    """The table's member for a code a peer sent; private codes of clients count as a normal goodbye."""
    try:
        return CloseCode(code)
    except ValueError:
        return CloseCode.NORMAL


def is_utf8(data: bytes | bytearray | memoryview) -> bool:
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def id_of_oversized(data: bytes, limit: int, find_id: Callable[[bytes], str | None]) -> str | None:
    """The request id at the beginning of a frame over the limit, if ``data`` starts at a frame and holds it."""
    view = memoryview(data)
    while len(view) >= 14:
        size = view[1] & 0x7F
        head = 2
        if size == 126:
            size, head = int.from_bytes(view[2:4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(view[2:10], "big"), 10
        if size > limit:
            mask, start = bytes(view[head : head + 4]), bytes(view[head + 4 : head + 4 + 2048])
            return find_id(bytes(byte ^ mask[index & 3] for index, byte in enumerate(start)))
        view = view[head + 4 + size :]
    return None
