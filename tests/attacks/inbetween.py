"""A man in the middle: a TCP proxy that reads every WebSocket frame on its way, and may change or drop it.

Owns the proxy. It must not use the package's code or a WebSocket library. Client frames are unmasked for reading and
masked anew, so what `seen` holds is what anybody on the path can read.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Literal

import attrs
import trio

from tests.websocket.rawclient import frame

__all__ = ["Direction", "InBetween", "open_in_between"]

Direction = Literal["up", "down"]  # up: from the client to the gateway
Meddle = Callable[[Direction, int, bytes], bytes | None]  # (direction, opcode, payload) -> payload, None drops it


def _honest(direction: Direction, opcode: int, payload: bytes) -> bytes | None:
    return payload


@attrs.define
class InBetween:
    port: int = 0
    target: int = 0
    meddle: Meddle = _honest
    seen: list[tuple[Direction, int, bytes]] = attrs.field(factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def messages(self, direction: Direction) -> list[bytes]:
        """Text and binary payloads that passed that way."""
        return [payload for way, opcode, payload in self.seen if way == direction and opcode in {1, 2}]

    def everything(self) -> bytes:
        return b"\n".join(payload for _, _, payload in self.seen)

    async def serve(self, client: trio.SocketStream) -> None:
        self.connections += 1
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            return
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, server, "up", nursery.cancel_scope)
            nursery.start_soon(self._pump, server, client, "down", nursery.cancel_scope)

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, way: Direction, scope: trio.CancelScope
    ) -> None:
        data, head_done = b"", False
        try:
            async for chunk in source:
                data += chunk
                if not head_done:
                    head, sep, data = data.partition(b"\r\n\r\n")
                    if not sep:
                        data = head
                        continue
                    head_done = True
                    await sink.send_all(head + sep)
                while (found := _first_frame(data)) is not None:
                    opcode, payload, data = found
                    self.seen.append((way, opcode, payload))
                    changed = self.meddle(way, opcode, payload)
                    if changed is not None:
                        await sink.send_all(frame(opcode, changed, mask=way == "up"))
            await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            scope.cancel()


def _first_frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """(opcode, unmasked payload, rest), None where no whole frame is there yet."""
    if len(data) < 2:
        return None
    masked, size, at = data[1] & 0x80, data[1] & 0x7F, 2
    if size == 126:
        size, at = (struct.unpack("!H", data[2:4])[0], 4) if len(data) >= 4 else (1 << 60, 4)
    elif size == 127:
        size, at = (struct.unpack("!Q", data[2:10])[0], 10) if len(data) >= 10 else (1 << 60, 10)
    key = data[at : at + 4] if masked else b""
    at += len(key)
    if len(data) < at + size or (masked and len(key) < 4):
        return None
    payload = data[at : at + size]
    if masked:
        whole = int.from_bytes((key * (size // 4 + 1))[:size], "big")
        payload = (int.from_bytes(payload, "big") ^ whole).to_bytes(size, "big")
    return data[0] & 0x0F, payload, data[at + size :]


@asynccontextmanager
async def open_in_between(target: int) -> AsyncIterator[InBetween]:
    """A port of 127.0.0.1 that leads to ``target`` through an `InBetween`."""
    proxy = InBetween(target=target)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, proxy.serve, 0, host="127.0.0.1")
        listeners: list[trio.SocketListener] = await nursery.start(serve)
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()
