"""The device book: requests that last, approvals that grant what was shown, look-ups that fail closed."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway.pairing import DeviceBook, load_device_tokens, open_device_book
from openclaw_gateway.pairing.devices import REQUEST_TTL_MS, ApprovalRefused, DeviceBookUnreadable
from openclaw_gateway.pairing.requestrows import MAX_PENDING, MAX_PENDING_PER_SOURCE, MAX_RESOLUTIONS
from openclaw_gateway.store import Store, StoreError, StoreUnavailable, open_store
from tests.pairing.conftest import START_MS, Clock, MakeAsk

MINUTE = 60_000


def written(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT request_id FROM pending_requests ORDER BY request_id")]


def break_statement(db: sqlite3.Connection, text: str) -> None:
    db.execute("UPDATE devices SET key_statement = ?", (text,))


def break_scopes(db: sqlite3.Connection, text: str) -> None:
    db.execute("UPDATE device_roles SET scopes = ?", (text,))


def writes(db: sqlite3.Connection) -> int:
    return db.total_changes


async def test_pair1_each_of_200_refusals_is_on_the_disk_and_listed(
    book: DeviceBook, store: Store, make_ask: MakeAsk
) -> None:
    ids = set()

    async def refuse(number: int) -> None:
        ask = make_ask(f"device-{number}", "read", ip=f"192.0.2.{number}")
        outcome = await book.request_pairing(ask, START_MS)
        ids.add(outcome.request.request_id)
        # At this very moment, before any close frame could leave:
        assert outcome.request in book.pending()
        assert outcome.request.request_id in await store.run(written)

    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(refuse, number)
    assert len(ids) == 200
    assert {row["requestId"] for row in book.to_wire()["pending"]} == ids


async def test_pair1_requests_outlive_a_restart(store: Store, state_dir: Path, clock: Clock, make_ask: MakeAsk) -> None:
    tokens = load_device_tokens(state_dir)
    async with open_device_book(store, clock=clock, tokens=tokens) as book:
        asked = (await book.request_pairing(make_ask("a", "read", "write", caps=("x",)), START_MS)).request
        paired = (await book.approve_silently(make_ask("b", "read"), "local", START_MS)).device
    async with open_device_book(store, clock=clock, tokens=tokens) as book:
        assert book.pending() == (asked,)
        assert book.paired() == (paired,)


async def test_pair3_a_hundred_retries_keep_the_id(book: DeviceBook, clock: Clock, make_ask: MakeAsk) -> None:
    first = await book.request_pairing(make_ask("a", "read", "write"), clock())
    for number in range(100):
        clock.now += 7000
        ask = make_ask("a", *(["read"], ["write"], [], ["read", "write"])[number % 4], ip=f"198.51.100.{number}")
        again = await book.request_pairing(ask, clock())
        assert (again.request.request_id, again.created, again.events) == (first.request.request_id, False, ())
        assert again.request.scopes == ("operator.read", "operator.write")  # what was asked at its widest
    assert len(book.pending()) == 1


async def test_pair3_tasks_that_ask_at_once_get_one_id(book: DeviceBook, make_ask: MakeAsk) -> None:
    outcomes = []

    async def ask() -> None:
        outcomes.append(await book.request_pairing(make_ask("a", "read"), START_MS))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert len({outcome.request.request_id for outcome in outcomes}) == 1
    assert sum(outcome.created for outcome in outcomes) == 1
    assert sum(len(outcome.events) for outcome in outcomes) == 1


async def test_pair3_a_wider_ask_gets_a_new_id_and_the_old_one_says_which(book: DeviceBook, make_ask: MakeAsk) -> None:
    old = await book.request_pairing(make_ask("a", "read"), START_MS)
    new = await book.request_pairing(make_ask("a", "write"), START_MS + 1)
    assert new.created
    assert new.request.request_id != old.request.request_id
    assert new.request.scopes == ("operator.read", "operator.write")
    assert new.request.ask_hash != old.request.ask_hash
    assert new.superseded is not None
    assert new.superseded.replaced_by == new.request.request_id
    assert new.superseded.added_scopes == ("operator.write",)
    assert book.resolution(old.request.request_id) == new.superseded
    assert [(event.name, event.payload["requestId"]) for event in new.events] == [
        ("device.pair.resolved", old.request.request_id),
        ("device.pair.requested", new.request.request_id),
    ]
    assert new.events[0].payload["decision"] == "superseded"
    # Alternating between the two narrow asks mints nothing any more.
    for number, scope in enumerate(["read", "write"] * 5):
        assert not (await book.request_pairing(make_ask("a", scope), START_MS + number)).created


async def test_pair3_commands_widen_and_scopes_of_another_role_do_not_mix(book: DeviceBook, make_ask: MakeAsk) -> None:
    first = await book.request_pairing(make_ask("n", "admin", role="node", commands=("a",)), START_MS)
    assert first.request.scopes == ()
    wider = await book.request_pairing(make_ask("n", role="node", commands=("a", "b")), START_MS)
    assert (wider.created, wider.request.commands) == (True, ("a", "b"))
    operator = await book.request_pairing(make_ask("n", "read"), START_MS)
    assert operator.created
    assert len(book.pending()) == 2


async def test_pair4_24_hours_of_retries_are_one_event_and_few_writes(
    clock: Clock, make_ask: MakeAsk
) -> None:
    events: list[object] = []
    async with (
        open_store(None) as store,
        open_device_book(store, clock=clock, tokens=load_device_tokens(None)) as book,
    ):
        before = await store.run(writes)
        for _ in range(24 * 60 * 6):  # every ten seconds
            events.extend((await book.request_pairing(make_ask("a", "read"), clock())).events)
            events.extend(await book.expire(clock()))
            clock.now += 10_000
        assert len(events) == 1
        assert len(book.pending()) == 1
        assert await store.run(writes) - before <= 24 * 60 * 2 + 10


async def test_pair4_expiry_always_tells(book: DeviceBook, clock: Clock, make_ask: MakeAsk) -> None:
    first = await book.request_pairing(make_ask("a", "read"), clock())
    assert await book.expire(clock()) == ()
    clock.now += REQUEST_TTL_MS
    assert book.pending() == ()  # at once, whoever cleans up
    (event,) = await book.expire(clock())
    assert event.payload == {
        "requestId": first.request.request_id,
        "deviceId": first.request.device_id,
        "decision": "expired",
        "ts": clock(),
    }
    assert await book.expire(clock()) == ()
    # The same device asks again: a new id; and expiry that nobody cleaned up is told then.
    second = await book.request_pairing(make_ask("a", "read"), clock())
    assert second.request.request_id != first.request.request_id
    clock.now += REQUEST_TTL_MS
    third = await book.request_pairing(make_ask("a", "read"), clock())
    assert [event.name for event in third.events] == ["device.pair.resolved", "device.pair.requested"]


async def test_pair6_ten_thousand_keys_from_one_address_leave_a_capped_table(
    book: DeviceBook, store: Store, make_ask: MakeAsk
) -> None:
    told: list[str] = []

    async def flood(start: int) -> None:
        for number in range(start, start + 500):
            outcome = await book.request_pairing(make_ask(f"d{number}", "read", ip="203.0.113.9"), START_MS + number)
            told.extend(event.name for event in outcome.events)

    kept = await book.request_pairing(make_ask("honest", "read", ip="198.51.100.7"), START_MS)
    async with trio.open_nursery() as nursery:
        for start in range(0, 10_000, 500):
            nursery.start_soon(flood, start)
    late = await book.request_pairing(make_ask("late", "read", ip="198.51.100.8"), START_MS)
    pending = book.pending()
    assert len(pending) == MAX_PENDING_PER_SOURCE + 2
    assert {kept.request, late.request} <= set(pending)
    assert sorted(request.request_id for request in pending) == await store.run(written)
    assert told.count("device.pair.requested") - told.count("device.pair.resolved") == MAX_PENDING_PER_SOURCE
    # The same /64 of IPv6 is one source, and so is a mapped address.
    for number in range(40):
        await book.request_pairing(make_ask(f"six-{number}", "read", ip=f"2001:db8::{number:x}"), START_MS)
        await book.request_pairing(make_ask(f"map-{number}", "read", ip="::ffff:203.0.113.9"), START_MS + 20_000)
    assert len(book.pending()) == 2 * MAX_PENDING_PER_SOURCE + 2


async def test_pair6_the_whole_table_is_capped_and_the_crowd_pays(book: DeviceBook, make_ask: MakeAsk) -> None:
    for number in range(10):
        await book.request_pairing(make_ask(f"crowd-{number}", "read", ip="203.0.113.9"), START_MS + number)
    for number in range(MAX_PENDING - 1):
        ip = f"10.{number // 250}.0.{number % 250}"
        await book.request_pairing(make_ask(f"single-{number}", "read", ip=ip), START_MS + 100 + number)
    pending = book.pending()
    assert len(pending) == MAX_PENDING
    assert sum(request.source_ip == "203.0.113.9" for request in pending) == 1
    assert sum(request.source_ip.startswith("10.") for request in pending) == MAX_PENDING - 1


async def test_what_is_remembered_of_old_ids_is_capped(book: DeviceBook, store: Store, make_ask: MakeAsk) -> None:
    for number in range(MAX_RESOLUTIONS + 20):
        ip = f"10.0.{number // 8}.1"
        await book.request_pairing(make_ask(f"d{number}", "read", ip=ip), START_MS + number)
        await book.request_pairing(make_ask(f"d{number}", "read", "write", ip=ip), START_MS + number)
    kept = await store.run(lambda db: db.execute("SELECT count(*) FROM resolved_requests").fetchone()[0])
    assert kept == MAX_RESOLUTIONS
    assert book.resolution("request-1") is None
    assert book.resolution(f"request-{2 * (MAX_RESOLUTIONS + 19) + 1}") is not None


async def test_pair9_names_and_versions_do_not_matter(book: DeviceBook, make_ask: MakeAsk) -> None:
    first = await book.request_pairing(make_ask("a", "read"), START_MS)
    changed = make_ask("a", "read", platform="linux 9", version="2", display_name="new", device_family="other")
    assert (await book.request_pairing(changed, START_MS)).request.request_id == first.request.request_id
    await book.approve_silently(make_ask("a", "read"), "local", START_MS)
    approved = await book.approve_silently(changed, "local", START_MS + 1)
    assert (approved.events, approved.device.approved_at_ms) == ((), START_MS)


async def test_reasons_tell_new_devices_from_new_roles_and_wider_scopes(book: DeviceBook, make_ask: MakeAsk) -> None:
    assert (await book.request_pairing(make_ask("a", "read"), START_MS)).request.reason == "not-paired"
    await book.approve_silently(make_ask("a", "read"), "local", START_MS)
    wider = await book.request_pairing(make_ask("a", "admin"), START_MS)
    assert wider.request.reason == "scope-upgrade"
    assert wider.events[0].payload["isRepair"] is True
    assert (await book.request_pairing(make_ask("a", role="node"), START_MS)).request.reason == "role-upgrade"


async def test_state4_an_approval_has_all_its_dates_and_ends_the_request(book: DeviceBook, make_ask: MakeAsk) -> None:
    waiting = await book.request_pairing(make_ask("a", "read", ip="192.0.2.5"), START_MS)
    outcome = await book.approve_silently(make_ask("a", "read", ip="192.0.2.5"), "local", START_MS + 5)
    device = outcome.device
    assert (device.created_at_ms, device.approved_at_ms, device.last_seen_at_ms) == (START_MS + 5,) * 3
    assert (device.approved_via, device.last_ip, device.roles, device.scopes) == (
        "local",
        "192.0.2.5",
        ("operator",),
        ("operator.read",),
    )
    assert book.pending() == ()
    assert [event.payload for event in outcome.events] == [
        {
            "requestId": waiting.request.request_id,
            "deviceId": device.device_id,
            "decision": "approved",
            "ts": START_MS + 5,
        }
    ]
    resolution = book.resolution(waiting.request.request_id)
    assert resolution is not None
    assert resolution.decision == "approved"
    assert book.lookup(device.device_id, "operator") == device
    assert book.lookup(device.device_id, "node") is None


async def test_v11_a_silent_approval_never_widens(book: DeviceBook, make_ask: MakeAsk) -> None:
    await book.approve_silently(make_ask("a", "read"), "local", START_MS)
    with pytest.raises(ApprovalRefused, match="scope-upgrade"):
        await book.approve_silently(make_ask("a", "read", "admin"), "local", START_MS)
    record = book.lookup(make_ask("a").device_id, "operator")
    assert record is not None
    assert record.scopes == ("operator.read",)
    # A request for more keeps waiting when less is approved.
    wider = await book.request_pairing(make_ask("b", "read", "admin"), START_MS)
    await book.approve_silently(make_ask("b", "read"), "local", START_MS)
    assert wider.request in book.pending()


async def test_v26_what_was_revoked_comes_back_by_no_silent_path(
    book: DeviceBook, store: Store, make_ask: MakeAsk
) -> None:
    device = (await book.approve_silently(make_ask("a", "read"), "local", START_MS)).device
    token = book.tokens.issue(device)
    assert token is not None
    await store.run(lambda db: db.execute("UPDATE device_roles SET revoked_at_ms = 5"), revokes=True)
    await book.reload()
    assert book.lookup(device.device_id, "operator") is None
    with pytest.raises(ApprovalRefused, match="revoked"):
        await book.approve_silently(make_ask("a", "read"), "local", START_MS)
    assert await book.reissue(device.device_id, "operator", START_MS) is None
    (record,) = book.paired()
    assert (book.tokens.issue(record), book.tokens.verify(record, token)) == (None, False)
    assert (await book.request_pairing(make_ask("a", "read"), START_MS)).request.reason == "role-upgrade"
    (row,) = book.to_wire()["paired"]
    assert (row["roles"], row["scopes"], row["tokens"][0]["revokedAtMs"]) == ([], [], 5)


async def test_v26_a_record_without_a_token_has_no_authority(
    book: DeviceBook, store: Store, make_ask: MakeAsk
) -> None:
    device = (await book.approve_silently(make_ask("a", "read"), "local", START_MS)).device
    await store.run(lambda db: db.execute("UPDATE device_roles SET token_generation = 0"))
    await book.reload()
    assert book.lookup(device.device_id, "operator") is None


async def test_another_key_under_a_known_id_is_refused(book: DeviceBook, make_ask: MakeAsk) -> None:
    await book.approve_silently(make_ask("a", "read"), "local", START_MS)
    with pytest.raises(ApprovalRefused, match="key"):
        await book.approve_silently(make_ask("a", role="node", public_key="forged"), "local", START_MS)


async def test_the_number_of_devices_is_capped(
    book: DeviceBook, monkeypatch: pytest.MonkeyPatch, make_ask: MakeAsk
) -> None:
    monkeypatch.setattr("openclaw_gateway.pairing.rows.MAX_DEVICES", 3)
    for number in range(3):
        await book.approve_silently(make_ask(f"d{number}", "read"), "local", START_MS)
    with pytest.raises(ApprovalRefused, match="limit"):
        await book.approve_silently(make_ask("d3", "read"), "local", START_MS)
    await book.approve_silently(make_ask("d0", role="node"), "local", START_MS)  # another role of a known one


async def test_state3_touching_writes_nothing_until_it_is_flushed(
    book: DeviceBook, store: Store, clock: Clock, make_ask: MakeAsk
) -> None:
    device = (await book.approve_silently(make_ask("a", "read"), "local", START_MS)).device
    before = await store.run(writes)
    for number in range(1000):
        book.touch(device.device_id, "operator", f"192.0.2.{number % 250}", START_MS + number)
    book.touch("unknown", "operator", "192.0.2.1", START_MS)
    book.touch(device.device_id, "operator", "192.0.2.99", START_MS - 5)  # an old clock: does not go back
    assert await store.run(writes) == before
    seen = book.lookup(device.device_id, "operator")
    assert seen is not None
    assert (seen.last_seen_at_ms, seen.last_ip) == (START_MS + 999, "192.0.2.249")
    await book.flush()
    assert await store.run(writes) == before + 1
    await book.flush()
    assert await store.run(writes) == before + 1


async def test_state3_the_last_times_are_flushed_at_the_end(
    store: Store, state_dir: Path, clock: Clock, make_ask: MakeAsk
) -> None:
    tokens = load_device_tokens(state_dir)
    async with open_device_book(store, clock=clock, tokens=tokens) as book:
        device = (await book.approve_silently(make_ask("a", "read"), "local", START_MS)).device
        book.touch(device.device_id, "operator", "192.0.2.77", START_MS + 9)
    async with open_device_book(store, clock=clock, tokens=tokens) as book:
        (again,) = book.paired()
        assert (again.last_seen_at_ms, again.last_ip) == (START_MS + 9, "192.0.2.77")


async def test_upkeep_expires_tells_and_flushes(
    clock: Clock, make_ask: MakeAsk, mock_clock: trio.testing.MockClock
) -> None:
    told: list[Any] = []
    heard = trio.Event()

    def publish(events: tuple[object, ...]) -> None:
        told.extend(events)
        heard.set()

    # A store in memory has no thread, so the clock that is moved by hand is the only one.
    async with (
        open_store(None) as store,
        open_device_book(store, clock=clock, tokens=load_device_tokens(None)) as book,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(book.supervise_upkeep, publish)
        device = (await book.approve_silently(make_ask("a", "read"), "local", clock())).device
        await book.request_pairing(make_ask("b", "read"), clock())
        book.touch(device.device_id, "operator", "192.0.2.9", clock())
        clock.now += REQUEST_TTL_MS
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(5.0)
        await heard.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert [event.payload["decision"] for event in told] == ["expired"]
        kept = await store.run(lambda db: db.execute("SELECT last_ip FROM device_roles").fetchall())
        assert kept == [("192.0.2.9",)]
        nursery.cancel_scope.cancel()


async def test_v60_a_store_that_cannot_be_read_answers_nothing(
    state_dir: Path, clock: Clock, make_ask: MakeAsk
) -> None:
    tokens = load_device_tokens(state_dir)
    async with open_store(state_dir) as store:
        async with open_device_book(store, clock=clock, tokens=tokens) as book:
            device = (await book.approve_silently(make_ask("a", "read"), "local", START_MS)).device
        (state_dir / "gateway.db").rename(state_dir / "aside")
        async with open_device_book(store, clock=clock, tokens=tokens) as book:
            ask: list[Callable[[], object]] = [
                lambda: book.lookup(device.device_id, "operator"),
                lambda: book.records_of(device.device_id),
                book.paired,
                book.pending,
                book.to_wire,
                lambda: book.resolution("x"),
            ]
            for question in ask:
                with pytest.raises(DeviceBookUnreadable):
                    question()
            with pytest.raises(DeviceBookUnreadable):
                await book.request_pairing(make_ask("b", "read"), START_MS)
            with pytest.raises(DeviceBookUnreadable):
                await book.approve_silently(make_ask("b", "read"), "local", START_MS)
            (state_dir / "aside").rename(state_dir / "gateway.db")
            # As soon as it can be read again, it is, and nothing was lost.
            assert (await book.request_pairing(make_ask("b", "read"), START_MS)).created
            assert book.lookup(device.device_id, "operator") == device


async def test_v60_a_row_that_cannot_be_read_closes_the_book(
    book: DeviceBook, store: Store, make_ask: MakeAsk
) -> None:
    device = (await book.approve_silently(make_ask("a", "read"), "local", START_MS)).device
    for broken in ("{}", "[1]", "not json"):
        await store.run(partial(break_scopes, text=broken))
        with pytest.raises(DeviceBookUnreadable):
            await book.reload()
        with pytest.raises(DeviceBookUnreadable):
            book.lookup(device.device_id, "operator")


async def test_v60_a_key_statement_that_cannot_be_read_closes_the_book(
    book: DeviceBook, store: Store, make_ask: MakeAsk
) -> None:
    device = (await book.approve_silently(make_ask("a", "read"), "local", START_MS)).device
    for broken in ("{}", "[1]", "null", '{"key":1}', "not json"):
        await store.run(partial(break_statement, text=broken))
        with pytest.raises(DeviceBookUnreadable):
            await book.reload()
        with pytest.raises(DeviceBookUnreadable):
            book.records_of(device.device_id)


async def test_state2_a_store_that_fails_later_degrades_only_writes(
    book: DeviceBook, store: Store, state_dir: Path, make_ask: MakeAsk
) -> None:
    device = (await book.approve_silently(make_ask("a", "read"), "local", START_MS)).device
    known = await book.request_pairing(make_ask("b", "read"), START_MS)
    (state_dir / "gateway.db").rename(state_dir / "aside")
    assert book.lookup(device.device_id, "operator") == device
    book.touch(device.device_id, "operator", "192.0.2.3", START_MS + 1)
    with pytest.raises(StoreError):
        await book.request_pairing(make_ask("c", "read"), START_MS)
    with pytest.raises(StoreError):
        await book.flush()
    assert book.pending() == (known.request,)  # what is not on the disk is not listed
    (state_dir / "aside").rename(state_dir / "gateway.db")
    await book.flush()  # nothing was forgotten
    assert await store.run(lambda db: db.execute("SELECT last_ip FROM device_roles").fetchall()) == [("192.0.2.3",)]
    assert (await book.request_pairing(make_ask("c", "read"), START_MS)).created


async def test_a_full_queue_refuses_and_lists_nothing(state_dir: Path, clock: Clock, make_ask: MakeAsk) -> None:
    refused = 0

    async def ask(book: DeviceBook, number: int) -> None:
        nonlocal refused
        try:
            await book.request_pairing(make_ask(f"d{number}", "read", ip=f"10.0.0.{number}"), START_MS)
        except StoreUnavailable:
            refused += 1

    async with (
        open_store(state_dir, capacity=4) as store,
        open_device_book(store, clock=clock, tokens=load_device_tokens(state_dir)) as book,
    ):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, book, number)
        assert refused > 0
        assert len(book.pending()) == 100 - refused


async def test_memory_and_disk_agree_after_any_sequence(
    store: Store, state_dir: Path, clock: Clock, make_ask: MakeAsk
) -> None:
    chance = random.Random(20260923)
    tokens = load_device_tokens(state_dir)
    scopes = ["read", "write", "pairing", "admin"]

    async def act(book: DeviceBook) -> None:
        for _ in range(60):
            wanted = chance.sample(scopes, chance.randint(0, 4))
            ask = make_ask(f"d{chance.randint(0, 40)}", *wanted, ip=f"10.0.0.{chance.randint(0, 3)}")
            step = chance.random()
            if step < 0.6:
                await book.request_pairing(ask, clock())
            elif step < 0.8:
                with suppress(ApprovalRefused):
                    await book.approve_silently(ask, "local", clock())
            elif step < 0.9:
                await book.reissue(ask.device_id, "operator", clock())
            else:
                clock.now += chance.randint(0, MINUTE)
                await book.expire(clock())

    async with open_device_book(store, clock=clock, tokens=tokens) as book:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(act, book)
        pending, paired = set(book.pending()), set(book.paired())
        assert pending
        assert paired
        async with open_device_book(store, clock=clock, tokens=tokens) as fresh:
            assert set(fresh.pending()) == pending
            assert set(fresh.paired()) == paired
