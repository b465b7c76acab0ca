"""The sender book and its gate: requests, codes, decisions, caps, restarts, and what is told to whom."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway.config.schema import ChannelConfig, DirectMessageConfig
from openclaw_gateway.errors import LocalProtocolError
from openclaw_gateway.pairing import sender_rows
from openclaw_gateway.pairing.records import BookEvent
from openclaw_gateway.pairing.sender_book import SenderBook, UnknownSenderRequest, open_sender_book
from openclaw_gateway.pairing.sender_codes import SenderCodes, load_sender_codes
from openclaw_gateway.pairing.sender_records import SenderKey, SenderRequest
from openclaw_gateway.pairing.senders import MAX_ACCOUNTS, SenderGate, SenderLimit
from openclaw_gateway.pairing.tokens import CredentialDamaged
from openclaw_gateway.policy.senders import MAX_PENDING_PER_ACCOUNT, MAX_WRONG_CODES
from openclaw_gateway.store import Store, StoreUnavailable, open_store
from openclaw_gateway.testing import ScriptedChannel, open_scripted_channel
from tests.pairing.conftest import Clock

HOUR = 3_600_000


class House:
    """A gate over a real store, with a scripted channel."""

    def __init__(self, gate: SenderGate, channel: ScriptedChannel, store: Store, events: list[BookEvent]) -> None:
        self.gate = gate
        self.book: SenderBook = gate.book
        self.channel = channel
        self.store = store
        self.events = events

    @property
    def codes(self) -> list[str]:
        """The codes that were sent, as the people got them."""
        return [message.text.split("Pairing code: ")[1].split("\n")[0] for message in self.channel.outbox]

    def wrong(self, count: int = 1) -> list[str]:
        sent = set(self.codes)
        made = (f"AAAA{a}{b}{c}{d}" for a, b, c, d in itertools.product("ABCDEFGH", repeat=4))
        return list(itertools.islice((code for code in made if code not in sent), count))


@asynccontextmanager
async def open_house(
    state_dir: Path | None, clock: Clock, *, channel: str = "telegram", policy: Any = "pairing",
    allow: tuple[str, ...] = (),
) -> AsyncIterator[House]:  # fmt: skip
    events: list[BookEvent] = []
    numbers = itertools.count(1)
    config = {channel: ChannelConfig(dm=DirectMessageConfig(policy=policy, allow_from=allow))}
    async with (
        open_store(state_dir) as store,
        open_sender_book(
            store, clock=clock, codes=load_sender_codes(state_dir), publish=events.append,
            new_id=lambda: f"request-{clock.now}-{next(numbers)}",
        ) as book,
    ):  # fmt: skip
        gate = SenderGate(book, config, clock=clock)
        async with open_scripted_channel(gate, channel, clock=clock) as scripted:
            yield House(gate, scripted, store, events)


@pytest.fixture
async def house(state_dir: Path, clock: Clock) -> AsyncIterator[House]:
    async with open_house(state_dir, clock) as opened:
        yield opened


def rows_in(state_dir: Path, table: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(f"file:{state_dir / 'gateway.db'}?mode=ro", uri=True)
    try:
        return db.execute(f"SELECT * FROM {table}").fetchall()
    finally:
        db.close()


def everything_in(state_dir: Path) -> list[bytes]:
    return [path.read_bytes() for path in state_dir.rglob("*") if path.is_file()]


# --- the way in


async def test_s074_s079_a_stranger_gets_a_code_and_is_let_in_by_it(house: House) -> None:
    verdict = await house.channel.write("111", "/pair", name="Ann")
    assert verdict.kind == "challenge"
    assert "openclaw pairing approve telegram " + house.codes[0] in house.channel.outbox[0].text
    assert "1 h" in house.channel.outbox[0].text
    await house.book.approve("telegram", code=house.codes[0].lower(), actor="operator:test")
    assert (await house.channel.write("111", "hello")).kind == "allow"
    assert [message.text for message in house.channel.delivered] == ["hello"]
    assert [event.name for event in house.events] == ["channel.pairing.requested", "channel.pairing.resolved"]
    assert house.events[1].payload["decision"] == "approved"
    assert house.events[0].payload["senderLabel"] == "Ann"


async def test_s075_the_code_is_durable_before_it_is_sent(state_dir: Path, clock: Clock) -> None:
    async with open_house(state_dir, clock) as house:
        await house.channel.write("111")
        assert [row[3] for row in rows_in(state_dir, "sender_requests")] == ["111"]
        code = house.codes[0]
    async with open_house(state_dir, clock) as again:
        assert (await again.channel.write("111")).kind == "silent", "the code was sent once already"
        await again.book.approve("telegram", code=code, actor="operator:test")
        assert (await again.channel.write("111")).kind == "allow"
    async with open_house(state_dir, clock) as third:
        assert (await third.channel.write("111")).kind == "allow"


async def test_a_code_is_nowhere_in_the_state_directory(state_dir: Path, clock: Clock) -> None:
    async with open_house(state_dir, clock) as house:
        await house.channel.write("111")
        code = house.codes[0].encode()
        request = house.book.waiting()[0]
    contents = everything_in(state_dir)
    assert len(contents) > 1
    assert not [content for content in contents if code in content]
    assert "salt" not in repr(request)


async def test_s078_a_rejected_sender_hears_nothing_until_the_hour_is_over(house: House, clock: Clock) -> None:
    await house.channel.write("111")
    await house.book.reject("telegram", code=house.codes[0], actor="operator:test")
    assert house.book.waiting() == ()
    assert (await house.channel.write("111")).kind == "silent"
    with pytest.raises(UnknownSenderRequest):
        await house.book.approve("telegram", code=house.codes[0], actor="operator:test")
    clock.now += HOUR
    assert (await house.channel.write("111")).kind == "challenge"
    assert len(set(house.codes)) == 2, "a new code"


async def test_a_request_expires_and_its_code_with_it(house: House, clock: Clock) -> None:
    await house.channel.write("111")
    clock.now += HOUR
    with pytest.raises(UnknownSenderRequest):
        await house.book.approve("telegram", code=house.codes[0], actor="operator:test")
    await house.book.expire()
    assert house.events[-1].payload["decision"] == "expired"
    assert [entry.event for entry in await house.book.history()] == ["expired", "requested"]


async def test_the_life_of_a_code_can_be_set(house: House, clock: Clock) -> None:
    house.book.code_ttl_ms = 90_000
    await house.channel.write("111")
    assert "2 min" in house.channel.outbox[0].text
    clock.now += 90_000
    assert house.book.waiting() == ()


async def test_pair10_a_backlog_makes_nobody_speak(house: House) -> None:
    verdicts = await house.channel.replay("111", ["message"] * 50)
    assert {verdict.kind for verdict in verdicts} == {"silent"}
    assert not house.channel.outbox
    assert house.book.waiting() == ()
    assert (await house.channel.write("111", age_ms=3_600_000)).kind == "silent", "whatever the adapter calls live"
    assert not house.channel.outbox


async def test_pair10_one_code_per_sender_and_life(house: House) -> None:
    for _ in range(50):
        await house.channel.write("111")
    assert len(house.channel.outbox) == 1
    assert len([event for event in house.events if event.name.endswith("requested")]) == 1


async def test_two_messages_at_once_give_one_code(house: House) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(house.channel.write, "111")
    assert len(house.channel.outbox) == 1
    assert len(house.book.waiting()) == 1


async def test_two_approvers_at_once_one_wins(house: House) -> None:
    await house.channel.write("111")
    outcomes: list[str] = []

    async def approve(actor: str) -> None:
        try:
            await house.book.approve("telegram", code=house.codes[0], actor=actor)
            outcomes.append("approved")
        except UnknownSenderRequest:
            outcomes.append("unknown")

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(approve, f"operator:{number}")
    assert sorted(outcomes) == ["approved", *["unknown"] * 4]


# --- caps


async def test_pair6_three_wait_on_an_account_and_another_account_is_free(house: House) -> None:
    for sender in range(1, 10):
        await house.channel.write(str(sender))
    assert len(house.book.waiting()) == MAX_PENDING_PER_ACCOUNT == len(house.channel.outbox)
    assert (await house.channel.write("50", account="work")).kind == "challenge"


async def test_requests_are_capped_in_all(house: House) -> None:
    for account in range(sender_rows.MAX_PENDING // MAX_PENDING_PER_ACCOUNT + 5):
        for sender in ("1", "2", "3"):
            await house.channel.write(sender, account=f"account-{account}")
    assert len(house.book.waiting()) == sender_rows.MAX_PENDING


async def test_history_is_capped(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_rows, "MAX_HISTORY", 5)
    for number in range(12):
        await house.book.set_policy(SenderKey("telegram", "default", str(number + 1)), "deny", actor="operator:test")
    kept = await house.book.history(limit=100)
    assert [entry.sender_id for entry in kept] == ["12", "11", "10", "9", "8"]


async def test_senders_are_capped_and_a_full_book_approves_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_rows, "MAX_SENDERS", 1)
    await house.book.set_policy(SenderKey("telegram", "default", "1"), "allow", actor="operator:test")
    await house.channel.write("111")
    with pytest.raises(SenderLimit):
        await house.book.approve("telegram", code=house.codes[0], actor="operator:test")
    assert len(house.book.waiting()) == 1, "it still waits"
    await house.book.set_policy(SenderKey("telegram", "default", "1"), "deny", actor="operator:test")


async def test_accounts_are_capped(house: House) -> None:
    for number in range(MAX_ACCOUNTS - 1):
        house.gate.register("telegram", house.channel, account=f"a{number}")
    with pytest.raises(LocalProtocolError):
        house.gate.register("telegram", house.channel, account="one more")
    house.gate.register("telegram", house.channel, account="a0")


# --- decisions without a request


async def test_s080_session_policies(house: House) -> None:
    key = SenderKey("telegram", "default", "111")
    await house.channel.write("111")
    await house.book.set_policy(key, "deny", actor="operator:test")
    assert house.book.waiting() == (), "what waited ended with the decision"
    assert (await house.channel.write("111")).kind == "deny"
    await house.book.set_policy(key, "allow", actor="operator:test")
    assert (await house.channel.write("111")).kind == "allow"
    await house.book.set_policy(key, "pair", actor="operator:test")
    assert (await house.channel.write("111")).kind == "challenge"
    await house.book.approve("telegram", code=house.codes[-1], actor="operator:test")
    assert house.book.policy_of(key) == "allow"
    await house.book.set_policy(key, None, actor="operator:test")
    assert house.book.policy_of(key) is None
    assert (await house.channel.write("111")).kind == "challenge"


async def test_s081_history_says_who_decided(house: House) -> None:
    await house.channel.write("111", name="Ann")
    await house.book.approve("telegram", code=house.codes[0], actor="operator:ops")
    newest, oldest = await house.book.history(channel="telegram")
    assert (newest.event, newest.actor, newest.display_name) == ("approved", "operator:ops", "Ann")
    assert (oldest.event, oldest.actor) == ("requested", "sender")
    assert newest.request_id == oldest.request_id
    assert await house.book.history(channel="discord") == []


async def test_v26_an_allowed_sender_that_was_cleared_does_not_come_back_with_a_backup(
    state_dir: Path, clock: Clock
) -> None:
    key = SenderKey("telegram", "default", "111")
    async with open_house(state_dir, clock) as house:
        await house.book.set_policy(key, "allow", actor="operator:test")
    async with open_house(state_dir, clock) as house:
        await house.book.set_policy(key, "deny", actor="operator:test")
    for path in (state_dir / "backups").glob("*"):
        if path.suffix == ".db":
            db = sqlite3.connect(path)
            assert db.execute("SELECT policy FROM senders").fetchall() in ([("deny",)], []), path.name
            db.close()
    (state_dir / "gateway.db").write_bytes(b"damaged")
    async with open_house(state_dir, clock) as house:
        assert house.book.policy_of(key) == "deny"


# --- telling them


async def test_s077_notify(house: House) -> None:
    await house.channel.write("111")
    decided = await house.book.approve("telegram", code=house.codes[0], actor="operator:test")
    assert decided.sender is not None
    assert await house.gate.notify(decided.sender) == "sent"
    assert house.channel.outbox[-1].sender_id == "111"
    house.channel.broken = ConnectionError("no network")
    assert await house.gate.notify(decided.sender) == "failed"
    house.gate.unregister("telegram", house.channel)
    assert await house.gate.notify(decided.sender) == "unsupported"


async def test_notify_does_not_wait_for_ever(clock: Clock, autojump_clock: trio.testing.MockClock) -> None:
    class Stuck:
        async def send(self, account: str, sender_id: str, text: str) -> None:
            await trio.sleep_forever()

    async with open_house(None, clock) as house:
        house.gate.register("telegram", Stuck())
        sender = await house.book.set_policy(SenderKey("telegram", "default", "1"), "allow", actor="operator:test")
        assert sender is not None
        assert await house.gate.notify(sender) == "failed"


# --- trouble


async def test_v60_a_store_that_cannot_write_admits_nobody_and_says_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: object, **more: object) -> None:
        await trio.lowlevel.checkpoint()
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(house.store, "run", broken)
    verdict = await house.channel.write("111")
    assert verdict.kind == "silent"
    assert verdict.text is None
    assert not house.channel.outbox
    assert "pairing request cannot be written" in caplog.text


@pytest.mark.parametrize("policy", ["open", "pairing", "allowlist"])
async def test_v60_an_unreadable_book_lets_nobody_in(state_dir: Path, clock: Clock, policy: str) -> None:
    async with open_house(state_dir, clock) as house:
        await house.book.set_policy(SenderKey("telegram", "default", "111"), "deny", actor="operator:test")
        await house.store.run(lambda db: db.execute("UPDATE senders SET policy = 'nonsense'").rowcount)
    async with open_house(state_dir, clock, policy=policy, allow=("111",)) as house:
        assert not house.book.readable
        assert (await house.channel.write("111")).kind == "silent"
        await house.store.run(lambda db: db.execute("UPDATE senders SET policy = 'deny'").rowcount)
        await house.book.reload()
        assert (await house.channel.write("111")).kind == "deny"


def test_a_damaged_key_is_never_replaced_silently(state_dir: Path) -> None:
    load_sender_codes(state_dir)
    path = state_dir / "credentials" / "sender-code.key"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"short")
    with pytest.raises(CredentialDamaged):
        load_sender_codes(state_dir)
    assert path.read_bytes() == b"short"


async def test_the_upkeep_ends_requests_by_itself(clock: Clock, autojump_clock: trio.testing.MockClock) -> None:
    async with open_house(None, clock) as house, trio.open_nursery() as nursery:
        nursery.start_soon(house.book.supervise_upkeep)
        await house.channel.write("111")
        clock.now += HOUR
        await trio.sleep(6)
        assert house.events[-1].payload["decision"] == "expired"
        nursery.cancel_scope.cancel()


def test_codes_depend_on_key_request_and_salt(clock: Clock) -> None:
    salts = itertools.count()
    draw: Callable[[int], bytes] = lambda size: next(salts).to_bytes(size, "big")  # noqa: E731
    codes = SenderCodes(bytes(32), draw=draw)
    request = SenderRequest(
        request_id="r1", channel="telegram", account="default", sender_id="1", display_name="", salt=codes.salt(),
        rejected=False, created_at_ms=0, expires_at_ms=1,
    )  # fmt: skip
    others = [attrs.evolve(request, salt=codes.salt()), attrs.evolve(request, request_id="r2")]
    made = {codes.code(row) for row in [request, *others]} | {SenderCodes(b"x" * 32).code(request)}
    assert len(made) == 4
    assert codes.matches(request, f"{codes.code(request)[:4]}-{codes.code(request)[4:]}".lower())
    assert not codes.matches(request, "")
    assert not codes.matches(request, "ÄÖÜ" * 40)


async def test_v29_wrong_codes_are_counted_per_account(house: House) -> None:
    await house.channel.write("111")
    await house.channel.write("222", account="work")
    for code in house.wrong(MAX_WRONG_CODES - 1):
        with pytest.raises(UnknownSenderRequest):
            await house.book.approve("telegram", account="default", code=code, actor="operator:test")
    assert len(house.book.waiting()) == 2
    with pytest.raises(UnknownSenderRequest) as refused:
        await house.book.reject("telegram", account="default", code=house.wrong()[0], actor="operator:test")
    assert refused.value.expired == 1
    assert [row.account for row in house.book.waiting()] == ["work"]
    assert house.events[-1].payload["decision"] == "expired"
    with pytest.raises(UnknownSenderRequest):
        await house.book.approve("telegram", code=house.codes[0], actor="operator:test")
    assert (await house.channel.write("111")).kind == "challenge", "they get a new code when they write again"


async def test_v27_a_group_message_does_not_even_touch_a_request(house: House, clock: Clock) -> None:
    await house.channel.write("111")
    (request,) = house.book.waiting()
    clock.now += 1000
    await house.channel.write("111", context="group")
    assert house.book.last_seen_ms(request) == request.created_at_ms
    await house.channel.write("111")
    assert house.book.last_seen_ms(request) == clock.now


async def test_pair6_a_crowd_that_comes_at_once_is_capped_too(house: House) -> None:
    async with trio.open_nursery() as nursery:
        for sender in range(1, 20):
            nursery.start_soon(house.channel.write, str(sender))
    assert len(house.channel.outbox) == len(house.book.waiting()) == MAX_PENDING_PER_ACCOUNT


async def test_an_id_counts_on_its_own_channel_and_account_and_in_its_time(house: House, clock: Clock) -> None:
    await house.channel.write("111", account="work")
    (request,) = house.book.waiting()
    for channel, account in (("discord", None), ("telegram", "default"), ("telegram", "")):
        if account == "":
            clock.now += HOUR
        with pytest.raises(UnknownSenderRequest):
            await house.book.approve(
                channel, account=account or None, request_id=request.request_id, actor="operator:test"
            )
    assert house.book.senders() == ()
