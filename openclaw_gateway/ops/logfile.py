"""The log file: one JSON object per line, rotated by size, identical lines collapsed.

Owns the file's format (``time``, ``level``, ``subsystem``, ``event``, ``message``,
then the fields), its rotation and its
permissions (0600 in a 0700 folder). It must not know what may be logged: values arrive cleaned.

Invariants: a line is written whole or counted as lost; the file is never over ``max_bytes`` by more than one line,
and at most ``backups`` old ones exist; a file that somebody else moved or removed is noticed before the next line; a
full disk costs lines, never an exception. An identical line within the window of the first is counted instead of
written, and the count follows when the window ends (on the next line, or when `tick` is called): a window of 5 s,
doubled while the repeating goes on, at most 5 minutes, so a million identical events come to a few lines."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

__all__ = ["LogFileHandler"]

FIRST_WINDOW: Final = 5.0  # seconds
LONGEST_WINDOW: Final = 300.0
MAX_COLLAPSED: Final = 256  # distinct lines that are watched for repetition
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_NAMES: Final = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning", logging.ERROR: "error"}

_encode = msgspec.json.Encoder().encode


@attrs.define
class _Repeated:
    until: float
    window: float
    count: int = 0


class LogFileHandler(logging.Handler):
    """A standard logging handler. ``lost`` counts lines that could not be written, ``trouble`` is the last reason."""

    def __init__(
        self, path: Path, *, max_bytes: int, backups: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self.path = path
        self.lost = 0
        self.trouble = ""
        self._clock = clock
        self._max_bytes = max(max_bytes, 4096)
        self._backups = backups
        self._fd = -1
        self._identity = (0, 0)
        self._size = 0
        self._broken_line = False
        self._unreported = 0
        self._seen: OrderedDict[bytes, _Repeated] = OrderedDict()
        self._next_due = 0.0
        self._second = -1
        self._prefix = b""
        self._open()

    # --- logging.Handler

    def emit(self, record: logging.LogRecord) -> None:
        try:
            body = _body(record)
            now = self._clock()
            if now >= self._next_due:
                self._flush_due(now)
            seen = self._seen.get(body)
            if seen is not None:
                seen.count += 1
                return
            self._remember(body, now)
            self._write(self._stamp(record.created) + body + b"}\n")
        except Exception as error:  # noqa: BLE001  a log that fails must not take the program with it
            self.lost += 1
            self.trouble = repr(error)

    def tick(self) -> None:
        """Write the counts whose window is over. Called by the gateway's own clock; never raises."""
        self.acquire()
        try:
            now = self._clock()
            if now >= self._next_due:
                self._flush_due(now)
        except Exception as error:  # noqa: BLE001  same reason as in emit
            self.trouble = repr(error)
        finally:
            self.release()

    def close(self) -> None:
        self.acquire()
        try:
            with contextlib.suppress(Exception):
                self._flush_due(float("inf"))
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
        finally:
            self.release()
        super().close()

    # --- collapsing

    def _remember(self, body: bytes, now: float) -> None:
        if len(self._seen) >= MAX_COLLAPSED:
            old, entry = self._seen.popitem(last=False)
            self._write_count(old, entry)
        self._seen[body] = _Repeated(now + FIRST_WINDOW, FIRST_WINDOW)
        self._next_due = min(self._next_due, now + FIRST_WINDOW) if len(self._seen) > 1 else now + FIRST_WINDOW

    def _flush_due(self, now: float) -> None:
        due = [(body, entry) for body, entry in self._seen.items() if now >= entry.until]
        for body, entry in due:
            if entry.count == 0:
                del self._seen[body]
                continue
            self._write_count(body, entry)
            entry.window = min(entry.window * 2, LONGEST_WINDOW)
            entry.until = now + entry.window
            entry.count = 0
        self._next_due = min((entry.until for entry in self._seen.values()), default=0.0)

    def _write_count(self, body: bytes, entry: _Repeated) -> None:
        if entry.count:
            self._write(b'%b%b,"repeated":%d}\n' % (self._stamp(time.time()), body, entry.count))

    # --- writing

    def _stamp(self, now: float) -> bytes:
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S', time.gmtime(second)).encode()
        return b'%b.%03dZ",' % (self._prefix, int((now - second) * 1000))

    def _write(self, line: bytes) -> None:
        try:
            self._follow_file()
            if self._size + len(line) > self._max_bytes and self._size:
                self._rotate()
            if self._broken_line:
                line = b"\n" + line
            if self._unreported:
                line += b'%b"level":"warning","subsystem":"log","event":"log lines lost","lost":%d}\n' % (
                    self._stamp(time.time()),
                    self._unreported,
                )
            written = os.write(self._fd, line)
        except OSError as error:
            self._lose(str(error))
            return
        self._size += written
        self._broken_line = written < len(line)
        if self._broken_line:
            self._lose("short write")
        else:
            self._unreported = 0

    def _lose(self, why: str) -> None:
        self.lost += 1
        self._unreported += 1
        self.trouble = why

    def _follow_file(self) -> None:
        if self._fd >= 0:
            try:
                there = os.stat(self.path, follow_symlinks=False)  # noqa: PTH116  every line pays for this one
            except FileNotFoundError:
                pass
            else:
                if (there.st_dev, there.st_ino) == self._identity:
                    self._size = there.st_size  # somebody may have truncated it
                    return
        self._open()
        if self._fd < 0:
            raise OSError(self.trouble)

    def _open(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fd = os.open(self.path, _FLAGS, 0o600)
            os.fchmod(self._fd, 0o600)
            there = os.fstat(self._fd)
        except OSError as error:
            self.trouble = str(error)
            return
        self._identity = (there.st_dev, there.st_ino)
        self._size = there.st_size

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _rotate(self) -> None:
        try:
            for number in range(self._backups - 1, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    self._backup(number).replace(self._backup(number + 1))
            if self._backups:
                self.path.replace(self._backup(1))
                self._open()
            else:
                os.ftruncate(self._fd, 0)
                self._size = 0
        except OSError as error:
            # Nothing may be renamed here, yet the size must stay bounded: the file starts over in place.
            self.trouble = str(error)
            os.ftruncate(self._fd, 0)
            self._size = 0


def _body(record: logging.LogRecord) -> bytes:
    """The line without its time and closing brace: the part that two identical events share."""
    message: Any = record.msg
    level = _NAMES.get(record.levelno) or record.levelname.lower()
    fields = getattr(message, "fields", None)
    if fields is None:  # a plain record of somebody who used the standard logger below ours
        head = {"level": level, "subsystem": record.name, "event": record.getMessage()[:2048]}
    else:
        # ``message`` is what OpenClaw's own ``logs`` shows of a line; ours shows event and fields.
        head = {"level": level, "subsystem": message.subsystem, "event": message.text, "message": str(message)}
        head.update(fields)
    return _encode(head)[1:-1]
