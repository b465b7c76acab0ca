"""How a gateway ends: the order of goodbyes and services, and what it costs (LIFE-4, design rules 2 to 5)."""

from __future__ import annotations

import gc
import socket
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig, open_gateway, serve_gateway
from openclaw_gateway.app.life import STOP_SECONDS
from openclaw_gateway.config.schema import AuthConfig, TransportsConfig, WebSocketConfig
from openclaw_gateway.server.listener import AcceptStalled
from openclaw_gateway.store import open_store
from openclaw_gateway.testing import PeerClosed, ScriptedPeer, connect_peer, open_memory_gateway

TOKEN = "token-of-the-lifetime-tests-0123456789"


def _config(**websocket: Any) -> GatewayConfig:
    return GatewayConfig(
        port=0,
        auth=AuthConfig(type="token", token=TOKEN),
        transports=TransportsConfig(websocket=WebSocketConfig(**websocket)),
    )


async def _dial(port: int) -> ScriptedPeer:
    peer = ScriptedPeer(await trio.open_tcp_stream("127.0.0.1", port))
    await peer.upgrade()
    await peer.connect(token=TOKEN)
    return peer


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen()
        except OSError:
            return False
    return True


class UserBug(Exception):
    """An error of the embedding program."""


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ended, in order: the store is the first service to open and the last to close."""
    ended: list[str] = []
    real = open_store

    @asynccontextmanager
    async def watched(*args: Any, **kwargs: Any) -> Any:
        async with real(*args, **kwargs) as store:
            try:
                yield store
            finally:
                # Reached while everything inside has ended, and before the store's own thread has.
                ended.append("store")

    monkeypatch.setattr("openclaw_gateway.app.services.open_store", watched)
    return ended


async def _client(port: int, order: list[str], ready: trio.Event) -> None:
    peer = await _dial(port)
    ready.set()
    closed = await peer.wait_closed()
    events = [event["event"] for event in peer.events]
    order.append(f"{closed.code} {'shutdown' if 'shutdown' in events else 'no shutdown'}")
    await peer.stream.aclose()


@pytest.mark.parametrize("ending", ["normal", "outer cancel", "body error", "asked"])
async def test_life4_clients_hear_of_it_then_services_end_then_the_cause_leaves(ending: str, order: list[str]) -> None:
    ready = trio.Event()
    began = 0.0
    error: BaseException | None = None
    async with trio.open_nursery() as clients:
        with trio.CancelScope() as outer:
            try:
                async with open_gateway(_config(), env={}) as gateway:
                    port = gateway.port
                    clients.start_soon(_client, port, order, ready)
                    await ready.wait()
                    began = trio.current_time()
                    if ending == "outer cancel":
                        outer.cancel()
                        await trio.sleep_forever()
                    if ending == "body error":
                        raise UserBug("mine")
                    if ending == "asked":
                        gateway.request_stop("because")
                        gateway.request_stop("again")
                        await gateway.wait_stopped()
            except UserBug as exc:
                error = exc
        assert trio.current_time() - began < STOP_SECONDS  # nobody was waited for to the last
    assert order == ["1012 shutdown", "store"]
    assert (error is not None) == (ending == "body error")
    assert outer.cancelled_caught == (ending == "outer cancel")
    assert _is_free(port)


async def test_life4_a_service_that_crashes_ends_the_gateway_as_itself(
    order: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = trio.Event()

    async def stalled(where: Any) -> None:
        await crash.wait()
        raise AcceptStalled(3)

    monkeypatch.setattr("openclaw_gateway.app.watchers.watch_accepts", stalled)
    ready, cancelled = trio.Event(), False
    async with trio.open_nursery() as clients:
        with pytest.raises(AcceptStalled):  # noqa: PT012 - the body is what gets cancelled
            async with open_gateway(_config(), env={}) as gateway:
                port = gateway.port
                clients.start_soon(_client, port, order, ready)
                await ready.wait()
                crash.set()
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:
                    cancelled = True
                    raise
    assert cancelled
    assert order == ["1012 shutdown", "store"]
    assert _is_free(port)


async def test_two_errors_leave_as_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stalled(where: Any) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise AcceptStalled(3)

    monkeypatch.setattr("openclaw_gateway.app.watchers.watch_accepts", stalled)
    with pytest.raises(ExceptionGroup) as group:
        async with open_memory_gateway(_config()):
            raise UserBug
    assert group.group_contains(UserBug)
    assert group.group_contains(AcceptStalled)


async def test_serve_gateway_is_the_same_as_a_task() -> None:
    async with trio.open_nursery() as nursery:
        gateway: Gateway = await nursery.start(serve_gateway, _config())
        port = gateway.port
        peer = await _dial(port)
        gateway.request_stop()
        assert (await peer.wait_closed()).code == 1012
        await peer.stream.aclose()
    assert _is_free(port)


async def test_life4_clients_that_never_read_do_not_hold_it_up() -> None:
    """Hundreds of KiB wait for each of them; the honest one hears its goodbye at once, the port is free within 5 s."""
    async with open_gateway(_config(), env={}) as gateway:
        port = gateway.port
        deaf = [await _dial(port) for _ in range(20)]
        honest = await _dial(port)
        for index in range(10):
            gateway.events.publish_nowait("big", {"n": index, "text": "x" * 1_000_000})
        assert sum(session.writer.size > 0 for session in gateway._core.registry) >= 20
        async with trio.open_nursery() as nursery:
            nursery.start_soon(honest.wait_closed)
            began = trio.current_time()
            gateway.request_stop()
    took = trio.current_time() - began
    assert took < STOP_SECONDS + 3  # which is what a busy machine adds to it
    assert _is_free(port)
    for peer in [*deaf, honest]:
        await trio.aclose_forcefully(peer.stream)


async def test_life4_500_clients_and_50_pending_calls_are_told_within_5_seconds() -> None:
    gone = 0

    async def pending(context: Any, params: Any) -> None:
        nonlocal gone
        try:
            await trio.sleep_forever()
        finally:
            gone += 1

    endings: list[tuple[str, int, str]] = []
    connected = 0
    all_there = trio.Event()

    async def client(gateway: Gateway, index: int, slots: trio.CapacityLimiter) -> None:
        nonlocal connected
        async with slots:
            peer = await _dial(gateway.port)
        if index < 50:
            await peer.start("test.pending")
        connected += 1
        if connected == 500:
            all_there.set()
        closed = await peer.wait_closed()
        endings.append((peer.events[-1]["event"] if peer.events else "", closed.code, closed.reason))
        await peer.stream.aclose()

    config = _config(concurrent_connections=600, unauthenticated_per_address=200)
    async with trio.open_nursery() as nursery:
        async with open_gateway(config, env={}) as gateway:
            gateway.rpc.method("test.pending", scope="operator.read")(pending)
            slots = trio.CapacityLimiter(50)
            for index in range(500):
                nursery.start_soon(client, gateway, index, slots)
            await all_there.wait()
            while sum(len(session.calls.running) for session in gateway._core.registry) < 50:
                await trio.lowlevel.checkpoint()
            assert len(gateway._core.registry) == 500
            began = trio.current_time()
        took = trio.current_time() - began
    assert took < STOP_SECONDS + 3
    assert gone == 50
    assert len(endings) == 500
    assert set(endings) == {("shutdown", 1012, "service restart")}


async def test_live4_during_the_drain_every_attempt_ends_at_once() -> None:
    """Connects while it stops: each gets 101 and then 1012, a 503, or a refusal; none hangs."""
    endings: list[str] = []

    async def attempt(port: int) -> None:
        with trio.fail_after(8):
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                endings.append("refused")
                return
            async with stream:
                peer = ScriptedPeer(stream)
                try:
                    response = await peer.upgrade()
                    endings.append(str(response.status_code))
                    if response.status_code == 101:
                        await peer.wait_closed()
                except (PeerClosed, trio.BrokenResourceError):
                    endings.append("reset")

    async with trio.open_nursery() as nursery, open_gateway(_config(), env={}) as gateway:
        for _ in range(20):
            nursery.start_soon(attempt, gateway.port)
        await trio.lowlevel.checkpoint()
        gateway.request_stop()
        for _ in range(20):
            nursery.start_soon(attempt, gateway.port or 1)
            await trio.lowlevel.checkpoint()
    assert len(endings) == 40
    assert set(endings) <= {"refused", "101", "503", "reset"}


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_life1_20_cycles_leave_no_task_thread_or_descriptor() -> None:
    async def cycle() -> None:
        async with open_gateway(_config(), env={}) as gateway:
            peer = await _dial(gateway.port)
            assert (await peer.request("health"))["ok"]
            await peer.stream.aclose()
        async with open_memory_gateway(_config()) as gateway, connect_peer(gateway) as peer:
            assert (await peer.request("health"))["ok"]

    await cycle()
    gc.collect()
    tasks = trio.lowlevel.current_statistics().tasks_living
    files, threads = _open_files(), _worker_threads()
    for _ in range(20):
        await cycle()
    gc.collect()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert _open_files() <= files
    assert _worker_threads() <= threads


def _worker_threads() -> int:
    return len([thread for thread in threading.enumerate() if not thread.name.lower().startswith("trio")])


async def test_perf3_a_gateway_opens_and_closes_quickly() -> None:
    """Not a benchmark: a thousand times the usual cost would be a wait that hangs on something."""
    began = time.monotonic()
    async with open_memory_gateway(_config()):
        pass
    assert time.monotonic() - began < 5


async def test_live4_it_listens_on_entry() -> None:
    async with open_gateway(_config(), env={}) as gateway:
        assert gateway.port > 0
        assert not _is_free(gateway.port)
        assert gateway.urls[0] == f"ws://127.0.0.1:{gateway.port}"


async def test_embedding_listen_false_opens_no_port() -> None:
    before = _listening_inodes()
    async with open_memory_gateway(_config()) as gateway:
        assert (gateway.port, gateway.urls) == (0, [])
        assert _listening_inodes() == before


def _listening_inodes() -> int:
    lines = [
        line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/self/net/{name}").read_text().splitlines()
    ]
    inodes = {fields[9] for fields in lines if len(fields) > 9 and fields[3] == "0A"}
    mine = 0
    for fd in Path("/proc/self/fd").iterdir():
        try:
            target = str(fd.readlink())
        except OSError:
            continue
        mine += target.startswith("socket:[") and target[8:-1] in inodes
    return mine
