"""The audit trail: what is recorded, that it is there when it must be, and that nobody changes it unseen (AUDIT-1)."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_gateway.ops import audit as audit_module
from openclaw_gateway.ops import auditrepeat
from openclaw_gateway.ops.audit import MAX_PENDING, Action, AuditTrail, audit_folder, open_audit, read_head
from openclaw_gateway.ops.auditchain import GENESIS, Head, check_line, seal
from openclaw_gateway.ops.auditfile import AuditFile, generations, opened, read_lines, stamp, tail_lines
from openclaw_gateway.ops.auditrepeat import Entry, Repeats
from openclaw_gateway.ops.auditrows import ACTIONS, FIELDS, compose
from openclaw_gateway.ops.auditwalk import Fault, Report, verify
from openclaw_gateway.ops.doctor import Finding, Patient
from openclaw_gateway.ops.doctor_audit import audit as doctor_audit
from openclaw_gateway.ops.doctor_audit import examine_trail
from openclaw_gateway.store import Store, StoreUnavailable, open_store
from tests.cli.program import ROOT

SECRET = "sk-live-0123456789abcdef0123456789abcdef"


def row(number: int = 0) -> dict[str, object]:
    return compose(Action.CONNECT, stamp(1_795_000_000 + number), {"outcome": "ok", "actor": f"token:{number}"})


def chain(count: int, head: Head | None = None) -> tuple[list[bytes], Head]:
    lines, head = [], head or Head()
    for number in range(count):
        line, head = seal(row(number), head)
        lines.append(line)
    return lines, head


def check(*files: Iterable[bytes], anchor: Head | None = None) -> Report:
    names = [f"audit.jsonl.{number}" for number in range(len(files) - 1, 0, -1)] + ["audit.jsonl"]
    return verify(zip(names, files, strict=True), anchor)


def fault(report: Report | None) -> Fault:
    assert report is not None
    assert report.fault is not None, report
    return report.fault


@asynccontextmanager
async def small_trail(state: Path, *, max_bytes: int = 4096, backups: int = 3) -> AsyncIterator[AuditTrail]:
    """A trail whose files are full after about ten rows."""
    async with open_store(state) as store:
        trail = AuditTrail(store, file=AuditFile(audit_folder(state), max_bytes=max_bytes, backups=backups))
        try:
            yield trail
        finally:
            await trail.aclose()


async def fill(state: Path, count: int) -> None:
    async with small_trail(state) as trail:
        for number in range(count):
            await trail.commit(Action.TOKEN_MINTED, actor=f"device:{number}", device="d" * 64)


def whole(state: Path) -> Report:
    report = examine_trail(state)
    assert report is not None
    assert report.fault is None, report.fault
    return report


# --- the chain, pure


def test_audit1_a_row_is_canonical_and_its_hash_can_be_computed_by_anybody() -> None:
    (first, second), _ = chain(2)
    body = json.loads(first)
    assert body["prev"] == GENESIS
    bare = first.rstrip(b"\n").replace(b',"hash":"' + body["hash"].encode() + b'"', b"")
    assert hashlib.sha256(bare).hexdigest() == body["hash"] == json.loads(second)["prev"]
    assert b" " not in first.replace(b"token:0", b"")


def test_audit1_a_whole_chain_over_two_files_is_whole() -> None:
    older, head = chain(5)
    newer, head = chain(5, head)
    report = check(older, newer, anchor=head)
    assert (report.rows, report.first_seq, report.head, report.fault) == (10, 1, head, None)


@settings(max_examples=400)
@given(st.data())
def test_audit1_law_no_byte_can_be_changed_unseen(data: st.DataObject) -> None:
    lines, head = chain(6)
    number = data.draw(st.integers(0, 5))
    at = data.draw(st.integers(0, len(lines[number]) - 2))
    before = lines[number][at]
    after = data.draw(st.integers(0, 255).filter(lambda byte: byte != before))
    lines[number] = lines[number][:at] + bytes([after]) + lines[number][at + 1 :]
    split = [part + b"\n" for part in b"".join(lines).split(b"\n")[:-1]]  # a changed byte may be a line end
    found = fault(check(split, anchor=head))
    assert found.line == number + 1


def test_audit1_a_row_that_was_written_anew_does_not_fit_the_one_behind_it() -> None:
    """Its hash anybody can compute (see above); what the next row says came before it, he cannot change as well."""
    lines, head = chain(6)
    before = check_line(lines[1].rstrip(b"\n"))
    assert before is not None
    lines[2], _ = seal(row(99), before)
    assert check_line(lines[2].rstrip(b"\n")) is not None  # whole in itself
    found = fault(check(lines, anchor=head))
    assert found.line == 4
    assert found.expected.startswith("row 4 that follows ")


@settings(max_examples=200)
@given(st.data())
def test_audit1_law_no_line_can_be_taken_out_repeated_or_moved_unseen(data: st.DataObject) -> None:
    lines, head = chain(8)
    at = data.draw(st.integers(0, 7))
    other = data.draw(st.integers(0, 7).filter(lambda index: index != at))
    kind = data.draw(st.sampled_from(["delete", "repeat", "swap"]))
    changed = list(lines)
    if kind == "delete":
        del changed[at]
    elif kind == "repeat":
        changed.insert(at, lines[at])
    else:
        changed[at], changed[other] = changed[other], changed[at]
    assert check(changed, anchor=head).fault is not None


def test_audit1_the_fault_names_file_line_expected_and_found() -> None:
    older, head = chain(5)
    newer, head = chain(5, head)
    del older[2]
    assert str(fault(check(older, newer, anchor=head))) == "audit.jsonl.1:3: expected row 3, found row 4"


def test_audit1_a_tail_that_was_cut_off_shows_by_the_head_alone() -> None:
    lines, head = chain(9)
    assert check(lines[:6]).fault is None  # the chain itself cannot know
    assert fault(check(lines[:6], anchor=head)).expected == "row 7 (the store knows 9 rows)"


def test_audit1_half_a_last_line_is_a_crash_and_not_tampering() -> None:
    lines, head = chain(4)
    assert check([*lines[:3], lines[3][:50]], anchor=Head(3, json.loads(lines[2])["hash"])) == Report(
        rows=3, first_seq=1, head=Head(3, json.loads(lines[2])["hash"]), torn=True
    )
    # ... unless the store knows that row, or something follows.
    assert fault(check([*lines[:3], lines[3][:50]], anchor=head)).found == "half a row, then the end"
    assert check([lines[0][:50]], lines[1:], anchor=head).fault is not None


def test_audit1_another_chain_of_the_same_length_is_not_ours() -> None:
    _, head = chain(3)
    forged = []
    at = Head()
    for number in range(3):
        line, at = seal(row(number + 100), at)
        forged.append(line)
    assert "kept in the store" in fault(check(forged, anchor=head)).expected


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_any_bytes_give_a_report(lines: list[bytes]) -> None:
    report = check(lines)
    assert report.rows == 0


def test_every_field_has_a_meaning_and_every_action_a_list_of_fields() -> None:
    assert set(ACTIONS) == set(Action)
    assert all(meaning for meaning in FIELDS.values())
    for action, fields in ACTIONS.items():
        assert fields <= set(FIELDS), action


def test_log3_v52_fields_are_allow_listed_and_on_one_line() -> None:
    composed = compose(
        Action.CONNECT, "t",
        {"outcome": "ok", "actor": "a\r\nb\x1b[31m", "token": SECRET, "headers": SECRET, "role": None},
    )  # fmt: skip
    assert composed["fields_dropped"] == 2
    assert composed["actor"] == "a\\r\\nb\\x1b[31m"
    line, _ = seal(composed, Head())
    assert SECRET.encode() not in line
    assert line.count(b"\n") == 1


@pytest.mark.parametrize("value", [b"\0" * 10_000, "\U0010ffff" * 100_000, ["\u202e" * 500] * 999, object(), {"a": 1}])
def test_whatever_a_peer_sends_a_row_stays_within_what_a_reader_takes(value: Any) -> None:
    fields = {name: value for name in FIELDS if name not in {"seq", "time", "action"}}
    for action in Action:
        line, head = seal(compose(action, "t", fields), Head())
        assert len(line) <= 65_537
        assert check([line], anchor=head).fault is None


# --- repeats


def refusal(address: str, at: float = 0.0) -> Entry:
    return Entry(at, Action.CONNECT, {"outcome": "refused", "actor": "unknown", "address": address, "code": "X"})


def test_log1_a_flood_from_one_address_is_a_few_rows_and_nothing_is_lost_from_the_count() -> None:
    repeats = Repeats()
    written = []
    for number in range(10_000):
        written += repeats.pass_on(refusal("203.0.113.9"), now=number * 0.001)
    written += repeats.due(inf)
    assert len(written) == auditrepeat.BURST + 1
    assert sum(int(str(entry.fields.get("repeated", 1))) for entry in written) == 10_000


def test_log1_a_flood_from_many_addresses_is_bounded_too() -> None:
    repeats = Repeats()
    written = []
    for number in range(5_000):
        written += repeats.pass_on(refusal(f"2001:db8::{number:x}"), now=number * 0.001)
        assert len(repeats) <= auditrepeat.MAX_KEYS
    written += repeats.due(inf)
    assert len(written) <= auditrepeat.REFUSALS + 1
    assert sum(int(str(entry.fields.get("repeated", 1))) for entry in written) == 5_000


def test_repeats_are_written_in_full_again_when_the_window_is_over() -> None:
    repeats = Repeats()
    for _ in range(50):
        repeats.pass_on(refusal("203.0.113.9"), now=0.0)
    later = repeats.pass_on(refusal("203.0.113.9"), now=auditrepeat.WINDOW + 1)
    assert [entry.fields.get("repeated") for entry in later] == [40, None]


def test_honest_clients_are_told_apart_and_the_table_is_bounded() -> None:
    repeats = Repeats()
    for number in range(2_000):
        entry = Entry(0.0, Action.CONNECT, {"outcome": "ok", "actor": f"device:{number}", "address": "10.0.0.1"})
        assert repeats.pass_on(entry, now=0.0) == [entry]
    assert len(repeats) == auditrepeat.MAX_KEYS


# --- the trail


async def test_audit1_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store, open_audit(store) as trail:
        trail.note(Action.CONNECT, actor="device:a:operator", address="10.0.0.1")
        await trail.commit(Action.TOKEN_REVOKED, actor="owner", device="b" * 64, reason="lost")
        rows = tail_lines(audit_folder(tmp_path), 10)
        assert [(row["seq"], row["action"], row["actor"]) for row in rows] == [
            (1, "connect", "device:a:operator"),
            (2, "token.revoked", "owner"),
        ]
        assert read_head(tmp_path) == Head(2, rows[1]["hash"])
        assert trail.waiting == 0
    assert whole(tmp_path).rows == 2


async def test_v53_the_trail_is_ours_alone(tmp_path: Path) -> None:
    await fill(tmp_path, 40)
    folder = audit_folder(tmp_path)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert len(generations(folder)) == 4
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


async def test_what_was_noted_is_written_within_a_second(autojump_clock: trio.testing.MockClock) -> None:
    async with open_store(None) as store, open_audit(store) as trail, trio.open_nursery() as nursery:
        nursery.start_soon(trail.serve_flush)
        trail.note(Action.GATEWAY_STARTED, actor="gateway")
        assert trail.waiting == 1
        await trio.sleep(audit_module.FLUSH_SECONDS + 0.01)
        assert trail.waiting == 0
        nursery.cancel_scope.cancel()


async def test_what_was_noted_is_written_before_the_end(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store:
        async with open_audit(store) as trail:
            trail.note(Action.GATEWAY_STOPPED, actor="gateway")
        assert [row["action"] for row in tail_lines(audit_folder(tmp_path), 5)] == ["gateway.stopped"]


async def test_commits_at_the_same_time_share_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed = 0
    real = os.fsync

    def counted(fd: int) -> None:
        nonlocal flushed
        flushed += stat.S_ISREG(os.fstat(fd).st_mode)
        real(fd)

    async with open_store(tmp_path) as store, open_audit(store) as trail:
        await trail.commit(Action.API_KEY_CREATED, actor="owner")
        monkeypatch.setattr(os, "fsync", counted)
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(partial(trail.commit, Action.API_KEY_CREATED, actor=f"token:{number}"))
    assert flushed <= 3
    assert whole(tmp_path).rows == 101


async def test_a_cancelled_commit_keeps_its_row(tmp_path: Path) -> None:
    async with open_store(tmp_path) as store, open_audit(store) as trail:
        with trio.CancelScope() as scope:
            scope.cancel()
            await trail.commit(Action.API_KEY_REVOKED, actor="owner")
        assert scope.cancelled_caught
        await trail.flush()
        assert [row["action"] for row in tail_lines(audit_folder(tmp_path), 5)] == ["apikey.revoked"]


async def test_a_job_that_is_run_twice_appends_once(tmp_path: Path) -> None:
    class Twice:
        """A store whose transaction broke once behind the job, so that it runs the job again."""

        def __init__(self, store: Store) -> None:
            self._store = store
            self.state_dir = store.state_dir

        async def run(self, work: Callable[[sqlite3.Connection], object]) -> object:
            return await self._store.run(lambda db: (work(db), work(db)))

    async with open_store(tmp_path) as store:
        trail = AuditTrail(Twice(store))  # type: ignore[arg-type]
        await trail.commit(Action.TOKEN_ROTATED, actor="owner")
        await trail.commit(Action.TOKEN_ROTATED, actor="owner")
        await trail.aclose()
    assert whole(tmp_path).rows == 2


@pytest.mark.expect_error_log("the audit trail cannot be written")
@pytest.mark.parametrize("call", ["write", "fsync"])
async def test_store_a_full_disk_loses_nothing_and_breaks_no_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async with open_store(tmp_path) as store, open_audit(store) as trail:
        await trail.commit(Action.TOKEN_MINTED, actor="owner")
        path = audit_folder(tmp_path) / "audit.jsonl"
        identity = path.stat().st_ino
        before = path.read_bytes()
        real = getattr(os, call)

        def full(fd: int, *rest: Any) -> Any:
            if os.fstat(fd).st_ino != identity:
                return real(fd, *rest)
            if call == "write" and len(rest[0]) > 20:
                return real(fd, bytes(rest[0][:20]))  # half a row gets through, then nothing
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(StoreUnavailable, match="No space left"):
                await trail.commit(Action.TOKEN_REVOKED, actor="owner")
            assert "No space left" in str(trail.fault)
            assert trail.waiting == 1
        assert path.read_bytes() == before
        await trail.commit(Action.API_KEY_CREATED, actor="owner")
        assert trail.fault is None
        actions = [row["action"] for row in tail_lines(audit_folder(tmp_path), 9)]
        assert actions == ["token.minted", "token.revoked", "apikey.created"]
    assert whole(tmp_path).rows == 3


@pytest.mark.expect_error_log("the audit trail cannot be written", "audit rows could not be written")
async def test_the_queue_is_bounded_and_what_had_no_room_is_counted(tmp_path: Path) -> None:
    audit_folder(tmp_path).write_text("not a folder")
    async with open_store(tmp_path) as store, open_audit(store) as trail:
        for _ in range(MAX_PENDING + 100):
            trail.note(Action.GATEWAY_STARTED, actor="gateway")
        assert (trail.waiting, trail.dropped) == (MAX_PENDING, 100)
        for _ in range(audit_module.COMMIT_RESERVE):
            with pytest.raises(StoreUnavailable):
                await trail.commit(Action.TOKEN_MINTED, actor="owner")
        with pytest.raises(StoreUnavailable, match="too many"):
            await trail.commit(Action.TOKEN_MINTED, actor="owner")
        assert trail.waiting == MAX_PENDING + audit_module.COMMIT_RESERVE
        audit_folder(tmp_path).unlink()
        await trail.flush()
        assert trail.waiting == trail.dropped == 0
        (last,) = tail_lines(audit_folder(tmp_path), 1)
        assert (last["action"], last["dropped"]) == ("audit.dropped", 101)
        audit_folder(tmp_path).rename(tmp_path / "elsewhere")
        audit_folder(tmp_path).write_text("not a folder")
        trail.note(Action.GATEWAY_STOPPED, actor="gateway")


async def test_without_a_state_directory_the_last_rows_are_remembered() -> None:
    async with open_store(None) as store, open_audit(store) as trail:
        for number in range(audit_module.MEMORY_ROWS + 50):
            await trail.commit(Action.TOKEN_MINTED, actor=f"device:{number}")
        rows = await trail.recent(10_000)
        assert len(rows) == audit_module.MEMORY_ROWS
        assert rows[-1]["seq"] == audit_module.MEMORY_ROWS + 50
        assert [row["seq"] for row in await trail.recent(2)] == [549, 550]


# --- files


async def test_log1_rotation_keeps_the_chain_and_drops_the_oldest(tmp_path: Path) -> None:
    await fill(tmp_path, 150)
    report = whole(tmp_path)
    files = generations(audit_folder(tmp_path))
    assert [path.name for path in files] == ["audit.jsonl.3", "audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]
    assert report.first_seq > 1
    assert all(path.stat().st_size < 4096 + 600 for path in files)
    assert len(tail_lines(audit_folder(tmp_path), 25)) == 25  # over generations
    assert [row["seq"] for row in tail_lines(audit_folder(tmp_path), 10_000)] == list(
        range(report.first_seq, report.head.seq + 1)
    )


@pytest.mark.expect_error_log("the audit trail cannot be written")
@pytest.mark.parametrize("failing", range(4))
async def test_a_rotation_that_breaks_off_anywhere_leaves_a_whole_trail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    await fill(tmp_path, 60)
    real = Path.replace
    calls = 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal calls
        if self.name.startswith("audit.jsonl"):
            calls += 1
            if calls == failing + 1:
                raise OSError(errno.EIO, "input/output error")
        return real(self, target)

    async with small_trail(tmp_path) as trail:
        monkeypatch.setattr(Path, "replace", replace)
        broken = 0
        for number in range(40):
            try:
                await trail.commit(Action.TOKEN_MINTED, actor=f"again:{number}")
            except StoreUnavailable:
                broken += 1
                assert examine_trail(tmp_path) is not None
        assert broken == 1
    whole(tmp_path)


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def without_line(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[len(lines) // 2]
    path.write_bytes(b"".join(lines))


def with_lines_swapped(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2], lines[3] = lines[3], lines[2]
    path.write_bytes(b"".join(lines))


def cut(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-2]))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def found_by_doctor(state: Path) -> Finding:
    (finding,) = doctor_audit(Patient({}, state, None))
    return finding


TAMPERINGS: list[tuple[Callable[[Path], None], str]] = [
    (flip, "audit.jsonl.2"),
    (without_line, "audit.jsonl.1"),
    (with_lines_swapped, "audit.jsonl.3"),
    (cut, "audit.jsonl"),
    (cut, "audit.jsonl.2"),
    (empty, "audit.jsonl.1"),
    (Path.unlink, "audit.jsonl"),
    (Path.unlink, "audit.jsonl.2"),
    (Path.unlink, "audit.jsonl.3"),
]


@pytest.mark.parametrize(("tamper", "name"), TAMPERINGS)
async def test_audit1_doctor_finds_every_kind_of_tampering(
    tmp_path: Path, tamper: Callable[[Path], None], name: str
) -> None:
    await fill(tmp_path, 105)  # the newest file holds some rows
    assert found_by_doctor(tmp_path).state == "ok"
    assert (audit_folder(tmp_path) / name).stat().st_size > 1000
    tamper(audit_folder(tmp_path) / name)
    finding = found_by_doctor(tmp_path)
    assert finding.state == "fail"
    assert "audit.jsonl" in finding.text
    assert finding.fix is not None


async def test_audit1_a_cut_tail_stays_visible_after_the_next_start(tmp_path: Path) -> None:
    await fill(tmp_path, 5)
    cut(audit_folder(tmp_path) / "audit.jsonl")
    await fill(tmp_path, 3)
    rows = tail_lines(audit_folder(tmp_path), 4)
    assert (rows[0]["action"], rows[0]["seq"], rows[0]["missing_from"], rows[0]["missing_to"]) == (
        "audit.recovered", 6, 4, 5,
    )  # fmt: skip
    assert str(fault(examine_trail(tmp_path))) == "audit.jsonl:4: expected row 4, found row 6"


async def test_audit1_a_changed_last_line_stays_visible_after_the_next_start(tmp_path: Path) -> None:
    await fill(tmp_path, 5)
    path = audit_folder(tmp_path) / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"device:4", b"device:9"))
    await fill(tmp_path, 1)
    assert fault(examine_trail(tmp_path)).line == 5


async def test_a_trail_that_was_taken_away_is_begun_again_and_says_so(tmp_path: Path) -> None:
    await fill(tmp_path, 5)
    audit_folder(tmp_path).rename(tmp_path / "audit.tampered")
    assert found_by_doctor(tmp_path).state == "fail"
    await fill(tmp_path, 2)
    finding = found_by_doctor(tmp_path)
    assert (finding.state, "row 6" in finding.text) == ("warn", True)


async def test_half_a_row_after_a_crash_is_removed_and_recorded(tmp_path: Path) -> None:
    await fill(tmp_path, 3)
    path = audit_folder(tmp_path) / "audit.jsonl"
    with path.open("ab") as file:
        file.write(b'{"seq":4,"time":"2026-11-')
    report = examine_trail(tmp_path)
    assert report is not None
    assert (report.fault, report.torn) == (None, True)
    assert found_by_doctor(tmp_path).state == "ok"
    await fill(tmp_path, 1)
    rows = tail_lines(audit_folder(tmp_path), 2)
    assert (rows[0]["action"], rows[0]["torn_bytes"], rows[1]["seq"]) == ("audit.recovered", 25, 5)
    assert whole(tmp_path).torn is False


async def test_a_symbolic_link_is_not_written_through(tmp_path: Path) -> None:
    audit_folder(tmp_path).mkdir(mode=0o700)
    target = tmp_path / "elsewhere"
    target.write_text("")
    (audit_folder(tmp_path) / "audit.jsonl").symlink_to(target)
    file = AuditFile(audit_folder(tmp_path))
    assert file.append([row()], Head()).fault is not None
    assert target.read_text() == ""


async def test_rows_go_on_where_somebody_moves_the_file_away_while_we_write(tmp_path: Path) -> None:
    async with small_trail(tmp_path, max_bytes=100_000) as trail:
        await trail.commit(Action.TOKEN_MINTED, actor="owner")
        (audit_folder(tmp_path) / "audit.jsonl").unlink()
        await trail.commit(Action.TOKEN_MINTED, actor="owner")
    rows = tail_lines(audit_folder(tmp_path), 5)
    assert [(row["seq"], row["action"]) for row in rows] == [(2, "audit.recovered"), (3, "token.minted")]


PROGRAM = """
import sys, trio
from pathlib import Path
from openclaw_gateway.ops.audit import Action, AuditTrail, audit_folder
from openclaw_gateway.ops.auditfile import AuditFile
from openclaw_gateway.store import open_store

async def main(state):
    async with open_store(state) as store:
        trail = AuditTrail(store, file=AuditFile(audit_folder(state), max_bytes=20_000))
        number = 0
        while True:
            number += 1
            trail.note(Action.CONNECT, actor=f"noted:{number}")
            await trail.commit(Action.PAIRING_APPROVED, actor=f"acknowledged:{number}")
            sys.stdout.write(f"{number}\\n")
            sys.stdout.flush()

trio.run(main, Path(sys.argv[1]))
"""


@pytest.mark.deadline(90)
def test_audit1_after_kill_9_the_chain_holds_and_every_acknowledged_row_is_there(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for kill in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=env
        )
        assert process.stdout is not None
        acknowledged = 0
        for line in process.stdout:
            acknowledged = int(line)
            if acknowledged == 17 + 13 * kill:
                process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        report = whole(tmp_path)
        actors = {row["actor"] for row in tail_lines(audit_folder(tmp_path), 2 * acknowledged + 20)}
        assert {f"acknowledged:{number}" for number in range(1, acknowledged + 1)} <= actors
        assert report.head.seq >= 2 * acknowledged


async def test_reading_while_the_file_grows_is_never_taken_for_tampering(tmp_path: Path) -> None:
    async with small_trail(tmp_path) as trail, trio.open_nursery() as nursery:

        async def write() -> None:
            for number in range(120):
                await trail.commit(Action.TOKEN_MINTED, actor=f"device:{number}")
            nursery.cancel_scope.cancel()

        nursery.start_soon(write)
        while True:
            report = examine_trail(tmp_path)
            assert report is None or report.fault is None, report
            await trio.lowlevel.checkpoint()


def test_generations_are_read_oldest_first_and_lines_keep_their_ends(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").write_bytes(b"new\nhalf")
    (tmp_path / "audit.jsonl.2").write_bytes(b"old\n")
    (tmp_path / "audit.jsonl.99").write_bytes(b"not part of it\n")
    with opened(tmp_path) as files:
        lines = [(name, list(read_lines(fd))) for name, fd in files]
    assert lines == [("audit.jsonl.2", [b"old\n"]), ("audit.jsonl", [b"new\n", b"half"])]
