"""Refresh families on a real store: rotation, the lost answer, reuse, races, restart (C18, S147-S149, V18, V26)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from openclaw_gateway.pairing import DeviceBook, PairedDevice, load_device_tokens, open_device_book
from openclaw_gateway.pairing.issued import MAX_SETTLED, Handout, IssuedTokens, RefreshRefused, open_issued_tokens
from openclaw_gateway.policy.tokenlife import GRACE_MS, REFRESH_LIVES, LifeRules
from openclaw_gateway.store import Store, StoreUnavailable, open_store
from tests.pairing.conftest import START_MS, Clock, MakeAsk
from tests.pairing.test_tokens import everything_in

DAY = 86_400_000
RULES = LifeRules(expires_in_ms=DAY, max_uses=3)


@pytest.fixture
async def issued(store: Store, book: DeviceBook) -> AsyncIterator[IssuedTokens]:
    async with open_issued_tokens(store, book, RULES) as opened:
        yield opened


async def pair(book: DeviceBook, make_ask: MakeAsk, name: str = "a", role: str = "operator") -> PairedDevice:
    return (await book.approve_silently(make_ask(name, "read", role=role), "local", START_MS)).device


def refresh_of(handout: Handout) -> str:
    assert handout.refresh_token is not None
    return handout.refresh_token


async def refused(issued: IssuedTokens, token: str, now: int, **caller: tuple[str, str]) -> str:
    with pytest.raises(RefreshRefused) as caught:
        await issued.refresh(token, now, **caller)
    return caught.value.reason


def now_of(book: DeviceBook, record: PairedDevice) -> PairedDevice:
    found = book.lookup(record.device_id, record.role)
    assert found is not None
    return found


async def test_s147_without_a_life_there_is_no_end_and_no_refresh_token(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    issued.rules = LifeRules()
    handout = await issued.hand_out(await pair(book, make_ask), START_MS, afresh=True)
    assert handout.device_token is not None
    assert (handout.expires_at_ms, handout.refresh_token, len(issued)) == (None, None, 0)
    assert await refused(issued, "ocr_" + "x" * 64, START_MS) == "disabled"


async def test_s148_a_refresh_rotates_both_tokens_and_the_old_ones_are_worthless(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    record = await pair(book, make_ask)
    first = await issued.hand_out(record, START_MS, afresh=True)
    assert first.expires_at_ms == START_MS + DAY
    assert first.refresh_expires_at_ms == START_MS + REFRESH_LIVES * DAY
    again = await issued.hand_out(record, START_MS + 5, afresh=False)
    assert again == first  # the same at every connect

    later = START_MS + DAY + 7  # after the end of the device token: that is what it is for
    second = await issued.refresh(refresh_of(first), later)
    assert second.device_token not in {None, first.device_token}
    assert refresh_of(second) != refresh_of(first)
    assert (second.expires_at_ms, second.uses_left) == (later + DAY, RULES.max_uses - 1)
    current = now_of(book, record)
    assert current == second.record
    assert book.tokens.verify(current, second.device_token or "")
    assert not book.tokens.verify(current, first.device_token or "")
    assert not issued.expired(current, later)


async def test_c18_a_lost_answer_is_given_again_until_it_was_used(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    record = await pair(book, make_ask)
    token = refresh_of(await issued.hand_out(record, START_MS, afresh=True))
    answer = await issued.refresh(token, START_MS + 1)
    assert await issued.refresh(token, START_MS + GRACE_MS - 1) == answer
    issued.settle(now_of(book, record), START_MS + GRACE_MS - 1)  # the device connects with what it was given
    assert await refused(issued, token, START_MS + GRACE_MS - 1) == "reused"


async def test_c18_a_late_repetition_is_reuse_and_ends_the_family(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    ended: list[tuple[str, str]] = []
    issued.on_reuse = lambda device_id, role: ended.append((device_id, role))
    record = await pair(book, make_ask)
    token = refresh_of(await issued.hand_out(record, START_MS, afresh=True))
    answer = await issued.refresh(token, START_MS)
    late = START_MS + GRACE_MS
    assert await refused(issued, token, late) == "reused"
    assert ended == [(record.device_id, record.role)]
    current = now_of(book, record)
    assert current.live  # AUTH-3: the pairing stays
    assert not book.tokens.verify(current, answer.device_token or "")
    assert await refused(issued, refresh_of(answer), late) == "revoked"
    assert await refused(issued, token, late) == "revoked"
    assert ended == [(record.device_id, record.role)]
    # The device's own token starts no new family, a fresh authentication does.
    assert (await issued.hand_out(current, late, afresh=False)).refresh_token is None
    healed = await issued.hand_out(current, late, afresh=True)
    assert healed.refresh_token is not None
    assert (await issued.refresh(healed.refresh_token, late)).uses_left == RULES.max_uses - 1


async def test_s149_a_family_is_renewed_at_most_max_uses_times(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    record = await pair(book, make_ask)
    token = refresh_of(await issued.hand_out(record, START_MS, afresh=True))
    for _ in range(RULES.max_uses - 1):
        token = refresh_of(await issued.refresh(token, START_MS))
    last = await issued.refresh(token, START_MS)
    assert (last.refresh_token, last.uses_left) == (None, None)  # nothing more to renew with
    assert last.device_token is not None
    current = now_of(book, record)
    assert (await issued.hand_out(current, START_MS, afresh=False)).refresh_token is None
    assert (await issued.hand_out(current, START_MS, afresh=True)).refresh_token is not None


async def test_auth3_a_fresh_authentication_replaces_an_expired_token_and_the_tokens_own_connect_does_not(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    record = await pair(book, make_ask)
    first = await issued.hand_out(record, START_MS, afresh=True)
    late = START_MS + DAY
    unchanged = await issued.hand_out(record, late, afresh=False)
    assert unchanged.device_token == first.device_token
    healed = await issued.hand_out(record, late, afresh=True)
    assert healed.device_token != first.device_token
    assert healed.expires_at_ms == late + DAY
    assert await refused(issued, refresh_of(first), late) == "revoked"  # its family went with the token
    # two connections that heal at once are handed the same
    assert await issued.hand_out(record, late, afresh=True) == healed


async def test_c18_a_refresh_token_lives_for_seven_lives(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    token = refresh_of(await issued.hand_out(await pair(book, make_ask), START_MS, afresh=True))
    assert await refused(issued, token, START_MS + REFRESH_LIVES * DAY) == "expired"
    assert (await issued.refresh(token, START_MS + REFRESH_LIVES * DAY - 1)).device_token is not None


async def test_v26_whatever_ends_the_device_token_ends_its_family(
    issued: IssuedTokens, book: DeviceBook, store: Store, make_ask: MakeAsk
) -> None:
    rotated, revoked, removed = [await pair(book, make_ask, name) for name in ("a", "b", "c")]
    devices = (rotated, revoked, removed)
    tokens = [refresh_of(await issued.hand_out(record, START_MS, afresh=True)) for record in devices]
    await book.reissue(rotated.device_id, "operator", START_MS)
    await store.run(
        lambda db: db.execute("UPDATE device_roles SET revoked_at_ms = 1 WHERE device_id = ?", (revoked.device_id,)),
        revokes=True,
    )
    drop = "DELETE FROM devices WHERE device_id = ?"
    await store.run(lambda db: db.execute(drop, (removed.device_id,)), revokes=True)
    await book.reload()
    for token in tokens:
        assert await refused(issued, token, START_MS) == "revoked"
    assert book.lookup(revoked.device_id, "operator") is None
    assert await store.run(lambda db: db.execute("SELECT count(*) FROM refresh_families").fetchone()) == (2,)
    again = await pair(book, make_ask, "c")
    await issued.hand_out(again, START_MS, afresh=True)
    assert await refused(issued, tokens[2], START_MS) == "revoked"


async def test_v18_a_connection_refreshes_its_own_device_and_role_only(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    mine, other = await pair(book, make_ask, "a"), await pair(book, make_ask, "b")
    node = await pair(book, make_ask, "a", role="node")
    token = refresh_of(await issued.hand_out(other, START_MS, afresh=True))
    for record in (mine, node):
        assert await refused(issued, token, START_MS, caller=(record.device_id, record.role)) == "wrong"
    kept = await issued.refresh(token, START_MS, caller=(other.device_id, other.role))
    assert kept.record.scopes == other.scopes  # a refresh never widens


async def test_auth2_wrong_malformed_and_setup_codes_have_their_own_words(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    token = refresh_of(await issued.hand_out(await pair(book, make_ask), START_MS, afresh=True))
    flipped = token[:10] + ("A" if token[10] != "A" else "B") + token[11:]
    stranger = load_device_tokens(None)
    assert await refused(issued, flipped, START_MS) == "wrong"
    assert await refused(issued, stranger.refresh_token(stranger.new_family(), 0), START_MS) == "wrong"
    assert await refused(issued, book.tokens.refresh_token(book.tokens.new_family(), 0), START_MS) == "revoked"
    odd = ("ocr_" + "ü" * 64, "ocr_" + "=" * 64, "\ud800", "x" * 1_000_000)
    for malformed in ("", "ocr_", token[:-1], token + "A", token[4:], " " + token, *odd):
        assert await refused(issued, malformed, START_MS) == "malformed"
    assert await refused(issued, "oc-pair://eyJ", START_MS) == "is-setup-code"
    assert (await issued.refresh(token, START_MS)).refresh_token is not None  # none of that cost the family anything


async def test_c18_two_refreshes_at_once_get_one_answer(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    token = refresh_of(await issued.hand_out(await pair(book, make_ask), START_MS, afresh=True))
    answers: list[Handout] = []

    async def ask() -> None:
        answers.append(await issued.refresh(token, START_MS + 1))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)
    assert len(answers) == 20
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].uses_left == RULES.max_uses - 1


async def test_c18_a_thief_and_the_owner_at_once_leave_nothing_good_behind(
    issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk
) -> None:
    """The owner rotates with the newest token while a spent one comes back: whatever the order, the family is over."""
    record = await pair(book, make_ask)
    spent = refresh_of(await issued.hand_out(record, START_MS, afresh=True))
    newest = refresh_of(await issued.refresh(spent, START_MS))
    outcomes: list[str] = []

    async def use(token: str) -> None:
        try:
            await issued.refresh(token, START_MS + GRACE_MS)
        except RefreshRefused as error:
            outcomes.append(error.reason)
        else:
            outcomes.append("ok")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use, newest)
        nursery.start_soon(use, spent)
    assert sorted(outcomes) in (["ok", "reused"], ["reused", "revoked"])
    current = now_of(book, record)
    handout = await issued.hand_out(current, START_MS + GRACE_MS, afresh=False)
    assert handout.refresh_token is None


async def test_state4_families_survive_a_restart_and_nothing_of_a_token_is_on_the_disk(
    state_dir: Path, clock: Clock, new_id: Callable[[], str], make_ask: MakeAsk
) -> None:
    @asynccontextmanager
    async def open_all() -> AsyncIterator[tuple[DeviceBook, IssuedTokens]]:
        async with (
            open_store(state_dir) as store,
            open_device_book(store, clock=clock, tokens=load_device_tokens(state_dir), new_id=new_id) as book,
            open_issued_tokens(store, book, RULES) as issued,
        ):
            yield book, issued

    async with open_all() as (book, issued):
        first = await issued.hand_out(await pair(book, make_ask), START_MS, afresh=True)
        second = await issued.refresh(refresh_of(first), START_MS)
    async with open_all() as (book, issued):
        # The answer may have been lost with the process: within the grace it is still given.
        assert await issued.refresh(refresh_of(first), START_MS + 1) == second
        assert await refused(issued, refresh_of(first), START_MS + GRACE_MS) == "reused"
    async with open_all() as (book, issued):
        assert await refused(issued, refresh_of(second), START_MS) == "revoked"  # ended is ended
    everything = everything_in(state_dir)
    for secret in (first.device_token, first.refresh_token, second.device_token, second.refresh_token):
        assert secret is not None
        assert secret.encode() not in everything
    assert refresh_of(first) not in repr(first)


async def test_v60_a_store_that_fails_rotates_nothing_and_the_token_stays_good(
    issued: IssuedTokens, book: DeviceBook, store: Store, make_ask: MakeAsk, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await pair(book, make_ask)
    handout = await issued.hand_out(record, START_MS, afresh=True)

    async def broken(*args: object, **more: object) -> object:
        raise StoreUnavailable("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "run", broken)
        with pytest.raises(StoreUnavailable):
            await issued.refresh(refresh_of(handout), START_MS)
    assert book.tokens.verify(now_of(book, record), handout.device_token or "")
    assert (await issued.refresh(refresh_of(handout), START_MS)).uses_left == RULES.max_uses - 1


async def test_rule8_what_is_remembered_is_bounded(issued: IssuedTokens, book: DeviceBook, make_ask: MakeAsk) -> None:
    for number in range(3):
        await issued.hand_out(await pair(book, make_ask, f"d{number}"), START_MS, afresh=True)
    assert len(issued) == 3
    record = now_of(book, await pair(book, make_ask, "d0"))
    for number in range(MAX_SETTLED + 5):
        issued._settled[number.to_bytes(12, "big")] = 0
    issued.settle(record, START_MS)
    assert len(issued._settled) == MAX_SETTLED
    book._known._devices.pop(record.device_id)
    issued.prune()
    assert len(issued) == 2
