"""API keys on a real store: shown once, kept as a digest, revoked for good, last use in batches."""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio.testing

from openclaw_gateway.pairing.apikeys import (
    FLUSH_SECONDS,
    MAX_KEYS,
    ApiKeyRefused,
    ApiKeys,
    ApiKeysUnreadable,
    open_api_keys,
)
from openclaw_gateway.policy.tokenlife import ApiKeyOutcome, LifeRules
from openclaw_gateway.store import Store, StoreUnavailable, open_store
from tests.pairing.conftest import START_MS
from tests.pairing.test_tokens import everything_in

NONE = LifeRules()
READ = ("operator.read",)
O = ApiKeyOutcome  # noqa: E741


def lose_the_database(state_dir: Path) -> None:
    assert list((state_dir / "backups").glob("*")), "a revocation renews the backups"
    for path in state_dir.glob("gateway.db*"):
        path.unlink()


@pytest.fixture
async def keys(store: Store) -> AsyncIterator[ApiKeys]:
    async with open_api_keys(store, NONE) as opened:
        yield opened


async def test_a_key_is_256_bits_and_only_its_digest_is_kept(keys: ApiKeys, store: Store, state_dir: Path) -> None:
    key, text = await keys.create("ci", ["operator.write", "operator.read", "nonsense"], by="owner", now=START_MS)
    assert re.fullmatch(r"ocg_[A-Za-z0-9_-]{43}", text)
    assert key.scopes == ("operator.read", "operator.write")
    assert keys.check(text, START_MS) == (O.MATCH, key)
    assert text not in repr(key)
    assert text not in str(key.to_wire(NONE, START_MS))
    await store.run(lambda db: db.execute("SELECT 1").fetchone())
    assert text.encode() not in everything_in(state_dir)


async def test_auth2_wrong_malformed_revoked_expired_and_no_key_at_all_are_told_apart(keys: ApiKeys) -> None:
    _, gone = await keys.create("gone", READ, by="owner", now=START_MS)
    _, brief = await keys.create("brief", READ, by="owner", now=START_MS, expires_at_ms=START_MS + 10)
    await keys.revoke("gone", START_MS)
    assert keys.check(gone, START_MS)[0] is O.REVOKED
    assert keys.check(brief, START_MS + 9)[0] is O.MATCH
    assert keys.check(brief, START_MS + 10)[0] is O.EXPIRED
    assert keys.check("ocg_" + "x" * 43, START_MS) == (O.WRONG, None)
    for malformed in ("ocg_", brief[:-1], brief + "x", f" {brief}", f"{brief}\n", brief.replace("_", "-", 1) + "ocg_"):
        expected = O.MALFORMED if malformed.lstrip().startswith("ocg_") else O.NONE
        assert keys.check(malformed, START_MS) == (expected, None)
    assert keys.check("some shared secret", START_MS) == (O.NONE, None)
    assert keys.check("ocg_" + "x" * 10_000_000, START_MS)[0] is O.MALFORMED


async def test_s147_a_key_without_an_end_of_its_own_lives_as_long_as_every_token(keys: ApiKeys) -> None:
    _, plain = await keys.create("plain", READ, by="owner", now=START_MS)
    _, own = await keys.create("own", READ, by="owner", now=START_MS, expires_at_ms=START_MS + 5000)
    keys.rules = LifeRules(expires_in_ms=1000)
    assert keys.check(plain, START_MS + 1000)[0] is O.EXPIRED
    assert keys.check(own, START_MS + 4999)[0] is O.MATCH
    assert keys.check(own, START_MS + 5000)[0] is O.EXPIRED


async def test_v26_a_revoked_key_stays_revoked_over_a_restart_and_in_every_backup(
    state_dir: Path,
) -> None:
    async with open_store(state_dir) as store, open_api_keys(store, NONE) as keys:
        _, text = await keys.create("ci", READ, by="owner", now=START_MS)
    # From here on there is a backup in which the key is good.
    async with open_store(state_dir) as store, open_api_keys(store, NONE) as keys:
        assert keys.check(text, START_MS)[0] is O.MATCH
        told: list[str] = []
        keys.on_revoked = told.append
        gone = await keys.revoke("ci", START_MS + 1)
        assert told == [gone.key_id]
        with pytest.raises(ApiKeyRefused, match="unknown"):
            await keys.revoke("ci", START_MS + 2)
    lose_the_database(state_dir)
    async with open_store(state_dir) as store, open_api_keys(store, NONE) as keys:
        assert store.recovery is not None
        assert keys.check(text, START_MS + 4)[0] is O.REVOKED
        assert not keys.live(gone.key_id, START_MS + 4)
        _, other = await keys.create("ci", READ, by="owner", now=START_MS + 5)  # the name is free again
        assert keys.check(other, START_MS + 5)[0] is O.MATCH


async def test_names_scopes_and_ends_are_checked(keys: ApiKeys) -> None:
    await keys.create("a" * 64, READ, by="owner", now=START_MS)
    for name in ("", "a" * 65, "-a", "a b", "ä", "a\n", "\x1b[31m"):
        with pytest.raises(ApiKeyRefused) as caught:
            await keys.create(name, READ, by="owner", now=START_MS)
        assert caught.value.reason == "name"
    for given, reason in (
        ({"scopes": []}, "no-scopes"),
        ({"scopes": ["operator.everything"]}, "no-scopes"),
        ({"expires_at_ms": START_MS}, "already-over"),
        ({"name": "a" * 64}, "name-taken"),
    ):
        with pytest.raises(ApiKeyRefused) as caught:
            await keys.create(**{"name": "b", "scopes": READ, "by": "owner", "now": START_MS, **given})  # type: ignore[arg-type]
        assert caught.value.reason == reason


async def test_two_makers_of_one_name_race_and_one_wins(keys: ApiKeys) -> None:
    outcomes: list[str] = []

    async def make() -> None:
        try:
            await keys.create("ci", READ, by="owner", now=START_MS)
        except ApiKeyRefused as error:
            outcomes.append(error.reason)
        else:
            outcomes.append("made")

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(make)
    assert sorted(outcomes) == ["made"] + ["name-taken"] * 4


async def test_rule8_at_most_256_live_keys_and_as_many_revoked_ones() -> None:
    async with open_store(None) as store, open_api_keys(store, NONE) as keys:
        for number in range(MAX_KEYS):
            await keys.create(f"k{number}", READ, by="owner", now=START_MS + number)
        with pytest.raises(ApiKeyRefused, match="limit"):
            await keys.create("one-more", READ, by="owner", now=START_MS)
        for number in range(MAX_KEYS):
            await keys.revoke(f"k{number}", START_MS + 1000 + number)
        for number in range(3):
            await keys.create(f"n{number}", READ, by="owner", now=START_MS)
            await keys.revoke(f"n{number}", START_MS + 5000)
        assert len(keys.listed()) == MAX_KEYS
        rows = await store.run(lambda db: db.execute("SELECT count(*) FROM api_keys").fetchone()[0])
        assert rows == MAX_KEYS
        assert keys._by_digest.keys() == {key.digest for key in keys.listed()}


async def test_state3_using_a_key_writes_nothing_at_once_and_is_flushed_within_a_minute(
    store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_store(None) as private, open_api_keys(private, NONE) as keys:
        key, _ = await keys.create("ci", READ, by="owner", now=START_MS)
        writes = 0
        real = private.run

        async def counted(*args: object, **more: object) -> object:
            nonlocal writes
            writes += 1
            return await real(*args, **more)  # type: ignore[arg-type]

        private.run = counted  # type: ignore[method-assign, assignment]
        for number in range(1000):
            keys.touch(key.key_id, "192.0.2.7", START_MS + number)
        assert writes == 0
        assert keys.listed()[0].last_used_at_ms == START_MS + 999
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keys.supervise_upkeep)
            await trio.sleep(FLUSH_SECONDS + 1)
            nursery.cancel_scope.cancel()
        assert writes == 1
        await keys.reload()
        assert (keys.listed()[0].last_used_at_ms, keys.listed()[0].last_ip) == (START_MS + 999, "192.0.2.7")


async def test_v60_keys_that_cannot_be_read_are_not_wrong(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*args: object, **more: object) -> object:
        raise StoreUnavailable("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "run", broken)
        async with open_api_keys(store, NONE) as keys:
            assert keys.check("ocg_" + "x" * 43, START_MS) == (O.UNREADABLE, None)
            with pytest.raises(ApiKeysUnreadable):
                keys.listed()
            with pytest.raises(ApiKeysUnreadable):
                await keys.create("ci", READ, by="owner", now=START_MS)
    await keys.create("ci", READ, by="owner", now=START_MS)  # comes back with the store
    assert len(keys.listed()) == 1


async def test_v15_a_key_is_compared_by_digests_of_equal_length(
    keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = await keys.create("ci", READ, by="owner", now=START_MS)
    seen: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def watching(a: bytes, b: bytes) -> bool:
        seen.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", watching)
    assert keys.check(text, START_MS)[0] is O.MATCH
    assert seen == [(32, 32)]
