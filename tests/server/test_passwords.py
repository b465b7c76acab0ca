"""bcrypt without stopping the loop: what matches, what is remembered, and what a crowd of guessers gets."""

from __future__ import annotations

import threading

import bcrypt
import pytest
import trio
import trio.testing

from openclaw_gateway.config.schema import AuthConfig, GatewayConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.server.passwords import MAX_WAITING, PasswordChecker, TooManyChecks
from openclaw_gateway.testing import connect_peer, open_memory_gateway

PASSWORD = "correct Horse 7 battery!"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()


async def test_s151_a_bcrypt_hash_admits_its_password_and_no_other() -> None:
    checker = PasswordChecker(HASH)
    assert await checker.matches(PASSWORD)
    assert not await checker.matches(PASSWORD + "x")
    assert not await checker.matches("")
    assert not await checker.matches("x" * 4096)
    assert await checker.matches(PASSWORD)


async def test_a_password_that_was_right_is_not_hashed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[bytes] = []
    real = bcrypt.checkpw

    def counted(password: bytes, right: bytes) -> bool:
        hashed.append(password)
        return real(password, right)

    monkeypatch.setattr(bcrypt, "checkpw", counted)
    checker = PasswordChecker(HASH)
    for _ in range(2):
        assert await checker.matches(PASSWORD)
    assert hashed == [PASSWORD.encode()]
    assert not await checker.matches("wrong Horse 7 battery!")
    assert len(hashed) == 2


async def test_a_text_beyond_72_bytes_never_matches_by_its_beginning() -> None:
    long = "a" * 72
    checker = PasswordChecker(bcrypt.hashpw(long.encode(), bcrypt.gensalt(4)).decode())
    assert await checker.matches(long)
    assert not await checker.matches(long + "b")


async def test_perf1_the_loop_runs_while_a_password_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check ends only when the loop says so: on the loop itself it would never."""
    loop_ran = threading.Event()

    def slow(password: bytes, right: bytes) -> bool:
        return loop_ran.wait(10)

    monkeypatch.setattr(bcrypt, "checkpw", slow)
    verdicts: list[bool] = []

    async def check() -> None:
        verdicts.append(await PasswordChecker(HASH).matches(PASSWORD))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(check)
        await trio.testing.wait_all_tasks_blocked()
        loop_ran.set()
    assert verdicts == [True]


async def test_rule8_only_so_many_guesses_may_wait() -> None:
    slow = PasswordChecker(bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(9)).decode())
    refused = 0

    async def guess(number: int) -> None:
        nonlocal refused
        try:
            assert not await slow.matches(f"guess {number}")
        except TooManyChecks:
            refused += 1

    async with trio.open_nursery() as nursery:
        for number in range(MAX_WAITING + 10):
            nursery.start_soon(guess, number)
    assert refused == 9  # one was being checked, MAX_WAITING waited


async def test_s150_password_mode_end_to_end() -> None:
    config = GatewayConfig(port=0, auth=AuthConfig(type="password", password_hash=HASH))
    async with open_memory_gateway(config) as gateway:
        async with connect_peer(gateway, password=PASSWORD) as peer:
            assert peer.hello["auth"]["method"] == "password"
        with pytest.raises(CallFailed) as refused:
            async with connect_peer(gateway, password="guess"):
                pass
        assert refused.value.details is not None
        assert refused.value.details["code"] == "AUTH_PASSWORD_MISMATCH"
