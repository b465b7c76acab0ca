"""A model service that says what a test wants, byte by byte: for faults that no ready-made server shows.

Owns a TCP server on 127.0.0.1 that reads one request after the other and answers with scripted bytes. Invariants: what
is not scripted is answered 500, so a test sees a request too many; it ends with its block.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

__all__ = ["Asked", "ScriptedService", "answer", "open_service", "sse"]

Say = Callable[[trio.SocketStream], Awaitable[None]]


@attrs.frozen
class Asked:
    path: str
    headers: dict[str, str]
    body: Any


def answer(status: int, body: bytes = b"", kind: str = "application/json", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Told", f"content-type: {kind}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sse(*events: str | dict[str, Any], whole: bool = True) -> bytes:
    """A stream of events; not ``whole``: its end is missing."""
    body = b"".join(f"data: {one if isinstance(one, str) else json.dumps(one)}\n\n".encode() for one in events)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + f"{len(body):x}\r\n".encode() + body + (b"\r\n0\r\n\r\n" if whole else b"")


class ScriptedService:
    def __init__(self, answers: Sequence[bytes | Say]) -> None:
        self.answers = list(answers)
        self.asked: list[Asked] = []
        self.gone = trio.Event()  # a client closed its connection
        self.url = ""

    async def serve(self, stream: trio.SocketStream) -> None:
        data = b""
        try:
            while True:
                while b"\r\n\r\n" not in data:
                    more = await stream.receive_some(65_536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                first, *lines = head.decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                while len(data) < int(headers.get("content-length", "0")):
                    data += await stream.receive_some(65_536)
                size = int(headers.get("content-length", "0"))
                self.asked.append(Asked(first.split()[1], headers, json.loads(data[:size] or b"null")))
                data = data[size:]
                say = self.answers.pop(0) if self.answers else answer(500, b'{"error": {"message": "not scripted"}}')
                if callable(say):
                    await say(stream)
                    return
                await stream.send_all(say)
                if say.startswith(b"HTTP/1.1 200") and not say.endswith(b"0\r\n\r\n"):
                    return  # the end is missing: so is the rest of the connection
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.gone.set()


@asynccontextmanager
async def open_service(*answers: bytes | Say) -> AsyncIterator[ScriptedService]:
    service = ScriptedService(answers)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, service.serve, 0, host="127.0.0.1"))
        service.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        try:
            yield service
        finally:
            nursery.cancel_scope.cancel()
