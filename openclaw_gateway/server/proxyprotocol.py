"""Learning from a PROXY header who is behind a proxy, before TLS and before a byte of HTTP.

Owns reading exactly the header off a fresh socket. It must not know listeners: what `proxy_preface` gives is called by
the one that accepted the connection (`server.listening`), on listeners that ask for it and on no others.

Invariants: only an address in gateway.trustedProxies is listened to, anybody else is dropped unread; on such a listener
a connection without the header is dropped too, because a client that could leave it out could pass for the proxy
itself; exactly the header is taken off the socket, so TLS finds its first byte; `SECONDS` and
`protocol.proxyline.MAX_BYTES` bound it. Where the proxy speaks for itself the connection keeps the proxy's address and
is still not local: the listener marks it as relayed.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from openclaw_gateway.policy.addresses import NetworkSet
from openclaw_gateway.protocol.proxyline import MAX_BYTES, ProxyHeader, ProxyLineError, parse_proxy_header
from openclaw_gateway.server.wire import SocketWire

__all__ = ["proxy_preface"]

SECONDS: Final = 5.0


def proxy_preface(trusted: NetworkSet) -> Callable[[SocketWire], Awaitable[tuple[str, int]]]:
    """A reader of PROXY headers for connections from ``trusted`` addresses.

    The reader returns the client's ``(ip, port)``, or the proxy's own where it connects for itself. It raises
    `ProxyLineError` (a ValueError, with a text that holds nothing of what was sent) for a connection that is to be
    dropped, and what a broken socket raises. Cancellation leaves the socket somewhere inside the header: drop it.
    """

    async def read(wire: SocketWire) -> tuple[str, int]:
        if wire.peer[0] not in trusted:
            raise ProxyLineError("not from an address in gateway.trustedProxies")
        with trio.move_on_after(SECONDS):
            header = await _read_header(wire.socket)
            return header.source if header.source is not None else wire.peer
        raise ProxyLineError(f"no whole PROXY header within {SECONDS:g} s")

    return read


async def _read_header(sock: socket.socket) -> ProxyHeader:
    taken = b""
    while True:
        try:
            ahead = sock.recv(MAX_BYTES - len(taken), socket.MSG_PEEK)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)
            continue
        if not ahead:
            raise ProxyLineError("closed before a whole PROXY header")
        header = parse_proxy_header(taken + ahead)
        if header is not None:
            sock.recv(header.length - len(taken))
            return header
        # All of it belongs to the header: taking it off the socket lets the next wait be for what is missing.
        taken += sock.recv(len(ahead))
        await trio.lowlevel.checkpoint()
