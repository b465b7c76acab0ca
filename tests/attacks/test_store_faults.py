"""V60: a store that fails at the moment of admission. The faults are made in the file itself."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
import trio
import trio.testing

from openclaw_gateway import Gateway

from .attacker import TOKEN, Attacker, Device, Outcome, legit_client_works, open_victim, remote_door


@pytest.fixture
def state(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


async def _pair(state: Path, device: Device) -> str:
    async with open_victim(state_dir=state) as gateway, await Attacker.at(gateway.port) as client:
        outcome = await client.connect(token=TOKEN, device=device, scopes=["operator.read"])
        token: str = outcome.hello["auth"]["deviceToken"]
        return token


def _spoil(state: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(state / "gateway.db", isolation_level=None)) as db:
        assert db.execute(statement).rowcount != 0


def _assert_refused(outcome: Outcome) -> None:
    assert not outcome.admitted
    assert outcome.error is not None
    assert (outcome.error["code"], outcome.error["retryable"]) == ("UNAVAILABLE", True), outcome


SPOILT = {
    "a row that is no JSON": "UPDATE device_roles SET scopes = '{'",
    "a row of another shape": "UPDATE device_roles SET scopes = '{\"operator.admin\": 1}'",
    "a table that is gone": "DROP TABLE pending_requests",
}


@pytest.mark.parametrize("fault", SPOILT)
async def test_v60_records_that_cannot_be_read_admit_nobody(fault: str, state: Path) -> None:
    known = Device()
    device_token = await _pair(state, known)
    _spoil(state, SPOILT[fault])
    async with open_victim(state_dir=state) as gateway, remote_door(gateway) as far:
        for port in (gateway.port, far):
            for claims in (
                {"token": TOKEN, "device": known},
                {"deviceToken": device_token, "device": known},
                {"token": TOKEN, "device": Device()},
                {"token": TOKEN, "device": Device(), "role": "node", "mode": "node", "client": "node-host"},
            ):
                async with await Attacker.at(port) as client:
                    _assert_refused(await client.connect(**{"scopes": [], **claims}))
            async with await Attacker.at(port) as client:  # it might be the device's own token: nobody can tell now
                _assert_refused(await client.connect(token="wrong", device=known))
            async with await Attacker.at(port) as client:
                assert not (await client.connect(token="wrong")).admitted
        assert len(gateway.gatekeeper.ledger) > 0
        assert [s.device_id for s in gateway._core.registry if s.device_id] == []


@pytest.mark.expect_error_log("pairing state cannot be written", "audit")
@pytest.mark.parametrize("fault", ["removed", "replaced", "damaged"])
async def test_v60_a_store_that_fails_while_it_runs_admits_no_new_device(fault: str, state: Path) -> None:
    async with open_victim(state_dir=state) as gateway, remote_door(gateway) as far:
        await legit_client_works(gateway.port)
        await trio.testing.wait_all_tasks_blocked()
        await gateway._book._store.run(lambda db: None)  # what the start gave the store to do is done
        database = state / "gateway.db"
        if fault == "removed":
            database.unlink()
        elif fault == "replaced":
            database.rename(state / "away.db")
            database.write_bytes((state / "away.db").read_bytes())
        else:
            size = database.stat().st_size
            for path in (database, state / "gateway.db-wal"):
                if path.exists():
                    with path.open("r+b") as file:
                        file.write(b"\xff" * max(size, 4096))
        device = Device()
        for port in (gateway.port, far):
            for claims in ({}, {"role": "node", "mode": "node", "client": "node-host"}):
                async with await Attacker.at(port) as client:
                    _assert_refused(await client.connect(token=TOKEN, device=device, scopes=[], **claims))
        assert [s.device_id for s in gateway._core.registry if s.device_id] == []
        with contextlib.suppress(Exception):
            assert gateway._book.paired() == ()


@pytest.mark.expect_error_log("pairing state cannot be written")
async def test_v60_a_full_disk_at_admission_admits_nobody(victim: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await victim._book._store.run(lambda db: db.execute("PRAGMA max_page_count = 1").fetchone())

    async def ask() -> Outcome:
        async with await Attacker.at(victim.port) as client:
            return await client.connect(token=TOKEN, device=Device(), scopes=[])

    outcomes = [await ask() for _ in range(200)]
    refused = [outcome for outcome in outcomes if not outcome.admitted]
    assert refused
    for outcome in refused:
        _assert_refused(outcome)
    admitted = {outcome.hello["auth"]["deviceToken"] for outcome in outcomes if outcome.admitted}
    assert len(victim._book.paired()) == len(admitted)


async def test_v60_a_store_that_never_answers_admits_nobody(state: Path) -> None:
    """Another process sits on the lock: whoever waits for a pairing is not let in meanwhile."""
    async with open_victim(state_dir=state) as gateway:
        with contextlib.closing(sqlite3.connect(state / "gateway.db", isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            async with await Attacker.at(gateway.port) as client:
                with trio.move_on_after(0.5) as waited:
                    await client.connect(token=TOKEN, device=Device(), scopes=[])
                assert waited.cancelled_caught
                assert len(gateway._core.registry) == 0
                assert gateway._book.paired() == ()
            db.execute("ROLLBACK")
        await legit_client_works(gateway.port)
