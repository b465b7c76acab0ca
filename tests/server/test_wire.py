"""`Wire`: every send has a deadline, `abort` wakes whoever waits, cancelling a receive loses nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import trio
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from openclaw_gateway.server.wire import SEND_SECONDS, STALL_SECONDS, SocketWire, StreamWire, Wire


@contextmanager
def tcp_pair() -> Iterator[tuple[SocketWire, socket.socket]]:
    """Small buffers, so that a peer that does not read is felt at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        far.connect(server.getsockname())
        near, _ = server.accept()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with far, near:
        yield SocketWire(near, ("127.0.0.1", 1)), far


@contextmanager
def stream_pair() -> Iterator[tuple[StreamWire, object]]:
    near, far = lockstep_stream_pair()
    yield StreamWire(near, ("memory", 0)), far


KINDS: list[Callable[[], object]] = [tcp_pair, stream_pair]
BIG = b"x" * 4_000_000


@pytest.fixture(params=["socket", "stream"])
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    with (tcp_pair if request.param == "socket" else stream_pair)() as (wire, _):
        yield wire


async def test_a_send_to_a_peer_that_never_reads_breaks_at_its_deadline(wire: Wire, mock_clock: MockClock) -> None:
    broken = False

    async def send() -> None:
        nonlocal broken
        with pytest.raises(trio.BrokenResourceError, match="takes no data"):
            await wire.send_all(BIG)
        broken = True

    limit = STALL_SECONDS if isinstance(wire, SocketWire) else SEND_SECONDS
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        await wait_all_tasks_blocked(0.05)
        mock_clock.jump(limit - 0.1)
        await wait_all_tasks_blocked(0.05)
        assert not broken
        mock_clock.jump(0.2)
        await wait_all_tasks_blocked(0.05)
        assert broken


async def test_progress_extends_a_socket_send_but_not_beyond_the_whole(mock_clock: MockClock) -> None:
    with tcp_pair() as (wire, far):
        far.setblocking(False)
        async with trio.open_nursery() as nursery:
            result: list[BaseException] = []

            async def send() -> None:
                try:
                    await wire.send_all(b"x" * 40_000_000)
                except trio.BrokenResourceError as exc:
                    result.append(exc)

            nursery.start_soon(send)
            for _ in range(int(SEND_SECONDS // (STALL_SECONDS - 1))):
                await wait_all_tasks_blocked(0.02)
                assert not result
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.wait_readable(far)
                while True:
                    try:
                        far.recv(1_000_000)
                    except BlockingIOError:
                        break
                mock_clock.jump(STALL_SECONDS - 1)
            mock_clock.jump(STALL_SECONDS)
            await wait_all_tasks_blocked(0.05)
            assert result


async def test_abort_wakes_a_receiver_and_a_sender_and_may_be_repeated(wire: Wire) -> None:
    ended: list[str] = []

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wire.receive_some()
        ended.append("receiver")

    async def send() -> None:
        with pytest.raises((trio.ClosedResourceError, trio.BrokenResourceError)):
            await wire.send_all(BIG)
        ended.append("sender")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(send)
        await wait_all_tasks_blocked(0.02)
        wire.abort()
        wire.abort()
    assert sorted(ended) == ["receiver", "sender"]
    with pytest.raises(trio.ClosedResourceError):
        await wire.receive_some()
    await wire.aclose()


async def test_a_cancelled_receive_loses_nothing() -> None:
    with tcp_pair() as (wire, far):
        for _ in range(3):
            with trio.move_on_after(0):
                await wire.receive_some()
        far.send(b"all of it")
        assert await wire.receive_some() == b"all of it"
        far.shutdown(socket.SHUT_WR)
        assert await wire.receive_some() == b""


async def test_one_sender_at_a_time() -> None:
    with tcp_pair() as (wire, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wire.send_all, BIG)
            await wait_all_tasks_blocked(0.02)
            with pytest.raises(trio.BusyResourceError):
                await wire.send_all(b"me too")
            assert wire.try_send(b"me too") == 0
            nursery.cancel_scope.cancel()


async def test_try_send_never_blocks_and_tells_how_much_left() -> None:
    with tcp_pair() as (wire, _):
        count = wire.try_send(BIG)
        assert 0 < count < len(BIG)
        while wire.try_send(BIG):
            pass
        assert wire.try_send(b"x") == 0
    near, _ = memory_stream_pair()
    assert StreamWire(near, ("memory", 0)).try_send(b"x") == 0


async def test_live1_unacknowledged_bytes_tell_a_peer_that_takes_nothing() -> None:
    with tcp_pair() as (wire, far):
        assert wire.unacknowledged == 0
        sent = 0
        while count := wire.try_send(BIG):
            sent += count
        assert 0 < wire.unacknowledged <= sent
        far.setblocking(False)
        received = 0
        while received < sent:
            await trio.lowlevel.wait_readable(far)
            received += len(far.recv(1_000_000))
        while wire.unacknowledged:
            await trio.lowlevel.checkpoint()  # the last acknowledgement is the kernel's to send, at once on loopback
    assert wire.unacknowledged == 0


async def test_a_reset_is_told_as_a_broken_resource() -> None:
    with tcp_pair() as (wire, far):
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        with pytest.raises(trio.BrokenResourceError):
            await wire.receive_some()
