"""An HTTP server for tests that dial out: what it heard, and answers that a test chooses.

Owns one listener on 127.0.0.1. Every connection is a real one; with ``tls`` it speaks TLS.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import h11
import trio

Answer = tuple[int, list[tuple[str, str]], bytes]


@attrs.define
class Heard:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@attrs.define
class Sink:
    answers: list[Answer] = attrs.field(factory=list)  # used one after the other; then 204
    heard: list[Heard] = attrs.field(factory=list)
    respond: Callable[[Heard], Answer] | None = None
    connections: int = 0
    port: int = 0
    _came: trio.Event = attrs.field(factory=trio.Event)

    async def wait(self, count: int) -> list[Heard]:
        """Until ``count`` requests were heard in all."""
        while len(self.heard) < count:
            await self._came.wait()
        return self.heard

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        try:
            async with stream:
                await self._converse(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass

    async def _converse(self, stream: trio.abc.Stream) -> None:
        machine = h11.Connection(h11.SERVER)
        request: h11.Request | None = None
        body = b""
        while True:
            event = machine.next_event()
            if event is h11.NEED_DATA:
                machine.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                headers = {name.decode(): value.decode() for name, value in request.headers}
                heard = Heard(request.method.decode(), request.target.decode(), headers, body)
                self.heard.append(heard)
                self._came.set()
                self._came = trio.Event()
                status, lines, content = self._answer(heard)
                lines = [*lines, ("content-length", str(len(content))), ("connection", "close")]
                await stream.send_all(machine.send(h11.Response(status_code=status, headers=lines)) or b"")
                await stream.send_all((machine.send(h11.Data(content)) or b"") if content else b"")
                await stream.send_all(machine.send(h11.EndOfMessage()) or b"")
                return
            else:
                return

    def _answer(self, heard: Heard) -> Answer:
        if self.respond is not None:
            return self.respond(heard)
        return self.answers.pop(0) if self.answers else (204, [], b"")


@asynccontextmanager
async def open_sink(tls: ssl.SSLContext | None = None) -> AsyncIterator[Sink]:
    sink = Sink()
    async with trio.open_nursery() as nursery:
        if tls is None:
            listeners = await nursery.start(partial(trio.serve_tcp, sink.serve, 0, host="127.0.0.1"))
        else:
            start = partial(trio.serve_ssl_over_tcp, sink.serve, 0, tls, host="127.0.0.1", https_compatible=True)
            listeners = [listener.transport_listener for listener in await nursery.start(start)]
        sink.port = listeners[0].socket.getsockname()[1]
        yield sink
        nursery.cancel_scope.cancel()
