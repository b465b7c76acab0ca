"""HTTP by hypercorn, stopped at the moment a client asks for WebSocket.

Owns the one place that touches hypercorn's inside: a `TCPServer` whose h11 protocol hands the upgrade request out
instead of serving it (design C of the network facts). The upgrade may be the n-th request of a keep-alive connection.
It must not know what a WebSocket session is; it returns the request and the bytes that came behind it, and lets go of
every hypercorn object. Nearly every connection begins with a whole upgrade request: that one is read with hypercorn's
parser (h11) and this module's checks, without building hypercorn's tasks around it (a sixth of what a connect costs).
Everything else, bytes that cannot be read included, goes to hypercorn as it came.

Invariants: h2c is never spoken (`Upgrade: h2c` and `PRI *` are refused: V57, a header-forging tunnel behind proxies
that forward Upgrade); a request with both Transfer-Encoding and Content-Length is refused and its connection closed
(RFC 9112 section 6.1); "100 Continue" is sent when the application first asks for the body, so never before admission
(RFC 9110 section 10.1.1); refusals made here carry `SECURITY_HEADERS`; a head over `MAX_HEAD_BYTES` is answered 431
even when it came in one piece; a first head has `KEEP_ALIVE_SECONDS` in all, however its bytes come; the stream is
closed by hypercorn exactly when no upgrade was taken out.

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
from hypercorn.events import Closed, RawData
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


def _refused(request: h11.Request) -> int | None:
    """The status that a head is refused with; None: it may pass."""
    head = len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)
    if head > MAX_HEAD_BYTES:
        return 431
    if _asks_for_http2(request) or _has_two_lengths(request):
        return 400
    if _is_upgrade(request) and request.http_version < b"1.1":  # RFC 6455 section 4.2.1: at least HTTP/1.1
        return 400
    return None


def _is_upgrade(request: h11.Request) -> bool:
    return request.method == b"GET" and _wants_websocket(request)


def _taken_out(request: h11.Request, connection: h11.Connection) -> UpgradeRequest:
    return UpgradeRequest(bytes(request.target), tuple(request.headers), bytes(connection.trailing_data[0]))


def _upgrade_at_once(first: bytes) -> UpgradeRequest | None:
    """The upgrade that is the whole of a connection's first bytes, or stands at their beginning; None: hypercorn's."""
    if not first.startswith(b"GET ") or b"\r\n\r\n" not in first or b"websocket" not in first.lower():
        return None
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    try:
        connection.receive_data(first)
        request = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(request, h11.Request) or _refused(request) is not None or not _is_upgrade(request):
        return None
    return _taken_out(request, connection)


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
        status = _refused(request)
        if status is not None:
            await self._refuse(status)
        elif _is_upgrade(request):
            assert isinstance(self.connection, h11.Connection)
            raise _TakenOut(_taken_out(request, self.connection))
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
    first: bytes = b""  # what was received already
    head_by: float | None = None  # when the first head has to be there; None: from when it is waited for

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
            await self.protocol.handle(RawData(self.first))
            await super()._read_data()
            # The peer has said all it will: without this an idle connection that it closed lingers for the keep-alive.
            await self.idle_task.stop()
        except _TakenOut as taken:
            self.upgrade = taken.request

    async def _close(self) -> None:
        if self.upgrade is None:
            await super()._close()

    async def _idle_timeout(self) -> None:
        """hypercorn's, whose time begins when it is called: a first head must not get it twice."""
        until, self.head_by = self.head_by, None
        if until is None:
            until = trio.current_time() + self.config.keep_alive_timeout
        with trio.move_on_at(until):
            await self.context.terminated.wait()
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()


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
        self._silent: set[trio.CancelScope] = set()  # connections that have said nothing yet

    async def stop_idle(self) -> None:
        """Let idle keep-alive connections end now; requests under way finish."""
        await self._context.terminated.set()
        for scope in self._silent:
            scope.cancel()

    async def serve(self, wire: Wire) -> UpgradeRequest | None:
        """Serve one connection until it ends (None; the wire is closed) or asks for WebSocket (the wire is alive).

        Cancellation closes the wire. A peer that breaks the connection is not an error.
        """
        head_by = trio.current_time() + self._config.keep_alive_timeout
        first = await self._first_bytes(wire, head_by)
        upgrade = _upgrade_at_once(first)
        if upgrade is not None or not first:
            return upgrade
        connection = _Connection(self._app, self._config, self._context, self._state, wire)  # type: ignore[arg-type]
        connection.first, connection.head_by = first, head_by
        try:
            await connection.run()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionError):
            pass  # the peer went away; hypercorn has closed the stream
        return connection.upgrade

    async def _first_bytes(self, wire: Wire, head_by: float) -> bytes:
        """What a connection begins with; ``b""`` where it ended, said nothing in time, or is to end now: it is dropped
        then.
        """
        if self._context.terminated.is_set():
            wire.abort()
            return b""
        first = b""
        with trio.move_on_at(head_by) as waiting:
            self._silent.add(waiting)
            try:
                first = await wire.receive_some()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            finally:
                self._silent.discard(waiting)
        if not first:
            wire.abort()
        return first
