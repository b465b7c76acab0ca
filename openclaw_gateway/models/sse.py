"""Server-sent events (WHATWG HTML, section 9.2.6), bytes in, events out.

Pure. Owns lines, fields, joining of data, and the limits. It must not know what an event means.

Invariants: however the bytes are cut, the events are the same; what is held is at most one event of `MAX_EVENT` bytes;
bytes that are no UTF-8 become U+FFFD, as the standard says, and never an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from openclaw_gateway.value import Value

__all__ = ["MAX_EVENT", "SseEvent", "SseParser", "SseTooLarge"]

MAX_EVENT: Final = 4 * 1024 * 1024
_BOM: Final = b"\xef\xbb\xbf"


@attrs.frozen(eq=False, repr=False)
class SseEvent(Value):
    """``event`` is its type, empty where none was given (a browser would say "message")."""

    data: str
    event: str = ""


class SseTooLarge(ValueError):
    """A line or an event is over the limit."""


class SseParser:
    """`feed` what arrives; an event that the stream breaks off in is never given out, as the standard says."""

    def __init__(self, *, max_event: int = MAX_EVENT) -> None:
        self._max = max_event
        self._line = bytearray()
        self._data: list[str] = []
        self._size = 0
        self._event = ""
        self._after_cr = False
        self._first = True

    def feed(self, data: bytes) -> Iterator[SseEvent]:
        """The events that ``data`` completes. Raises `SseTooLarge`; the parser is of no use afterwards."""
        if self._after_cr and data:
            data = data[1:] if data.startswith(b"\n") else data
            self._after_cr = False
        while data:
            end, width = _line_end(data)
            if end < 0:
                self._line += data
                self._check(len(self._line))
                return
            self._line += data[:end]
            self._check(len(self._line))
            self._after_cr = data[end:] == b"\r"
            data = data[end + width :]
            line = bytes(self._line)
            self._line.clear()
            if self._first:
                self._first = False
                line = line.removeprefix(_BOM)
            found = self._take(line)
            if found is not None:
                yield found

    def _check(self, size: int) -> None:
        if self._size + size > self._max:
            raise SseTooLarge(f"an event is longer than {self._max} bytes")

    def _take(self, line: bytes) -> SseEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._size += len(value) + 1
            self._check(0)
            self._data.append(value.decode("utf-8", "replace"))
        elif field == b"event":
            self._event = value.decode("utf-8", "replace")
        return None  # comments, id, retry and what nobody knows

    def _dispatch(self) -> SseEvent | None:
        data, event = self._data, self._event
        self._data, self._event, self._size = [], "", 0
        return SseEvent("\n".join(data), event) if data else None


def _line_end(data: bytes) -> tuple[int, int]:
    """Where the first line of ``data`` ends and how many bytes end it; (-1, 0) where it does not."""
    newline, carriage = data.find(b"\n"), data.find(b"\r")
    if carriage < 0 or 0 <= newline < carriage:
        return newline, 1
    return carriage, 2 if newline == carriage + 1 else 1
