"""The accept loop: supervised, capped, and checked from outside by itself (LIVE-2).

Owns accepting and the options of accepted sockets. It must not know HTTP or WebSocket: each socket goes to a handler as
a `SocketWire`. Linux's TCP_USER_TIMEOUT sits behind a check, so that macOS works without it.

Invariants: nothing but cancellation or a closed listener ends the loop; running out of file descriptors slows it down
and loses nothing; a handler's exception cannot reach the loop, because handlers run in another nursery behind a crash
barrier.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.server.wire import SocketWire, Wire
from openclaw_gateway.value import Value

__all__ = ["AcceptStalled", "Probed", "prepare", "serve_accepts", "watch_accepts"]

PROBE_SECONDS: Final = 30.0
PROBE_TIMEOUT: Final = 5.0
PROBE_FAILURES: Final = 3
_BATCH: Final = 64
_KEEPALIVE: Final = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 120_000))
_SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

log = get_logger("listener")


@attrs.define(eq=False)
class AcceptStalled(GatewayError):
    """The gateway could not connect to itself several times in a row; a supervisor should start it afresh."""

    failures: int

    def __str__(self) -> str:
        return f"the listener did not answer {self.failures} times in a row"


async def serve_accepts(
    sock: socket.socket,
    handler: Callable[[Any], Awaitable[None]],
    handlers: trio.Nursery,
    take: Callable[[socket.socket, tuple[str, int]], Wire | None] | None = None,
) -> None:
    """Accept for ever; returns when the listening socket is closed. Takes what is there in one go, then lets others
    run. ``take`` makes the wire of an accepted socket, or closes it and returns None; default: `prepare`.
    """
    take = prepare if take is None else take
    while sock.fileno() != -1:  # closed before this task came to run
        try:
            await trio.lowlevel.wait_readable(sock)
            for _ in range(_BATCH):
                accepted, address = sock.accept()
                wire = take(accepted, address)
                if wire is not None:
                    handlers.start_soon(handler, wire)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            continue
        except trio.ClosedResourceError:
            return
        except OSError as exc:
            if sock.fileno() == -1:
                return
            if exc.errno not in _SHORTAGE:
                log.warning("accept failed", error=str(exc))
            else:
                log.error("accept failed: out of file descriptors or memory", error=str(exc), fix="ulimit -n 65536")
            await trio.sleep(0.1)


def prepare(sock: socket.socket, address: tuple[str, int], kind: type[SocketWire] = SocketWire) -> SocketWire | None:
    """The wire of an accepted socket, its options set; None (and closed) where the peer is gone already."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            option = getattr(socket, name, None)
            if option is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        return kind(sock, (address[0], address[1]))
    except OSError:
        sock.close()  # gone before we looked
        return None


@attrs.frozen(eq=False, repr=False)
class Probed(Value):
    """Where the self-probe connects."""

    host: str
    port: int
    tls: bool = False


async def watch_accepts(
    address: Callable[[], Probed | None], *, interval: float = PROBE_SECONDS, timeout: float = PROBE_TIMEOUT
) -> None:
    """Connect to ourselves each ``interval`` seconds and ask /healthz; raise `AcceptStalled` after three failures.

    ``address`` is asked each time, because a reload may move the listener; None: nothing is listened on right now.
    """
    failures = 0
    while True:
        await trio.sleep(interval)
        where = address()
        if where is None:
            continue
        failures = 0 if await _answers(where, timeout) else failures + 1
        if failures:
            log.error("self-probe failed", attempt=failures, host=where.host, port=where.port)
        if failures >= PROBE_FAILURES:
            raise AcceptStalled(failures)


async def _answers(where: Probed, timeout: float) -> bool:
    host = "[::1]" if ":" in where.host else "127.0.0.1"
    with trio.move_on_after(timeout), contextlib.suppress(OSError, trio.BrokenResourceError):
        async with await trio.open_tcp_stream(where.host, where.port) as stream:
            if where.tls:
                return await _shakes_hands(stream)
            await stream.send_all(b"HEAD /healthz HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n" % host.encode())
            return (await stream.receive_some(64)).startswith(b"HTTP/1.1 ")
    return False


async def _shakes_hands(stream: trio.SocketStream) -> bool:
    """Whether the loop behind the listener does a TLS handshake: that is what is asked here, not who it is. A client
    certificate may be required for more.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    await trio.SSLStream(stream, context, server_hostname="localhost").do_handshake()
    return True
