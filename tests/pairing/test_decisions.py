"""What people decide about devices: nobody grants more than he holds, nothing comes back alone, races end one way."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from openclaw_gateway.pairing import DeviceBook, DeviceTokens, decisions, load_device_tokens, open_device_book, rows
from openclaw_gateway.pairing.decisions import (
    OWNER,
    ApprovalDenied,
    AskChanged,
    Decider,
    TokenChangeDenied,
    UnknownDevice,
    UnknownRequest,
)
from openclaw_gateway.pairing.devices import REQUEST_TTL_MS, ApprovalRefused
from openclaw_gateway.pairing.records import Ask, PairedDevice
from openclaw_gateway.protocol.scopes import ADMIN, KNOWN_OPERATOR_SCOPES, PAIRING, READ, WRITE, satisfies
from openclaw_gateway.store import Store, StoreError, open_store
from openclaw_gateway.store.database import open_in_memory
from tests.pairing.conftest import START_MS, Clock, MakeAsk

ADMINISTRATOR = Decider(name="operator:admin", scopes=frozenset({ADMIN}))
SCOPES = sorted(KNOWN_OPERATOR_SCOPES)


def holder(*scopes: str, own: str | None = None) -> Decider:
    return Decider(name="operator:x", scopes=frozenset(scopes), own_device=own)


async def paired(book: DeviceBook, ask: Ask, by: Decider = OWNER) -> PairedDevice:
    waiting = (await book.request_pairing(ask, START_MS)).request
    return (await book.approve(waiting.request_id, by, START_MS)).device


# --- approve and reject


async def test_an_approval_grants_exactly_what_was_listed(book: DeviceBook, make_ask: MakeAsk) -> None:
    waiting = (await book.request_pairing(make_ask("a", "read", "write", ip="192.0.2.5"), START_MS)).request
    outcome = await book.approve(waiting.request_id, holder(PAIRING, WRITE), START_MS + 7, ask_hash=waiting.ask_hash)
    device = outcome.device
    assert device.scopes == waiting.scopes == (READ, WRITE)
    assert (device.approved_via, device.approved_at_ms, device.last_ip) == ("operator:x", START_MS + 7, "192.0.2.5")
    assert book.lookup(device.device_id, "operator") == device
    assert book.tokens.issue(device) is not None
    assert book.pending() == ()
    (event,) = outcome.events
    assert (event.name, event.payload) == (
        "device.pair.resolved",
        {
            "requestId": waiting.request_id,
            "deviceId": device.device_id,
            "decision": "approved",
            "ts": START_MS + 7,
        },
    )


async def test_v11_an_approved_upgrade_adds_and_keeps_token_and_label(book: DeviceBook, make_ask: MakeAsk) -> None:
    first = await paired(book, make_ask("a", "read"))
    await book.rename(first.device_id, "Kitchen", OWNER)
    token = book.tokens.issue(first)
    assert token is not None
    upgraded = await paired(book, make_ask("a", "write", display_name="other", platform="linux 9"))
    assert upgraded.scopes == (READ, WRITE)
    assert (upgraded.label, upgraded.display_name, upgraded.platform) == ("Kitchen", "other", "linux 9")
    assert book.tokens.verify(upgraded, token)
    (row,) = book.to_wire()["paired"]
    assert (row["displayName"], row["operatorLabel"]) == ("Kitchen", "Kitchen")
    assert "rotatedAtMs" not in row["tokens"][0]


async def test_pair5_what_changed_since_it_was_listed_is_not_approved(
    book: DeviceBook, store: Store, make_ask: MakeAsk
) -> None:
    listed = (await book.request_pairing(make_ask("a", "read"), START_MS)).request
    wider = (await book.request_pairing(make_ask("a", "read", "admin"), START_MS)).request
    with pytest.raises(UnknownRequest) as caught:  # the id that was listed asks for nothing any more
        await book.approve(listed.request_id, OWNER, START_MS)
    resolution = caught.value.resolution
    assert resolution is not None
    assert (resolution.decision, resolution.replaced_by, resolution.added_scopes) == (
        "superseded",
        wider.request_id,
        (ADMIN,),
    )
    with pytest.raises(AskChanged):  # and the hash that was listed fits no other id
        await book.approve(wider.request_id, OWNER, START_MS, ask_hash=listed.ask_hash)
    assert book.paired() == ()
    assert (await book.approve(wider.request_id, OWNER, START_MS, ask_hash=wider.ask_hash)).device.scopes == (
        ADMIN,
        READ,
    )


async def test_pair3_the_id_shown_first_can_be_approved_amid_a_hundred_retries(
    book: DeviceBook, clock: Clock, make_ask: MakeAsk
) -> None:
    shown = (await book.request_pairing(make_ask("a", "read"), START_MS)).request

    async def retry() -> None:
        clock.now += 1000
        await book.request_pairing(make_ask("a", "read"), clock())

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(retry)
        nursery.start_soon(partial(book.approve, shown.request_id, OWNER, START_MS + 1, ask_hash=shown.ask_hash))
        for _ in range(50):
            nursery.start_soon(retry)
    assert book.lookup(shown.device_id, "operator") is not None


async def test_v19_nobody_approves_more_than_he_holds(book: DeviceBook, make_ask: MakeAsk) -> None:
    waiting = (await book.request_pairing(make_ask("a", "read", "admin"), START_MS)).request
    node = (await book.request_pairing(make_ask("n", role="node"), START_MS)).request
    for by, request, missing in (
        (holder(PAIRING), waiting, (ADMIN, READ)),
        (holder(PAIRING, READ, WRITE), waiting, (ADMIN,)),
        (holder(), waiting, (ADMIN, READ)),
        (holder(*sorted(KNOWN_OPERATOR_SCOPES - {ADMIN})), node, (ADMIN,)),
    ):
        with pytest.raises(ApprovalDenied) as caught:
            await book.approve(request.request_id, by, START_MS)
        assert caught.value.missing == missing
    assert book.paired() == ()
    assert {request.request_id for request in book.pending()} == {waiting.request_id, node.request_id}
    assert (await book.approve(node.request_id, ADMINISTRATOR, START_MS)).device.scopes == ()
    assert (await book.approve(waiting.request_id, ADMINISTRATOR, START_MS)).device.scopes == (ADMIN, READ)


async def test_v21_who_holds_only_a_devices_token_decides_on_that_device_alone(
    book: DeviceBook, make_ask: MakeAsk
) -> None:
    mine = (await book.request_pairing(make_ask("mine", "read"), START_MS)).request
    other = (await book.request_pairing(make_ask("other", "read"), START_MS)).request
    stranger = await paired(book, make_ask("stranger", "read"))
    by = holder(PAIRING, READ, own=mine.device_id)
    for decide in (book.approve, book.reject):
        with pytest.raises(UnknownRequest) as caught:
            await decide(other.request_id, by, START_MS)
        assert caught.value.resolution is None
    await book.reject(other.request_id, OWNER, START_MS)
    with pytest.raises(UnknownRequest) as caught:
        await book.approve(other.request_id, by, START_MS)
    assert caught.value.resolution is None  # nor what became of it
    changes: list[Callable[[], Awaitable[object]]] = [
        partial(book.remove, stranger.device_id, by, START_MS),
        partial(book.rename, stranger.device_id, "mine now", by),
        partial(book.rotate, stranger.device_id, "operator", None, by, START_MS),
        partial(book.revoke, stranger.device_id, "operator", by, START_MS),
    ]
    for change in changes:
        with pytest.raises(UnknownDevice):
            await change()
    assert book.paired() == (stranger,)
    assert (await book.approve(mine.request_id, by, START_MS)).device.device_id == mine.device_id
    # An administrator's own device is an administrator's session all the same.
    await book.rename(stranger.device_id, "seen", holder(ADMIN, own=mine.device_id))


async def test_a_rejected_request_says_so_and_takes_nothing_away(book: DeviceBook, make_ask: MakeAsk) -> None:
    device = await paired(book, make_ask("a", "read"))
    wider = (await book.request_pairing(make_ask("a", "admin"), START_MS)).request
    gone, (event,) = await book.reject(wider.request_id, holder(PAIRING), START_MS + 1)
    assert (gone.decision, event.payload["decision"]) == ("rejected", "rejected")
    assert book.pending() == ()
    assert book.lookup(device.device_id, "operator") == device
    with pytest.raises(UnknownRequest) as caught:
        await book.approve(wider.request_id, OWNER, START_MS + 1)
    assert caught.value.resolution == gone == book.resolution(wider.request_id)
    again = (await book.request_pairing(make_ask("a", "admin"), START_MS + 2)).request
    assert again.request_id != wider.request_id


async def test_an_unknown_id_is_unknown(book: DeviceBook) -> None:
    for request_id in ("", "no-such-id", "x" * 10_000, "'; DROP TABLE devices"):
        with pytest.raises(UnknownRequest) as caught:
            await book.approve(request_id, OWNER, START_MS)
        assert caught.value.resolution is None
        assert len(str(caught.value)) < 100


async def test_the_number_of_devices_is_capped_for_people_too(
    book: DeviceBook, make_ask: MakeAsk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_DEVICES", 2)
    await paired(book, make_ask("a", "read"))
    await paired(book, make_ask("b", "read"))
    with pytest.raises(ApprovalRefused, match="limit"):
        await paired(book, make_ask("c", "read"))
    await paired(book, make_ask("a", "write"))  # an upgrade is no new device
    assert len(book.paired()) == 2
    assert len(book.pending()) == 1


# --- rotate, revoke, remove, rename


@settings(deadline=None, max_examples=300)
@given(
    approved=st.lists(st.sampled_from(SCOPES), unique=True),
    held=st.lists(st.sampled_from(SCOPES), unique=True),
    wanted=st.none() | st.lists(st.sampled_from([*SCOPES, "operator.root", ""]), max_size=4),
    role=st.sampled_from(["operator", "node", "root"]),
    approved_role=st.sampled_from(["operator", "node"]),
    revoked=st.booleans(),
)
def test_v18_what_rotate_leaves_is_within_caller_approval_and_roles(
    approved: list[str], held: list[str], wanted: list[str] | None, role: str, approved_role: str, revoked: bool
) -> None:
    tokens = DeviceTokens(bytes(32))
    db = open_in_memory()
    try:
        ask = Ask(device_id="d", public_key="k", role=approved_role, scopes=tuple(approved), source_ip="192.0.2.1")
        rows.approve_silently(db, ask, "local", START_MS, tokens, lambda: "id")
        if revoked:
            decisions.revoke(db, "d", approved_role, OWNER, START_MS)
        (before,) = rows.records_of(db, "d")
        try:
            scopes = None if wanted is None else tuple(wanted)
            change = decisions.rotate(db, "d", role, scopes, holder(*held), START_MS + 1, tokens)
        except TokenChangeDenied:
            assert rows.records_of(db, "d") == (before,)
            return
        after = change.device
        assert not revoked
        assert after.role == approved_role == role
        assert after.token_generation == before.token_generation + 1
        assert all(satisfies(frozenset(before.scopes), scope) for scope in after.scopes)
        assert all(satisfies(frozenset(held), scope) for scope in after.scopes)
        assert role == "operator" or ADMIN in held
        old, new = tokens.issue(before), tokens.issue(after)
        assert old is not None
        assert new is not None
        assert not tokens.verify(after, old)
        assert tokens.verify(after, new)
    finally:
        db.close()


async def test_v18_a_narrowed_device_stays_narrow_until_somebody_approves_more(
    book: DeviceBook, make_ask: MakeAsk
) -> None:
    device = await paired(book, make_ask("a", "admin"))
    narrow = (await book.rotate(device.device_id, "operator", (READ, READ), ADMINISTRATOR, START_MS)).device
    assert narrow.scopes == (READ,)
    with pytest.raises(TokenChangeDenied) as caught:
        await book.rotate(device.device_id, "operator", (ADMIN,), ADMINISTRATOR, START_MS)
    assert (caught.value.reason, caught.value.scopes) == ("beyond-approved", (ADMIN,))
    with pytest.raises(ApprovalRefused, match="scope-upgrade"):
        await book.approve_silently(make_ask("a", "admin"), "local", START_MS)
    assert (await book.rotate(device.device_id, "operator", (), ADMINISTRATOR, START_MS)).device.scopes == ()


async def test_v26_what_was_revoked_comes_back_by_an_approval_alone_and_with_that_alone(
    book: DeviceBook, make_ask: MakeAsk
) -> None:
    device = await paired(book, make_ask("a", "admin", "read"))
    token = book.tokens.issue(device)
    assert token is not None
    gone = await book.revoke(device.device_id, "operator", ADMINISTRATOR, START_MS + 1)
    assert (gone.device.live, gone.device.revoked_at_ms) == (False, START_MS + 1)
    again = await book.revoke(device.device_id, "operator", ADMINISTRATOR, START_MS + 2)
    assert (again.device.revoked_at_ms, again.events) == (START_MS + 1, ())
    with pytest.raises(TokenChangeDenied, match="not-approved"):
        await book.rotate(device.device_id, "operator", None, ADMINISTRATOR, START_MS)
    assert await book.reissue(device.device_id, "operator", START_MS) is None
    with pytest.raises(ApprovalRefused, match="revoked"):
        await book.approve_silently(make_ask("a", "read"), "local", START_MS)
    await book.reload()
    assert book.lookup(device.device_id, "operator") is None
    back = await paired(book, make_ask("a", "read"))
    assert back.scopes == (READ,)  # not what it held before
    assert back.token_generation == 2
    assert not book.tokens.verify(back, token)


async def test_v26_a_removed_device_does_not_pair_by_itself(
    book: DeviceBook, store: Store, state_dir: Path, clock: Clock, make_ask: MakeAsk
) -> None:
    device = await paired(book, make_ask("a", "read"))
    await paired(book, make_ask("a", role="node"))
    book.touch(device.device_id, "operator", "192.0.2.1", START_MS + 1)
    await book.remove(device.device_id, holder(PAIRING), START_MS + 2)
    assert book.records_of(device.device_id) == ()
    assert book.to_wire()["paired"] == []
    for again in (book, None):
        async with open_device_book(store, clock=clock, tokens=load_device_tokens(state_dir)) as reopened:
            asked = again or reopened
            assert asked.was_removed(device.device_id)
            with pytest.raises(ApprovalRefused, match="removed"):
                await asked.approve_silently(make_ask("a", "read"), "local", START_MS)
    with pytest.raises(UnknownDevice):
        await book.remove(device.device_id, OWNER, START_MS)
    assert (await book.request_pairing(make_ask("a", "read"), START_MS)).request.reason == "not-paired"
    await paired(book, make_ask("a", "read"))
    assert not book.was_removed(device.device_id)
    await book.approve_silently(make_ask("a", role="node"), "local", START_MS)
    await book.flush()


async def test_v26_what_is_kept_of_removed_devices_is_capped(
    book: DeviceBook, store: Store, make_ask: MakeAsk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_REMOVED", 3)
    ids = []
    for number in range(6):
        device = await paired(book, make_ask(f"d{number}", "read"))
        ids.append(device.device_id)
        await book.remove(device.device_id, OWNER, START_MS + number)
    kept = await store.run(lambda db: {row[0] for row in db.execute("SELECT device_id FROM removed_devices")})
    assert kept == set(ids[3:]) == {one for one in ids if book.was_removed(one)}


async def test_v26_a_backup_taken_before_a_revocation_is_not_there_to_be_restored(
    book: DeviceBook, store: Store, state_dir: Path, make_ask: MakeAsk
) -> None:
    device = await paired(book, make_ask("a", "read"))

    def live_in(path: Path) -> int:
        with sqlite3.connect(path) as db:
            live = db.execute("SELECT count(*) FROM device_roles WHERE revoked_at_ms IS NULL").fetchone()[0]
        db.close()
        return int(live)

    for change in ("rotate", "revoke"):
        if change == "rotate":
            await book.rotate(device.device_id, "operator", None, OWNER, START_MS)
        else:
            await book.revoke(device.device_id, "operator", OWNER, START_MS)
    while await store.run(lambda db: db.execute("SELECT count(*) FROM backup_duty").fetchone()[0]):
        await trio.lowlevel.checkpoint()
    found = [path for path in (state_dir / "backups").iterdir() if path.suffix == ".db"]
    assert found
    assert [live_in(path) for path in found] == [0] * len(found)


async def test_auth5_the_cut_comes_with_the_commit_and_names_who_is_spared(book: DeviceBook, make_ask: MakeAsk) -> None:
    device = await paired(book, make_ask("a", "read"))
    cuts: list[tuple[Any, ...]] = []

    def cut(device_id: str, role: str | None, spared: str | None) -> None:
        # The book has learnt of it already: who looks now finds nothing left of the old authority.
        record = book.records_of(device_id)
        cuts.append((role, spared, [one.token_generation if one.live else 0 for one in record]))

    book.on_cut = cut
    await book.rename(device.device_id, "x", OWNER)
    await book.rotate(device.device_id, "operator", None, OWNER, START_MS, spare="conn-1")
    await book.revoke(device.device_id, "operator", OWNER, START_MS)
    await book.revoke(device.device_id, "operator", OWNER, START_MS)
    await book.remove(device.device_id, OWNER, START_MS)
    assert cuts == [("operator", "conn-1", [2]), ("operator", None, [0]), (None, None, [])]


# --- races


async def test_two_approvers_race_and_one_of_them_is_told(book: DeviceBook, make_ask: MakeAsk) -> None:
    for turn in range(20):
        waiting = (await book.request_pairing(make_ask(f"d{turn}", "read"), START_MS)).request
        ends: list[object] = []

        async def approve(by: str, request_id: str, ends: list[object]) -> None:
            try:
                who = Decider(name=by, scopes=frozenset({ADMIN}))
                ends.append((await book.approve(request_id, who, START_MS)).device.approved_via)
            except UnknownRequest as exc:
                ends.append(exc)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(approve, "first", waiting.request_id, ends)
            nursery.start_soon(approve, "second", waiting.request_id, ends)
        (told,) = [end for end in ends if isinstance(end, UnknownRequest)]
        assert told.resolution is not None
        assert told.resolution.decision == "approved"
        (winner,) = [end for end in ends if isinstance(end, str)]
        record = book.lookup(waiting.device_id, "operator")
        assert record is not None
        assert record.approved_via == winner
        assert record.token_generation == 1


async def test_approve_and_reject_race_to_one_defined_end(book: DeviceBook, make_ask: MakeAsk) -> None:
    chance = random.Random(3)
    for turn in range(30):
        waiting = (await book.request_pairing(make_ask(f"d{turn}", "read"), START_MS)).request
        ends: list[str] = []

        async def decide(name: str, request_id: str, ends: list[str]) -> None:
            try:
                await (book.approve if name == "approved" else book.reject)(request_id, OWNER, START_MS)
                ends.append(name)
            except UnknownRequest as exc:
                ends.append(f"not {name}: {exc.resolution.decision if exc.resolution else None}")

        names = ["approved", "rejected"]
        chance.shuffle(names)
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(decide, name, waiting.request_id, ends)
        won = next(end for end in ends if end in names)
        lost = next(name for name in names if name != won)
        assert sorted(ends) == sorted([won, f"not {lost}: {won}"])
        assert (book.lookup(waiting.device_id, "operator") is not None) == (won == "approved")


@pytest.mark.parametrize(("late", "approved"), [(-1, True), (0, False), (1, False)])
async def test_approve_meets_expiry_at_one_exact_moment(
    late: int, approved: bool, book: DeviceBook, clock: Clock, make_ask: MakeAsk
) -> None:
    waiting = (await book.request_pairing(make_ask("a", "read"), START_MS)).request
    clock.now = START_MS + REQUEST_TTL_MS + late
    expired: list[Any] = []

    async def expire() -> None:
        expired.extend(await book.expire(clock()))

    async def approve() -> None:
        if approved:
            await book.approve(waiting.request_id, OWNER, clock())
            return
        with pytest.raises(UnknownRequest):
            await book.approve(waiting.request_id, OWNER, clock())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(approve)
        nursery.start_soon(expire)
    assert (book.lookup(waiting.device_id, "operator") is not None) == approved
    assert [event.payload["decision"] for event in expired] == ([] if approved else ["expired"])
    assert book.pending() == ()


async def test_a_wider_ask_and_an_approval_race_without_granting_what_was_not_shown(
    book: DeviceBook, make_ask: MakeAsk
) -> None:
    for turn in range(20):
        name = f"d{turn}"
        shown = (await book.request_pairing(make_ask(name, "read"), START_MS)).request

        async def approve(request_id: str) -> None:
            with suppress(UnknownRequest):
                await book.approve(request_id, OWNER, START_MS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(approve, shown.request_id)
            nursery.start_soon(book.request_pairing, make_ask(name, "admin"), START_MS)
        record = book.lookup(shown.device_id, "operator")
        assert record is None or record.scopes == (READ,)
        resolution = book.resolution(shown.request_id)
        assert resolution is not None
        assert resolution.decision == ("superseded" if record is None else "approved")
        assert any(request.device_id == shown.device_id and ADMIN in request.scopes for request in book.pending())


async def test_memory_and_disk_agree_after_any_decisions(
    store: Store, state_dir: Path, clock: Clock, make_ask: MakeAsk
) -> None:
    chance = random.Random(20261123)
    tokens = load_device_tokens(state_dir)
    refusals = (UnknownRequest, ApprovalRefused, ApprovalDenied, UnknownDevice, TokenChangeDenied)

    async def act(book: DeviceBook) -> None:
        for _ in range(60):
            role = chance.choice(["operator", "operator", "node"])
            wanted = chance.sample(["read", "write", "admin"], chance.randint(0, 3))
            ask = make_ask(f"d{chance.randint(0, 12)}", *wanted, role=role)
            waiting = [request.request_id for request in book.pending()]
            some = chance.choice(waiting) if waiting else "none"
            clock.now += chance.randint(0, 20_000)
            steps: list[Callable[[], Awaitable[object]]] = [
                partial(book.request_pairing, ask, clock()),
                partial(book.request_pairing, ask, clock()),
                partial(book.approve, some, OWNER, clock()),
                partial(book.reject, some, OWNER, clock()),
                partial(book.approve_silently, ask, "local", clock()),
                partial(book.rotate, ask.device_id, role, None, OWNER, clock()),
                partial(book.revoke, ask.device_id, role, OWNER, clock()),
                partial(book.rename, ask.device_id, "label", OWNER),
                partial(book.remove, ask.device_id, OWNER, clock()),
                partial(book.expire, clock()),
            ]
            with suppress(*refusals):
                await chance.choice(steps)()

    async with open_device_book(store, clock=clock, tokens=tokens) as book:
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(act, book)
        assert book.paired()
        async with open_device_book(store, clock=clock, tokens=tokens) as fresh:
            assert set(fresh.pending()) == set(book.pending())
            assert set(fresh.paired()) == set(book.paired())
            ids = [make_ask(f"d{number}").device_id for number in range(13)]
            assert [fresh.was_removed(one) for one in ids] == [book.was_removed(one) for one in ids]
            assert any(book.was_removed(one) for one in ids)


# --- store faults


@attrs.define
class Faulty:
    """Fails at the n-th statement of a job, as a disk does; counts statements otherwise."""

    fail_at: int
    seen: int = 0


def failing(work: Callable[[sqlite3.Connection], Any], fault: Faulty) -> Callable[[sqlite3.Connection], Any]:
    class Connection:
        def __init__(self, db: sqlite3.Connection) -> None:
            self._db = db

        def execute(self, *args: Any) -> sqlite3.Cursor:
            fault.seen += 1
            if fault.seen == fault.fail_at:
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return self._db.execute(*args)

    return lambda db: work(Connection(db))  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["approve", "upgrade", "reject", "remove", "rename", "rotate", "revoke"])
async def test_v60_a_fault_at_any_step_of_a_decision_changes_nothing(
    what: str, state_dir: Path, clock: Clock, make_ask: MakeAsk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        open_store(state_dir) as store,
        open_device_book(store, clock=clock, tokens=load_device_tokens(state_dir)) as book,
    ):
        device = await paired(book, make_ask("known", "read"))
        ask = make_ask("known" if what == "upgrade" else "new", "write")
        waiting = (await book.request_pairing(ask, START_MS)).request
        cuts: list[str] = []
        book.on_cut = lambda device_id, role, spared: cuts.append(device_id)

        async def decide() -> object:
            match what:
                case "approve" | "upgrade":
                    return await book.approve(waiting.request_id, OWNER, START_MS)
                case "reject":
                    return await book.reject(waiting.request_id, OWNER, START_MS)
                case "remove":
                    return await book.remove(device.device_id, OWNER, START_MS)
                case "rename":
                    return await book.rename(device.device_id, "x", OWNER)
                case "rotate":
                    return await book.rotate(device.device_id, "operator", None, OWNER, START_MS)
                case _:
                    return await book.revoke(device.device_id, "operator", OWNER, START_MS)

        before = (book.paired(), book.pending())
        run = store.run
        fault = Faulty(fail_at=1)

        async def run_badly(work: Callable[[sqlite3.Connection], Any], **how: Any) -> Any:
            return await run(failing(work, fault), **how)

        steps = 0
        while True:
            monkeypatch.setattr(store, "run", run_badly)
            fault.seen = 0
            try:
                await decide()
                break
            except StoreError:
                steps += 1
            finally:
                monkeypatch.setattr(store, "run", run)
            assert (book.paired(), book.pending()) == before
            assert cuts == []
            async with open_device_book(store, clock=clock, tokens=book.tokens) as fresh:
                assert (set(fresh.paired()), set(fresh.pending())) == (set(before[0]), set(before[1]))
            fault.fail_at += 1
        assert steps >= 2
        assert (book.paired(), book.pending()) != before  # without a fault it goes through


async def test_a_decision_whose_caller_is_cancelled_is_carried_out_or_not_but_known(
    book: DeviceBook, store: Store, make_ask: MakeAsk
) -> None:
    waiting = (await book.request_pairing(make_ask("a", "read"), START_MS)).request
    with trio.CancelScope() as scope:
        scope.cancel()
        await book.approve(waiting.request_id, OWNER, START_MS)
    assert book.pending() == (waiting,)  # cancelled before it was queued: nothing happened
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(book.approve, waiting.request_id, OWNER, START_MS))
            while not store.waiting:
                await trio.lowlevel.checkpoint()
            scope.cancel()
    assert book.pending() == ()
    assert book.lookup(waiting.device_id, "operator") is not None
