"""The reading half of a connection by itself: messages, pieces, pongs, and what is not carried out any more."""

from __future__ import annotations

import logging

import trio
from trio.testing import memory_stream_pair
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.server.closing import CloseScope
from openclaw_gateway.server.reader import Reader
from openclaw_gateway.server.wire import StreamWire
from openclaw_gateway.server.writer import Writer

LIMIT = 64


class Kit:
    """A reader on one end of a connection; what it tells stands in ``messages``, ``pongs`` and ``too_big``."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.far, near = memory_stream_pair()
        wire = StreamWire(near, ("127.0.0.1", 1))
        self.scope = CloseScope()
        self.messages: list[bytes] = []
        self.too_big: list[bytes] = []
        self.pongs = 0
        self.writer = Writer(
            wire,
            budget=1000,
            spawn=nursery.start_soon,
            on_overflow=self._never,
            on_broken=self._never,
        )
        self.reader = Reader(
            wire,
            self.writer,
            self.scope,
            limit=LIMIT,
            on_message=self.messages.append,
            on_pong=self._ponged,
            on_too_big=self.too_big.append,
            logger=logging.getLogger("deaf"),
        )

    async def read(self, *frames: Frame) -> bytes:
        """Read these in one receive, and then the end of the stream; the bytes that they were."""
        data = b"".join(frame.serialize(mask=True) for frame in frames)
        await self.far.send_eof()
        with trio.fail_after(2):
            await self.reader.run(data)
        return data

    def end(self) -> tuple[CloseCode, str, bool]:
        assert self.scope.cause is not None
        return self.scope.cause.close.code, self.scope.cause.close.reason, self.scope.cause.by_peer

    def _ponged(self) -> None:
        self.pongs += 1

    def _never(self) -> None:
        raise AssertionError


def text(data: bytes, *, fin: bool = True, opcode: Opcode = Opcode.TEXT) -> Frame:
    return Frame(opcode, data, fin=fin)


async def test_s024_every_frame_of_a_receive_is_carried_out_at_once_and_pieces_are_joined() -> None:
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery)
        pieces = (text(b"one ", fin=False), text(b"whole", opcode=Opcode.CONT))
        data = await kit.read(text(b"first"), *pieces, Frame(Opcode.PONG, b""), Frame(Opcode.BINARY, b"\xff"))
        assert kit.messages == [b"first", b"one whole", b"\xff"]
        assert (kit.pongs, kit.reader.received) == (1, len(data))
        assert kit.end() == (CloseCode.ABNORMAL, "connection lost", True)


async def test_auth5_what_comes_in_after_the_end_was_decided_is_not_carried_out() -> None:
    """Authority is taken back while the receive is under way: what it brought is nobody's call any more."""
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery)
        kit.scope.close(CloseCode.DEVICE_REMOVED, "device removed")
        await kit.read(text(b"delete everything"))
        assert (kit.messages, kit.reader.received) == ([], 0)
        assert kit.end() == (CloseCode.DEVICE_REMOVED, "device removed", False)


async def test_rule9_the_message_that_ends_the_connection_is_the_last_one() -> None:
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery)

        def give_up(data: bytes) -> None:
            kit.messages.append(data)
            kit.scope.close(CloseCode.POLICY, "enough")

        kit.reader.on_message = give_up
        await kit.read(text(b"one"), text(b"two"))
        assert kit.messages == [b"one"]


async def test_s025_a_close_is_echoed_as_it_came_and_private_codes_are_a_normal_goodbye() -> None:
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery)
        goodbye = CloseFrame(4711, "bye").serialize()
        await kit.read(Frame(Opcode.CLOSE, goodbye))
        assert kit.end() == (CloseCode.NORMAL, "bye", True)
        assert kit.reader.echo == Frame(Opcode.CLOSE, goodbye).serialize(mask=False)


async def test_c13_a_message_over_the_limit_is_told_with_its_bytes_and_the_limit_can_be_raised() -> None:
    async with trio.open_nursery() as nursery:
        kit = Kit(nursery)
        data = await kit.read(text(b"x" * (LIMIT + 1)))
        assert (kit.messages, kit.too_big) == ([], [data])
        wider = Kit(nursery)
        wider.reader.accept(LIMIT + 1)
        await wider.read(text(b"x" * (LIMIT + 1)))
        assert (len(wider.messages[0]), wider.too_big) == (LIMIT + 1, [])


async def test_rfc6455_text_that_is_no_utf8_ends_the_connection_whole_or_in_pieces() -> None:
    async with trio.open_nursery() as nursery:
        for frames in ((text(b"\xff"),), (text(b"a", fin=False), text(b"\xff", opcode=Opcode.CONT))):
            kit = Kit(nursery)
            await kit.read(*frames)
            assert (kit.messages, kit.end()) == ([], (CloseCode.INVALID_DATA, "text is not UTF-8", False))
