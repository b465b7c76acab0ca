"""Pairing without a gateway: the same rules on the directory, exclusively, and nothing made where nothing is."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.ops.instance import AlreadyRunning, InstanceLock
from openclaw_gateway.ops.statedir import StateDirUnsafe
from openclaw_gateway.pairing import load_device_tokens, open_device_book
from openclaw_gateway.pairing.offline import open_offline
from openclaw_gateway.rpc.owner import may_ask
from openclaw_gateway.rpc.table import CallError
from openclaw_gateway.store import open_store
from tests.pairing.conftest import Clock, MakeAsk
from tests.pairing.test_senders import open_house

CONFIG = GatewayConfig()


class Now(Clock):
    """The offline tool goes by the clock on the wall."""

    def __init__(self) -> None:
        from openclaw_gateway.ops.health import now_ms

        self.now = now_ms()


async def leave_requests(state_dir: Path, make_ask: MakeAsk) -> tuple[str, str]:
    """A sender and a device that wait, and no gateway: (code, request id)."""
    clock = Now()
    async with open_house(state_dir, clock) as house:
        await house.channel.write("111", name="Ann")
        tokens = load_device_tokens(state_dir)
        async with open_device_book(house.store, clock=clock, tokens=tokens) as book:
            outcome = await book.request_pairing(make_ask("laptop", "read", "admin"), clock())
        return house.codes[0], outcome.request.request_id


async def test_pair2_senders_and_devices_are_approved_without_a_gateway(state_dir: Path, make_ask: MakeAsk) -> None:
    code, request_id = await leave_requests(state_dir, make_ask)
    async with open_offline(state_dir, CONFIG) as offline:
        rows = (await offline.call("pairing.list"))["rows"]
        assert {row["id"] for row in rows if row["kind"] == "device"} == {request_id}
        assert {row["code"] for row in rows if row["kind"] == "dm"} == {code}
        for row in rows:
            await offline.call(row["approve"]["method"], row["approve"]["params"])
    async with open_house(state_dir, Now()) as house:
        assert (await house.channel.write("111")).kind == "allow"
        async with open_device_book(house.store, clock=Now(), tokens=load_device_tokens(state_dir)) as book:
            (record,) = book.paired()
    assert record.scopes == ("operator.admin", "operator.read")
    assert record.approved_via == "operator:owner"


async def test_v29_wrong_codes_count_offline_too(state_dir: Path, make_ask: MakeAsk) -> None:
    code, _ = await leave_requests(state_dir, make_ask)
    ask = {"channel": "telegram", "code": "AAAAAAAA"}
    for _ in range(10):
        async with open_offline(state_dir, CONFIG) as offline:
            with pytest.raises(CallError) as refused:
                await offline.call("channels.pairing.approve", ask)
    assert refused.value.error.key == "sender-codes-expired"
    async with open_offline(state_dir, CONFIG) as offline:
        with pytest.raises(CallError):
            await offline.call("channels.pairing.approve", {"channel": "telegram", "code": code})


async def test_pair5_offline_approval_is_bound_to_what_was_listed(state_dir: Path, make_ask: MakeAsk) -> None:
    _, request_id = await leave_requests(state_dir, make_ask)
    async with open_offline(state_dir, CONFIG) as offline:
        with pytest.raises(CallError):
            await offline.call("device.pair.approve", {"requestId": request_id, "askHash": "0" * 64})
        assert len((await offline.call("device.pair.list"))["pending"]) == 1


async def test_never_at_the_same_time_as_a_gateway(state_dir: Path) -> None:
    async with open_store(state_dir):
        pass
    with InstanceLock.acquire(state_dir), pytest.raises(AlreadyRunning):
        async with open_offline(state_dir, CONFIG):
            pytest.fail("the lock was held")


async def test_nothing_is_made_where_nothing_is(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    async with open_offline(nothing, CONFIG) as offline:
        assert (await offline.call("pairing.list"))["rows"] == []
    assert not nothing.exists()
    async with open_offline(nothing, CONFIG, create=True) as offline:
        ask: dict[str, Any] = {"channel": "telegram", "senderId": "111", "policy": "allow"}
        assert (await offline.call("channels.pairing.policy", ask))["policy"] == "allow"
    assert stat.S_IMODE(nothing.stat().st_mode) == 0o700
    async with open_house(nothing, Now()) as house:
        assert (await house.channel.write("111")).kind == "allow"


async def test_a_directory_that_others_may_write_is_refused(state_dir: Path, make_ask: MakeAsk) -> None:
    await leave_requests(state_dir, make_ask)
    os.chmod(state_dir, 0o777)  # noqa: PTH101 - one system call, before anything runs
    with pytest.raises(StateDirUnsafe):
        async with open_offline(state_dir, CONFIG):
            pytest.fail("what lies there may be planted")


async def test_an_owner_asks_about_pairing_and_nothing_else(state_dir: Path) -> None:
    async with open_offline(state_dir, CONFIG, create=True) as offline:
        for method in ("config.get", "config.set", "status", "health", "", "pairing"):
            assert not may_ask(method)
            with pytest.raises(CallError) as refused:
                await offline.call(method)
            assert refused.value.error.key == "unknown-method"
