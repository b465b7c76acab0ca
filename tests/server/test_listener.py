"""The accept loop: survives running out of descriptors and bugs of others, and is checked from outside (LIVE-2)."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from openclaw_gateway import Gateway
from openclaw_gateway.server.addresses import BindFailed, open_listening_sockets
from openclaw_gateway.server.listener import AcceptStalled, Probed, serve_accepts, watch_accepts
from openclaw_gateway.server.wire import SocketWire


class Shortage:
    """A listening socket whose `accept` runs out of descriptors a few times."""

    def __init__(self, sock: socket.socket, failures: int) -> None:
        self._sock = sock
        self.failures = failures

    def fileno(self) -> int:
        return self._sock.fileno()

    def accept(self) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._sock.accept()


@asynccontextmanager
async def accepting(sock: Any, port: int) -> AsyncIterator[tuple[int, list[SocketWire]]]:
    wires: list[SocketWire] = []

    async def handler(wire: SocketWire) -> None:
        wires.append(wire)
        async with wire:
            await wire.send_all(b"hello")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_accepts, sock, handler, nursery)
        yield port, wires
        nursery.cancel_scope.cancel()


@pytest.fixture
async def sock() -> AsyncIterator[socket.socket]:
    [sock] = open_listening_sockets(["127.0.0.1"], 0)
    with sock:
        yield sock


async def _hello(port: int) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        return await stream.receive_some(16)


@pytest.mark.expect_error_log("out of file descriptors")
async def test_live2_running_out_of_descriptors_slows_it_down_and_loses_nothing(sock: socket.socket) -> None:
    async with accepting(Shortage(sock, 3), sock.getsockname()[1]) as (port, wires):
        assert await _hello(port) == b"hello"
        assert await _hello(port) == b"hello"
        assert len(wires) == 2


async def test_live2_accepted_sockets_have_keepalive_and_a_user_timeout(sock: socket.socket) -> None:
    seen: list[tuple[int, int, int]] = []

    async def handler(wire: SocketWire) -> None:
        inner = wire.socket
        seen.append(
            (
                inner.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            )
        )
        await wire.send_all(b"hello")
        await wire.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_accepts, sock, handler, nursery)
        await _hello(sock.getsockname()[1])
        nursery.cancel_scope.cancel()
    assert seen == [(1, 1, 120_000)]


async def test_the_loop_returns_when_its_listener_is_closed(sock: socket.socket) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_accepts, sock, _never, nursery)
        await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.notify_closing(sock)
        sock.close()


async def _never(wire: SocketWire) -> None:
    raise AssertionError("nobody connects here")


@pytest.mark.expect_error_log("self-probe failed")
async def test_live2_a_wedged_listener_is_noticed(sock: socket.socket) -> None:
    """Nobody accepts: connections are taken by the kernel's backlog and never answered."""
    with pytest.raises(AcceptStalled) as stalled:
        await watch_accepts(lambda: Probed(*sock.getsockname()[:2]), interval=0.01, timeout=0.05)
    assert stalled.value.failures == 3


@pytest.mark.expect_error_log("self-probe failed")
async def test_live2_one_good_answer_forgets_the_failures(
    mock_clock: trio.testing.MockClock, sock: socket.socket, listening: Gateway
) -> None:
    """Time passes only while everybody waits: a good answer that the machine was slow with is a good answer."""
    mock_clock.autojump_threshold = 0.05
    asked = 0

    def where() -> Probed | None:
        nonlocal asked
        asked += 1
        if asked == 4:
            return None
        return Probed("127.0.0.1", listening.port) if asked % 3 == 0 else Probed(*sock.getsockname()[:2])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: watch_accepts(where, interval=0.01, timeout=0.05))
        while asked < 12:  # noqa: ASYNC110 - a look at what the probe asks for
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_live2_half_open_clients_do_not_keep_a_new_one_waiting(listening: Gateway) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(200):
            held.enter_context(socket.create_connection(("127.0.0.1", listening.port)))
        with trio.fail_after(8):  # the half-open ones are given up after 15 s
            async with await trio.open_tcp_stream("127.0.0.1", listening.port) as stream:
                await stream.send_all(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                assert (await stream.receive_some(16)).startswith(b"HTTP/1.1 200")
        assert len(listening._core.registry.strangers) <= 32


async def test_net4_a_port_in_use_is_named_and_nothing_is_left_open(sock: socket.socket) -> None:
    port = sock.getsockname()[1]
    with pytest.raises(BindFailed) as failed:
        open_listening_sockets(["127.0.0.1"], port)
    assert (failed.value.busy, failed.value.port) == (True, port)
    assert str(port) in str(failed.value)
