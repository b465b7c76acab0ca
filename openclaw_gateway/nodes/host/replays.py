"""Which sealed requests this node has carried out: none of them is carried out again, after a restart either.

Owns ``<state>/node/sealed-seen``: a line ``<mark> <until ms>`` for each request, appended and flushed before the
request is carried out; until 0 takes a mark back. The mark of zeros says until when marks were forgotten. It must not
know what a request says. Invariants: what is remembered is on the disk first; at most `MAX_MARKS` are remembered and a
full memory refuses, it never forgets early; where the clock is set back behind what was forgotten, requests of that
time are refused, because they may be among it; what cannot be read or written refuses (`NodeError`), because a
forgotten mark is a replay.

Every method but `known` blocks for a file flush; callers use one thread at a time (`seals`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from openclaw_gateway.nodes.host.errors import NodeError
from openclaw_gateway.ops.statedir import StateDirUnsafe, ensure_private_dir, read_private_file, write_private_file

__all__ = ["MAX_MARKS", "Replays"]

MAX_MARKS: Final = 4096
MAX_LINES: Final = 3 * MAX_MARKS
_MARK_CHARS: Final = 32
_FORGOTTEN: Final = "0" * _MARK_CHARS  # no request has it: a mark is the beginning of a SHA-256

Taken = Literal["fresh", "seen", "full"]


class Replays:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._marks: dict[str, int] | None = None
        self._forgotten = 0  # the latest time that a mark had which is not remembered any more
        self._lines = 0

    def __len__(self) -> int:
        return len(self._marks or ())

    def take(self, mark: str, until_ms: int, now_ms: int) -> Taken:
        """Remember ``mark`` (32 hex digits) until that time. ``fresh``: it was not known, and is on the disk now.
        ``seen``: it was, or it may have been: the clock was ahead once, and is back now."""
        marks = self._loaded(now_ms)
        if mark in marks or until_ms <= self._forgotten:
            return "seen"
        if len(marks) >= MAX_MARKS:
            before = self._forgotten
            self._marks = marks = self._living(marks, now_ms)
            if self._forgotten > before:
                self._append(_FORGOTTEN, self._forgotten)
            if len(marks) >= MAX_MARKS:
                return "full"
        self._append(mark, until_ms)
        marks[mark] = until_ms
        return "fresh"

    def release(self, mark: str) -> None:
        """Nothing was carried out: the same request may come again."""
        if self._marks is not None and self._marks.pop(mark, None) is not None:
            self._append(mark, 0)

    def _living(self, marks: dict[str, int], now_ms: int) -> dict[str, int]:
        """Those whose time is not over; what is left out is noted as forgotten."""
        over = [until for until in marks.values() if until < now_ms]
        self._forgotten = max(self._forgotten, *over, 0)
        return {mark: until for mark, until in marks.items() if until >= now_ms}

    def _append(self, mark: str, until_ms: int) -> None:
        try:
            if self._lines >= MAX_LINES:
                self._write()
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o600)
            try:
                line = f"{mark} {until_ms}\n".encode()
                if os.write(fd, line) != len(line):
                    raise OSError("the disk is full")
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            # What part of a line may stand there is written anew by the next one.
            self._lines = MAX_LINES
            raise NodeError(f"{self._path} cannot be written: {error.strerror or error}", "make room there") from error
        self._lines += 1

    def _loaded(self, now_ms: int) -> dict[str, int]:
        if self._marks is None:
            marks = self._read()
            self._forgotten = marks.pop(_FORGOTTEN, 0)
            self._marks = self._living(marks, now_ms)
            try:
                ensure_private_dir(self._path.parent)
                self._write()
            except OSError as error:
                self._marks = None
                raise NodeError(f"{self._path} cannot be written: {error}", "make room there") from error
        return self._marks

    def _write(self) -> None:
        kept = dict(self._marks or {})
        if self._forgotten:
            kept[_FORGOTTEN] = self._forgotten
        write_private_file(self._path, "".join(f"{mark} {until}\n" for mark, until in kept.items()).encode())
        self._lines = len(kept)

    def _read(self) -> dict[str, int]:
        try:
            text = read_private_file(self._path).decode("ascii")
        except FileNotFoundError:
            return {}
        except (OSError, StateDirUnsafe, UnicodeDecodeError) as error:
            raise NodeError(f"{self._path} cannot be read: {error}", f"mend {self._path}") from error
        marks: dict[str, int] = {}
        whole, _, torn = text.rpartition("\n")
        if torn and not torn.replace(" ", "").isalnum():
            raise self._damaged()
        for line in whole.split("\n") if whole else []:
            mark, _, until = line.partition(" ")
            if len(mark) != _MARK_CHARS or set(mark) - set("0123456789abcdef") or not until.isdecimal():
                raise self._damaged()
            # The line of a request that was cut off by a crash was never carried out: it was not flushed.
            if until == "0":
                marks.pop(mark, None)
            else:
                marks[mark] = int(until)
        return marks

    def _damaged(self) -> NodeError:
        return NodeError(
            f"{self._path} is not what this node wrote, so nothing sealed is taken",
            f"wait an hour, so that nothing old can come again, then: mv '{self._path}' '{self._path}.old'",
        )
