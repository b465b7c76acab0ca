"""STATE-1: absent is not unreadable; damage is quarantined, the newest good backup restored; never silently empty."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway.ops.statedir import StateDirUnsafe
from openclaw_gateway.store import StoreCorrupt, StoreError, StoreTooNew, StoreUnavailable, open_store
from openclaw_gateway.store.backups import KEEP, KEEP_QUARANTINE, list_backups, quarantine, take
from openclaw_gateway.store.database import DAILY_MS, DatabaseFiles, connect, open_database, take_daily_backup
from openclaw_gateway.store.migrations import MIGRATIONS, migrate, version_of
from tests.store.rows import names, pair

Modes = Callable[[Path], dict[str, int]]
SYSCALLS = ("open", "write", "fsync", "replace", "unlink", "read", "lstat", "close")


async def paired_store(state_dir: Path, *devices: str) -> None:
    """A store that holds these devices and has a backup of them (taken at closing)."""
    async with open_store(state_dir) as store:
        for device in devices:
            await store.run(partial(pair, name=device), precious=True)


def damage(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * (len(content) - 100))


def held_by_backups(state_dir: Path) -> list[list[str]]:
    held = []
    for backup in list_backups(state_dir / "backups"):
        copy = sqlite3.connect(backup.path)
        held.append(names(copy))
        copy.close()
    return held


async def test_state1_a_fresh_directory_starts_empty(state_dir: Path, modes: Modes) -> None:
    async with open_store(state_dir) as store:
        assert await store.run(names) == []
        assert store.recovery is None
        assert modes(state_dir) == {}  # with -wal and -shm there


async def test_a_relative_path_with_odd_characters_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    odd = Path("st ate%41?#'ü")
    await paired_store(odd, "a")
    damage(odd / "gateway.db")
    async with open_store(odd) as store:
        assert await store.run(names) == ["a"]


@pytest.mark.parametrize("kind", ["garbage", "empty", "truncated", "not-ours"])
async def test_state1_damage_is_quarantined_and_the_backup_restored(state_dir: Path, modes: Modes, kind: str) -> None:
    await paired_store(state_dir, "a", "b")
    database = state_dir / "gateway.db"
    if kind == "garbage":
        damage(database)
    elif kind == "empty":
        database.write_bytes(b"")
    elif kind == "truncated":
        os.truncate(database, database.stat().st_size // 2)
    else:
        database.unlink()
        other = sqlite3.connect(database)
        other.execute("CREATE TABLE foreign_thing (x)")
        other.close()
    damaged = database.read_bytes()
    async with open_store(state_dir) as store:
        assert await store.run(names) == ["a", "b"]
        assert store.recovery is not None
        assert store.recovery.quarantine is not None
        assert (store.recovery.quarantine / "gateway.db").read_bytes() == damaged
        assert modes(state_dir) == {}
    async with open_store(state_dir) as store:
        assert store.recovery is None


async def test_state1_a_lost_file_is_restored_too(state_dir: Path) -> None:
    await paired_store(state_dir, "a")
    (state_dir / "gateway.db").unlink()
    async with open_store(state_dir) as store:
        assert await store.run(names) == ["a"]
        assert store.recovery is not None
        assert "missing" in store.recovery.reason


async def test_state1_without_a_good_backup_nothing_is_touched_and_the_fix_is_told(state_dir: Path) -> None:
    await paired_store(state_dir, "a")
    for backup in list_backups(state_dir / "backups"):
        damage(backup.path)
    damage(state_dir / "gateway.db")
    before = (state_dir / "gateway.db").read_bytes()
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match=r"mv '.*gateway\.db'") as caught:
            async with open_store(state_dir):
                pass
    assert (state_dir / "gateway.db").read_bytes() == before
    # The fix works as it is written.
    words = str(caught.value.fix).split("'")
    shutil.move(words[1], words[3])
    async with open_store(state_dir) as store:
        assert await store.run(names) == []


async def test_state1_a_backup_without_pairings_is_not_put_in_place_of_damage(state_dir: Path) -> None:
    async with open_store(state_dir) as store:
        await store.run(lambda db: None, precious=True)
    assert list_backups(state_dir / "backups")
    damage(state_dir / "gateway.db")
    with pytest.raises(StoreCorrupt):
        async with open_store(state_dir):
            pass


async def test_the_newest_backup_that_is_good_wins(state_dir: Path) -> None:
    await paired_store(state_dir, "a")
    async with open_store(state_dir) as store:  # takes the daily backup, holding a
        await store.run(lambda db: pair(db, "b"), precious=True)
    latest = next(backup for backup in list_backups(state_dir / "backups") if backup.kind == "latest")
    damage(latest.path)
    damage(state_dir / "gateway.db")
    async with open_store(state_dir) as store:
        assert await store.run(names) == ["a"]
        assert store.recovery is not None
        assert "daily" in store.recovery.restored_from.name


async def test_a_stale_journal_is_not_played_into_a_restored_database(state_dir: Path) -> None:
    await paired_store(state_dir, "a")
    files = DatabaseFiles(state_dir)
    db = connect(files)
    pair(db, "unlucky")
    shutil.copy(files.journal[0], state_dir / "saved-wal")
    db.close()
    stale = (state_dir / "saved-wal").read_bytes()
    assert stale
    damage(files.database)
    shutil.copy(state_dir / "saved-wal", files.journal[0])
    async with open_store(state_dir) as store:
        assert await store.run(names) == ["a"]
        assert await store.run(lambda db: db.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
        assert store.recovery is not None
        assert store.recovery.quarantine is not None
        assert (store.recovery.quarantine / "gateway.db-wal").read_bytes() == stale
    # The process died when the backup lay ready and the old journal was still there:
    backup = list_backups(files.backups)[0]
    shutil.copy(backup.path, files.restored)
    shutil.copy(state_dir / "saved-wal", files.journal[0])
    async with open_store(state_dir) as store:
        assert await store.run(names) == ["a"]
        assert await store.run(lambda db: db.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
    assert not files.restored.exists()


async def test_v26_a_restore_does_not_bring_back_what_was_revoked(state_dir: Path) -> None:
    await paired_store(state_dir, "kept", "revoked")
    async with open_store(state_dir) as store:  # which takes the daily backup, with both
        assert {backup.kind for backup in list_backups(state_dir / "backups")} == {"daily", "latest"}
        await store.run(lambda db: db.execute("DELETE FROM devices WHERE device_id = 'revoked'"), revokes=True)
    assert held_by_backups(state_dir) == [["kept"]]
    damage(state_dir / "gateway.db")
    async with open_store(state_dir) as store:
        assert await store.run(names) == ["kept"]


async def test_v26_backups_are_renewed_even_if_the_process_dies_right_after_the_revocation(state_dir: Path) -> None:
    await paired_store(state_dir, "kept", "revoked")
    db = connect(DatabaseFiles(state_dir))  # what a job with revokes=True commits, and then nothing more
    db.execute("BEGIN")
    db.execute("DELETE FROM devices WHERE device_id = 'revoked'")
    db.execute("INSERT INTO backup_duty VALUES (1)")
    db.execute("COMMIT")
    db.close()
    async with open_store(state_dir):
        pass
    assert held_by_backups(state_dir) == [["kept"]]
    damage(state_dir / "gateway.db")
    async with open_store(state_dir) as store:
        assert await store.run(names) == ["kept"]


async def test_a_database_from_the_future_is_refused_and_kept(state_dir: Path) -> None:
    await paired_store(state_dir, "a")
    db = connect(DatabaseFiles(state_dir))
    db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(StoreTooNew, match="format 999"):
        async with open_store(state_dir):
            pass
    assert not (state_dir / "quarantine").exists()


def test_migrations_are_all_or_nothing_with_a_backup_before_each(state_dir: Path, modes: Modes) -> None:
    files = DatabaseFiles(state_dir)
    db, _ = open_database(files, 1)
    pair(db, "a")
    versions = []

    def before(version: int) -> None:
        versions.append(version)
        take(db, files.backups, "migration", 1000 + version)

    good = ("CREATE TABLE more (x INTEGER) STRICT",)
    bad = ("CREATE TABLE half (x INTEGER) STRICT", "CREATE TABLE nonsense (")
    with pytest.raises(sqlite3.OperationalError):
        migrate(db, before, (*MIGRATIONS, good, bad))
    assert versions == [len(MIGRATIONS), len(MIGRATIONS) + 1]
    assert version_of(db) == len(MIGRATIONS) + 1  # the good step stays
    assert db.execute("SELECT name FROM sqlite_schema WHERE name IN ('more', 'half')").fetchall() == [("more",)]
    assert [backup.version for backup in list_backups(files.backups)] == versions[::-1]
    db.close()
    assert modes(state_dir) == {}


def test_backups_and_quarantine_are_capped(state_dir: Path) -> None:
    files = DatabaseFiles(state_dir)
    db, _ = open_database(files, 1)
    pair(db, "a")
    for day in range(10):
        for hour in range(3):
            take_daily_backup(db, files, (day * 24 + hour) * 3600 * 1000 + DAILY_MS)
        take(db, files.backups, "latest", day)
        take(db, files.backups, "migration", day)
        quarantine([files.database], files.quarantine, day)
    kinds = [backup.kind for backup in list_backups(files.backups)]
    assert {kind: kinds.count(kind) for kind in KEEP} == KEEP
    assert len(list(files.backups.iterdir())) == sum(KEEP.values())
    assert len(list(files.quarantine.iterdir())) == KEEP_QUARANTINE
    db.close()


def test_without_pairings_no_daily_backup_is_taken(state_dir: Path) -> None:
    files = DatabaseFiles(state_dir)
    db, _ = open_database(files, 1)
    take_daily_backup(db, files, DAILY_MS)
    assert list_backups(files.backups) == []
    db.close()


async def test_a_state_directory_that_others_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(StateDirUnsafe):
        async with open_store(tmp_path / "open"):
            pass


# --- faults ----------------------------------------------------------------------------------------------------------


class Faults:
    """Lets the n-th of some system calls fail, once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, turn: int, code: int) -> None:
        self.seen = 0
        self.fired = False
        for name in SYSCALLS:
            self._wrap(monkeypatch, name, getattr(os, name), turn, code)

    def _wrap(self, monkeypatch: pytest.MonkeyPatch, name: str, real: Any, turn: int, code: int) -> None:
        def faulty(*args: Any, **kwargs: Any) -> Any:
            self.seen += 1
            if self.seen == turn + 1:
                self.fired = True
                if name == "close":
                    real(*args, **kwargs)
                raise OSError(code, "injected")
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, faulty)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("step", ["restore", "backup", "renew"])
def test_state1_each_system_call_may_fail_and_pairings_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    turns = 0
    for turn in range(200):
        state_dir = tmp_path / str(turn)
        files = DatabaseFiles(state_dir)
        db, _ = open_database(files, 1)
        pair(db, "a")
        take(db, files.backups, "latest", 2)
        if step == "restore":
            db.close()
            damage(files.database)
        with monkeypatch.context() as patch:
            faults = Faults(patch, turn, code)
            with suppress(OSError, sqlite3.Error, StoreError, StateDirUnsafe):
                if step == "restore":
                    db, _ = open_database(files, 3)
                elif step == "backup":
                    take_daily_backup(db, files, 10 * DAILY_MS)
                else:
                    take(db, files.backups, "latest", 4)
        db.close()
        again, _ = open_database(files, 5)
        assert names(again) == ["a"]
        again.close()
        # And what is kept as a backup is still good enough to start from.
        damage(files.database)
        again, recovery = open_database(files, 6)
        assert names(again) == ["a"]
        assert recovery is not None
        again.close()
        shutil.rmtree(state_dir)
        if not faults.fired:
            break
        turns += 1
    else:
        pytest.fail("the step never got through")
    assert turns >= 8


async def test_state1_each_write_of_sqlite_may_fail_and_acknowledged_pairings_survive(state_dir: Path) -> None:
    """The disk is full at every size in turn (RLIMIT_FSIZE makes the writes inside SQLite fail for real)."""
    await paired_store(state_dir, "first")
    acknowledged = ["first"]
    refused = 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with open_store(state_dir) as store:
        try:
            for page in range(48):
                resource.setrlimit(resource.RLIMIT_FSIZE, (page * 2048, hard))
                name = f"n{page:03}"
                try:
                    await store.run(partial(pair, name=name))
                    acknowledged.append(name)
                except StoreUnavailable:
                    refused += 1
                finally:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        # The thread has survived it all and writes again.
        await store.run(lambda db: pair(db, "zlast"))
        acknowledged.append("zlast")
        assert await store.run(names) == sorted(acknowledged)
    assert refused >= 3
    assert len(acknowledged) >= 3
    async with open_store(state_dir) as store:
        assert await store.run(names) == sorted(acknowledged)
        assert store.recovery is None


async def test_one_job_that_fills_the_disk_does_not_fail_its_neighbours(state_dir: Path) -> None:
    outcomes: dict[str, str] = {}
    async with open_store(state_dir) as store:
        await store.run(lambda db: db.execute("CREATE TABLE fat (x BLOB) STRICT"))
        pages = await store.run(lambda db: int(db.execute("PRAGMA page_count").fetchone()[0]))

        async def write(name: str, work: Callable[[sqlite3.Connection], object]) -> None:
            try:
                await store.run(work)
                outcomes[name] = "ok"
            except StoreUnavailable as error:
                outcomes[name] = error.reason

        await store.run(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall())
        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(write, name, partial(pair, name=name))
            nursery.start_soon(write, "fat", lambda db: db.execute("INSERT INTO fat VALUES (zeroblob(1000000))"))
        assert outcomes == {"a": "ok", "b": "ok", "c": "ok", "d": "ok", "fat": "the disk is full"}
        assert await store.run(names) == ["a", "b", "c", "d"]


async def test_a_lock_held_by_another_process_is_unavailable_and_then_over(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openclaw_gateway.store.engine.BUSY_SECONDS", 0.0)
    async with open_store(state_dir) as store:
        other = sqlite3.connect(state_dir / "gateway.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.run(lambda db: pair(db, "a"))
        other.execute("ROLLBACK")
        other.close()
        await store.run(lambda db: pair(db, "a"))
        assert await store.run(names) == ["a"]


async def test_a_file_that_vanishes_while_open_is_not_written_into_the_void(state_dir: Path) -> None:
    async with open_store(state_dir) as store:
        await store.run(lambda db: pair(db, "a"))
        (state_dir / "gateway.db").rename(state_dir / "aside")
        with pytest.raises(StoreCorrupt, match="removed or replaced"):
            await store.run(lambda db: pair(db, "lost"))
        (state_dir / "aside").rename(state_dir / "gateway.db")
        await store.run(lambda db: pair(db, "b"))
        assert await store.run(names) == ["a", "b"]


async def test_state2_damage_while_running_fails_jobs_as_corrupt_and_a_restart_heals(state_dir: Path) -> None:
    await paired_store(state_dir, *[f"{n:03}" for n in range(300)])
    database = state_dir / "gateway.db"
    async with open_store(state_dir) as store:
        with database.open("r+b") as file:  # in place: the same file, other bytes
            file.seek(0)
            file.write(b"\xff" * database.stat().st_size)
        for _ in range(3):
            with pytest.raises(StoreCorrupt):
                await store.run(lambda db: (db.execute("PRAGMA shrink_memory"), names(db)))
    async with open_store(state_dir) as store:
        assert len(await store.run(names)) == 300
        assert store.recovery is not None
