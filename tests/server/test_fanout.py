"""One event to many: the bytes are shared, each connection pays for them out of its own budget (WS-2, V48)."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.client import Credentials, DeviceIdentity, open_client
from openclaw_gateway.client.secure import SecureChannelWish
from openclaw_gateway.config.schema import AuthConfig, TransportsConfig, WebSocketConfig
from openclaw_gateway.events.bus import make_event
from openclaw_gateway.ops.statickey import make_static_key
from openclaw_gateway.protocol import frames, jsonrpc, protobuf
from openclaw_gateway.protocol.close import Close, CloseCode
from openclaw_gateway.server.dialect import OPENCLAW, PROTOBUF, SHARED_BYTES, dialect_of, event_frame
from openclaw_gateway.server.wire import Wire
from openclaw_gateway.server.writer import SharedFrame, Writer
from openclaw_gateway.testing import ScriptedPeer

from .conftest import TOKEN

MIB = 1024 * 1024


# --- the frame


@pytest.mark.parametrize("seq", [None, 1, 127, 128, 65_536, 10**15])
@pytest.mark.parametrize("size", [0, 100, 126, SHARED_BYTES - 200, SHARED_BYTES + 1, 70_000])
def test_an_event_in_parts_is_the_event_as_it_was_encoded(size: int, seq: int | None) -> None:
    proto = dialect_of(PROTOBUF)
    event = make_event("e", {"text": "x" * size}, state_version={"presence": 3})
    whole = {
        "openclaw": event.body if seq is None else frames.splice_seq(event.body, seq),
        "jsonrpc": jsonrpc.encode_event("e", event.payload, state_version={"presence": 3}),
        "protobuf": protobuf.number_event(
            protobuf.encode_event("e", event.payload, state_version={"presence": 3}), seq
        ),
    }
    if seq is not None:
        whole["jsonrpc"] = jsonrpc.splice_seq(whole["jsonrpc"], seq)
    made = {
        "openclaw": event_frame(OPENCLAW, "openclaw", event, seq),
        "jsonrpc": event_frame(OPENCLAW, "jsonrpc", event, seq),
        "protobuf": event_frame(proto, "protobuf", event, seq),
    }
    assert made["openclaw"] == event_frame(OPENCLAW, "openclaw", event, seq) or size >= SHARED_BYTES
    for name, frame in made.items():
        joined = frame if isinstance(frame, bytes) else b"".join((frame.head, frame.body, frame.tail))
        assert joined == (proto if name == "protobuf" else OPENCLAW).wrap(whole[name]), name
        assert len(frame) == len(joined)
        # What goes to one peer alone has no number, and protobuf then has nothing to tell the end by.
        assert isinstance(frame, SharedFrame) == (size >= SHARED_BYTES and not (name == "protobuf" and seq is None))


def test_a_large_event_is_one_object_for_every_connection_of_a_dialect() -> None:
    event = make_event("e", {"text": "x" * SHARED_BYTES})
    proto = dialect_of(PROTOBUF)
    for dialect, spoken in ((OPENCLAW, "openclaw"), (OPENCLAW, "jsonrpc"), (proto, "protobuf")):
        made = [event_frame(dialect, spoken, event, seq) for seq in range(1, 100)]
        assert len({id(frame.body) for frame in made if isinstance(frame, SharedFrame)}) == 1
        assert all(isinstance(frame, SharedFrame) for frame in made)


def test_a_shared_frame_must_have_an_end_of_its_own() -> None:
    with pytest.raises(ValueError, match="tail"):
        SharedFrame(b"head", b"body", b"")


# --- the writer


class Pipe(Wire):
    """A wire that takes what the script says, then everything."""

    __slots__ = ("room", "taken")

    def __init__(self, room: list[int]) -> None:
        self.room = room
        self.taken = bytearray()

    def try_send(self, data: bytes | bytearray | memoryview) -> int:
        count = min(len(data), self.room.pop(0) if self.room else len(data))
        self.taken += data[:count]
        return count

    async def send_part(self, view: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        return self.try_send(view)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.taken += data

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def _frame(number: int, size: int, *, shared: bool) -> bytes | SharedFrame:
    text = b"%d<" % number + b"." * size
    return SharedFrame(b"%d<" % number, b"." * size, b">") if shared else text + b">"


def _bytes(frame: bytes | SharedFrame) -> bytes:
    return frame if isinstance(frame, bytes) else b"".join((frame.head, frame.body, frame.tail))


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=12),
    st.lists(st.integers(0, 60), max_size=20),
    st.booleans(),
    st.integers(0, 12),
)
def test_ws2_frames_leave_whole_and_in_order_and_are_counted(
    plan: list[tuple[int, bool, bool]], room: list[int], keep: bool, end: int
) -> None:
    async def main() -> None:
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                wire = Pipe(list(room))
                writer = Writer(
                    wire, budget=10_000, spawn=nursery.start_soon, on_overflow=lambda: None, on_broken=lambda: None
                )
                sent = []
                for number, (size, shared, flush) in enumerate(plan):
                    if number == end:
                        break
                    frame = _frame(number, size, shared=shared)
                    sent.append(_bytes(frame))
                    writer.push(frame)
                    if flush:
                        writer.flush()
                    if number % 3 == 2:
                        await trio.lowlevel.checkpoint()
                writer.finish(b"|close|", keep_pending=keep)
                await writer.wait_drained()
                assert writer.size == 0
                assert writer.sent == len(wire.taken)
                whole = b"".join(sent)
                got = bytes(wire.taken)
                assert got.endswith(b"|close|")
                got = got.removesuffix(b"|close|")
                if keep:
                    assert got == whole
                else:  # dropped from the end, and never in the middle of a frame
                    assert got in {b"".join(sent[:count]) for count in range(len(sent) + 1)}

    trio.run(main)


async def test_ws2_what_is_shared_counts_in_full_for_who_waits_for_it() -> None:
    calls: list[str] = []
    async with trio.open_nursery() as nursery:
        writer = Writer(
            Pipe([0]), budget=100, spawn=nursery.start_soon, on_overflow=lambda: calls.append("overflow"),
            on_broken=lambda: calls.append("broken"),
        )  # fmt: skip
        writer.push(SharedFrame(b"h", b"." * 58, b"t"))
        assert writer.size == 60
        assert not writer.has_room(droppable=True)
        writer.push(SharedFrame(b"h", b"." * 58, b"t"))
        assert (calls, writer.size) == (["overflow"], 60)


async def test_a_connection_lost_within_a_shared_frame_leaves_nothing() -> None:
    class Breaking(Pipe):
        def try_send(self, data: bytes | bytearray | memoryview) -> int:
            if len(data) == 50:
                raise trio.BrokenResourceError
            return super().try_send(data)

    calls: list[str] = []
    async with trio.open_nursery() as nursery:
        writer = Writer(
            Breaking([]), budget=100, spawn=nursery.start_soon, on_overflow=lambda: calls.append("overflow"),
            on_broken=lambda: calls.append("broken"),
        )  # fmt: skip
        writer.push(SharedFrame(b"h", b"." * 50, b"t"))
        writer.flush()
        assert (calls, writer.size, writer.closed, writer._begun) == (["broken"], 0, True, ())


# --- many connections


@asynccontextmanager
async def _gateway(*, budget: int = 50 * MIB) -> AsyncIterator[Gateway]:
    websocket = WebSocketConfig(
        max_buffered_bytes=budget, concurrent_connections=200, unauthenticated_per_address=200
    )  # fmt: skip
    config = GatewayConfig(
        port=0, auth=AuthConfig(type="token", token=TOKEN), transports=TransportsConfig(websocket=websocket)
    )
    with trio.fail_after(60):
        async with open_gateway(config, env={}) as gateway:
            yield gateway


async def _dial(gateway: Gateway, *, small: bool = True) -> ScriptedPeer:
    sock = trio.socket.socket()
    if small:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, 4096)
    await sock.connect(("127.0.0.1", gateway.port))
    peer = ScriptedPeer(trio.SocketStream(sock))
    await peer.upgrade()
    await peer.connect(token=TOKEN)
    return peer


@contextmanager
def _traced() -> Iterator[list[int]]:
    """The highest number of bytes that Python held in the block, above what it held before."""
    peak = [0]
    gc.collect()
    tracemalloc.start()
    try:
        yield peak
        peak[0] = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def test_v48_ten_megabytes_to_a_hundred_readers_are_held_once() -> None:
    async with _gateway() as gateway:
        peers = [await _dial(gateway) for _ in range(100)]
        text = "x" * (10 * MIB)
        with _traced() as peak:
            assert gateway.events.publish_nowait("big", {"text": text}) == 100
            await wait_all_tasks_blocked(0.01)
        # Nobody has read it: it waits for every one of them, and each pays for it.
        assert all(session.writer.size > 5 * MIB for session in gateway._core.registry)
        # The payload as JSON, the frame around it, and the encoder's buffer while it grows: copies for each of the
        # hundred would be 1,000 MiB.
        assert peak[0] < 60 * MIB
        for peer in (peers[0], peers[57], peers[99]):
            event = await peer.expect_event("big")
            assert event == {"text": text}
        for peer in peers:
            await peer.stream.aclose()


async def test_v48_who_never_reads_is_cut_at_its_own_budget_and_costs_others_nothing() -> None:
    """Twenty connections that read nothing, one that reads everything, 4 MiB events: the twenty are slow consumers
    as soon as 10 MiB wait for each, what is held for all of them together stays below what two would cost alone.
    """
    async with _gateway(budget=10 * MIB) as gateway:
        mute = [await _dial(gateway) for _ in range(20)]
        slow = list(gateway._core.registry)
        honest = await _dial(gateway, small=False)
        text = "x" * (4 * MIB)
        heard = []
        with _traced() as peak:
            for number in range(4):
                gateway.events.publish_nowait("big", {"n": number, "text": text})
                assert all(session.writer.size <= 10 * MIB for session in slow)
                heard.append((await honest.expect_event("big"))["n"])
        assert heard == [0, 1, 2, 3]
        # Three events at most wait for any of them; the reader's own copies are in it too.
        assert peak[0] < 80 * MIB
        causes = {session.scope.cause.close for session in slow if session.scope.cause is not None}
        assert causes == {Close(CloseCode.POLICY, "slow consumer")}
        assert (await honest.request("health"))["ok"]
        for peer in (*mute, honest):
            await peer.stream.aclose()


async def _rpc(gateway: Gateway) -> ScriptedPeer:
    peer = ScriptedPeer(await trio.open_tcp_stream("127.0.0.1", gateway.port))
    await peer.upgrade(f"/?token={TOKEN}")
    await peer.expect_event("connect.challenge")
    await peer.send({"method": "last-heartbeat"})
    await peer.receive()
    return peer


async def test_each_dialect_reads_large_events_whole_and_numbered() -> None:
    """OpenClaw's JSON, JSON-RPC, Protocol Buffers and a sealed channel beside one another."""
    payloads = [{"text": "ä" * MIB, "n": 1}, {"n": 2}, {"text": "y" * 40_000, "n": 3}]
    auth = Credentials(token=TOKEN)
    wish = SecureChannelWish(key=make_static_key(), mode="required")
    async with (
        _gateway() as gateway,
        open_client(gateway.urls[0], auth=auth, protocol="proto") as proto,
        open_client(gateway.urls[0], auth=auth, identity=DeviceIdentity.generate(), secure=wish) as sealed,
    ):
        plain, rpc = await _dial(gateway), await _rpc(gateway)
        for payload in payloads:
            gateway.events.publish_nowait("big", payload)
        got = [await plain.receive() for _ in payloads]
        assert [(event["seq"], event["payload"]) for event in got] == list(enumerate(payloads, 1))
        told = [(await rpc.receive())["params"] for _ in payloads]
        assert [(event["seq"], event["payload"]) for event in told] == list(enumerate(payloads, 1))
        for client in (proto, sealed):
            heard: list[tuple[int | None, object]] = []
            stream = client.events()
            assert isinstance(stream, AsyncGenerator)
            async with aclosing(stream) as events:
                async for event in events:
                    if event.name == "big":
                        heard.append((event.seq, event.payload))
                    if len(heard) == len(payloads):
                        break
            first = heard[0][0]
            assert first is not None
            assert heard == list(enumerate(payloads, first))
        assert sealed.secure
        for peer in (plain, rpc):
            await peer.stream.aclose()
