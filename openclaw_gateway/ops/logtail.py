"""Reading the end of the log file, as ``logs.tail`` answers it.

Owns the cursor rules of ``logs.tail`` (spec wire.md section 6): the cursor is a byte offset into the current file. It
must not know who asks. Only whole lines are given: a line that is still being written comes with the next call.

Invariants: one call reads at most ``max_bytes`` (1 MiB at most) and gives at most ``limit`` lines (5000 at most); a
call whose answer cannot have changed since the last equal call is answered from a cache of 16 answers after one
stat(2)."""

from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

import attrs
import msgspec

from openclaw_gateway.value import Value

__all__ = ["MAX_BYTES", "MAX_LINES", "LogTail", "tail", "tail_json"]

MAX_LINES: Final = 5000
MAX_BYTES: Final = 1024 * 1024
_CACHE_ENTRIES: Final = 16


@attrs.frozen(eq=False, repr=False)
class LogTail(Value):
    """``cursor``: where the next call goes on, bytes. ``truncated``: lines before these were left out. ``reset``: the
    cursor that was asked for is not in this file (rotated, or too far behind), so the lines do not follow the last
    ones."""

    file: str
    cursor: int
    size: int
    lines: tuple[str, ...]
    truncated: bool
    reset: bool


_Key = tuple[str, int | None, int, int]
_Stamp = tuple[int, int, int, int]
_cache: OrderedDict[_Key, tuple[_Stamp, LogTail]] = OrderedDict()
_encoded: OrderedDict[_Key, tuple[LogTail, bytes]] = OrderedDict()
_encode = msgspec.json.Encoder().encode


def _bounded(path: Path | str, cursor: int | None, limit: int, max_bytes: int) -> _Key:
    clamped = None if cursor is None or cursor < 0 else cursor
    return (os.fspath(path), clamped, min(max(limit, 1), MAX_LINES), min(max(max_bytes, 1), MAX_BYTES))


def tail(path: Path | str, cursor: int | None = None, limit: int = 500, max_bytes: int = 250_000) -> LogTail:
    """The lines after ``cursor``, or without one the last lines of the file. A missing file is an empty one.

    Raises OSError where the file is there but cannot be read. Blocks for one read of at most 1 MiB from the page cache.
    """
    return _tail(_bounded(path, cursor, limit, max_bytes))


def tail_json(path: Path | str, cursor: int | None = None, limit: int = 500, max_bytes: int = 250_000) -> bytes:
    """The same as `tail`, as the JSON object that goes over the wire; an unchanged answer is not encoded again."""
    key = _bounded(path, cursor, limit, max_bytes)
    answer = _tail(key)
    known = _encoded.get(key)
    if known is not None and known[0] is answer:
        return known[1]
    raw = _encode(answer)
    _encoded[key] = (answer, raw)
    while len(_encoded) > _CACHE_ENTRIES:
        _encoded.popitem(last=False)
    return raw


def _tail(key: _Key) -> LogTail:
    path, cursor, limit, max_bytes = key
    try:
        there = os.stat(path)  # noqa: PTH116  a poll without news must cost one system call
    except FileNotFoundError:
        return LogTail(path, 0, 0, (), truncated=False, reset=bool(cursor))
    stamp = (there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns)
    known = _cache.get(key)
    if known is not None and known[0] == stamp:
        _cache.move_to_end(key)
        return known[1]
    answer = _read(path, there.st_size, cursor, limit, max_bytes)
    _cache[key] = (stamp, answer)
    while len(_cache) > _CACHE_ENTRIES:
        _cache.popitem(last=False)
    return answer


def _read(path: str, size: int, cursor: int | None, limit: int, max_bytes: int) -> LogTail:
    reset = cursor is not None and (cursor > size or size - cursor > max_bytes)
    start = max(0, size - max_bytes) if cursor is None or reset else cursor
    truncated = start > 0 and (cursor is None or reset)
    if start == size:
        return LogTail(path, size, size, (), truncated, reset)
    # One byte more tells whether `start` is at the beginning of a line.
    before = 1 if start else 0
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        data = os.pread(fd, size - start + before, start - before)
    finally:
        os.close(fd)
    begin = 0
    if before:
        begin = 1 if data[:1] == b"\n" else data.find(b"\n", 1) + 1 or len(data)
    end = data.rfind(b"\n") + 1
    if end <= begin:  # not one whole line; a cursor given stays where it is, so the line is not lost
        return LogTail(path, start if cursor is not None and not reset else size, size, (), truncated, reset)
    lines = data[begin : end - 1].decode("utf-8", "replace").split("\n")
    if len(lines) > limit:
        lines = lines[-limit:]
        truncated = True
    return LogTail(path, start - before + end, size, tuple(lines), truncated, reset)
