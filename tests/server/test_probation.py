"""Commit-confirm on a running gateway: confirmed only from outside, taken back in time, and written down."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway import Gateway, open_gateway
from openclaw_gateway.config.edit import set_value
from openclaw_gateway.config.json5 import loads
from openclaw_gateway.config.load import load_config
from openclaw_gateway.config.paths import pending_path
from openclaw_gateway.config.pending import propose
from tests.attacks.attacker import Attacker, rpc

TOKEN = "token-of-the-probation-tests-0123456789"
OTHER = "another-token-of-the-probation-tests-01"
TEXT = f'{{ gateway: {{ port: 0, auth: {{ type: "token", token: "{TOKEN}" }}, bind: "127.0.0.1" }} }}\n'


class House:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.file = state / "openclaw.json"
        self.env = {"OPENCLAW_STATE_DIR": str(state), "HOME": str(state)}
        state.mkdir(mode=0o700)
        self.file.write_text(TEXT)
        self.file.chmod(0o600)

    def change(self, path: str, value: object, *, window: float) -> None:
        """As ``openclaw config set PATH VALUE --confirm`` does, with any window."""
        edited = set_value(self.file.read_text(), path, value)
        propose(self.state, self.file, edited, env=self.env, window=window, now_ms=time.time_ns() // 1_000_000)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        loaded = load_config(env=self.env)
        async with open_gateway(loaded=loaded, env=self.env) as gateway:
            yield gateway

    @property
    def hash(self) -> str:
        return load_config(env=self.env).hash


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "state")


async def wait_for(ready: Callable[[], bool]) -> None:
    """What the watcher of a file notices by looking once a second cannot be waited for but by looking too."""
    with trio.fail_after(8):
        while not ready():  # noqa: ASYNC110 - the condition is a file, which sets no event
            await trio.sleep(0.02)


async def applied(gateway: Gateway, house: House) -> None:
    await wait_for(lambda: gateway.loaded is not None and gateway.loaded.hash == house.hash)


async def actions(gateway: Gateway) -> list[str]:
    return [row["action"] for row in await gateway.audit.recent(100) if row["action"].startswith("config.")]


@asynccontextmanager
async def admin(gateway: Gateway, token: str = TOKEN) -> AsyncIterator[Attacker]:
    async with await Attacker.at(gateway.port) as client:
        assert (await client.connect(token=token)).admitted
        yield client


def detail(reply: dict[str, Any]) -> str:
    return str(reply["error"]["details"]["code"])


async def test_a_change_is_confirmed_over_a_new_connection_and_over_no_other(house: House) -> None:
    async with house.running() as gateway, admin(gateway) as old:
        assert detail(await old.call("config.confirm")) == "CONFIG_NOTHING_PENDING"
        assert (await old.call("config.pending"))["payload"] == {"pending": None}
        house.change("gateway.trustedProxies", ["10.0.0.1"], window=60)
        assert detail(await old.call("config.confirm")) == "CONFIG_NOT_IN_USE"
        await applied(gateway, house)
        shown = (await old.call("config.pending"))["payload"]["pending"]
        assert (shown["keys"], shown["inUse"]) == (["gateway.trustedProxies"], True)
        assert detail(await old.call("config.confirm")) == "CONFIG_OLD_CONNECTION"
        status, body = await rpc(gateway.port, "config.confirm", token=TOKEN)
        assert (status, body["error"]["data"]["details"]["code"]) == (200, "CONFIG_OLD_CONNECTION")
        async with admin(gateway) as new:
            assert (await new.call("config.confirm"))["payload"]["keys"] == ["gateway.trustedProxies"]
        assert not pending_path(house.state).exists()
        assert gateway.config.trusted_proxies == ("10.0.0.1/32",)
        told = await actions(gateway)
        assert sorted(told) == ["config.changed", "config.confirmed", "config.pending"]
        assert told[-1] == "config.confirmed"


async def test_without_a_confirmation_the_bytes_of_before_are_back_and_in_use(house: House) -> None:
    async with house.running() as gateway:
        house.change("gateway.auth.token", OTHER, window=3)
        await applied(gateway, house)
        with pytest.raises(AssertionError):
            async with admin(gateway):
                pass
        await wait_for(lambda: house.file.read_text() == TEXT)
        await applied(gateway, house)
        async with admin(gateway) as client:
            assert detail(await client.call("config.confirm")) == "CONFIG_NOTHING_PENDING"
        told = await actions(gateway)
        assert sorted(told[:2]) == ["config.changed", "config.pending"]
        assert told[2:] == ["config.rolled-back", "config.changed"]
        row = next(row for row in await gateway.audit.recent(100) if row["action"] == "config.rolled-back")
        assert row["keys"] == ["gateway.auth.token"]
        assert "not confirmed in time" in row["reason"]
        assert OTHER not in str(await gateway.audit.recent(100))


async def test_taking_it_back_by_hand_works_at_once_and_keeps_other_edits(house: House) -> None:
    async with house.running() as gateway, admin(gateway) as client:
        house.change("gateway.trustedProxies", ["10.0.0.1"], window=60)
        await applied(gateway, house)
        house.file.write_text(set_value(house.file.read_text(), "logging.level", "debug"))
        done = (await client.call("config.rollback"))["payload"]
        assert (done["outcome"], done["keys"]) == ("reverted", ["gateway.trustedProxies"])
        found = loads(house.file.read_text())
        assert found["logging"] == {"level": "debug"}
        assert "trustedProxies" not in found["gateway"]


async def test_the_time_left_survives_a_restart_and_an_end_without_goodbye(house: House) -> None:
    async with house.running() as gateway:
        house.change("gateway.trustedProxies", ["10.0.0.1"], window=4)
        await applied(gateway, house)
    async with house.running() as gateway:
        assert gateway.config.trusted_proxies == ("10.0.0.1/32",)
        await wait_for(lambda: house.file.read_text() == TEXT)
        await wait_for(lambda: gateway.config.trusted_proxies == ())
        assert (await actions(gateway)).count("config.rolled-back") == 1


async def test_what_a_start_took_back_is_told_by_the_gateway(house: House) -> None:
    from openclaw_gateway.config.pending import settle_before_start

    house.change("gateway.trustedProxies", ["10.0.0.1"], window=60)
    assert settle_before_start(house.env, time.time_ns() // 1_000_000 + 60_000) is not None
    async with house.running() as gateway:
        assert gateway.config.trusted_proxies == ()
        await wait_for(lambda: not pending_path(house.state).exists())
        assert await actions(gateway) == ["config.rolled-back"]


async def test_scopes_guard_the_confirmation(house: House) -> None:
    async with house.running() as gateway:
        house.change("gateway.trustedProxies", ["10.0.0.1"], window=60)
        await applied(gateway, house)
        async with await Attacker.at(gateway.port) as client:
            assert (await client.connect(token=TOKEN, scopes=["operator.read", "operator.write"])).admitted
            for method in ("config.confirm", "config.rollback"):
                assert detail(await client.call(method)) == "MISSING_SCOPE"
        assert pending_path(house.state).exists()


@pytest.mark.expect_error_log("task failed, restarting")
async def test_a_record_that_cannot_be_read_shows_in_health(house: House) -> None:
    house.change("gateway.trustedProxies", ["10.0.0.1"], window=60)
    pending_path(house.state).write_text("{")
    async with house.running() as gateway:
        await wait_for(lambda: "PendingUnreadable" in str(gateway.health.parts.get("probation")))
