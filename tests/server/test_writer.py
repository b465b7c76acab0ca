"""`Writer`: one writer, a byte budget, droppable events first, numbers without gaps (WS-2, WS-3)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked
from websockets.frames import Frame, Opcode

from openclaw_gateway.server.wire import SocketWire, StreamWire
from openclaw_gateway.server.writer import Writer, text_frame


class Kit:
    """A writer on one end of a connection; the other end is ``far``."""

    def __init__(self, nursery: trio.Nursery, wire: Any, budget: int = 1000) -> None:
        self.calls: list[str] = []
        self.wire = wire
        self.writer = Writer(
            wire,
            budget=budget,
            spawn=nursery.start_soon,
            on_overflow=lambda: self.calls.append("overflow"),
            on_broken=lambda: self.calls.append("broken"),
        )


@pytest.fixture
def tcp() -> Iterator[tuple[SocketWire, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        far.connect(server.getsockname())
        near, _ = server.accept()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        wire = SocketWire(near, ("127.0.0.1", 1))
        with far, near:
            yield wire, far


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 100_000])
def test_text_frame_is_what_websockets_serializes(size: int) -> None:
    payload = b"x" * size
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


@given(st.binary(max_size=400))
def test_text_frame_law(payload: bytes) -> None:
    assert text_frame(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)


async def _read_all(far: socket.socket) -> bytes:
    far.setblocking(False)
    data = b""
    while True:
        await trio.lowlevel.wait_readable(far)
        part = far.recv(65_536)
        if not part:
            return data
        data += part


async def _expect_end(far: socket.socket, end: bytes) -> None:
    assert (await _read_all(far)).endswith(end)


async def test_order_is_kept_through_a_backlog(tcp: tuple[SocketWire, socket.socket]) -> None:
    wire, far = tcp
    sent = [b"%06d" % index + b"." * 3000 for index in range(400)]
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery, wire, budget=10_000_000)
        for part in sent:
            kit.writer.push(part)
            kit.writer.flush()
        assert kit.writer.size > 0, "the socket took everything: no backlog was tested"
        kit.writer.finish(b"<close>", keep_pending=True)
        received = b""

        async def read() -> None:
            nonlocal received
            received = await _read_all(far)

        nursery.start_soon(read)
        await kit.writer.wait_drained()
        assert kit.writer.size == 0
        assert kit.writer.sent == kit.writer.queued == sum(map(len, sent)) + 7
        await wire.send_eof()
    assert received == b"".join(sent) + b"<close>"
    assert kit.calls == []


async def test_ws2_budget_is_kept_and_overflow_is_told(tcp: tuple[SocketWire, socket.socket]) -> None:
    wire, _ = tcp
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery, wire, budget=50_000)
        while not kit.calls:
            kit.writer.push(b"x" * 10_000)
            kit.writer.flush()
            assert kit.writer.size <= 50_000
        assert kit.calls == ["overflow"]
        nursery.cancel_scope.cancel()


async def test_ws2_a_single_frame_over_the_budget_may_go_when_nothing_waits() -> None:
    near, _ = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery, StreamWire(near, ("m", 0)), budget=10)
        kit.writer.push(b"x" * 100)
        assert kit.calls == []
        kit.writer.push(b"y")
        assert kit.calls == ["overflow"]


async def test_ws2_droppable_is_refused_at_half_the_budget_the_rest_is_not() -> None:
    near, _ = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        writer = Kit(nursery, StreamWire(near, ("m", 0)), budget=100).writer
        writer.push(b"x" * 50)
        assert writer.has_room(droppable=True)
        writer.push(b"x")
        assert not writer.has_room(droppable=True)
        assert writer.has_room(droppable=False)
        writer.finish(b"", keep_pending=False)
        assert not writer.has_room(droppable=False)


async def test_ws2_finish_drops_what_has_not_begun_and_sends_the_close_last() -> None:
    near, far = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery, StreamWire(near, ("m", 0)), budget=10_000)
        kit.writer.push(b"begun;")
        kit.writer.flush()  # a memory stream cannot send without waiting: this one is with the drain task
        kit.writer.push(b"dropped;")
        kit.writer.finish(b"<close>", keep_pending=False)
        kit.writer.push(b"ignored;")
        await kit.writer.wait_drained()
        assert await far.receive_some() == b"begun;<close>"
        assert kit.writer.size == 0


async def test_a_broken_peer_is_told_once_and_wakes_who_waits() -> None:
    near, far = memory_stream_pair()
    await far.aclose()
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery, StreamWire(near, ("m", 0)))
        kit.writer.push(b"x")
        kit.writer.flush()
        await kit.writer.wait_drained()
        kit.writer.push(b"y")
        kit.writer.flush()
        assert (kit.calls, kit.writer.size, kit.writer.closed) == (["broken"], 0, True)


async def test_rule9_the_close_leaves_even_where_the_drain_task_was_cancelled(
    tcp: tuple[SocketWire, socket.socket],
) -> None:
    wire, far = tcp
    with trio.CancelScope() as outer:
        async with trio.open_nursery() as nursery:
            kit = Kit(nursery, wire, budget=1_000_000)
            while kit.writer.size == 0:
                kit.writer.push(b"x" * 5000)
                kit.writer.flush()
            await wait_all_tasks_blocked()
            outer.cancel()
            with trio.CancelScope(shield=True):
                kit.writer.finish(b"<close>", keep_pending=True)
                async with trio.open_nursery() as reading:
                    reading.start_soon(_expect_end, far, b"x<close>")
                    await kit.writer.wait_drained()
                    await wire.send_eof()
    assert kit.writer.size == 0
    assert kit.calls == []


async def test_a_send_cut_off_on_a_stream_breaks_it_instead_of_corrupting_it() -> None:
    near, far = lockstep_stream_pair()
    wire = StreamWire(near, ("m", 0))
    with trio.move_on_after(0):
        await wire.send_all(b"half a frame")
    with pytest.raises(trio.BrokenResourceError):
        await wire.send_all(b"<close>")
    await trio.aclose_forcefully(far)
