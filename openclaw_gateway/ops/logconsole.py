"""Log lines on stderr: for people on a terminal, for journald under systemd, plain lines or JSON in a container.

Owns how a line looks on the console. It must not know what may be logged: values arrive cleaned, so a line is one
line and holds no escape sequence but ours.

Invariant: writing never blocks. A terminal that is stopped, or a pipe that nobody reads, costs lines (counted in
``dropped``). The look follows the place: a terminal gets time, level, subsystem in colour (unless ``NO_COLOR``); a
stream that journald reads (``JOURNAL_STREAM``, systemd.exec(5)) gets ``<priority>`` prefixes (sd-daemon(3)) and no
time; everything else plain lines with an ISO time, or the JSON of the file with ``OPENCLAW_LOG_FORMAT=json``."""

from __future__ import annotations

import logging
import os
import select
import time
from typing import Any, Final, TextIO

__all__ = ["ConsoleHandler"]

MAX_LINE_BYTES: Final = 4096  # PIPE_BUF: poll(2) promises that this much can be written at once
_COLOURS: Final = {logging.DEBUG: "2", logging.INFO: "36", logging.WARNING: "33", logging.ERROR: "31"}
_PRIORITIES: Final = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


def _is_journal(fd: int) -> bool:
    named = os.environ.get("JOURNAL_STREAM", "")
    if not named:
        return False
    try:
        there = os.fstat(fd)
    except OSError:
        return False
    return named == f"{there.st_dev}:{there.st_ino}"


class ConsoleHandler(logging.Handler):
    """A standard logging handler on a stream with a file descriptor. ``dropped`` counts lines that had no room."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self.dropped = 0
        self._stream = stream
        try:
            self._fd = stream.fileno()
        except (OSError, ValueError, AttributeError):  # a captured stream, as in tests
            self._fd = -1
        self._poll = select.poll()
        if self._fd >= 0:
            self._poll.register(self._fd, select.POLLOUT)
        terminal = self._fd >= 0 and os.isatty(self._fd)
        self._look = "terminal" if terminal else "journal" if _is_journal(self._fd) else "plain"
        if self._look == "plain" and os.environ.get("OPENCLAW_LOG_FORMAT") == "json":
            self._look = "json"
        self._colour = terminal and not os.environ.get("NO_COLOR")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self._render(record)
            if self._fd < 0:
                self._stream.write(text + "\n")
                return
            if not self._poll.poll(0):
                self.dropped += 1
                return
            raw = text.encode("utf-8", "backslashreplace")
            if len(raw) >= MAX_LINE_BYTES:
                raw = raw[: MAX_LINE_BYTES - 4].decode("utf-8", "ignore").encode() + "…".encode()
            os.write(self._fd, raw + b"\n")
        except Exception:  # noqa: BLE001  a console that fails must not take the program with it
            self.dropped += 1

    def _render(self, record: logging.LogRecord) -> str:
        message: Any = record.msg
        subsystem = getattr(message, "subsystem", record.name)
        level = record.levelname.lower()
        text = record.getMessage()
        stack = getattr(message, "fields", {}).get("stack") if hasattr(message, "fields") else None
        if self._look == "json":
            return _json_line(record.created, level, subsystem, message, text)
        if stack:
            # One event stays one line for journald and collectors; a person gets the stack as it is.
            text += "\n    " + "\n    ".join(stack) if self._look == "terminal" else " stack=" + " | ".join(stack[-4:])
        if self._look == "journal":
            return f"<{_PRIORITIES.get(record.levelno, 6)}>{subsystem}: {text}"
        if self._look == "terminal":
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            if self._colour:
                colour = _COLOURS.get(record.levelno, "0")
                return f"\x1b[2m{clock}\x1b[0m \x1b[{colour}m{level:<7}\x1b[0m {subsystem:<10} {text}"
            return f"{clock} {level:<7} {subsystem:<10} {text}"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{stamp}.{int(record.msecs):03d}Z {level:<7} {subsystem}: {text}"


def _json_line(created: float, level: str, subsystem: str, message: Any, text: str) -> str:
    import msgspec

    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created)) + f".{int(created % 1 * 1000):03d}Z"
    line = {"time": stamp, "level": level, "subsystem": subsystem, "event": getattr(message, "text", text)}
    line.update(getattr(message, "fields", {}))
    return msgspec.json.encode(line).decode()
