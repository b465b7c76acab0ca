"""One connection's byte stream: a Trio stream whose every send has a deadline, and that can send without waiting.

Owns an accepted socket (`SocketWire`) or any other Trio stream (`StreamWire`: TLS, in-memory). It must not know HTTP,
WebSocket or sessions. Both kinds have the face that hypercorn's `TCPServer` asks of a stream (``socket.family``,
``getpeername``, ``getsockname``), because hypercorn's own send is shielded without a deadline (design.md, ground
truths): here a send that makes no progress for `STALL_SECONDS`, or does not finish within `SEND_SECONDS`, breaks the
stream.

Invariants: `try_send` never blocks and never splits its promise (it returns how many bytes left); only one sender at a
time (`trio.BusyResourceError` otherwise); `abort` is synchronous, idempotent and wakes everything that waits on the
stream.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import socket as stdlib_socket
import struct
import sys
import termios
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import attrs
import trio

from openclaw_gateway.policy.network import DIRECT, Arrival
from openclaw_gateway.value import Value

__all__ = ["SocketWire", "StreamWire", "Wire"]

STALL_SECONDS: Final = 10.0
SEND_SECONDS: Final = 60.0
_FIRST_RECEIVE: Final = 8 * 1024
_BULK_RECEIVE: Final = 64 * 1024  # also bounds how many requests one wake-up may answer before others run
_PART_BYTES: Final = 64 * 1024
_SIOCOUTQNSD: Final = 0x894B  # linux/sockios.h: bytes of the send queue that were never sent
_NOT_NOW: Final = frozenset({errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS})


class SocketFace(Protocol):
    """The part of a socket that hypercorn reads to learn both addresses."""

    @property
    def family(self) -> int: ...
    def getpeername(self) -> object: ...
    def getsockname(self) -> object: ...


class Wire(trio.abc.Stream):
    """A stream with deadlines. ``socket`` is the face for hypercorn, ``peer`` the other side's ``(host, port)``,
    ``arrival`` how it came in.
    """

    __slots__ = ()

    socket: SocketFace
    peer: tuple[str, int]
    arrival: Arrival
    opens = False  # whether `announce` or `open` has something to do

    async def announce(self) -> None:
        """What comes before that: a PROXY header, which says whose connection this is (`peer`, `arrival`). Raises as
        `open`.
        """

    async def open(self) -> None:
        """What comes before the first byte of HTTP: a TLS handshake. Raises `trio.BrokenResourceError` with the reason
        where it fails; the caller sets the deadline.
        """

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Bytes as they come, ``b""`` at the end of the stream."""
        raise NotImplementedError

    async def send_eof(self) -> None:
        """Half-close where the stream can: the peer reads the end, we go on reading."""
        raise NotImplementedError

    def try_send(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the kernel takes right now and return how many bytes that were; 0 where nothing can be said now."""
        raise NotImplementedError

    def try_send_parts(self, parts: Sequence[bytes | memoryview]) -> int:
        """`try_send` of several pieces behind one another, which need not be joined for it."""
        total = 0
        for part in parts:
            count = self.try_send(part)
            total += count
            if count < len(part):
                break
        return total

    async def send_part(self, view: memoryview) -> int:
        """Wait until some bytes can leave, send them, return how many. Cancelling loses at most nothing on a socket."""
        raise NotImplementedError

    def abort(self) -> None:
        """Drop the connection at once, without a goodbye; waiting senders and receivers end with
        `trio.ClosedResourceError`.
        """
        raise NotImplementedError

    def leave_to_watchdog(self) -> None:
        """Somebody watches this connection from now on: the kernel need not end it for reading slowly."""

    @property
    def unacknowledged(self) -> int:
        """Bytes that were sent and that the peer's host has not confirmed; 0 where that cannot be known."""
        return 0

    @property
    def unsent(self) -> int:
        """Those of `unacknowledged` that the kernel has not put on the wire yet; 0 where that cannot be known."""
        return 0


class SocketWire(Wire):
    """A TCP connection, driven straight from its non-blocking socket: one wake-up and one system call per receive."""

    __slots__ = ("_receive_size", "_sending", "_sock", "arrival", "peer")

    def __init__(self, sock: stdlib_socket.socket, peer: tuple[str, int], arrival: Arrival = DIRECT) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.peer = peer
        self.arrival = arrival
        self._sending = False
        self._receive_size = _FIRST_RECEIVE

    @property
    def socket(self) -> stdlib_socket.socket:  # type: ignore[override]
        return self._sock

    def fileno(self) -> int:
        return self._sock.fileno()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Bytes as they come, ``b""`` at the end of the stream. Always a checkpoint; cancellation loses nothing."""
        while True:
            if self._sock.fileno() == -1:
                await trio.lowlevel.checkpoint()
                raise trio.ClosedResourceError
            # Waiting first costs one system call less than trying first: in request/reply traffic the try always fails.
            await trio.lowlevel.wait_readable(self._sock)
            size = max_bytes or self._receive_size
            try:
                data = self._sock.recv(size)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as exc:
                raise trio.BrokenResourceError(str(exc)) from exc
            if max_bytes is None:
                # A full buffer means bulk; anything less means the small buffer will do again.
                self._receive_size = _BULK_RECEIVE if len(data) == size else _FIRST_RECEIVE
            return data

    def try_send(self, data: bytes | bytearray | memoryview) -> int:
        if self._sending:
            return 0
        try:
            return self._sock.send(data)
        except OSError as exc:
            return _nothing_sent(exc)

    def try_send_parts(self, parts: Sequence[bytes | memoryview]) -> int:
        if self._sending:
            return 0
        try:
            return self._sock.sendmsg(parts)
        except OSError as exc:
            return _nothing_sent(exc)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything or raise. A send that was cancelled or failed leaves the stream unusable: close it."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this connection")
        await trio.lowlevel.checkpoint_if_cancelled()
        with memoryview(data) as view:
            sent = self.try_send(view)
            if sent == len(view):
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            self._sending = True
            try:
                await self._send_rest(view[sent:])
            finally:
                self._sending = False

    async def _send_rest(self, view: memoryview) -> None:
        end = trio.current_time() + SEND_SECONDS
        while view:
            with trio.move_on_at(min(end, trio.current_time() + STALL_SECONDS)) as stalled:
                await self.wait_send_all_might_not_block()
            if stalled.cancelled_caught:
                raise trio.BrokenResourceError("the peer takes no data")
            try:
                view = view[self._sock.send(view) :]
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as exc:
                raise trio.BrokenResourceError(str(exc)) from exc

    async def send_part(self, view: memoryview) -> int:
        await self.wait_send_all_might_not_block()
        return self.try_send(view)

    async def wait_send_all_might_not_block(self) -> None:
        if self._sock.fileno() == -1:
            raise trio.ClosedResourceError
        await trio.lowlevel.wait_writable(self._sock)

    def leave_to_watchdog(self) -> None:
        # tcp(7): the user timeout also runs while the peer's window is closed, and Linux does not start it over when
        # the window opens for a moment: a reader of 1 KB/s was reset after two minutes (LIVE-3).
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                self._sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_USER_TIMEOUT, 0)

    @property
    def unacknowledged(self) -> int:
        # tcp(7): SIOCOUTQ, which is TIOCOUTQ, counts the unsent and the unacknowledged bytes of the send queue.
        return self._queue_size(termios.TIOCOUTQ)

    @property
    def unsent(self) -> int:
        return self._queue_size(_SIOCOUTQNSD) if sys.platform == "linux" else 0

    def _queue_size(self, request: int) -> int:
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._sock, request, b"\0\0\0\0"))[0])
        except (OSError, ValueError):
            return 0

    async def send_eof(self) -> None:
        """Half-close: the peer reads the end of the stream, we go on reading."""
        await trio.lowlevel.checkpoint()
        with contextlib.suppress(OSError):
            self._sock.shutdown(stdlib_socket.SHUT_WR)

    def abort(self) -> None:
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()

    async def aclose(self) -> None:
        self.abort()
        await trio.lowlevel.checkpoint()


def _nothing_sent(exc: OSError) -> int:
    """0 where the kernel has no room right now; raises where the connection is gone."""
    if isinstance(exc, BlockingIOError | InterruptedError) or exc.errno in _NOT_NOW:
        return 0
    raise trio.BrokenResourceError(str(exc)) from exc


@attrs.frozen(eq=False, repr=False)
class AddressOnly(Value):
    """Stands in for a socket where the stream below has none; hypercorn reads only the addresses."""

    peer: tuple[str, int]
    family: int = stdlib_socket.AF_INET

    def getpeername(self) -> tuple[str, int]:
        return self.peer

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 0)


class StreamWire(Wire):
    """Any other Trio stream (TLS, a memory stream) with the same deadlines. It cannot send without waiting."""

    __slots__ = ("_aborted", "_stream", "_torn", "_waiting", "arrival", "peer", "socket")

    def __init__(self, stream: trio.abc.Stream, peer: tuple[str, int], arrival: Arrival = DIRECT) -> None:
        self._stream = stream
        self._waiting: set[trio.CancelScope] = set()  # at most one receiver and one sender
        self._aborted = False
        self._torn = False
        self.peer = peer
        self.arrival = arrival
        self.socket = AddressOnly(peer)

    @contextlib.contextmanager
    def _abortable(self, timeout: float = math.inf) -> Iterator[trio.CancelScope]:
        if self._aborted:
            raise trio.ClosedResourceError
        with trio.move_on_after(timeout) as scope:
            self._waiting.add(scope)
            try:
                yield scope
            finally:
                self._waiting.discard(scope)
        # Read through a method: the type checker takes the flag for what it was on entry.
        if self._is_aborted() and scope.cancelled_caught:
            raise trio.ClosedResourceError

    def _is_aborted(self) -> bool:
        return self._aborted

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with self._abortable():
            return bytes(await self._stream.receive_some(max_bytes or _BULK_RECEIVE))
        raise trio.ClosedResourceError

    def try_send(self, data: bytes | bytearray | memoryview) -> int:
        return 0

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        # What is below may buffer (TLS), so progress cannot be seen: one deadline for the whole.
        if self._torn:
            raise trio.BrokenResourceError("an earlier send was cut off; nobody knows where")
        self._torn = True
        with self._abortable(SEND_SECONDS) as late:
            await self._stream.send_all(data)
            self._torn = False
        if late.cancelled_caught:
            raise trio.BrokenResourceError("the peer takes no data")

    async def send_part(self, view: memoryview) -> int:
        part = view[:_PART_BYTES]
        await self.send_all(part)
        return len(part)

    async def wait_send_all_might_not_block(self) -> None:
        with self._abortable():
            await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            await self._stream.send_eof()

    def abort(self) -> None:
        self._aborted = True
        for scope in self._waiting:
            scope.cancel()

    async def aclose(self) -> None:
        self.abort()
        await trio.aclose_forcefully(self._stream)
