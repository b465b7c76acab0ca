"""What a route of the port is made of: the request it is asked with, the reply it gives, and who may use it.

Owns these three and the forms of a reply that several routes share. It must not know which routes there are, nor in
what order they are guarded (`server.http`). Invariant: a route is closed unless it says otherwise: admission is asked
for, other origins are judged, and the body has a limit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import attrs
import msgspec
import trio

from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.protocol.errors import WireError
from openclaw_gateway.server.gatekeeper import Grant, Rejection
from openclaw_gateway.server.incoming import MAX_BODY_BYTES
from openclaw_gateway.value import Value

__all__ = ["HttpReply", "HttpRequest", "Route", "Write", "bearer_of", "json_reply", "refuse", "text_reply"]


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
    """``needs_admission`` False: open to everybody (the probes); else the caller must be admitted, and holds what the
    checker finds. ``twin``: the RPC method that the route is another way to; whoever may not call it may not use the
    route, and its body is not read (V41). ``leaving_cancels``: the handler is cancelled when its client leaves.
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


def json_reply(status: int, value: Any, *headers: tuple[bytes, bytes]) -> HttpReply:
    return HttpReply(status=status, body=msgspec.json.encode(value), headers=headers)


def text_reply(status: int, text: str, *headers: tuple[bytes, bytes]) -> HttpReply:
    return HttpReply(status=status, body=text.encode(), content_type=b"text/plain; charset=utf-8", headers=headers)


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


def bearer_of(headers: Mapping[bytes, bytes]) -> str | None:
    """What ``Authorization: Bearer`` presents."""
    scheme, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    return value.strip() or None if scheme.lower() == "bearer" else None
