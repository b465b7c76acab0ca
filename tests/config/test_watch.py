"""Hot reload: what is reported, what is not, and that it costs nothing to stop."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import attrs
import trio
import trio.testing

from openclaw_gateway.config.watch import REBIND, ConfigChange, watch_config
from tests.config.conftest import SEED, Home

# The watcher has no thread and no timer of its own: on a clock that jumps it looks thousands of times in no time.
Clock = trio.testing.MockClock


@attrs.define
class Watch:
    """A running watch; ``next`` waits for a report, ``rest`` lets the watcher look for a while and gives what came."""

    changes: trio.MemoryReceiveChannel[ConfigChange]

    async def next(self) -> ConfigChange:
        with trio.fail_after(60):
            return await self.changes.receive()

    async def rest(self) -> list[ConfigChange]:
        found = []
        with trio.move_on_after(60):
            while True:
                found.append(await self.changes.receive())
        return found


@asynccontextmanager
async def watching(home: Home) -> AsyncIterator[Watch]:
    send, receive = trio.open_memory_channel[ConfigChange](10)
    loaded = home.load()

    async def run() -> None:
        async for change in watch_config(loaded, env=home.env):
            await send.send(change)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield Watch(receive)
        nursery.cancel_scope.cancel()


def replace(home: Home, text: str) -> None:
    fresh = home.file.with_suffix(".new")
    fresh.write_text(text)
    fresh.chmod(0o600)
    fresh.replace(home.file)


async def test_cfg3_only_what_differs_is_reported(home: Home, autojump_clock: Clock) -> None:
    home.env["GATEWAY_TOKEN"] = "a-token-of-some-length"
    home.write(SEED)
    async with watching(home) as watch:
        replace(home, SEED.replace('mode: "local",', 'mode: "local", trustedProxies: ["10.0.0.1"],'))
        change = await watch.next()
        assert (change.changed, change.needs_rebind, change.applied) == (("gateway.trustedProxies",), False, True)
        assert change.new.config.trusted_proxies == ("10.0.0.1/32",)
        replace(home, SEED.replace("18789", "18790"))
        change = await watch.next()
        assert change.changed == ("gateway.port", "gateway.trustedProxies")
        assert change.needs_rebind
        assert change.old.config.trusted_proxies == ("10.0.0.1/32",)


async def test_v16_a_rotated_secret_is_a_change(home: Home, autojump_clock: Clock) -> None:
    home.write('{gateway: {auth: {token: "first-token-0123"}}}')
    async with watching(home) as watch:
        replace(home, '{gateway: {auth: {token: "other-token-0123"}}}')
        change = await watch.next()
        assert change.changed == ("gateway.auth.token",)
        assert "token-0123" not in repr(change)


async def test_cfg4_a_comment_moves_the_applied_hash_and_nothing_else(home: Home, autojump_clock: Clock) -> None:
    home.write("{}")
    async with watching(home) as watch:
        replace(home, "{} // note")
        change = await watch.next()
        assert (change.changed, change.applied) == ((), True)
        assert change.new.hash != change.old.hash


async def test_cfg3_a_reference_that_resolves_to_the_same_value_is_no_change(home: Home, autojump_clock: Clock) -> None:
    home.env["GATEWAY_TOKEN"] = "a-token-of-some-length"
    home.write(SEED)
    async with watching(home) as watch:
        replace(home, SEED.replace("${GATEWAY_TOKEN}", "a-token-of-some-length"))
        assert (await watch.next()).changed == ()


async def test_a_bad_file_changes_nothing_and_is_reported_once(home: Home, autojump_clock: Clock) -> None:
    home.write("{gateway: {port: 18789}}")
    async with watching(home) as watch:
        for bad in ("{gateway:", '{gateway: {port: "x"}}', '{gateway: {auth: {type: "none-such"}}}'):
            replace(home, bad)
            change = await watch.next()
            assert not change.applied
            assert change.issues
            assert change.changed == ()
            assert await watch.rest() == []
        replace(home, "{gateway: {port: 18789}}")
        change = await watch.next()
        assert (change.applied, change.changed) == (True, ())


async def test_a_file_that_goes_away_changes_nothing(home: Home, autojump_clock: Clock) -> None:
    home.write("{gateway: {port: 20000}}")
    async with watching(home) as watch:
        home.file.unlink()
        change = await watch.next()
        assert not change.applied
        assert "is gone" in change.issues[0].message
        assert await watch.rest() == []
        home.write("{gateway: {port: 20001}}")
        assert (await watch.next()).new.config.port == 20001


async def test_a_file_that_appears_is_read(home: Home, autojump_clock: Clock) -> None:
    home.state.mkdir()
    async with watching(home) as watch:
        home.write("{gateway: {port: 20001}}")
        assert (await watch.next()).new.config.port == 20001


async def test_a_change_before_the_watch_began_is_found(home: Home, autojump_clock: Clock) -> None:
    home.write("{}")
    loaded = home.load()
    home.write("{gateway: {port: 20001}}")
    with trio.fail_after(5):
        async with aclosing(watch_config(loaded, env=home.env)) as changes:
            change = await anext(changes)
    assert change.new.config.port == 20001


async def test_touching_the_file_is_no_change(home: Home, autojump_clock: Clock) -> None:
    home.write("{}")
    async with watching(home) as watch:
        os.utime(home.file, (1, 1))
        assert await watch.rest() == []


async def test_life4_a_cancelled_watch_ends_at_once(home: Home, autojump_clock: Clock) -> None:
    home.write("{}")
    loaded = home.load()

    async def run() -> None:
        async for _ in watch_config(loaded, env=home.env):
            raise AssertionError("nothing changed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        await trio.sleep(10)
        before = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() == before


def test_only_port_and_bind_rebind() -> None:
    assert {"gateway.bind", "gateway.customBindHost", "gateway.port"} == REBIND
