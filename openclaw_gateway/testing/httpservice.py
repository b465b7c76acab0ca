"""A small HTTP/1.1 server for scripted services: what a test says is what the client gets, faults too.

Owns the wire (h11 on Trio, 127.0.0.1). It must not know any service: a handler answers. Invariants: requests are kept
(the newest `MAX_KEPT`); an answer can be cut off half-way, be slow, or never come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import h11
import msgspec
import trio

__all__ = ["Asked", "HttpService", "Told", "open_http_service"]

MAX_KEPT: Final = 1_000
MAX_REQUEST: Final = 8 * 1024 * 1024


@attrs.frozen
class Asked:
    """One request. Header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body) if self.body else None


@attrs.frozen(kw_only=True)
class Told:
    """One answer. ``cut``: the connection ends in the middle of the body; ``delay`` seconds pass before the head."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    cut: bool = False
    delay: float = 0.0

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Told:
        shown = {"content-type": "application/json"}
        shown.update({name.replace("_", "-"): text for name, text in headers.items()})
        return cls(status=status, body=msgspec.json.encode(value), headers=shown)


Answer = Callable[[Asked], Awaitable[Told]]


@attrs.define(eq=False)
class HttpService:
    """Made by `open_http_service`."""

    url: str
    asked: deque[Asked] = attrs.field(factory=lambda: deque(maxlen=MAX_KEPT))


@asynccontextmanager
async def open_http_service(answer: Answer) -> AsyncIterator[HttpService]:
    """Serve on a free port of 127.0.0.1; connections are dropped when the block is left."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        service = HttpService(f"http://127.0.0.1:{listener.socket.getsockname()[1]}")
        nursery.start_soon(partial(trio.serve_listeners, partial(_serve, service, answer), [listener]))
        try:
            yield service
        finally:
            nursery.cancel_scope.cancel()


async def _serve(service: HttpService, answer: Answer, stream: trio.SocketStream) -> None:
    wire = h11.Connection(h11.SERVER)
    try:
        while True:
            asked = await _read(wire, stream)
            if asked is None:
                return
            service.asked.append(asked)
            told = await answer(asked)
            await trio.sleep(told.delay)
            headers = [*told.headers.items(), ("content-length", str(len(told.body)))]
            head = wire.send(h11.Response(status_code=told.status, headers=headers))
            if told.cut:
                await stream.send_all(head + told.body[: len(told.body) // 2])
                return
            data = wire.send(h11.Data(data=told.body)) if asked.method != "HEAD" else b""
            await stream.send_all(head + (data or b"") + (wire.send(h11.EndOfMessage()) or b""))
            if wire.our_state is h11.MUST_CLOSE:
                return
            wire.start_next_cycle()
    except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
        return
    finally:
        await trio.aclose_forcefully(stream)


async def _read(wire: h11.Connection, stream: trio.SocketStream) -> Asked | None:
    head: h11.Request | None = None
    body = bytearray()
    while True:
        event = wire.next_event()
        if event is h11.NEED_DATA:
            wire.receive_data(await stream.receive_some(65_536))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_REQUEST:
                return None
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            break
        else:
            return None
    target = urlsplit(head.target.decode("ascii", "replace"))
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
    query = dict(parse_qsl(target.query, keep_blank_values=True))
    return Asked(head.method.decode("ascii"), unquote(target.path), query, headers, bytes(body))
