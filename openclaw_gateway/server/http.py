"""Plain HTTP: the probes, ``POST /rpc``, and a page that says what this port is.

Owns the routes and the order of checks in front of them. It must not know how a method runs (`rpc.dispatch`) nor how a
caller is admitted (`server.gatekeeper`): a route names the scope it needs and the RPC checker enforces it (V41).

Order of checks, each before the next costs anything: address lists, for whom a trusted proxy speaks for → canonical
path (V40) → route and method (404, 405: before any accounting, V14) → cross-site and Host (V4) → credentials from
headers → the scope of its RPC twin (V41) → body (1 MiB where the route says nothing else, 10 s; V47). Default-deny:
what is not in the table is 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeVar

import attrs
import msgspec
import trio

from openclaw_gateway.errors import flat_errors
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.network import beyond_ceiling
from openclaw_gateway.policy.origin import OriginRules, check_http_request
from openclaw_gateway.protocol import jsonrpc
from openclaw_gateway.protocol.errors import WireError, wire_error
from openclaw_gateway.rpc.dispatch import Dispatcher
from openclaw_gateway.rpc.table import CallError
from openclaw_gateway.server.gatekeeper import Gatekeeper, Grant, Rejection
from openclaw_gateway.server.underway import under_way
from openclaw_gateway.server.upgrade import SECURITY_HEADERS, WIRE
from openclaw_gateway.server.wire import Wire
from openclaw_gateway.value import Value

__all__ = [
    "BodyTooBig",
    "HttpApp",
    "HttpCaller",
    "HttpReply",
    "HttpRequest",
    "HttpRules",
    "Route",
    "bearer_of",
    "json_reply",
    "refuse",
    "text_reply",
]

MAX_BODY_BYTES: Final = 1024 * 1024
BODY_SECONDS: Final = 10.0
_SAFE_PATH: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~")

_Result = TypeVar("_Result")

log = get_logger("http")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpRequest(Value):
    """A request as far as it has been read: head only; `body` reads the rest."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    peer: Peer
    body: Callable[[], Awaitable[bytes]]
    query: bytes = attrs.field(default=b"", repr=False)  # what follows the ?, as sent; may hold a secret


Write = Callable[[bytes], Awaitable[None]]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpReply(Value):
    """``stream`` writes the body piece by piece instead; it is cancelled when the client leaves."""

    status: int
    body: bytes = b""
    content_type: bytes = b"application/json"
    headers: Sequence[tuple[bytes, bytes]] = ()
    stream: Callable[[Write], Awaitable[None]] | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Route(Value):
    """``scope`` None: open to everybody (the probes); else the caller must be admitted, and holds what the checker
    finds. ``twin``: the RPC method that the route is another way to; whoever may not call it may not use the route,
    and its body is not read (V41). ``leaving_cancels``: the handler is cancelled when its client leaves.
    """

    methods: tuple[str, ...]
    handler: Callable[[HttpRequest, Grant | None], Awaitable[HttpReply]]
    needs_admission: bool = True
    probe: bool = False  # answers while draining and while gateway.transports.http is disabled
    twin: str | None = None
    max_body: int = MAX_BODY_BYTES
    leaving_cancels: bool = False
    every_method: bool = False  # the handler answers every method itself, and nothing but GET does anything
    # For a page that people read: how what is refused before its handler looks, from status, reason and fix. No other
    # origin may read such a page (CORS).
    refusal_page: Callable[[int, str, str | None], HttpReply] | None = None


class BodyTooBig(Exception):
    pass


class ClientLeft(Exception):  # control flow: there is nobody to answer
    pass


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpRules(Value):
    """What configuration decides about HTTP; replaced as a whole on reload."""

    enabled: bool = True
    cors_origins: tuple[str, ...] = ()
    origins: OriginRules = attrs.field(factory=OriginRules)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpCaller(Value):
    """The `CallContext` of an HTTP request."""

    grant: Grant
    peer: Peer
    conn_id: str = "http"

    @property
    def role(self) -> str:
        return self.grant.role

    @property
    def scopes(self) -> frozenset[str]:
        return frozenset(self.grant.scopes)

    @property
    def principal(self) -> str:
        return self.grant.principal

    @property
    def client_id(self) -> str:
        return self.grant.params.client.id

    @property
    def auth_method(self) -> str:
        return self.grant.method

    @property
    def device_id(self) -> str | None:
        return None

    @property
    def client_address(self) -> str:
        return self.peer.client_address


def json_reply(status: int, value: Any, *headers: tuple[bytes, bytes]) -> HttpReply:
    return HttpReply(status=status, body=msgspec.json.encode(value), headers=headers)


def text_reply(status: int, text: str, *headers: tuple[bytes, bytes]) -> HttpReply:
    return HttpReply(status=status, body=text.encode(), content_type=b"text/plain; charset=utf-8", headers=headers)


class HttpApp:
    """The ASGI application of the port. Routes are added by `app`; `rules` and `draining` change while it runs."""

    def __init__(self, gatekeeper: Gatekeeper, dispatcher: Dispatcher, rules: HttpRules) -> None:
        self._gatekeeper = gatekeeper
        self._dispatcher = dispatcher
        self.rules = rules
        self.draining = False
        self.routes: dict[str, Route] = {"/rpc": Route(methods=("POST",), handler=self._rpc)}
        self.prefixes: dict[str, Route] = {}  # "/x/": everything below it that has no route of its own
        self.fallback: Route | None = None  # what a GET gets that nothing else takes: the dashboard's files

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        with ExitStack() as admitted:
            await self._serve(scope, receive, send, admitted)

    async def _serve(self, scope: Any, receive: Any, send: Any, admitted: ExitStack) -> None:
        """One request; ``admitted`` holds its place among those under way until its last byte is out."""
        try:
            reply = await self._answer(scope, receive, admitted)
        except ClientLeft:
            return
        except Exception as exc:
            log.exception("request failed", exc=exc, path=scope["path"])
            reply = text_reply(500, "Internal Server Error")
        head_only = scope["method"] == "HEAD"
        own = {name for name, _ in reply.headers}  # a reply that says it itself is not spoken over
        headers = [header for header in SECURITY_HEADERS if header[0] not in own]
        headers += [*reply.headers, *self._cors_headers(scope)]
        # RFC 9110 section 8.6: what has no content has no length of it.
        if reply.status not in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            headers.append((b"content-type", reply.content_type))
            if reply.stream is None:
                headers.append((b"content-length", b"%d" % len(reply.body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if reply.stream is not None and not head_only:
            await self._stream(reply.stream, scope, receive, send)
            return
        await send({"type": "http.response.body", "body": b"" if head_only else reply.body})

    async def _stream(self, stream: Callable[[Write], Awaitable[None]], scope: Any, receive: Any, send: Any) -> None:
        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        try:
            await _while_there(receive, lambda: stream(write))
        except ClientLeft:
            return
        except Exception as exc:  # the head is out: ending without the last chunk is how HTTP says that it broke
            log.exception("request failed", exc=exc, path=scope["path"])
            raise
        await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Any, receive: Any, admitted: ExitStack) -> HttpReply:
        wire: Wire = scope[WIRE]
        if self._gatekeeper.keeps_out(wire.peer[0], tuple(scope["headers"]), wire.arrival):
            return text_reply(403, "Forbidden: this address may not use this gateway")
        raw_path: bytes = scope["raw_path"]
        if not _canonical(raw_path):
            return text_reply(400, "Bad Request: not a canonical path")
        path = raw_path.decode("ascii")
        route = self._route(path)
        if route is None and scope["method"] in {"GET", "HEAD"}:
            route = self.fallback
        if route is None or not (self.rules.enabled or route.probe):
            return text_reply(404, "Not Found")
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            headers[name] = headers[name] + b", " + value if name in headers else value
        method = scope["method"]
        shared = not (route.probe or route.every_method or route.refusal_page is not None)
        if method == "OPTIONS" and self._is_preflight(headers) and shared:
            return HttpReply(status=204, headers=_preflight_headers(route))
        if method not in route.methods and not route.every_method:
            return text_reply(405, "Method Not Allowed", (b"allow", ", ".join(route.methods).encode()))
        if self.draining and not route.probe:
            return text_reply(503, "Gateway stopping", (b"retry-after", b"2"))
        if not (route.probe or path == "/rpc" or wire.arrival.ceiling.allows(path)):
            return text_reply(404, "Not Found")
        peer = self._gatekeeper.describe(wire.peer[0], tuple(scope["headers"]), wire.arrival)
        refusal = None if route.probe or route.every_method else self._cross_site(route, method, headers, peer)
        if refusal is not None:
            return refusal
        request = HttpRequest(
            method=method,
            path=path,
            headers=headers,
            peer=peer,
            body=lambda: _read_body(headers, receive, route.max_body),
            query=scope.get("query_string", b""),
        )
        if not route.needs_admission:
            return await route.handler(request, None)
        return await self._admit(route, request, receive, admitted)

    async def _admit(self, route: Route, request: HttpRequest, receive: Any, admitted: ExitStack) -> HttpReply:
        """Let the caller in by its headers, read the body, ask again where the rules changed meanwhile (V16)."""
        bearer = bearer_of(request.headers)
        counted = False
        while True:
            rules = self._gatekeeper.rules
            verdict = await self._gatekeeper.http(peer=request.peer, bearer=bearer)
            if isinstance(verdict, Rejection):
                return await refuse(verdict)
            refusal = self._twin_refusal(route, verdict)
            if refusal is not None:
                return refusal
            counted = counted or admitted.enter_context(under_way())
            if not counted:
                text = "too many requests are under way"
                return json_reply(503, _http_error(text, "overloaded"), (b"retry-after", b"2"))
            try:
                body = await request.body()
            except BodyTooBig:
                return json_reply(413, _http_error(f"body over {route.max_body} bytes", "payload_too_large"))
            except trio.TooSlowError:
                text = f"body not received within {BODY_SECONDS:g} s"
                return json_reply(408, _http_error(text, "request_timeout"))
            if self._gatekeeper.rules is rules:
                handle = partial(route.handler, attrs.evolve(request, body=_already(body)), verdict)
                return await _while_there(receive, handle) if route.leaving_cancels else await handle()
            request = attrs.evolve(request, body=_already(body))

    def _twin_refusal(self, route: Route, grant: Grant) -> HttpReply | None:
        """The RPC checker's word on a route that is another way to a method (V41)."""
        table, scopes = self._dispatcher.table, frozenset(grant.scopes)
        if route.twin is None or route.twin in table.view(grant.role, scopes):
            return None
        error = table.refusal(route.twin, grant.role, scopes)
        return json_reply(403, {"error": {"message": error.message, "type": "forbidden", **error.to_wire()}})

    def _route(self, path: str) -> Route | None:
        route = self.routes.get(path)
        if route is None and self.prefixes:
            route = next((below for prefix, below in self.prefixes.items() if path.startswith(prefix)), None)
        return route

    def _cross_site(self, route: Route, method: str, headers: Mapping[bytes, bytes], peer: Peer) -> HttpReply | None:
        verdict = check_http_request(
            method,
            peer,
            self.rules.origins,
            sec_fetch_site=_text(headers.get(b"sec-fetch-site")),
            content_type=_text(headers.get(b"content-type")),
            # Where it is not what lets the caller in, an Authorization header that a page may add proves nothing.
            bearer=bearer_of(headers) is not None and not self._open_to(peer),
            cors_allowed=route.refusal_page is None and self._cors_allowed(headers.get(b"origin")),
        )
        if verdict.status == 200:
            return None
        if route.refusal_page is not None:
            return route.refusal_page(verdict.status, verdict.reason, verdict.fix)
        kind = "misdirected_request" if verdict.status == 421 else "cross_site_refused"
        return json_reply(verdict.status, {"error": {"message": verdict.reason, "type": kind, "fix": verdict.fix}})

    def _open_to(self, peer: Peer) -> bool:
        """Whether this peer comes in without a credential of its own in the request."""
        if peer.vouched is not None and peer.vouched.ok:
            return True
        return self._gatekeeper.rules.on(peer.arrival).admission.auth_type == "none"

    # --- CORS (C16): as the seed says, and never with credentials

    def _cors_allowed(self, origin: bytes | None) -> bool:
        if origin is None:
            return False
        return "*" in self.rules.cors_origins or origin.decode("latin-1").lower() in self.rules.cors_origins

    def _cors_headers(self, scope: Any) -> list[tuple[bytes, bytes]]:
        route = self.routes.get(scope["path"])
        if route is None or route.probe or route.refusal_page is not None or not self.rules.cors_origins:
            return []
        if "*" in self.rules.cors_origins:
            return [(b"access-control-allow-origin", b"*")]
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        if not self._cors_allowed(origin):
            return [(b"vary", b"Origin")]
        return [(b"access-control-allow-origin", origin or b""), (b"vary", b"Origin")]

    def _is_preflight(self, headers: Mapping[bytes, bytes]) -> bool:
        return b"access-control-request-method" in headers and self._cors_allowed(headers.get(b"origin"))

    # --- POST /rpc

    async def _rpc(self, request: HttpRequest, grant: Grant | None) -> HttpReply:
        """JSON-RPC 2.0 over HTTP: one call or a batch; 200 with a reply, 204 where nothing is answered."""
        assert grant is not None
        body = await request.body()
        if self._gatekeeper.lapsed(grant) is not None:
            return _lapsed()
        message = jsonrpc.decode_message(body)
        caller = HttpCaller(grant=grant, peer=request.peer)
        if isinstance(message, jsonrpc.Invalid):
            return HttpReply(status=400, body=jsonrpc.encode_invalid(message))
        if isinstance(message, jsonrpc.Call):
            reply = await self._call(caller, message)
            if self._gatekeeper.lapsed(grant) is not None:  # revoked while the call ran: its answer is dropped (AUTH-5)
                return _lapsed()
            return HttpReply(status=200, body=reply) if reply is not None else HttpReply(status=204)
        replies = []
        for item in message.items:
            reply = await self._call(caller, item)
            if self._gatekeeper.lapsed(grant) is not None:
                return _lapsed()
            if reply is not None:
                replies.append(reply)
        return HttpReply(status=200, body=jsonrpc.encode_batch(replies)) if replies else HttpReply(status=204)

    async def call(self, caller: HttpCaller, method: str, params: msgspec.Raw) -> Any:
        """What ``method`` answers this caller: the one way to a method that HTTP has. Raises `CallError`."""
        table = self._dispatcher.table
        arrival = caller.peer.arrival
        spec = table.view(caller.role, caller.scopes).get(method)
        if not arrival.ceiling.allows(method):
            raise CallError(beyond_ceiling(method, arrival))
        if spec is None:
            raise CallError(table.refusal(method, caller.role, caller.scopes))
        return await self._dispatcher.run(spec, caller, params)

    async def _call(self, caller: HttpCaller, call: jsonrpc.Call | jsonrpc.Invalid) -> bytes | None:
        if isinstance(call, jsonrpc.Invalid):
            return jsonrpc.encode_invalid(call)
        try:
            reply = jsonrpc.encode_result(call.id, await self.call(caller, call.method, call.params))
        except CallError as exc:
            reply = jsonrpc.encode_error(call.id, exc.error)
        except (TypeError, ValueError, OverflowError) as exc:
            reply = jsonrpc.encode_error(call.id, self._dispatcher.unencodable(call.method, exc))
        return None if call.notification else reply


def _canonical(path: bytes) -> bool:
    """One spelling per resource: no escapes, no empty, ``.`` or ``..`` segments. What is compared is what is served."""
    if not path.startswith(b"/") or b"//" in path or not _SAFE_PATH.issuperset(path):
        return False
    return not {b".", b".."}.intersection(path.split(b"/"))


def bearer_of(headers: Mapping[bytes, bytes]) -> str | None:
    """What ``Authorization: Bearer`` presents."""
    scheme, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return value.strip() or None if scheme.lower() == "bearer" else None


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None


def _preflight_headers(route: Route) -> list[tuple[bytes, bytes]]:
    return [
        (b"access-control-allow-methods", ", ".join(route.methods).encode()),
        (b"access-control-allow-headers", b"authorization, content-type"),
        (b"access-control-max-age", b"600"),
    ]


def _http_error(message: str, type_: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_}}


def _lapsed() -> HttpReply:
    """The credential ended while the request was under way."""
    error = wire_error("auth-api-key-revoked")
    return json_reply(401, {"error": {"message": error.message, "type": "unauthorized", **error.to_wire()}})


async def refuse(verdict: Rejection) -> HttpReply:
    """The answer to a refused request, after the delay that guessing costs."""
    if verdict.delay:
        await trio.sleep(verdict.delay)
    error: WireError = verdict.error
    body = {"error": {"message": error.message, "type": "unauthorized", **error.to_wire()}}
    headers: list[tuple[bytes, bytes]] = []
    if verdict.http_status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="openclaw-gateway"'))
    if error.retry_after_ms:
        headers.append((b"retry-after", b"%d" % max(1, error.retry_after_ms // 1000)))
    return json_reply(verdict.http_status, body, *headers)


def _already(body: bytes) -> Callable[[], Awaitable[bytes]]:
    async def read() -> bytes:
        return body

    return read


async def _while_there(receive: Any, work: Callable[[], Awaitable[_Result]]) -> _Result:
    """What ``work`` gives, unless the client leaves before. Raises `ClientLeft`; the body has been read by now."""
    done: list[_Result] = []

    async def watch(scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    with flat_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            done.append(await work())
            nursery.cancel_scope.cancel()
    if not done:
        raise ClientLeft
    return done[0]


async def _read_body(headers: Mapping[bytes, bytes], receive: Any, limit: int = MAX_BODY_BYTES) -> bytes:
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > limit:
        raise BodyTooBig
    body = bytearray()
    with trio.fail_after(BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise trio.TooSlowError
            body += message.get("body", b"")
            if len(body) > limit:
                raise BodyTooBig
            if not message.get("more_body", False):
                return bytes(body)
