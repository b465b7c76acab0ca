"""Backups and quarantine: copies of the database beside it, few, whole and private.

Owns the folders ``backups/`` and ``quarantine/``: how a copy is taken (VACUUM INTO, checked, flushed, renamed), which
copies are kept, which is the newest good one, and where damaged files go before anything replaces them. It must not
know who asked, nor decide when. Runs on the store's thread; everything is synchronous.

Invariants: a file in ``backups/`` whose name does not start with a dot is a whole database that passed quick_check when
it was taken; of each kind at most `KEEP` are kept and a new one is in place before an old one goes; files 0600, folders
0700.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Final, Literal

import attrs

from openclaw_gateway.ops.statedir import ensure_private_dir, fsync_dir
from openclaw_gateway.store.migrations import APPLICATION_ID, MIGRATIONS, holds_something, version_of
from openclaw_gateway.value import Value

__all__ = ["KEEP", "KEEP_QUARANTINE", "Backup", "BackupKind", "check", "copy_private", "list_backups", "newest_good"]

BackupKind = Literal["latest", "daily", "migration"]
KEEP: Final[dict[BackupKind, int]] = {"latest": 1, "daily": 3, "migration": 3}
KEEP_QUARANTINE: Final = 3
_NAME: Final = re.compile(r"(latest|daily|migration)-(\d{14})-v(\d{1,6})\.db")
_CHUNK: Final = 256 * 1024


@attrs.frozen(eq=False, repr=False)
class Backup(Value):
    """One file of ``backups/``: when it was taken (Unix milliseconds) and the format it has."""

    path: Path
    kind: BackupKind
    taken_at_ms: int
    version: int


def list_backups(folder: Path) -> list[Backup]:
    """What is there by name, newest first. An absent folder is empty; an unreadable one is an `OSError`."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        if match := _NAME.fullmatch(name):
            kind: BackupKind = "latest" if match[1] == "latest" else "daily" if match[1] == "daily" else "migration"
            found.append(Backup(folder / name, kind, int(match[2]), int(match[3])))
    return sorted(found, key=lambda backup: (backup.taken_at_ms, backup.version), reverse=True)


def check(db: sqlite3.Connection) -> str | None:
    """What is wrong with a database, None if nothing. Faults of the disk come as `sqlite3.Error`."""
    # First whose it is: nothing is written into a file that is not ours, and looking at it closely may write.
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        return "it is not a database of this program"
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict is None or verdict[0] != "ok":
        return str(verdict[0]) if verdict else "quick_check gave no answer"
    return None


def newest_good(folder: Path) -> Backup | None:
    """The newest backup that passes the check, that we can read, and that holds a pairing.

    One without any pairing is left out: putting it in place of a damaged database would be starting empty in disguise.
    """
    for backup in list_backups(folder):
        with contextlib.suppress(sqlite3.Error, OSError):
            # immutable: the file is read as it lies, no journal or lock file is made next to it
            db = sqlite3.connect(f"{backup.path.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
            try:
                if check(db) is None and 0 < version_of(db) <= len(MIGRATIONS) and holds_something(db):
                    return backup
            finally:
                db.close()
    return None


def take(db: sqlite3.Connection, folder: Path, kind: BackupKind, now_ms: int) -> Backup:
    """Copy the open database into ``folder``. After a `sqlite3.Error` or `OSError` all older copies stay."""
    ensure_private_dir(folder)
    version = version_of(db)
    temporary = folder / ".taking.tmp"
    temporary.unlink(missing_ok=True)
    try:
        # VACUUM INTO takes an empty file as its target: made here so that it is private from the start.
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        db.execute("VACUUM INTO ?", (str(temporary),))
        copy = sqlite3.connect(f"{temporary.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
        try:
            if fault := check(copy):
                raise sqlite3.DatabaseError(fault)
        finally:
            copy.close()
        _fsync(temporary)
        backup = Backup(folder / f"{kind}-{now_ms:014d}-v{version}.db", kind, now_ms, version)
        os.replace(temporary, backup.path)  # noqa: PTH105 - tests fail each system call by its name in os
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    fsync_dir(folder)
    same_kind = [other for other in list_backups(folder) if other.kind == kind and other.path != backup.path]
    for old in same_kind[KEEP[kind] - 1 :]:
        with contextlib.suppress(OSError):
            old.path.unlink()
    return backup


def renew(db: sqlite3.Connection, folder: Path, now_ms: int) -> Backup:
    """Take a backup and drop every older one, of all kinds: none of them may bring a revoked authority back (V26).

    Raises `OSError` if an old one cannot be removed.
    """
    fresh = take(db, folder, "latest", now_ms)
    for old in list_backups(folder):
        if old.path != fresh.path:
            old.path.unlink(missing_ok=True)
    fsync_dir(folder)
    return fresh


def quarantine(damaged: list[Path], folder: Path, now_ms: int) -> Path:
    """Copy damaged files aside before anything replaces them. Raises `OSError`; then nothing was touched."""
    ensure_private_dir(folder)
    place = folder / f"{now_ms:014d}"
    ensure_private_dir(place)
    for path in damaged:
        with contextlib.suppress(FileNotFoundError):
            copy_private(path, place / path.name)
    fsync_dir(folder)
    for old in sorted(folder.iterdir(), reverse=True)[KEEP_QUARANTINE:]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def copy_private(source: Path, target: Path) -> None:
    """Copy a file of any size: 0600 from the start, flushed, and under its name only when whole."""
    temporary = target.with_name(f".{target.name}.tmp")
    temporary.unlink(missing_ok=True)
    inward = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        outward = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            while chunk := os.read(inward, _CHUNK):
                view = memoryview(chunk)
                while view:
                    view = view[os.write(outward, view) :]
            os.fsync(outward)
        finally:
            os.close(outward)
        os.replace(temporary, target)  # noqa: PTH105 - as above
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(inward)
    fsync_dir(target.parent)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
