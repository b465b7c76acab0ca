"""The work of the store's thread: batches of jobs in one transaction, backups when due, faults told apart.

Owns the one connection that writes. It must not know tasks or Trio: `store.writer` feeds it from a thread (or, for a
database in memory, inline). Not safe to share between threads, except `hurry` and `interrupt`.

Invariants: a job's result is handed out only after the COMMIT that holds its changes; a job that fails takes no other
job with it; after any fault the next batch starts from a sound connection or fails with a `StoreError`.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from openclaw_gateway.ops.statedir import StateDirUnsafe
from openclaw_gateway.store import backups
from openclaw_gateway.store.database import (
    DatabaseFiles,
    Recovery,
    connect,
    open_database,
    open_in_memory,
    take_daily_backup,
)
from openclaw_gateway.store.errors import STILL_GOOD, StoreCorrupt, StoreUnavailable, primary_code, translate

__all__ = ["Engine", "Job"]

BUSY_SECONDS: Final = 5.0
BACKUP_DELAY_SECONDS: Final = 2.0
BACKUP_INTERVAL_SECONDS: Final = 60.0


@attrs.define(eq=False, slots=True)
class Job:
    """One piece of work and what became of it. ``value`` counts only while ``error`` is None."""

    work: Callable[[sqlite3.Connection], Any]
    precious: bool = False
    revokes: bool = False
    value: Any = None
    error: Exception | None = None


class Engine:
    """See the module. ``files`` None: a database in memory, which is never dropped and never backed up."""

    def __init__(self, files: DatabaseFiles | None) -> None:
        self.files = files
        self.recovery: Recovery | None = None
        self.backup_fault: str | None = None
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._patience_ends = math.inf
        self._backup_due: float | None = None
        self._last_backup = -math.inf
        self._renew = False

    def open(self) -> None:
        """Open the database, healing it if need be. Raises a `StoreError` or `StateDirUnsafe`."""
        if self.files is None:
            self._db = open_in_memory()
            return
        now_ms = _now_ms()
        try:
            self._db, self.recovery = open_database(self.files, now_ms)
            self._identity = self._identify(self.files)
        except StateDirUnsafe:
            raise
        except Exception as error:
            raise translate(error, self.files.database) from error
        try:
            if self._db.execute("SELECT 1 FROM backup_duty").fetchone():
                # The process died between a revocation and the renewal of its backups.
                self._renew, self._backup_due = True, time.monotonic()
            else:
                take_daily_backup(self._db, self.files, now_ms)
        except (sqlite3.Error, OSError, StateDirUnsafe) as error:
            self.backup_fault = str(error)

    def hurry(self, patience_ends: float) -> None:
        """From any thread: do not wait for locks beyond this moment of `time.monotonic`."""
        self._patience_ends = patience_ends

    def interrupt(self) -> None:
        """From any thread: break off the statement that is running."""
        db = self._db
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.interrupt()

    def process(self, jobs: Sequence[Job]) -> None:
        """Run the jobs and commit them together. Never raises: each job has its value or its error afterwards."""
        try:
            self._together(self._connection(), jobs)
        except Exception as error:  # noqa: BLE001 - one barrier: whatever it was, every caller learns of it
            self._fail(jobs, error)
        if self.files is None:
            return
        now = time.monotonic()
        if any(job.revokes and job.error is None for job in jobs):
            self._renew, self._backup_due = True, now
        elif self._backup_due is None and any(job.precious and job.error is None for job in jobs):
            self._backup_due = max(now + BACKUP_DELAY_SECONDS, self._last_backup + BACKUP_INTERVAL_SECONDS)

    def seconds_until_backup(self) -> float | None:
        """How long the thread may sleep; None: as long as it likes."""
        return None if self._backup_due is None else max(0.0, self._backup_due - time.monotonic())

    def take_due_backup(self) -> None:
        """Back up what was precious. A fault is kept in `backup_fault` and tried again a minute later."""
        if self._backup_due is None or self.files is None:
            return
        self._last_backup = time.monotonic()
        try:
            db = self._connection()
            if self._renew:
                backups.renew(db, self.files.backups, _now_ms())
                db.execute("DELETE FROM backup_duty")
            else:
                backups.take(db, self.files.backups, "latest", _now_ms())
        except Exception as error:  # noqa: BLE001 - a backup that fails must not end the thread
            self.backup_fault = str(translate(error, self.files.database))
            self._backup_due = self._last_backup + BACKUP_INTERVAL_SECONDS
        else:
            self.backup_fault = None
            self._backup_due = None
            self._renew = False

    def close(self) -> None:
        if self._backup_due is not None and time.monotonic() < self._patience_ends:
            self.take_due_backup()
        self._drop()

    # --- inside

    def _together(self, db: sqlite3.Connection, jobs: Sequence[Job]) -> None:
        self._begin(db)
        try:
            for job in jobs:
                db.execute("SAVEPOINT job")
                try:
                    job.value = self._run(db, job)
                except Exception as error:
                    job.error = translate(error, self._path())
                    if not db.in_transaction:
                        # SQLite gave up the whole transaction (disk full, say): the others must not suffer for this
                        # one.
                        self._each_alone([other for other in jobs if other is not job])
                        return
                    if self._is_unsound(error):
                        raise
                    db.execute("ROLLBACK TO job")
                db.execute("RELEASE job")
            db.execute("COMMIT")
        except BaseException:
            self._roll_back(db)
            raise

    def _each_alone(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.value, job.error = None, None
            try:
                db = self._connection()
                self._begin(db)
                try:
                    job.value = self._run(db, job)
                    db.execute("COMMIT")
                except BaseException:
                    self._roll_back(db)
                    raise
            except Exception as error:  # noqa: BLE001 - handed to the job's caller
                job.error = translate(error, self._path())
                self._drop_if_unsound(error)

    def _run(self, db: sqlite3.Connection, job: Job) -> Any:
        value = job.work(db)
        if job.revokes:
            db.execute("INSERT OR IGNORE INTO backup_duty VALUES (?)", (_now_ms(),))
        return value

    def _begin(self, db: sqlite3.Connection) -> None:
        give_up = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                db.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                locked = primary_code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
                if not locked or time.monotonic() >= min(give_up, self._patience_ends):
                    raise
            else:
                return

    def _roll_back(self, db: sqlite3.Connection) -> None:
        with contextlib.suppress(sqlite3.Error):
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        translated = translate(error, self._path())
        for job in jobs:
            # A job that failed by itself keeps its own error; values of an uncommitted batch are void.
            if job.error is None:
                job.value, job.error = None, translated
        self._drop_if_unsound(error)

    def _is_unsound(self, error: Exception) -> bool:
        """True after a fault of the disk that the open connection may not have survived."""
        if self.files is None or not isinstance(error, sqlite3.Error):
            return False
        faulty = isinstance(translate(error), StoreUnavailable | StoreCorrupt)
        return faulty and primary_code(error) not in STILL_GOOD

    def _drop_if_unsound(self, error: Exception) -> None:
        """The next batch opens the file anew."""
        if self._is_unsound(error):
            self._drop()

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def _connection(self) -> sqlite3.Connection:
        if self.files is None:
            if self._db is None:
                raise StoreUnavailable("the store is closed")
            return self._db
        if self._db is None:
            self._db = connect(self.files, heal=False)
            self._identity = self._identify(self.files)
        else:
            # SQLite would go on writing into a file without a name, and what it acknowledges would be lost.
            try:
                same = self._identify(self.files) == self._identity
            except FileNotFoundError:
                same = False
            if not same:
                raise StoreCorrupt(
                    self.files.database, "the file was removed or replaced while the gateway ran", "restart the gateway"
                )
        return self._db

    def _identify(self, files: DatabaseFiles) -> tuple[int, int]:
        found = files.database.lstat()
        return found.st_dev, found.st_ino

    def _path(self) -> Any:
        return None if self.files is None else self.files.database


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
