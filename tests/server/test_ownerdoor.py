"""The owner's door: who may come, what may be asked, what a bad caller can do (nothing)."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.client.owner import DoorShut, ask_as_owner
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.ops.ownersocket import connect_owner, listen_owner, owner_socket, peer_is_owner
from openclaw_gateway.server import ownerdoor


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(GatewayConfig(state_dir=tmp_path / "state"), env={}, listen=False) as opened:
        yield opened


async def ask(gateway: Gateway, method: str, params: Any = None) -> Any:
    assert gateway.config.state_dir is not None
    return await trio.to_thread.run_sync(partial(ask_as_owner, gateway.config.state_dir, method, params))


async def say(gateway: Gateway, data: bytes) -> bytes:
    """Bytes in, everything that comes back out."""
    assert gateway.config.state_dir is not None
    sock = await trio.to_thread.run_sync(partial(connect_owner, gateway.config.state_dir, timeout=5))
    assert sock is not None
    sock.setblocking(False)
    answer = b""
    async with trio.SocketStream(trio.socket.from_stdlib_socket(sock)) as stream:
        try:
            await stream.send_all(data)
            await stream.send_eof()
            async for chunk in stream:
                answer += chunk
        except trio.BrokenResourceError:
            pass
    return answer


async def test_pair2_the_owner_needs_no_secret(gateway: Gateway) -> None:
    assert (await ask(gateway, "pairing.list"))["rows"] == []
    asked = {"channel": "telegram", "senderId": "1", "policy": "deny"}
    assert (await ask(gateway, "channels.pairing.policy", asked))["decidedBy"] == "operator:owner"


async def test_pairing_is_all_that_it_opens(gateway: Gateway) -> None:
    for method in ("config.get", "config.set", "config.patch", "set-heartbeats", "health", "nope"):
        with pytest.raises(CallFailed, match="unknown method"):
            await ask(gateway, method)


async def test_the_socket_is_private_and_goes_with_the_gateway(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with open_gateway(GatewayConfig(state_dir=state), env={}, listen=False):
        path = owner_socket(state)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.exists()
    with pytest.raises(DoorShut):
        ask_as_owner(state, "pairing.list")


async def test_another_user_is_not_answered(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownerdoor, "peer_is_owner", lambda sock: False)
    assert await say(gateway, b'{"method":"pairing.list"}\n') == b""


def test_the_kernel_says_who_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_is_owner(ours)
        me = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
        assert not peer_is_owner(ours)


@pytest.mark.parametrize(
    "line", [b"\n", b"nonsense\n", b"[]\n", b'{"method":1}\n', b'{"method":"pairing.list","more":1}\n', b"\xff\xfe\n"]
)
async def test_what_is_no_question_is_refused(gateway: Gateway, line: bytes) -> None:
    answer = msgspec.json.decode(await say(gateway, line))
    assert answer["ok"] is False
    assert answer["error"]["code"] == "INVALID_REQUEST"
    assert (await ask(gateway, "pairing.list"))["rows"] == []


async def test_a_line_without_end_is_not_kept(gateway: Gateway) -> None:
    assert await say(gateway, b"x" * (ownerdoor.MAX_LINE + 10)) == b""
    assert await say(gateway, b'{"method":"pairing.list"}') == b"", "an unfinished line is no question"


async def test_callers_are_capped_and_a_silent_one_is_dropped(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gateway.config.state_dir is not None
    silent = [connect_owner(gateway.config.state_dir, timeout=5) for _ in range(ownerdoor.MAX_CALLERS)]
    try:
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await say(gateway, b'{"method":"pairing.list"}\n') == b""
    finally:
        for sock in silent:
            assert sock is not None
            sock.close()
    await trio.testing.wait_all_tasks_blocked(0.05)
    assert await say(gateway, b'{"method":"pairing.list"}\n') != b""


async def test_one_gateway_holds_the_door_and_a_dead_ones_socket_is_replaced(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = listen_owner(state)
    assert first is not None
    assert listen_owner(state) is None, "somebody listens"
    first.close()
    second = listen_owner(state)
    assert second is not None
    second.close()


async def test_a_long_path_works(tmp_path: Path) -> None:
    state = tmp_path / ("long-" * 20) / ("longer-" * 10)
    async with open_gateway(GatewayConfig(state_dir=state), env={}, listen=False) as gateway:
        assert (await ask(gateway, "pairing.list"))["rows"] == []
    assert not owner_socket(state).exists()


async def test_without_a_state_directory_there_is_no_door() -> None:
    async with open_gateway(GatewayConfig(), env={}, listen=False) as gateway:
        assert gateway.config.state_dir is None
