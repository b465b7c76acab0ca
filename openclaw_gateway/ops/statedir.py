"""The state directory and the private files in it: made so that nobody else can read or plant anything.

Owns how a directory is made private, and how a file is replaced so that at every instant either the old or the new
content is there, whole, and readable by its owner only. It must not know what the files mean. Everything here is
synchronous and short (one fsync): callers on the Trio loop use it at start-up; for anything frequent they use the
store.

Invariants: a file is never readable by others, not even while it is being written; a failed write leaves the old
content in place and no temporary file behind; a symbolic link is never followed at the last step of a path.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import Final

import attrs

from openclaw_gateway.errors import GatewayError

__all__ = [
    "MAX_PRIVATE_FILE_BYTES",
    "StateDirUnsafe",
    "ensure_private_dir",
    "fsync_dir",
    "read_private_file",
    "write_private_file",
]

MAX_PRIVATE_FILE_BYTES: Final = 1024 * 1024
_STALE_TEMPORARY_SECONDS: Final = 3600.0


@attrs.define(eq=False)
class StateDirUnsafe(GatewayError):
    """A path of the state directory is not ours alone. ``fix`` is the command that mends it."""

    path: Path
    fault: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: {self.fault}; fix: {self.fix}"


def ensure_private_dir(path: Path) -> None:
    """Make ``path`` a directory that only we can enter: mode 0700, owned by us, not a symbolic link.

    Parents that are missing are created with mode 0700; parents that exist are left alone. A directory of ours that
    others may read is tightened; one that others may *write* is refused, because what lies in it may be planted.

    Raises `StateDirUnsafe`, or `OSError` as the system gives it. Safe to call again and from several processes at once.
    """
    for ancestor in (*reversed(path.parents), path):
        with contextlib.suppress(FileExistsError):
            if not os.path.lexists(ancestor):
                ancestor.mkdir(mode=0o700)
    if path.is_symlink():
        raise StateDirUnsafe(path, "is a symbolic link", f"name the directory itself: {path.resolve()}")
    # Checks and change go through one descriptor, so that nothing can be swapped in between.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError as error:
        raise StateDirUnsafe(path, "is not a directory", f"mv '{path}' '{path}.old'") from error
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid():
            raise StateDirUnsafe(path, f"belongs to user id {found.st_uid}", f"sudo chown -R $USER '{path}'")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StateDirUnsafe(path, "can be written by others", f"look through it, then: chmod 700 '{path}'")
        if stat.S_IMODE(found.st_mode) != 0o700:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)


def fsync_dir(path: Path) -> None:
    """Make the names in a directory durable (a rename is not until its directory is on the disk)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_private_file(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``, mode 0600, durable when this returns.

    The directory must exist (`ensure_private_dir`). Raises `OSError`; then the old content is still there. A symbolic
    link at ``path`` is replaced, not followed. One disk flush for the file and one for the directory.
    """
    _sweep_temporaries(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(6).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.fchmod(fd, 0o600)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)  # noqa: PTH105 - tests fail each system call of a save by its name in os
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_dir(path.parent)


def read_private_file(path: Path, *, limit: int = MAX_PRIVATE_FILE_BYTES) -> bytes:
    """The content of a file of ours. Its mode is tightened to 0600 where others could read it.

    Raises `FileNotFoundError` only where nothing is there: absent is not unreadable. Every other fault is another
    `OSError` or `StateDirUnsafe` (a symbolic link, another owner, writable by others, over ``limit`` bytes).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        if path.is_symlink():
            raise StateDirUnsafe(path, "is a symbolic link", f"mv '{path.resolve()}' '{path}'") from None
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise StateDirUnsafe(path, "is not a regular file", f"mv '{path}' '{path}.old'")
        if found.st_uid != os.geteuid():
            raise StateDirUnsafe(path, f"belongs to user id {found.st_uid}", f"sudo chown $USER '{path}'")
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise StateDirUnsafe(path, "can be written by others", f"replace it, or check it, then: chmod 600 '{path}'")
        if found.st_mode & 0o177:
            os.fchmod(fd, 0o600)
        if found.st_size > limit:
            raise StateDirUnsafe(path, f"is over {limit} bytes", f"mv '{path}' '{path}.old'")
        chunks: list[bytes] = []
        left = limit + 1
        while left > 0 and (chunk := os.read(fd, min(left, 65536))):
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks)[:limit]
    finally:
        os.close(fd)


def _sweep_temporaries(path: Path) -> None:
    """Remove what a killed process left behind. Young ones may belong to a process that is writing right now."""
    horizon = time.time() - _STALE_TEMPORARY_SECONDS
    with contextlib.suppress(OSError):
        for leftover in path.parent.glob(f".{path.name}.*.tmp"):
            with contextlib.suppress(OSError):
                if leftover.lstat().st_mtime < horizon:
                    leftover.unlink()
