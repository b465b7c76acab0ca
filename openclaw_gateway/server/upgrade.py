"""HTTP by hypercorn, stopped at the moment a client asks for WebSocket.

Owns the one place that touches hypercorn's inside: a `TCPServer` whose h11 protocol hands the upgrade request out
instead of serving it (design C of the network facts). The upgrade may be the n-th request of a keep-alive connection.
It must not know what a WebSocket session is; it returns the request and the bytes that came behind it, and lets go of
every hypercorn object.

Invariants: h2c is never spoken (`Upgrade: h2c` and `PRI *` are refused: V57, a header-forging tunnel behind proxies
that forward Upgrade); a request with both Transfer-Encoding and Content-Length is refused and its connection closed
(RFC 9112 section 6.1); "100 Continue" is sent when the application first asks for the body, so never before admission
(RFC 9110 section 10.1.1); refusals made here carry `SECURITY_HEADERS`; a head over `MAX_HEAD_BYTES` is answered 431
even when it came in one piece; the stream is closed by hypercorn exactly when no upgrade was taken out.

tests/server/test_hypercorn_contract.py guards the members that are overridden here; hypercorn is pinned to 0.18.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import attrs
import h11
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from openclaw_gateway.server.wire import Wire
from openclaw_gateway.value import Value

__all__ = ["SECURITY_HEADERS", "WIRE", "HttpServer", "UpgradeRequest"]

SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=()"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)

WIRE: Final = "openclaw.wire"  # where an ASGI scope holds the connection's `Wire`: its peer, and how it came in
MAX_HEAD_BYTES: Final = 16 * 1024
KEEP_ALIVE_SECONDS: Final = 15.0


@attrs.frozen(eq=False, repr=False)
class UpgradeRequest(Value):
    """A WebSocket upgrade as it came in: request target, header items in order (names lower case), bytes behind the
    head.
    """

    target: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    trailing: bytes

    def header(self, name: bytes) -> str | None:
        """The value of a header that may occur once; joined with commas where it came several times (RFC 9110 section
        5.3).
        """
        values = [value for key, value in self.headers if key == name]
        return ", ".join(value.decode("latin-1") for value in values) if values else None


class _TakenOut(Exception):  # control flow out of hypercorn, not an error
    def __init__(self, request: UpgradeRequest) -> None:
        self.request = request


def _wants_websocket(request: h11.Request) -> bool:
    upgrade, connection = b"", b""
    for name, value in request.headers:
        if name == b"upgrade":
            upgrade = value.strip().lower()
        elif name == b"connection":
            connection += b"," + value.lower()
    return upgrade == b"websocket" and b"upgrade" in {token.strip() for token in connection.split(b",")}


def _asks_for_http2(request: h11.Request) -> bool:
    if request.method == b"PRI":
        return True
    return any(name == b"upgrade" and b"h2c" in value.lower() for name, value in request.headers)


def _has_two_lengths(request: h11.Request) -> bool:
    return {b"transfer-encoding", b"content-length"} <= {name for name, _ in request.headers}


class _Inviting:
    """An application whose first look at the body sends for it (100 Continue), and that is told of the wire."""

    def __init__(self, app: Any, invite: Callable[[], Awaitable[None]], wire: Wire) -> None:
        self._app = app
        self._invite = invite
        self._wire = wire

    async def __call__(self, scope: Any, receive: Any, send: Any, *spawners: Any) -> None:
        async def inviting() -> Any:
            await self._invite()
            return await receive()

        scope[WIRE] = self._wire
        await self._app(scope, inviting, send, *spawners)


class _HeadProtocol(H11Protocol):
    """hypercorn's HTTP/1.1 with the checks of this module in front of every request."""

    wire: Wire

    async def _create_stream(self, request: h11.Request) -> None:
        head = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
        if head > MAX_HEAD_BYTES:
            await self._refuse(431)
        elif _asks_for_http2(request) or _has_two_lengths(request):
            await self._refuse(400)
        elif request.method == b"GET" and _wants_websocket(request):
            if request.http_version < b"1.1":  # RFC 6455 section 4.2.1: at least HTTP/1.1
                await self._refuse(400)
                return
            raise _TakenOut(
                UpgradeRequest(bytes(request.target), tuple(request.headers), bytes(self.connection.trailing_data[0]))
            )
        else:
            app = self.app
            self.app = _Inviting(app, self._invite, self.wire)  # type: ignore[assignment]  # called just as AppWrapper is
            try:
                await super()._create_stream(request)
            finally:
                self.app = app

    async def _invite(self) -> None:
        if self.connection.they_are_waiting_for_100_continue:
            await super()._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    async def _send_h11_event(self, event: Any) -> None:
        """hypercorn would send 100 as soon as it has read the head; `_invite` does when somebody wants the body."""
        if not isinstance(event, h11.InformationalResponse):
            await super()._send_h11_event(event)

    async def _send_error_response(self, status_code: int) -> None:
        headers = [(b"content-length", b"0"), (b"connection", b"close"), *SECURITY_HEADERS]
        headers += self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=status_code, headers=headers))
        await self._send_h11_event(h11.EndOfMessage())

    async def _refuse(self, status: int) -> None:
        await self._send_error_response(status)
        await self.send(Closed())

    async def _check_protocol(self, event: h11.Request) -> None:
        """hypercorn would switch to cleartext HTTP/2 here; see the module's invariants."""


class _Connection(TCPServer):
    upgrade: UpgradeRequest | None = None

    async def _read_data(self) -> None:
        stock = self.protocol.protocol
        if isinstance(stock, H11Protocol):
            head = self.protocol.protocol = _HeadProtocol(
                stock.app,
                stock.config,
                stock.context,
                stock.task_group,
                stock.connection_state,
                stock.ssl,
                stock.client,
                stock.server,
                stock.send,
            )
            head.wire = self.stream  # type: ignore[assignment]  # what `HttpServer.serve` gave it
        try:
            await super()._read_data()
            # The peer has said all it will: without this an idle connection that it closed lingers for the keep-alive.
            await self.idle_task.stop()
        except _TakenOut as taken:
            self.upgrade = taken.request

    async def _close(self) -> None:
        if self.upgrade is None:
            await super()._close()


class HttpServer:
    """Serves plain HTTP on connections with an ASGI application, one call of `serve` per connection."""

    def __init__(self, app: Any) -> None:
        config = Config()
        config.keep_alive_timeout = KEEP_ALIVE_SECONDS  # also bounds how long a request head may take
        config.include_server_header = False
        config.include_date_header = True
        config.h11_max_incomplete_size = MAX_HEAD_BYTES
        config.errorlog = None
        config.accesslog = None
        self._config = config
        self._app = ASGIWrapper(app)
        self._context = WorkerContext(None)
        self._state = ConnectionState({})

    async def stop_idle(self) -> None:
        """Let idle keep-alive connections end now; requests under way finish."""
        await self._context.terminated.set()

    async def serve(self, wire: Wire) -> UpgradeRequest | None:
        """Serve one connection until it ends (None; the wire is closed) or asks for WebSocket (the wire is alive).

        Cancellation closes the wire. A peer that breaks the connection is not an error.
        """
        connection = _Connection(self._app, self._config, self._context, self._state, wire)  # type: ignore[arg-type]
        try:
            await connection.run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError):
            pass  # the peer went away; hypercorn has closed the stream
        return connection.upgrade
