"""One accepted socket: plain HTTP until it asks for WebSocket, then a session; always ended the same way.

Owns the crash barrier of a connection (design rule 5) and the WebSocket opening handshake (RFC 6455 section 4.2). It
must not know what is said on the WebSocket. Invariants: an upgrade is answered at once, with 101 or with an error,
never left hanging (LIVE-4); a socket counts as a stranger from here until it is admitted or gone; no exception leaves
`ConnectionServer.serve`.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

import trio
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.addresses import limiter_key
from openclaw_gateway.server.core import ServerCore
from openclaw_gateway.server.dialect import choose_subprotocol, dialect_of
from openclaw_gateway.server.gatekeeper import TransportCredential
from openclaw_gateway.server.session import Session
from openclaw_gateway.server.underway import UnderWay
from openclaw_gateway.server.upgrade import SECURITY_HEADERS, HttpServer, UpgradeRequest
from openclaw_gateway.server.wire import Wire

__all__ = ["ConnectionServer"]

RETRY_AFTER_SECONDS: Final = 2
OPENING_SECONDS: Final = 10.0  # for what comes before HTTP: TLS handshake, PROXY header
_MAX_QUERY_FIELDS: Final = 32

log = get_logger("connection")


class ConnectionServer:
    """Serves accepted connections of one gateway; ``draining`` and ``websocket`` are switched while it runs."""

    def __init__(self, core: ServerCore, http: HttpServer, *, websocket: bool) -> None:
        self.core = core
        self.http = http
        self.websocket = websocket
        self.draining = False
        self.wires: dict[Wire, None] = {}
        self._empty = trio.Event()
        self._under_way = UnderWay(core.registry.strangers)

    async def serve(self, wire: Wire) -> None:
        """Serve one connection to its end. Cancelling drops it at once."""
        strangers = self.core.registry.strangers
        self.wires[wire] = None
        try:
            with self._under_way.serving(wire, limiter_key(wire.peer[0])):
                if wire.opens and not await self._open(wire):
                    return
                upgrade = await self.http.serve(wire)
            if upgrade is not None:
                await self._upgrade(wire, upgrade)
        except Exception as exc:
            log.exception("connection failed", exc=exc, peer=wire.peer[0])
        finally:
            del self.wires[wire]
            if not self.wires:
                self._empty.set()
            strangers.discard(wire)
            wire.abort()

    async def _open(self, wire: Wire) -> bool:
        """TLS handshake, PROXY header: under a deadline, and counted as a stranger all the while (V46)."""
        began = wire.peer[0]
        try:
            with trio.move_on_after(OPENING_SECONDS) as late:
                await wire.announce()
                if wire.peer[0] != began:
                    # From here on it is the client's account: one client's stalled handshakes must not push out those
                    # of everybody else behind the same proxy.
                    self.core.registry.strangers.move(wire, limiter_key(wire.peer[0]))
                await wire.open()
        except trio.BrokenResourceError as exc:
            log.info("connection not opened", peer=began, listener=wire.arrival.listener, reason=str(exc)[:200])
            return False
        except trio.ClosedResourceError:
            return False  # made room for others
        if late.cancelled_caught:
            log.info("connection not opened", peer=began, listener=wire.arrival.listener, reason="no handshake in time")
            return False
        return True

    async def wait_empty(self) -> None:
        """Wait until no connection is left; to be asked after the listeners were closed."""
        while self.wires:
            self._empty = trio.Event()
            await self._empty.wait()

    def abort_all(self) -> None:
        """Drop what is left after the drain deadline; wakes sends that hypercorn shields."""
        for wire in tuple(self.wires):
            wire.abort()

    def abort_http(self, ends: Callable[[Wire], bool]) -> None:
        """Drop those of the connections that ``ends`` picks that are still HTTP, or not even that; a WebSocket is told
        by its session.
        """
        sessions = {session.wire for session in self.core.registry.live}
        for wire in tuple(self.wires):
            if wire not in sessions and ends(wire):
                wire.abort()

    async def _upgrade(self, wire: Wire, request: UpgradeRequest) -> None:
        if self.core.gatekeeper.keeps_out(wire.peer[0], request.headers, wire.arrival):
            await _answer(wire, HTTPStatus.FORBIDDEN, "Forbidden: this address may not use this gateway")
            return
        if self.draining:
            await _answer(wire, HTTPStatus.SERVICE_UNAVAILABLE, "Gateway websocket admission closed", retry=True)
            return
        if not self.websocket:
            await _answer(wire, HTTPStatus.NOT_FOUND, "WebSocket is disabled (gateway.transports.websocket.enabled)")
            return
        response = _handshake(request)
        if response.status_code != 101:
            await _send(wire, response)
            return
        session = Session(
            self.core,
            wire,
            self.core.gatekeeper.describe(wire.peer[0], request.headers, wire.arrival),
            _credential(request),
            conn_id=str(uuid.uuid4()),
            nonce=str(uuid.UUID(bytes=secrets.token_bytes(16), version=4)),
            dialect=dialect_of(response.headers.get("Sec-WebSocket-Protocol")),
        )
        await session.run(response.serialize(), request.trailing)


def _handshake(request: UpgradeRequest) -> Response:
    """The answer to an upgrade request, by `websockets`: 101, or the error that says what is wrong."""
    version = request.header(b"sec-websocket-version")
    if version is not None and version.strip() != "13":
        # RFC 6455 section 4.4: name the version that would do.
        text = f"WebSocket version {version[:16]!r} is not spoken here; use 13.\n"
        return _response(HTTPStatus.UPGRADE_REQUIRED, text, [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")])
    headers = Headers()
    try:
        for name, value in request.headers:
            # The handshake reads no others, and what RFC 9110 allows in them (obs-text) is refused by `Headers`.
            if name in {b"connection", b"upgrade"} or name.startswith(b"sec-websocket-"):
                headers[name.decode("latin-1")] = value.decode("latin-1")
    except InvalidHeader as exc:
        return _response(HTTPStatus.BAD_REQUEST, f"The {exc.name} header cannot be read.\n")
    asked = Request(request.target.decode("latin-1"), headers)
    return ServerProtocol(select_subprotocol=_choose_subprotocol).accept(asked)


def _choose_subprotocol(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    chosen = choose_subprotocol(offered)
    return Subprotocol(chosen) if chosen is not None else None


def _credential(request: UpgradeRequest) -> TransportCredential:
    _, _, query = request.target.partition(b"?")
    token = None
    if query:
        try:
            fields = parse_qsl(query.decode("latin-1"), max_num_fields=_MAX_QUERY_FIELDS)
        except ValueError:
            fields = []
        token = next((value for name, value in fields if name == "token"), None)
    return TransportCredential(query_token=token)


def _response(status: HTTPStatus, text: str, headers: Sequence[tuple[str, str]] = ()) -> Response:
    body = text.encode()
    all_headers = Headers(
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *headers,
        ]
    )
    return Response(status.value, status.phrase, all_headers, body)


async def _answer(wire: Wire, status: HTTPStatus, text: str, *, retry: bool = False) -> None:
    await _send(wire, _response(status, text + "\n", [("Retry-After", str(RETRY_AFTER_SECONDS))] if retry else ()))


async def _send(wire: Wire, response: Response) -> None:
    for name, value in SECURITY_HEADERS:
        response.headers[name.decode()] = value.decode()
    try:
        with trio.move_on_after(5):
            await wire.send_all(response.serialize())
            await wire.send_eof()
            while await wire.receive_some():  # let the peer read the answer before the connection is gone
                pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
