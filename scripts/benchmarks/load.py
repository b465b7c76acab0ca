"""The load generator: many WebSocket clients in one thread over raw sockets and epoll.

Owns the client side of a measurement: opening connections, the OpenClaw connect handshake, a sliding window of
requests per client, and latencies. It builds every masked frame before the clock starts and only walks frame
headers of what comes back, so that one core of it outruns the servers it measures. It must not know which server it
talks to or how servers are started. Invariant: every loop is bounded by a count and by a deadline, and traffic goes
to 127.0.0.1 only.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
import ssl
import statistics
import struct
import time
from collections import deque
from typing import Any, NamedTuple

__all__ = ["LoadError", "Result", "Session", "connect_rate", "http_ok", "text_frame", "throughput"]

HOST = "127.0.0.1"
_RECEIVE_BYTES = 1 << 18


class LoadError(Exception):
    """The server under measurement did not do what the measurement needs; the text says what came instead."""


class Result(NamedTuple):
    """One measurement: requests a second and latencies in seconds."""

    rate: float
    median: float
    p99: float
    requests: int


def text_frame(payload: bytes) -> bytes:
    """One final masked text frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x81, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", 0x81, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", 0x81, 0x80 | 127, size)
    mask = os.urandom(4)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


def _pong(payload: bytes) -> bytes:
    """A masked Pong (RFC 6455 section 5.5.3); its mask is zero."""
    return bytes((0x8A, 0x80 | len(payload))) + bytes(4) + payload


def request_frame(identifier: str, method: str, params: dict[str, Any] | None = None) -> bytes:
    request: dict[str, Any] = {"type": "req", "id": identifier, "method": method}
    if params is not None:
        request["params"] = params
    return text_frame(json.dumps(request, separators=(",", ":")).encode())


def connect_params(token: str) -> dict[str, Any]:
    """What the reference client package (@openclaw/gateway-client) sends."""
    return {
        "minProtocol": 4,
        "maxProtocol": 4,
        "client": {"id": "gateway-client", "version": "0.0.0", "platform": "linux", "mode": "backend"},
        "role": "operator",
        "scopes": ["operator.admin"],
        "caps": [],
        "auth": {"token": token},
    }


def http_ok(port: int, path: str = "/health", context: ssl.SSLContext | None = None) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1) as tcp:
            raw = tcp if context is None else context.wrap_socket(tcp, server_hostname="localhost")
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
            return raw.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


class Session:
    """One client connection. Blocking while it is set up; `throughput` switches it to non-blocking."""

    def __init__(self, port: int, *, timeout: float = 15.0, context: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection((HOST, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
        self.pending = b""
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self.pending:
            self._more()
        head, _, self.pending = self.pending.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise LoadError(f"no upgrade: {head[:200]!r}")

    def _more(self) -> None:
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise LoadError(f"connection ended, last bytes {self.pending[-200:]!r}")
        self.pending += data

    def receive_message(self) -> tuple[int, bytes]:
        """The next frame as (opcode, payload); blocks up to the connection's timeout. A Ping is answered before it is
        told: both gateways cut a client that does not, and a measurement in turns lasts longer than their patience.
        """
        opcode, payload = self._receive_frame()
        if opcode == 9:
            try:
                self.socket.sendall(_pong(payload))
            except OSError as error:
                raise LoadError(f"connection ended before a Ping was answered: {error.strerror}") from error
        return opcode, payload

    def _receive_frame(self) -> tuple[int, bytes]:
        while True:
            size = len(self.pending)
            if size >= 2:
                length, start = self.pending[1] & 0x7F, 2
                if length == 126 and size >= 4:
                    length, start = struct.unpack_from("!H", self.pending, 2)[0], 4
                elif length == 127 and size >= 10:
                    length, start = struct.unpack_from("!Q", self.pending, 2)[0], 10
                elif length >= 126:
                    self._more()
                    continue
                if size >= start + length:
                    opcode, payload = self.pending[0] & 0x0F, self.pending[start : start + length]
                    self.pending = self.pending[start + length :]
                    return opcode, payload
            self._more()

    def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request and its reply; events in between are dropped."""
        self.socket.sendall(request_frame(f"call:{method}", method, params))
        for _ in range(1000):
            opcode, payload = self.receive_message()
            if opcode == 8:
                raise LoadError(f"{method}: closed with {payload!r}")
            if opcode == 1:
                message: dict[str, Any] = json.loads(payload)
                if message.get("type") == "res" and message.get("id") == f"call:{method}":
                    return message
        raise LoadError(f"{method}: no reply among 1000 frames")

    def hello(self, token: str) -> dict[str, Any]:
        _, challenge = self.receive_message()
        if b"connect.challenge" not in challenge:
            raise LoadError(f"expected a challenge: {challenge[:200]!r}")
        reply = self.call("connect", connect_params(token))
        if not reply["ok"]:
            raise LoadError(f"connect refused: {reply['error']}")
        return reply

    def close(self) -> None:
        self.socket.close()


def connect_rate(port: int, token: str, *, count: int, deadline: float = 30.0) -> float:
    """Connections per second from TCP connect to hello-ok, eight at a time, each closed after its hello."""
    frame = request_frame("1:c", "connect", connect_params(token))
    upgrade = (
        f"GET / HTTP/1.1\r\nHost: {HOST}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()
    poller = select.epoll()
    live: dict[int, tuple[socket.socket, bytearray, bool]] = {}
    started = done = 0
    begin = time.perf_counter()
    try:
        while done < count:
            while started < count and len(live) < 8:
                raw = socket.create_connection((HOST, port), timeout=5)
                raw.setblocking(False)
                raw.sendall(upgrade)
                poller.register(raw.fileno(), select.EPOLLIN)
                live[raw.fileno()] = (raw, bytearray(), False)
                started += 1
            for fd, _ in poller.poll(1.0):
                raw, received, asked = live[fd]
                data = raw.recv(_RECEIVE_BYTES)
                received += data
                if not asked and b"connect.challenge" in received:
                    raw.sendall(frame)
                    live[fd] = (raw, received, True)
                elif b'"hello-ok"' in received:
                    poller.unregister(fd)
                    del live[fd]
                    raw.close()
                    done += 1
                elif not data or b'"ok":false' in received:
                    raise LoadError(f"connect failed: {bytes(received[-300:])!r}")
            if time.perf_counter() - begin > deadline:
                raise LoadError(f"only {done} of {count} connects in {deadline} s")
        return done / (time.perf_counter() - begin)
    finally:
        poller.close()
        for raw, _, _ in live.values():
            raw.close()


def _frames_end(data: bytes) -> tuple[int, int]:
    """(frames complete in `data` that are answers, bytes they take). Control frames are walked over, not counted."""
    position, answers, size = 0, 0, len(data)
    while size - position >= 2:
        length, start = data[position + 1], position + 2
        if length == 126:
            if size < start + 2:
                break
            length, start = (data[start] << 8) | data[start + 1], start + 2
        elif length == 127:
            if size < start + 8:
                break
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if start + length > size:
            break
        opcode = data[position] & 0x0F
        if opcode == 8:
            raise LoadError(f"server closed: {data[start : start + length]!r}")
        # OpenClaw's events may arrive in between; an answer says so within its first bytes. Echoes start with a
        # request.
        if opcode < 8 and data.find(b'"event"', start, start + 24) < 0:
            answers += 1
        position = start + length
    return answers, position


def throughput(
    port: int,
    frame: bytes,
    *,
    token: str | None,
    clients: int,
    in_flight: int,
    seconds: float,
    maximum: int = 2_000_000,
) -> Result:
    """Keep `in_flight` copies of `frame` outstanding on each client for `seconds` (after a quarter of that as
    warm-up).
    """
    sessions = []
    poller = select.epoll()
    try:
        for _ in range(clients):
            session = Session(port)
            sessions.append(session)
            if token is not None:
                session.hello(token)
            session.socket.setblocking(False)
        by_fd = {session.socket.fileno(): session for session in sessions}
        windows: dict[int, deque[float]] = {}
        batches = [frame * n for n in range(in_flight + 1)]
        clock = time.perf_counter
        for fd, session in by_fd.items():
            poller.register(fd, select.EPOLLIN)
            windows[fd] = deque([clock()] * in_flight)
            session.socket.sendall(batches[in_flight])
        begin = clock()
        measured_from, end = begin + seconds / 4, begin + seconds * 5 / 4
        latencies: list[float] = []
        count = 0
        now = begin
        while now < end and count < maximum:
            ready = poller.poll(5.0)
            if not ready:
                raise LoadError("no answer for 5 s")
            for fd, _ in ready:
                session = by_fd[fd]
                data = session.socket.recv(_RECEIVE_BYTES)
                if not data:
                    raise LoadError("connection ended under load")
                if session.pending:
                    data = session.pending + data
                answers, used = _frames_end(data)
                session.pending = data[used:] if used < len(data) else b""
                if not answers:
                    continue
                now = clock()
                window = windows[fd]
                for _ in range(min(answers, len(window))):
                    sent = window.popleft()
                    if now >= measured_from:
                        latencies.append(now - sent)
                    window.append(now)
                if now >= measured_from:
                    count += answers
                session.socket.sendall(batches[min(answers, in_flight)])
        elapsed = now - measured_from
        latencies.sort()
        return Result(
            rate=count / elapsed,
            median=statistics.median(latencies),
            p99=latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))],
            requests=count,
        )
    finally:
        poller.close()
        for session in sessions:
            session.close()
