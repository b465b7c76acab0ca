"""The audit trail on the disk: appended, flushed, rotated, read back.

Owns ``audit.jsonl`` and its older generations ``audit.jsonl.1`` … in one private folder. Synchronous: writing runs on
the store's thread, reading wherever somebody asks. It must not know what a row means.

Theory of operation. A generation that is full ends with a row ``audit.rotated`` that names the oldest row that stays;
only then are the files renamed. The chain itself thus says what must still be there, and a crash between the two leaves
more rows than named, never fewer. Rows are flushed (fsync) before `append` returns.

Invariants: after any fault a line is whole or gone (the file is cut back to what was flushed); a file is over
``max_bytes`` by one row at most; at most ``backups`` old generations exist; 0600 in 0700, no symbolic link is followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from openclaw_gateway.ops.auditchain import MAX_LINE_BYTES, Head, check_line, read_row, seal
from openclaw_gateway.ops.auditrows import Action, compose
from openclaw_gateway.ops.statedir import StateDirUnsafe, ensure_private_dir, fsync_dir
from openclaw_gateway.value import Value

__all__ = ["BACKUPS", "MAX_BYTES", "AuditFile", "Written", "generations", "opened", "read_lines", "stamp", "tail_lines"]

MAX_BYTES: Final = 10_000_000
BACKUPS: Final = 5
NAME: Final = "audit.jsonl"
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_CHUNK: Final = 262_144
_PATIENCE: Final = 20  # tries to see all files at one moment; a rotation takes well under a millisecond

Row = dict[str, object]


def stamp(at: float) -> str:
    """Unix seconds as ``2026-11-23T08:52:42.123Z``."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{int(at * 1000) % 1000:03d}Z"


@attrs.frozen(eq=False, repr=False)
class Written(Value):
    """What `AuditFile.append` did: how many of the rows it was given are on the disk, and why not all of them."""

    rows: int
    head: Head
    fault: str | None = None


class AuditFile:
    """The end of the trail that grows. Not safe to share between threads."""

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES, backups: int = BACKUPS) -> None:
        self.folder = folder
        self.head = Head()
        self._max_bytes = max(max_bytes, 4096)
        self._backups = max(backups, 1)
        self._fd = -1
        self._identity = (0, 0)
        self._size = 0

    @property
    def path(self) -> Path:
        return self.folder / NAME

    def append(self, rows: Sequence[Row], anchor: Head) -> Written:
        """Chain ``rows`` to what is there, flushed when this returns. ``anchor`` is the head that the store knows.

        Never raises for a fault of the disk: `Written.fault` says what it was, and the rest can be given again.
        """
        done = 0
        try:
            found = self._follow(anchor)
            if found:
                self._write(found)
            while done < len(rows):
                lines, count, head = self._fill(rows[done:])
                if count:
                    self._write_lines(lines, head)
                    done += count
                if done < len(rows):
                    self._rotate()
        except (OSError, StateDirUnsafe) as error:
            return Written(done, self.head, str(error))
        return Written(done, self.head)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # --- inside

    def _fill(self, rows: Sequence[Row]) -> tuple[list[bytes], int, Head]:
        """As many sealed rows as this generation takes; at least one where it is empty."""
        lines: list[bytes] = []
        size, head = self._size, self.head
        for row in rows:
            line, next_head = seal(row, head)
            if size and size + len(line) > self._max_bytes:
                break
            lines.append(line)
            size += len(line)
            head = next_head
        return lines, len(lines), head

    def _write(self, rows: Sequence[Row]) -> None:
        lines, head = [], self.head
        for row in rows:
            line, head = seal(row, head)
            lines.append(line)
        self._write_lines(lines, head)

    def _write_lines(self, lines: Sequence[bytes], head: Head) -> None:
        data = memoryview(b"".join(lines))
        whole = len(data)
        try:
            while data:
                data = data[os.write(self._fd, data) :]
            os.fsync(self._fd)
        except OSError:
            # What is not flushed was never promised; half a row would look like tampering.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
            self.close()
            raise
        self._size += whole
        self.head = head

    def _follow(self, anchor: Head) -> list[Row]:
        """Have the right file open; gives the rows that say what was found wrong with it."""
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                there = os.stat(self.path, follow_symlinks=False)  # noqa: PTH116 - every batch pays for this one
                if (there.st_dev, there.st_ino, there.st_size) == (*self._identity, self._size):
                    return []
            self.close()
        ensure_private_dir(self.folder)
        self._fd = os.open(self.path, _FLAGS, 0o600)
        found = os.fstat(self._fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            self.close()
            raise OSError(f"{self.path} is not a file of ours")
        os.fchmod(self._fd, 0o600)
        fsync_dir(self.folder)
        self._identity, self._size = (found.st_dev, found.st_ino), found.st_size
        return self._continue(anchor)

    def _continue(self, anchor: Head) -> list[Row]:
        """Find where the chain stands. What a crash left half-written goes; what is missing gets a row of its own."""
        anchor = max(anchor, self.head, key=lambda head: head.seq)  # the store may not have heard of the last batch
        torn = self._cut_torn()
        if anchor.seq == 0 and self._size == 0 and not torn and not self._older():
            self.head = Head()
            return []
        last = _last_line(self._fd, self._size) or self._last_of_older()
        head = check_line(last) if last else None
        row: Row = {}
        if head is not None and head.seq >= anchor.seq:
            self.head = head
        else:
            # The tail is gone, or its last line was changed: go on behind what the store knows, and say so.
            on_disk = head.seq if head is not None else 0
            self.head = anchor if head is None or anchor.seq > head.seq else head
            row = {"missing_from": on_disk + 1, "missing_to": anchor.seq}
            if head is None and last:
                row = {"reason": "the last line is not a row"}
        if torn:
            row["torn_bytes"] = torn
        if not row:
            return []
        return [compose(Action.AUDIT_RECOVERED, stamp(time.time()), {"outcome": "ok", "actor": "gateway", **row})]

    def _cut_torn(self) -> int:
        """Cut off bytes behind the last line end: a row that no flush ever confirmed. Returns how many."""
        if self._size == 0 or os.pread(self._fd, 1, self._size - 1) == b"\n":
            return 0
        start = max(0, self._size - MAX_LINE_BYTES)
        data = os.pread(self._fd, self._size - start, start)
        keep = start + data.rfind(b"\n") + 1
        torn = self._size - keep
        os.ftruncate(self._fd, keep)
        os.fsync(self._fd)
        self._size = keep
        return torn

    def _backup(self, number: int) -> Path:
        return self.path.with_name(f"{NAME}.{number}")

    def _older(self) -> list[int]:
        """Numbers of the generations that a rotation moves: up to the first one that is not there."""
        numbers = []
        for number in range(1, self._backups + 1):
            if not self._backup(number).is_file():
                break
            numbers.append(number)
        return numbers

    def _last_of_older(self) -> bytes:
        if not self._backup(1).is_file():
            return b""
        fd = os.open(self._backup(1), _READ)
        try:
            return _last_line(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def _rotate(self) -> None:
        older = self._older()
        oldest = len(older)
        kept = oldest - 1 if oldest == self._backups else oldest
        first = _first_seq(self._backup(kept)) if kept else _first_seq(self.path)
        fields = {"outcome": "ok", "actor": "gateway", "first_seq": first}
        self._write([compose(Action.AUDIT_ROTATED, stamp(time.time()), fields)])
        for number in range(kept, 0, -1):
            self._backup(number).replace(self._backup(number + 1))
        self.path.replace(self._backup(1))
        self.close()
        self._fd = os.open(self.path, _FLAGS | os.O_EXCL, 0o600)
        found = os.fstat(self._fd)
        self._identity, self._size = (found.st_dev, found.st_ino), 0
        fsync_dir(self.folder)


def _last_line(fd: int, size: int) -> bytes:
    """The last whole line without its end; empty where there is none. The file must end with a line end."""
    start = max(0, size - MAX_LINE_BYTES - 1)
    data = os.pread(fd, size - start, start)[:-1]
    return data[data.rfind(b"\n") + 1 :]


def _first_seq(path: Path) -> int:
    with path.open("rb") as file:
        row = read_row(file.readline(MAX_LINE_BYTES))
    seq = row.get("seq") if row is not None else None
    return seq if isinstance(seq, int) else 0


# --- reading: from any process, while the gateway writes or not


def generations(folder: Path) -> list[Path]:
    """The files that are there, oldest first. Numbers beyond `BACKUPS` are no part of the trail."""
    older = [folder / f"{NAME}.{number}" for number in range(BACKUPS, 0, -1)]
    return [path for path in (*older, folder / NAME) if path.exists()]


@contextmanager
def opened(folder: Path) -> Iterator[list[tuple[str, int]]]:
    """Every generation as (name, file descriptor), oldest first, all of one moment: a rotation that comes in between
    is waited out. Raises OSError where a file is there and cannot be read."""
    files = _open_all(folder)
    for _ in range(_PATIENCE):
        if files is not None and [_identity(fd) for _, fd in files] == _identities(folder):
            break
        _close_all(files)
        files = _open_all(folder)
    try:
        yield files or []
    finally:
        _close_all(files)


def _open_all(folder: Path) -> list[tuple[str, int]] | None:
    files: list[tuple[str, int]] = []
    try:
        # What was opened before a fault is in the list, and closed below.
        files.extend((path.name, os.open(path, _READ)) for path in generations(folder))
    except FileNotFoundError:  # renamed meanwhile
        _close_all(files)
        return None
    except OSError:
        _close_all(files)
        raise
    return files


def _close_all(files: list[tuple[str, int]] | None) -> None:
    for _, fd in files or ():
        os.close(fd)


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _identities(folder: Path) -> list[tuple[int, int]] | None:
    try:
        found = [path.stat(follow_symlinks=False) for path in generations(folder)]
    except FileNotFoundError:
        return None
    return [(one.st_dev, one.st_ino) for one in found]


def read_lines(fd: int) -> Iterator[bytes]:
    """The lines of one generation with their ends; a line that is far too long comes in pieces."""
    with os.fdopen(os.dup(fd), "rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 2):
            yield line


def tail_lines(folder: Path, limit: int) -> list[dict[str, Any]]:
    """The last ``limit`` rows, oldest first, over all generations; lines that are no rows are left out."""
    found: list[dict[str, Any]] = []
    with opened(folder) as files:
        for _, fd in reversed(files):
            found = _last_rows(fd, os.fstat(fd).st_size, limit - len(found)) + found
            if len(found) >= limit:
                break
    return found


def _last_rows(fd: int, size: int, limit: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    rest, end = b"", size
    while end > 0 and len(rows) < limit:
        start = max(0, end - _CHUNK)
        data = os.pread(fd, end - start, start) + rest
        lines = data.split(b"\n")
        rest = lines.pop(0) if start else b""
        for line in reversed(lines):
            row = read_row(line) if line else None
            if row is not None:
                rows.append(row)
                if len(rows) >= limit:
                    break
        end = start
    rows.reverse()
    return rows
