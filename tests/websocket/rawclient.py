"""A WebSocket client made by hand, so that a test can break any rule of RFC 6455 it likes.

Owns building frames and walking those that come back; it must not use a WebSocket library (the server does, and two
sides of one library agree on its mistakes) and it checks nothing on sending. Invariant: what the server sends is
checked strictly: an unmasked, unfragmented or control frame as RFC 6455 section 5 wants it, else `AssertionError`.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Self

import attrs
import trio

__all__ = ["BINARY", "CLOSE", "CONTINUATION", "PING", "PONG", "TEXT", "Frame", "RawClient", "close_payload", "frame"]

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


@attrs.frozen
class Frame:
    opcode: int
    payload: bytes

    @property
    def close_code(self) -> int:
        """1005 stands for a Close frame without a code (RFC 6455 section 7.1.5)."""
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], "big") if self.payload else 1005

    @property
    def json(self) -> Any:
        return json.loads(self.payload)


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bool = True, length: int | None = None
) -> bytes:
    """The bytes of one frame. `length` replaces the length that the header tells."""
    told = len(payload) if length is None else length
    first, bit = (0x80 if fin else 0) | rsv << 4 | opcode, 0x80 if mask else 0
    if told < 126:
        head = struct.pack("!BB", first, bit | told)
    elif told < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, told)
    else:
        head = struct.pack("!BBQ", first, bit | 127, told)
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(a ^ b for a, b in zip(payload, itertools.cycle(key), strict=False))


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return struct.pack("!H", code) + reason


class RawClient:
    """One TCP connection to the server under test. Every wait is bounded by the test's own deadline."""

    def __init__(self, stream: trio.SocketStream, port: int) -> None:
        self.stream = stream
        self.port = port
        self.received = b""
        self._ids = itertools.count(1)

    @classmethod
    async def dial(cls, port: int, host: str = "127.0.0.1") -> RawClient:
        return cls(await trio.open_tcp_stream(host, port), port)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await trio.aclose_forcefully(self.stream)

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def _more(self) -> bool:
        data = await self.stream.receive_some(1 << 16)
        self.received += data
        return bool(data)

    async def read_head(self) -> tuple[int, dict[str, str]]:
        """An HTTP response's status and headers (names in lower case); what follows stays in `received`."""
        while b"\r\n\r\n" not in self.received:
            assert await self._more(), f"connection ended inside the head: {self.received!r}"
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(status.split(" ", 2)[1]), headers

    async def read_body(self, headers: Mapping[str, str]) -> bytes:
        """The body of a response with Content-Length or chunked coding."""
        if "content-length" in headers:
            size = int(headers["content-length"])
            while len(self.received) < size:
                assert await self._more(), "connection ended inside the body"
            body, self.received = self.received[:size], self.received[size:]
            return body
        assert headers.get("transfer-encoding") == "chunked", headers
        body = b""
        while True:
            while b"\r\n" not in self.received:
                assert await self._more(), "connection ended inside a chunk size"
            line, _, self.received = self.received.partition(b"\r\n")
            size = int(line, 16)
            while len(self.received) < size + 2:
                assert await self._more(), "connection ended inside a chunk"
            body, self.received = body + self.received[:size], self.received[size + 2 :]
            if size == 0:
                return body

    def upgrade_request(
        self,
        *,
        path: str = "/",
        method: str = "GET",
        version: str = "HTTP/1.1",
        key: str | None = None,
        without: Iterable[str] = (),
        **headers: str,
    ) -> bytes:
        """The bytes of an upgrade request. `headers` replace (``sec_websocket_version="8"``), `without` removes."""
        fields = {
            "host": f"127.0.0.1:{self.port}",
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-key": key or base64.b64encode(os.urandom(16)).decode(),
            "sec-websocket-version": "13",
        }
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        for name in without:
            del fields[name]
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"{method} {path} {version}\r\n{lines}\r\n".encode("latin-1")

    async def upgrade(self, *, glued: bytes = b"", **options: Any) -> dict[str, str]:
        """Upgrade, checking the accept value; the 101's headers. `glued` leaves in the same write as the request."""
        key = base64.b64encode(os.urandom(16)).decode()
        await self.send(self.upgrade_request(key=key, **options) + glued)
        status, headers = await self.read_head()
        assert status == 101, (status, headers, self.received)
        expected = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
        assert headers["sec-websocket-accept"] == expected
        return headers

    async def read_frame(self) -> Frame | None:
        """The next frame, None at a clean end of the stream. A reset raises `trio.BrokenResourceError`."""
        while True:
            got = self._take_frame()
            if got is not None:
                return got
            if not await self._more():
                assert not self.received, f"connection ended inside a frame: {self.received!r}"
                return None

    def _take_frame(self) -> Frame | None:
        data = self.received
        if len(data) < 2:
            return None
        first, size, start = data[0], data[1], 2
        assert first & 0x70 == 0, "reserved bits set by the server"
        assert first & 0x80, "the server sent a fragment"
        assert not size & 0x80, "the server masked a frame"
        if size == 126:
            if len(data) < 4:
                return None
            size, start = struct.unpack_from("!H", data, 2)[0], 4
            assert size >= 126, "length not in its shortest form"
        elif size == 127:
            if len(data) < 10:
                return None
            size, start = struct.unpack_from("!Q", data, 2)[0], 10
            assert size >= 1 << 16, "length not in its shortest form"
        if len(data) < start + size:
            return None
        got, self.received = Frame(first & 0x0F, data[start : start + size]), data[start + size :]
        assert got.opcode in (TEXT, BINARY, CLOSE, PING, PONG)
        if got.opcode >= CLOSE:
            assert size <= 125, "a control frame over 125 bytes"
        if got.opcode == TEXT:
            got.payload.decode("utf-8")
        return got

    async def read_message(self) -> Any:
        """The next JSON message that is not an event."""
        while True:
            got = await self.read_frame()
            assert got is not None, "connection ended"
            assert got.opcode == TEXT, got
            if got.json["type"] != "event":
                return got.json

    async def read_close(self) -> Frame:
        """Skip to the Close frame; then the stream must end cleanly, which a reset would not be."""
        while True:
            got = await self.read_frame()
            assert got is not None, "the stream ended without a Close frame (a client would see 1006)"
            if got.opcode == CLOSE:
                break
        assert await self.read_frame() is None
        return got

    def request(self, method: str, params: Any = None, *, id_: str | None = None) -> bytes:
        """The JSON of a request."""
        message: dict[str, Any] = {"type": "req", "id": id_ or f"{next(self._ids)}", "method": method}
        if params is not None:
            message["params"] = params
        return json.dumps(message, ensure_ascii=False).encode()

    def connect_request(self, token: str) -> bytes:
        return self.request(
            "connect",
            {
                "minProtocol": 4,
                "maxProtocol": 4,
                "client": {"id": "gateway-client", "version": "0.0.0", "platform": "linux", "mode": "backend"},
                "role": "operator",
                "scopes": ["operator.admin"],
                "caps": [],
                "auth": {"token": token},
            },
            id_="connect",
        )

    async def read_challenge(self) -> Any:
        got = await self.read_frame()
        assert got is not None
        assert got.json["event"] == "connect.challenge", got
        return got.json

    async def hello(self, token: str) -> Any:
        """Upgrade, connect, hello: the hello-ok payload."""
        await self.upgrade()
        await self.read_challenge()
        await self.send(frame(TEXT, self.connect_request(token)))
        reply = await self.read_message()
        assert reply["ok"], reply
        return reply["payload"]

    async def assert_alive(self) -> None:
        """The session still answers a request."""
        await self.send(frame(TEXT, self.request("last-heartbeat", id_="alive")))
        reply = await self.read_message()
        assert (reply["id"], reply["ok"]) == ("alive", True), reply
