"""What comes in over one WebSocket: from the bytes of a receive to whole messages, and to why it ended.

Owns the sans-IO core of a connection (checklist S024-S026): every frame of a receive at once, the joining of fragments,
and the answers that the protocol itself demands (pongs, the echo of a Close). It must not know what a message says, who
is admitted, or how bytes leave (`server.writer`); it says what happened, by callback or in the `CloseScope`.

Invariants: it never waits for the application, so pings, pongs and closes always flow (design rule 6); after the cause
of an end is known no further frame is carried out; what is joined is bounded by the size that `accept` gave.

The sans-IO core yields frames; what it leaves to us of them is in `server.frames`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.server.closing import CloseScope
from openclaw_gateway.server.frames import Fragments, is_utf8, known_code
from openclaw_gateway.server.wire import Wire
from openclaw_gateway.server.writer import Writer

__all__ = ["Reader"]

TEXT, BINARY, CONT, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PONG


class Reader:
    """The reading half of a `Session`.

    ``on_message`` takes whole messages and may be replaced between two of them; ``on_too_big`` gets the bytes of a
    receive that began a message over the limit, empty where it did not begin at a frame. ``received``: bytes so far.
    ``echo``: the Close frame that the core wrote for the peer's, empty while there is none.
    """

    __slots__ = (
        "_fragments",
        "_on_pong",
        "_on_too_big",
        "_protocol",
        "_scope",
        "_wire",
        "_writer",
        "echo",
        "on_message",
        "received",
    )

    def __init__(
        self,
        wire: Wire,
        writer: Writer,
        scope: CloseScope,
        *,
        limit: int,
        on_message: Callable[[bytes], None],
        on_pong: Callable[[], None],
        on_too_big: Callable[[bytes], None],
        logger: logging.Logger,
    ) -> None:
        self._wire = wire
        self._writer = writer
        self._scope = scope
        self._protocol = Protocol(SERVER, state=OPEN, max_size=limit, logger=logger)
        self._fragments: Fragments | None = None
        self._on_pong = on_pong
        self._on_too_big = on_too_big
        self.on_message = on_message
        self.received = 0
        self.echo = b""

    def accept(self, limit: int) -> None:
        """From here on a message may have ``limit`` bytes."""
        self._protocol.max_message_size = limit

    async def run(self, data: bytes) -> None:
        """Read until the connection is over; ``data`` came in before. Why it is over stands in the `CloseScope` then.

        Raises `trio.BrokenResourceError`, `trio.ClosedResourceError`, and what ``on_message`` raises.
        """
        protocol, writer, receive = self._protocol, self._writer, self._wire.receive_some
        if not data:
            data = await receive()
        while data:
            if self._scope.cause is not None:
                return  # what came in the moment in which the connection was given up is not carried out any more
            self.received += len(data)
            at_boundary = not protocol.reader.buffer
            protocol.receive_data(data)
            for frame in protocol.events_received():
                self._frame(frame)  # type: ignore[arg-type]
                if self._scope.closing:
                    return
            if protocol.writes:
                control = b"".join(protocol.data_to_send())
                if protocol.state is not OPEN:
                    self._protocol_ended(control, data if at_boundary else b"")
                    return
                writer.push(control)
            writer.flush()
            data = await receive()
        self._scope.close(CloseCode.ABNORMAL, "connection lost", by_peer=True, abrupt=True)

    def _protocol_ended(self, control: bytes, data: bytes) -> None:
        """The peer said Close (echo it as it came) or broke the protocol (say so in our words)."""
        protocol = self._protocol
        if protocol.parser_exc is None:
            received = protocol.close_rcvd
            self.echo = control
            code = received.code if received is not None else CloseCode.NO_STATUS
            reason = received.reason if received is not None else ""
            self._scope.close(known_code(code), reason, by_peer=True)
        elif isinstance(protocol.parser_exc, PayloadTooBig):
            self._on_too_big(data)
        else:
            code = protocol.close_sent.code if protocol.close_sent is not None else CloseCode.PROTOCOL_ERROR
            self._scope.close(known_code(code), str(protocol.parser_exc))

    def _frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is TEXT or opcode is BINARY:
            if frame.fin:
                data = bytes(frame.data)  # the same object where it is bytes already
                if opcode is TEXT and not data.isascii() and not is_utf8(data):
                    self._scope.close(CloseCode.INVALID_DATA, "text is not UTF-8")
                    return
                self.on_message(data)
            else:
                self._fragments = Fragments(text=opcode is TEXT)
                self._fragment(frame)
        elif opcode is CONT:
            self._fragment(frame)
        elif opcode is PONG:
            self._on_pong()

    def _fragment(self, frame: Frame) -> None:
        assert self._fragments is not None
        try:
            data = self._fragments.add(frame)
        except UnicodeDecodeError:
            self._scope.close(CloseCode.INVALID_DATA, "text is not UTF-8")
            return
        if data is not None:
            self._fragments = None
            self.on_message(data)
