"""Plain HTTP: the probes, ``POST /rpc``, and a page that says what this port is.

Owns the routes, the order of checks in front of them, and how a reply leaves. It must not know how a method is called
(`server.httpmethods`), what a page of another origin may do (`server.origins`), nor how a caller is admitted
(`server.gatekeeper`): a route names the method it is another way to and the RPC checker enforces it (V41).

Order of checks, each before the next costs anything: address lists, for whom a trusted proxy speaks for → canonical
path (V40) → route and method (404, 405: before any accounting, V14) → cross-site and Host (V4) → credentials from
headers → the scope of its RPC twin (V41) → body (1 MiB where the route says nothing else, 10 s; V47). Default-deny:
what is not in the table is 404.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.rpc.dispatch import Dispatcher
from openclaw_gateway.server import incoming
from openclaw_gateway.server.gatekeeper import Gatekeeper, Rejection
from openclaw_gateway.server.httpmethods import HttpMethods
from openclaw_gateway.server.incoming import BodyTooBig, ClientLeft, already, read_body, while_there
from openclaw_gateway.server.origins import HttpRules, cors_headers, cross_site_refusal, is_preflight, preflight_headers
from openclaw_gateway.server.routes import (
    HttpReply,
    HttpRequest,
    Route,
    Write,
    bearer_of,
    json_reply,
    refuse,
    text_reply,
)
from openclaw_gateway.server.underway import under_way
from openclaw_gateway.server.upgrade import SECURITY_HEADERS, WIRE
from openclaw_gateway.server.wire import Wire

# The words of a route stand in `server.routes`; whoever adds one to the application finds them here, too.
__all__ = ["HttpApp", "HttpReply", "HttpRequest", "Route", "json_reply", "text_reply"]

_SAFE_PATH: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-._~")

log = get_logger("http")


class HttpApp:
    """The ASGI application of the port. Routes are added by `app`; `rules` and `draining` change while it runs."""

    def __init__(self, gatekeeper: Gatekeeper, dispatcher: Dispatcher, rules: HttpRules) -> None:
        self._gatekeeper = gatekeeper
        self.methods = HttpMethods(gatekeeper, dispatcher)
        self.rules = rules
        self.draining = False
        self.routes: dict[str, Route] = {"/rpc": Route(methods=("POST",), handler=self.methods.rpc)}
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
        headers += [*reply.headers, *cors_headers(self.rules, self.routes.get(scope["path"]), scope)]
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
            await while_there(receive, lambda: stream(write))
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
        if method == "OPTIONS" and is_preflight(self.rules, headers) and shared:
            return HttpReply(status=204, headers=preflight_headers(route))
        if method not in route.methods and not route.every_method:
            return text_reply(405, "Method Not Allowed", (b"allow", ", ".join(route.methods).encode()))
        if self.draining and not route.probe:
            return text_reply(503, "Gateway stopping", (b"retry-after", b"2"))
        if not (route.probe or path == "/rpc" or wire.arrival.ceiling.allows(path)):
            return text_reply(404, "Not Found")
        peer = self._gatekeeper.describe(wire.peer[0], tuple(scope["headers"]), wire.arrival)
        if not (route.probe or route.every_method):
            refusal = cross_site_refusal(route, method, headers, peer, self.rules, self._gatekeeper.rules)
            if refusal is not None:
                return refusal
        request = HttpRequest(
            method=method,
            path=path,
            headers=headers,
            peer=peer,
            body=lambda: read_body(headers, receive, route.max_body),
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
            refusal = self.methods.twin_refusal(route, verdict)
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
                text = f"body not received within {incoming.BODY_SECONDS:g} s"
                return json_reply(408, _http_error(text, "request_timeout"))
            if self._gatekeeper.rules is rules:
                handle = partial(route.handler, attrs.evolve(request, body=already(body)), verdict)
                return await while_there(receive, handle) if route.leaving_cancels else await handle()
            request = attrs.evolve(request, body=already(body))

    def _route(self, path: str) -> Route | None:
        route = self.routes.get(path)
        if route is None and self.prefixes:
            route = next((below for prefix, below in self.prefixes.items() if path.startswith(prefix)), None)
        return route


def _canonical(path: bytes) -> bool:
    """One spelling per resource: no escapes, no empty, ``.`` or ``..`` segments. What is compared is what is served."""
    if not path.startswith(b"/") or b"//" in path or not _SAFE_PATH.issuperset(path):
        return False
    return not {b".", b".."}.intersection(path.split(b"/"))


def _http_error(message: str, type_: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_}}
