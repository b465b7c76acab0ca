"""The one writer of a connection: a byte budget, everything pending in one send, every frame that leaves.

Owns the outgoing bytes of one WebSocket connection (design rule 7). It must not know what the frames mean. In the
common case nothing waits: frames are appended and one non-blocking send takes them; only when the kernel takes less
does a drain task run until the backlog is gone. What goes to many connections at once is a `SharedFrame`: a frame from
a server is not masked (RFC 6455 section 5.1), so all of them send the same bytes and only the ends are their own.

Invariants: frames leave whole and in order; ``size`` (bytes accepted and not yet taken by the kernel) stays under the
budget, except that a single frame may always go when nothing is pending; what is shared counts in full for everyone
who waits for it; it is never copied; a droppable frame is refused first, at half the budget (WS-2); ``seq`` is counted
only for frames that were taken (WS-3).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import trio

from openclaw_gateway.server.wire import Wire

__all__ = ["SharedFrame", "Writer", "text_frame", "text_head"]

_BATCH_BYTES: Final = 256 * 1024


def text_head(size: int) -> bytes:
    """What stands before ``size`` bytes of an unmasked, unfragmented text frame (RFC 6455 section 5.2)."""
    if size < 126:
        return b"\x81%c" % size
    return b"\x81\x7e%b" % struct.pack("!H", size) if size < 65536 else b"\x81\x7f%b" % struct.pack("!Q", size)


def text_frame(payload: bytes) -> bytes:
    """One unmasked, unfragmented text frame."""
    return text_head(len(payload)) + payload


class SharedFrame:
    """One frame in three parts, of which ``body`` is the same object for every connection that it goes to. Raises
    `ValueError` without a ``tail``: the writer tells by it that the body has left.
    """

    __slots__ = ("body", "head", "size", "tail")

    def __init__(self, head: bytes, body: bytes | memoryview, tail: bytes) -> None:
        if not tail:
            raise ValueError("a shared frame needs a tail of its own")
        self.head = head
        self.body = body
        self.tail = tail
        self.size = len(head) + len(body) + len(tail)

    def __len__(self) -> int:
        return self.size


class Writer:
    __slots__ = (
        "_begun",
        "_budget",
        "_drained",
        "_draining",
        "_on_broken",
        "_on_overflow",
        "_pending",
        "_rest",
        "_spawn",
        "_wire",
        "closed",
        "queued",
        "sent",
        "seq",
    )

    def __init__(
        self,
        wire: Wire,
        *,
        budget: int,
        spawn: Callable[[Callable[[], Any]], None],
        on_overflow: Callable[[], None],
        on_broken: Callable[[], None],
    ) -> None:
        self._wire = wire
        self._budget = budget
        self._spawn = spawn
        self._on_overflow = on_overflow
        self._on_broken = on_broken
        self._pending: deque[bytes | SharedFrame] = deque()
        self._begun: tuple[bytes | memoryview, ...] = ()  # what is still to come of a shared frame
        self._drained: trio.Event | None = None
        self._rest: memoryview | None = None  # what a drain is sending
        self._draining = False
        self.queued = 0  # bytes ever accepted
        self.sent = 0  # bytes ever taken by the kernel; pings and progress are judged by it
        self.seq = 0
        self.closed = False

    @property
    def size(self) -> int:
        return self.queued - self.sent

    def push(self, frame: bytes | SharedFrame) -> None:
        """Take a frame that must not be dropped; over the budget the connection is given up (`on_overflow`)."""
        if self.closed:
            return
        waiting = self.queued - self.sent
        if waiting and waiting + len(frame) > self._budget:
            self._on_overflow()
            return
        self._pending.append(frame)
        self.queued += len(frame)

    def send(self, frame: bytes | SharedFrame) -> None:
        """`push` and `flush`; where nothing waits, and that is nearly always, without the way through the queue."""
        if self._rest is not None or self._pending or self.closed or not isinstance(frame, bytes):
            self.push(frame)
            self.flush()
            return
        try:
            count = self._wire.try_send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._fail()
            return
        self.queued += len(frame)
        self.sent += count
        if count < len(frame):
            self._rest = memoryview(frame)[count:]
            self._draining = True
            self._spawn(self._drain)

    def has_room(self, *, droppable: bool) -> bool:
        """Whether an event may be queued now. Ask before giving it a ``seq``."""
        return not self.closed and not (droppable and self.size > self._budget // 2)

    def flush(self) -> None:
        """Send all that is pending as far as the kernel takes it, without waiting; a drain task takes over the
        remainder.
        """
        if self._rest is not None or not self._pending:
            return
        if not self._send_now():
            self._draining = True
            self._spawn(self._drain)

    def _send_now(self) -> bool:
        """One send without waiting; False where something is left over in ``_rest``, for a drain to take on."""
        shared = isinstance(self._pending[0], SharedFrame)
        batch = self._pending.popleft() if shared else self._take_batch()
        try:
            if isinstance(batch, SharedFrame):
                count = self._wire.try_send_parts((batch.head, batch.body, batch.tail))
            else:
                count = self._wire.try_send(batch)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._fail()
            return True
        self.sent += count
        if count < len(batch) or self._pending or self._begun:
            self._rest = self._begin(batch, count) if isinstance(batch, SharedFrame) else memoryview(batch)[count:]
        return self._rest is None

    def _begin(self, frame: SharedFrame, count: int) -> memoryview:
        """What is being sent of a shared frame that lost ``count`` bytes to the kernel; the rest goes to ``_begun``."""
        head, body = len(frame.head), len(frame.body)
        if count < head:
            self._begun = (frame.body, frame.tail)
            return memoryview(frame.head)[count:]
        if count < head + body:
            self._begun = (frame.tail,)
            return memoryview(frame.body)[count - head :]
        return memoryview(frame.tail)[count - head - body :]

    def _take_batch(self) -> bytes | memoryview:
        """The next bytes to send: all that is pending, in pieces of about `_BATCH_BYTES` so that a close can get in
        between. The body of a shared frame is a piece of its own, as it is; what stands around it goes with its
        neighbours.
        """
        pending, begun = self._pending, self._begun
        if len(begun) == 2:
            self._begun = begun[1:]
            return begun[0]
        if len(pending) == 1 and not begun:
            only = pending[0]
            if isinstance(only, bytes):
                pending.clear()
                return only
        parts, size = [*begun], 0
        self._begun = ()
        while pending and size < _BATCH_BYTES:
            part = pending.popleft()
            if isinstance(part, SharedFrame):
                parts.append(part.head)
                self._begun = (part.body, part.tail)
                break
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    async def _drain(self) -> None:
        try:
            while self._rest is not None:
                while self._rest:
                    count = await self._wire.send_part(self._rest)
                    self.sent += count
                    self._rest = self._rest[count:]
                self._rest = memoryview(self._take_batch()) if self._pending or self._begun else None
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._fail()
        finally:
            self._draining = False
            self._wake()

    def _fail(self) -> None:
        self._pending.clear()
        self._begun = ()
        self._rest = None
        self.closed = True
        self.sent = self.queued
        self._wake()
        self._on_broken()

    def _wake(self) -> None:
        if self._drained is not None:
            self._drained.set()

    def finish(self, last: bytes, *, keep_pending: bool) -> None:
        """Take ``last`` (the Close frame) as the last bytes ever and start to send. A frame half sent is completed
        before it.

        ``keep_pending=False`` drops what has not been started: a slow consumer must still read why it was closed
        (WS-2).
        """
        if self.closed:
            return
        self.closed = True
        if not keep_pending:
            self.queued -= sum(map(len, self._pending))
            self._pending.clear()
        if last:
            self._pending.append(last)
            self.queued += len(last)
        if self._rest is None and self._pending:
            self._send_now()

    async def wait_drained(self) -> None:
        """Wait until the kernel has taken everything or the connection broke.

        Sends what is left itself where no drain task does: when a whole connection is cancelled from outside, its drain
        task is too, and the Close frame must leave all the same. Cancelling leaves a stream that can only be dropped.
        """
        while self.size:
            if self._draining:
                self._drained = trio.Event()
                await self._drained.wait()
            else:
                self._draining = True
                await self._drain()
