"""Setup codes on a real store: single use over races and restarts, bound, capped, nothing usable at rest."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from openclaw_gateway.pairing import DeviceBook, load_device_tokens, open_device_book
from openclaw_gateway.pairing.decisions import OWNER
from openclaw_gateway.pairing.devices import DeviceBookUnreadable
from openclaw_gateway.pairing.setupcodes import (
    MAX_LIVE,
    MAX_OUTCOMES,
    IssuedCode,
    SetupCodes,
    SetupCodesFull,
    SetupCodeSpent,
    open_setup_codes,
)
from openclaw_gateway.policy.setup import PROFILES, Access
from openclaw_gateway.store import Store, StoreUnavailable, open_store

from .conftest import Clock, MakeAsk

TTL_MS = 600_000
URLS = ("ws://192.168.1.2:18789",)


@pytest.fixture
async def codes(store: Store, book: DeviceBook, clock: Clock) -> AsyncIterator[SetupCodes]:
    async with open_setup_codes(store, book, clock=clock) as opened:
        yield opened


async def issue(
    codes: SetupCodes, access: Access = "node", *, issuer: str = "token:operator", join: bool = False
) -> IssuedCode:
    return await codes.issue(access, urls=URLS, issuer=issuer, ttl_ms=TTL_MS, join=join)


def bytes_below(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def found(codes: SetupCodes, issued: IssuedCode) -> str:
    standing = await codes.find(issued.token)
    assert standing is not None
    return standing.setup_id


async def test_v24_a_code_pairs_its_device_and_is_spent(
    codes: SetupCodes, book: DeviceBook, make_ask: MakeAsk, clock: Clock
) -> None:
    issued = await issue(codes)
    ask = make_ask("node", role="node")
    redeemed = await codes.redeem(await found(codes, issued), ask)
    assert redeemed.device.live
    assert redeemed.device.approved_via == f"setup-code:{issued.setup_id}"
    assert book.lookup(ask.device_id, "node") == redeemed.device
    assert book.pending() == ()
    assert await codes.find(issued.token) is None
    with pytest.raises(SetupCodeSpent):
        await codes.redeem(issued.setup_id, ask)
    assert [event.name for event in redeemed.events] == ["device.pair.resolved", "device.pair.setup.completed"]
    assert redeemed.events[0].payload["decision"] == "approved"
    completion = codes.completion(issued.setup_id)
    assert completion is not None
    assert redeemed.events[1].payload == completion.to_wire() == {
        "setupId": issued.setup_id,
        "deviceId": ask.device_id,
        "deviceName": "node",
        "access": "node",
        "ts": clock(),
    }  # fmt: skip


async def test_v24_a_phone_gets_both_roles_in_one_job(codes: SetupCodes, book: DeviceBook, make_ask: MakeAsk) -> None:
    issued = await issue(codes, "limited")
    ask = make_ask("phone", role="node")
    redeemed = await codes.redeem(await found(codes, issued), ask, PROFILES["limited"].operator_scopes)
    assert redeemed.handed is not None
    assert set(redeemed.handed.scopes) == set(PROFILES["limited"].operator_scopes)
    assert redeemed.device.scopes == ()
    assert {record.role for record in book.records_of(ask.device_id)} == {"node", "operator"}
    assert book.tokens.issue(redeemed.device) != book.tokens.issue(redeemed.handed)


async def test_v24_two_redeemers_race_and_exactly_one_wins(
    codes: SetupCodes, book: DeviceBook, make_ask: MakeAsk
) -> None:
    issued = await issue(codes)
    setup_id = await found(codes, issued)
    asks = [make_ask(f"racer-{n}", role="node") for n in range(8)]
    won: list[str] = []
    lost: list[str] = []

    async def race(n: int) -> None:
        try:
            await codes.redeem(setup_id, asks[n])
        except SetupCodeSpent:
            lost.append(asks[n].device_id)
        else:
            won.append(asks[n].device_id)

    async with trio.open_nursery() as nursery:
        for n in range(8):
            nursery.start_soon(race, n)
    assert len(won) == 1
    assert len(lost) == 7
    assert [record.device_id for record in book.paired()] == won


async def test_v24_a_restart_keeps_it_spent_and_bound_and_remembers_what_became_of_it(
    state_dir: Path, clock: Clock, make_ask: MakeAsk
) -> None:
    tokens = load_device_tokens(state_dir)
    ask = make_ask("first", role="node")
    async with (
        open_store(state_dir) as store,
        open_device_book(store, clock=clock, tokens=tokens) as book,
        open_setup_codes(store, book, clock=clock) as codes,
    ):
        spent, bound, fresh = await issue(codes), await issue(codes, "full"), await issue(codes, join=True)
        await codes.redeem(spent.setup_id, ask)
        await codes.bind(bound.setup_id, ask.device_id)
    async with (
        open_store(state_dir) as store,
        open_device_book(store, clock=clock, tokens=tokens) as book,
        open_setup_codes(store, book, clock=clock) as codes,
    ):
        assert await codes.find(spent.token) is None
        with pytest.raises(SetupCodeSpent):
            await codes.redeem(spent.setup_id, ask)
        completion = codes.completion(spent.setup_id)
        assert completion is not None
        assert completion.device_id == ask.device_id
        standing = await codes.find(bound.token)
        assert standing is not None
        assert standing.bound_to == ask.device_id
        with pytest.raises(SetupCodeSpent):
            await codes.redeem(bound.setup_id, make_ask("second", role="node"))
        assert fresh.join_code is not None
        joined = await codes.fetch(fresh.join_code)
        assert joined is not None
        assert joined.token == fresh.token


async def test_v24_the_first_key_that_presents_a_code_has_it(codes: SetupCodes, make_ask: MakeAsk) -> None:
    issued = await issue(codes, "full")
    first, second = make_ask("first", role="node"), make_ask("second", role="node")
    await codes.bind(issued.setup_id, first.device_id)
    await codes.bind(issued.setup_id, first.device_id)
    with pytest.raises(SetupCodeSpent):
        await codes.bind(issued.setup_id, second.device_id)
    with pytest.raises(SetupCodeSpent):
        await codes.redeem(issued.setup_id, second)
    redeemed = await codes.redeem(issued.setup_id, first)
    assert redeemed.device.device_id == first.device_id


async def test_v23_a_code_ends_after_its_time_also_between_look_up_and_redeeming(
    codes: SetupCodes, book: DeviceBook, make_ask: MakeAsk, clock: Clock
) -> None:
    issued = await issue(codes, join=True)
    assert issued.join_code is not None
    clock.now += TTL_MS - 1
    assert await codes.find(issued.token) is not None
    clock.now += 1
    assert await codes.find(issued.token) is None
    assert await codes.fetch(issued.join_code) is None
    with pytest.raises(SetupCodeSpent):
        await codes.redeem(issued.setup_id, make_ask("late", role="node"))
    assert book.paired() == ()


async def test_v23_nothing_at_rest_can_be_used(codes: SetupCodes, state_dir: Path) -> None:
    issued = await issue(codes, join=True)
    plain = await issue(codes)
    assert issued.join_code is not None
    assert len(plain.token) == len(issued.token) == 43  # base64url of 256 bits
    assert len(issued.join_code) == 22  # base64url of 128 bits
    raw = bytes_below(state_dir)
    for secret in (issued.token, issued.join_code, plain.token):
        assert secret.encode() not in raw
    assert hashlib.sha256(plain.token.encode()).digest() in raw
    assert issued.token not in repr(issued)
    assert issued.token not in repr(codes.living())


async def test_a_join_url_is_good_for_one_look(codes: SetupCodes, make_ask: MakeAsk) -> None:
    issued = await issue(codes, join=True)
    assert issued.join_code is not None
    answers: list[str | None] = []

    async def fetch() -> None:
        assert issued.join_code is not None
        joined = await codes.fetch(issued.join_code)
        answers.append(None if joined is None else joined.token)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(fetch)
    assert sorted(answers, key=bool) == [None, None, None, issued.token]
    assert await codes.fetch("x" * 22) is None
    await codes.redeem(await found(codes, issued), make_ask("node", role="node"))


async def test_a_code_that_was_redeemed_directly_has_no_join_url_left(codes: SetupCodes, make_ask: MakeAsk) -> None:
    issued = await issue(codes, join=True)
    assert issued.join_code is not None
    await codes.redeem(issued.setup_id, make_ask("node", role="node"))
    assert await codes.fetch(issued.join_code) is None


async def test_v24_codes_die_with_the_authority_of_the_device_that_made_them(
    codes: SetupCodes, book: DeviceBook, make_ask: MakeAsk, clock: Clock
) -> None:
    admin = await book.approve_silently(make_ask("admin", "admin"), "local", clock())
    reader = await book.approve_silently(make_ask("reader", "read"), "local", clock())
    principal = f"device:{admin.device.device_id}:operator"
    first, second = await issue(codes, issuer=principal), await issue(codes, issuer=principal, join=True)
    never = await issue(codes, issuer=f"device:{reader.device.device_id}:operator")
    with pytest.raises(SetupCodeSpent):
        await codes.redeem(never.setup_id, make_ask("one", role="node"))
    await codes.redeem(first.setup_id, make_ask("two", role="node"))
    await book.remove(admin.device.device_id, OWNER, clock())
    with pytest.raises(SetupCodeSpent):
        await codes.redeem(second.setup_id, make_ask("three", role="node"))
    assert second.join_code is not None
    assert await codes.fetch(second.join_code) is None


async def test_v16_another_shared_secret_ends_the_codes_that_the_old_one_made(
    state_dir: Path, clock: Clock, make_ask: MakeAsk
) -> None:
    tokens = load_device_tokens(state_dir)
    async with (
        open_store(state_dir) as store,
        open_device_book(store, clock=clock, tokens=tokens) as book,
        open_setup_codes(store, book, clock=clock) as codes,
    ):
        admin = await book.approve_silently(make_ask("admin", "admin"), "local", clock())
        kept = await issue(codes, issuer=f"device:{admin.device.device_id}:operator")
        gone = await issue(codes, issuer="token:operator")
        codes.revoke_shared_nowait()
        assert await codes.find(gone.token) is None
    async with (
        open_store(state_dir) as store,
        open_device_book(store, clock=clock, tokens=tokens) as book,
        open_setup_codes(store, book, clock=clock) as codes,
    ):
        assert [code.setup_id for code in codes.living()] == [kept.setup_id]


async def test_v14_live_codes_are_capped_and_free_themselves(codes: SetupCodes, clock: Clock) -> None:
    for _ in range(MAX_LIVE):
        await issue(codes)
        clock.now += 1
    with pytest.raises(SetupCodesFull) as full:
        await issue(codes)
    assert full.value.wait_ms == TTL_MS - MAX_LIVE
    assert len(codes.living()) == MAX_LIVE
    clock.now += full.value.wait_ms
    await issue(codes)
    assert len(codes.living()) == MAX_LIVE


@pytest.mark.deadline(60)
async def test_v14_remembered_outcomes_are_capped(
    codes: SetupCodes, store: Store, make_ask: MakeAsk, clock: Clock
) -> None:
    ask, ids = make_ask("node", role="node"), []
    for _ in range(MAX_OUTCOMES + 5):
        ids.append((await issue(codes)).setup_id)
        await codes.redeem(ids[-1], ask)
        clock.now += 1
    assert sum(codes.completion(setup_id) is not None for setup_id in ids) == MAX_OUTCOMES
    await issue(codes)
    count = await store.run(lambda db: db.execute("SELECT count(*) FROM setup_codes").fetchone()[0])
    assert count == MAX_OUTCOMES + 1
    assert codes.completion(ids[-1]) is not None
    clock.now += 86_400_000
    await issue(codes)
    assert not any(codes.completion(setup_id) for setup_id in ids)


async def test_v24_a_wider_request_that_waits_is_not_granted_along(
    codes: SetupCodes, book: DeviceBook, make_ask: MakeAsk, clock: Clock
) -> None:
    wide = await book.request_pairing(make_ask("phone", "admin", "pairing"), clock())
    issued = await issue(codes, "limited")
    scopes = PROFILES["limited"].operator_scopes
    redeemed = await codes.redeem(issued.setup_id, make_ask("phone", role="node"), scopes)
    assert redeemed.handed is not None
    assert set(redeemed.handed.scopes) == set(scopes)
    decisions = {event.payload.get("requestId"): event.payload.get("decision") for event in redeemed.events}
    assert decisions[wide.request.request_id] == "superseded"
    assert book.pending() == ()


async def test_what_the_device_waited_for_is_answered_by_its_code(
    codes: SetupCodes, book: DeviceBook, make_ask: MakeAsk, clock: Clock
) -> None:
    ask = make_ask("node", role="node")
    waiting = await book.request_pairing(ask, clock())
    issued = await issue(codes)
    redeemed = await codes.redeem(issued.setup_id, ask)
    assert redeemed.events[0].payload["requestId"] == waiting.request.request_id
    resolution = book.resolution(waiting.request.request_id)
    assert resolution is not None
    assert resolution.decision == "approved"


async def test_a_paired_device_keeps_its_token_and_a_removed_one_comes_back_by_a_code(
    codes: SetupCodes, book: DeviceBook, make_ask: MakeAsk, clock: Clock
) -> None:
    ask = make_ask("node", role="node")
    first = await book.approve_silently(ask, "local", clock())
    again = await codes.redeem((await issue(codes)).setup_id, ask)
    assert book.tokens.issue(again.device) == book.tokens.issue(first.device)
    assert [event.name for event in again.events] == ["device.pair.setup.completed"]
    await book.remove(ask.device_id, OWNER, clock())
    back = await codes.redeem((await issue(codes)).setup_id, ask)
    assert back.device.live
    assert book.tokens.issue(back.device) != book.tokens.issue(first.device)


class FaultyStore:
    """The real store, which fails where the test says so: before the job, or inside its transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.fails = False

    async def run(self, work: object, **how: object) -> object:
        if not self.fails:
            return await self._store.run(work, **how)  # type: ignore[arg-type]

        def broken(db: sqlite3.Connection) -> object:
            work(db)  # type: ignore[operator]
            raise StoreUnavailable("the disk is full")

        return await self._store.run(broken)


async def test_v60_a_fault_while_redeeming_leaves_the_code_good_and_pairs_nobody(
    store: Store, book: DeviceBook, clock: Clock, make_ask: MakeAsk
) -> None:
    faulty = FaultyStore(store)
    async with open_setup_codes(faulty, book, clock=clock) as codes:  # type: ignore[arg-type]
        issued = await issue(codes, join=True)
        assert issued.join_code is not None
        ask = make_ask("node", role="node")
        faulty.fails = True
        with pytest.raises(StoreUnavailable):
            await codes.redeem(issued.setup_id, ask)
        with pytest.raises(StoreUnavailable):
            await codes.fetch(issued.join_code)
        with pytest.raises(StoreUnavailable):
            await issue(codes)
        assert book.paired() == ()
        assert codes.completion(issued.setup_id) is None
        faulty.fails = False
        assert (await codes.fetch(issued.join_code)) is not None
        assert (await codes.redeem(await found(codes, issued), ask)).device.live
        assert codes.living() == ()


async def test_v60_codes_that_could_not_be_loaded_are_not_unknown(
    store: Store, book: DeviceBook, clock: Clock
) -> None:
    faulty = FaultyStore(store)
    faulty.fails = True
    async with open_setup_codes(faulty, book, clock=clock) as codes:  # type: ignore[arg-type]
        with pytest.raises(DeviceBookUnreadable):
            await codes.find("x" * 43)
        faulty.fails = False
        assert await codes.find("x" * 43) is None


async def test_v23_no_text_but_the_token_is_one(codes: SetupCodes) -> None:
    issued = await issue(codes, join=True)
    assert issued.join_code is not None
    for text in ("", issued.join_code, issued.setup_id, issued.token[:-1], issued.token + "A", issued.token.swapcase()):
        assert await codes.find(text) is None
    assert await codes.find(issued.token) is not None
    assert await codes.fetch(issued.token) is None
