"""The database file: opened, checked, created, and put back from a backup when it is damaged.

Owns the rule "absent is not unreadable" (STATE-1): only where no file and no backup with a pairing is there does a
gateway start with nothing. A damaged file is copied to ``quarantine/`` and the newest good backup takes its place;
without one, opening fails with the command that a person runs. It must not know jobs or tasks. Synchronous; runs on the
store's thread.

Theory of operation. A new database is built under another name and renamed when it is whole, so a file of zero bytes is
always damage, never a beginning. A restore first puts the backup under ``gateway.db.restored`` (flushed), then drops
the old journal, then renames. A stale journal next to a restored database would be played into it; and if the process
dies in between, the next start finds the ``.restored`` file and carries on from there. Nothing but this module removes
a database.

Invariants: before a database file is replaced, a copy of it is in quarantine and the replacement is on the disk, whole.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

import attrs

from openclaw_gateway.ops.statedir import ensure_private_dir, fsync_dir
from openclaw_gateway.store import backups
from openclaw_gateway.store.errors import StoreCorrupt, StoreTooNew, StoreUnavailable, primary_code
from openclaw_gateway.store.migrations import MIGRATIONS, holds_something, migrate, version_of
from openclaw_gateway.value import Value

__all__ = ["BUSY_STEP_MS", "DatabaseFiles", "Recovery", "connect", "open_database", "open_in_memory"]

# How long SQLite itself waits for a lock; the store repeats it (up to 5 s), so that closing never has to wait longer.
BUSY_STEP_MS: Final = 250
DAILY_MS: Final = 24 * 3600 * 1000
_JOURNAL_LIMIT_BYTES: Final = 8 * 1024 * 1024
_DAMAGED_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@attrs.frozen(eq=False, repr=False)
class DatabaseFiles(Value):
    """Where everything lies under one state directory."""

    state_dir: Path

    @property
    def database(self) -> Path:
        return self.state_dir / "gateway.db"

    @property
    def journal(self) -> tuple[Path, Path]:
        return self.state_dir / "gateway.db-wal", self.state_dir / "gateway.db-shm"

    @property
    def restored(self) -> Path:
        return self.state_dir / "gateway.db.restored"

    @property
    def unborn(self) -> Path:
        return self.state_dir / "gateway.db.new"

    @property
    def backups(self) -> Path:
        return self.state_dir / "backups"

    @property
    def quarantine(self) -> Path:
        return self.state_dir / "quarantine"


@attrs.frozen(eq=False, repr=False)
class Recovery(Value):
    """What was done at opening to have a good database: for the log, the status page and the doctor."""

    reason: str
    restored_from: Path
    backup_taken_at_ms: int
    quarantine: Path | None


class _Damaged(Exception):
    """The file is there and is not a good database.

    Keeps the connection that found it open: closing it plays the journal into the file and removes it, and what goes
    into quarantine must be what was found.
    """

    def __init__(self, fault: str, db: sqlite3.Connection | None = None) -> None:
        super().__init__(fault)
        self._db = db

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()


def open_in_memory() -> sqlite3.Connection:
    """A private database that dies with its connection."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=True)
    db.execute("PRAGMA foreign_keys = ON")
    migrate(db)
    return db


def open_database(files: DatabaseFiles, now_ms: int) -> tuple[sqlite3.Connection, Recovery | None]:
    """Open what is there, heal what is damaged, create only where nothing was; then bring it to the newest format.

    Raises `StoreCorrupt`, `StoreTooNew`, or `sqlite3.Error` / `OSError` where the disk does not let us (nothing is
    touched then). A second process must not do this at the same time: the caller holds the instance lock.
    """
    ensure_private_dir(files.state_dir)
    _finish_restore(files)
    recovery = None
    try:
        if not _is_there(files.database):
            recovery = _create_or_restore(files, now_ms)
        db = connect(files)
    except _Damaged as damage:
        try:
            recovery = _heal(files, damage, now_ms)
        finally:
            damage.close()
        db = connect(files, heal=False)
    try:
        migrate(db, lambda _version: backups.take(db, files.backups, "migration", now_ms))
    except BaseException:
        db.close()
        raise
    return db, recovery


def take_daily_backup(db: sqlite3.Connection, files: DatabaseFiles, now_ms: int) -> None:
    """One good generation a day, as long as there is something to lose."""
    daily = [backup for backup in backups.list_backups(files.backups) if backup.kind == "daily"]
    # A backup from the future (a clock that was set back) does not count, or none would be taken for long.
    recent = any(now_ms - DAILY_MS < backup.taken_at_ms <= now_ms for backup in daily)
    if not recent and holds_something(db):
        backups.take(db, files.backups, "daily", now_ms)


def connect(files: DatabaseFiles, *, heal: bool = True) -> sqlite3.Connection:
    """Open and check the file that is there; never creates one.

    Raises `_Damaged` for `open_database`; with ``heal=False`` (the file went bad while the gateway ran) `StoreCorrupt`:
    the views in memory are newer than any backup then, so putting one back is left to the next start.
    """
    try:
        return _connect(files)
    except _Damaged as damage:
        if heal:
            raise
        damage.close()
        fix = "restart the gateway: it restores the newest good backup"
        raise StoreCorrupt(files.database, str(damage), fix) from None


def _connect(files: DatabaseFiles) -> sqlite3.Connection:
    if files.database.lstat().st_size == 0:
        raise _Damaged("the file is empty")
    for path in (files.database, *files.journal):
        with contextlib.suppress(FileNotFoundError):
            path.chmod(0o600, follow_symlinks=False) if os.chmod in os.supports_follow_symlinks else path.chmod(0o600)
    db = sqlite3.connect(
        f"{files.database.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=BUSY_STEP_MS / 1000
    )
    try:
        _recognise(db, files.database)
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",  # NORMAL may lose the newest transactions at a power cut
            "fullfsync = ON",  # macOS: fsync alone does not reach the platter
            "foreign_keys = ON",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            f"journal_size_limit = {_JOURNAL_LIMIT_BYTES}",
        ):
            db.execute(f"PRAGMA {pragma}")
    except _Damaged:
        raise
    except sqlite3.DatabaseError as error:
        if primary_code(error) in _DAMAGED_CODES:
            raise _Damaged(str(error), db) from error
        db.close()
        raise
    except BaseException:
        db.close()
        raise
    return db


def _recognise(db: sqlite3.Connection, path: Path) -> None:
    fault, found = backups.check(db), version_of(db)
    if fault is not None or found == 0:
        raise _Damaged(fault or "it has no tables", db)
    if found > len(MIGRATIONS):
        raise StoreTooNew(path, found, len(MIGRATIONS))


def _is_there(path: Path) -> bool:
    """False only if the system says so; any other fault is raised (absent is not unreadable)."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _create_or_restore(files: DatabaseFiles, now_ms: int) -> Recovery | None:
    good = backups.newest_good(files.backups)
    left_behind = [path for path in files.journal if _is_there(path)]
    place = backups.quarantine(left_behind, files.quarantine, now_ms) if left_behind else None
    if good is not None:
        _restore(files, good)
        return Recovery("the database file was missing", good.path, good.taken_at_ms, place)
    for path in left_behind:
        path.unlink(missing_ok=True)
    _create(files)
    return None


def _create(files: DatabaseFiles) -> None:
    for leftover in (files.unborn, files.unborn.with_name(files.unborn.name + "-journal")):
        leftover.unlink(missing_ok=True)
    os.close(os.open(files.unborn, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(f"{files.unborn.as_uri()}?mode=rw", uri=True, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = FULL")
        migrate(db)
    finally:
        db.close()
    os.replace(files.unborn, files.database)  # noqa: PTH105 - tests fail each system call by its name in os
    fsync_dir(files.state_dir)


def _heal(files: DatabaseFiles, damage: _Damaged, now_ms: int) -> Recovery:
    good = backups.newest_good(files.backups)
    if good is None:
        raise StoreCorrupt(
            files.database,
            f"{damage}; there is no good backup in {files.backups}",
            f"mv '{files.database}' '{files.database}.damaged' and start again (every device has to be paired anew)",
        )
    place = backups.quarantine([files.database, *files.journal], files.quarantine, now_ms)
    damage.close()
    _restore(files, good)
    return Recovery(str(damage), good.path, good.taken_at_ms, place)


def _restore(files: DatabaseFiles, good: backups.Backup) -> None:
    try:
        backups.copy_private(good.path, files.restored)
    except FileNotFoundError as error:
        raise StoreUnavailable("the backup went away while it was being restored") from error
    _finish_restore(files)


def _finish_restore(files: DatabaseFiles) -> None:
    if not _is_there(files.restored):
        return
    for path in files.journal:
        path.unlink(missing_ok=True)
    fsync_dir(files.state_dir)
    os.replace(files.restored, files.database)  # noqa: PTH105 - as above
    fsync_dir(files.state_dir)
