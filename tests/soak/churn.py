"""Connections that come and go, thousands a second, from one thread over raw sockets and epoll.

Owns the client side only. Invariants: bounded in count and in time; traffic goes to 127.0.0.0/8 only; every connection
it opens is closed when it returns.
"""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import time
from collections import Counter
from typing import Any

from scripts.benchmarks.load import LoadError, connect_params, request_frame

__all__ = ["churn", "churn_refused", "upgrade_bytes"]

_RESET = struct.pack("ii", 1, 0)
_CLOSE = b"\x88\x82\x00\x00\x00\x00\x03\xe8"  # 1000, masked with zeros


def upgrade_bytes(port: int) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return (
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def churn(port: int, token: str, *, count: int, frames: int, at_once: int = 16, seconds: float = 600.0) -> None:
    """``count`` connections with a hello and ``frames`` answered requests each; a third leaves with a Close, a third
    by hanging up, a third with a reset. Raises `LoadError` when one is not served.
    """
    assert 1 <= frames <= 14, "more would be refused behind a connect that is being decided"
    talk = request_frame("hello", "connect", connect_params(token))
    talk += b"".join(request_frame(f"r{number}", "last-heartbeat") for number in range(frames - 1))
    talk += request_frame("last", "last-heartbeat")
    _run(port, talk, b'"id":"last"', count=count, at_once=at_once, seconds=seconds)


def churn_refused(port: int, *, count: int, at_once: int = 16, seconds: float = 600.0, **auth: str) -> Counter[str]:
    """``count`` connects with this ``auth``, which must all be refused; how they ended, counted by detail code."""
    params: dict[str, Any] = {**connect_params(""), "auth": auth}
    return _run(port, request_frame("hello", "connect", params), b'"ok":false', count=count, at_once=at_once,
                seconds=seconds)  # fmt: skip


def _run(port: int, talk: bytes, mark: bytes, *, count: int, at_once: int, seconds: float) -> Counter[str]:
    upgrade = upgrade_bytes(port)
    poller = select.epoll()
    live: dict[int, tuple[socket.socket, bytearray, bool]] = {}
    started = done = 0
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    try:
        while done < count:
            while started < count and len(live) < at_once:
                sock = socket.create_connection(("127.0.0.1", port), timeout=5)
                sock.setblocking(False)
                sock.sendall(upgrade)
                poller.register(sock.fileno(), select.EPOLLIN)
                live[sock.fileno()] = (sock, bytearray(), False)
                started += 1
            ready = poller.poll(5.0)
            if not ready or time.monotonic() > until:
                raise LoadError(f"{done} of {count} done, {len(live)} open, then nothing")
            for fd, _ in ready:
                sock, received, asked = live[fd]
                data = sock.recv(1 << 18)
                received += data
                if not asked and b"connect.challenge" in received:
                    sock.sendall(talk)
                    live[fd] = (sock, received, True)
                elif asked and mark in received:
                    seen[_detail(received)] += 1
                    poller.unregister(fd)
                    del live[fd]
                    if done % 3 == 0:
                        sock.sendall(_CLOSE)
                    elif done % 3 == 1:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    sock.close()
                    done += 1
                elif not data:
                    raise LoadError(f"connection {done} ended: {bytes(received[-300:])!r}")
        return seen
    finally:
        poller.close()
        for sock, _, _ in live.values():
            sock.close()


def _detail(received: bytearray) -> str:
    _, found, rest = bytes(received).partition(b'"details":{"code":"')
    return rest.partition(b'"')[0].decode() if found else ""
