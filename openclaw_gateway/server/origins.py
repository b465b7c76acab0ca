"""What pages of other origins may do here: nothing that changes anything (V4), and read only what CORS opens (C16).

Owns the refusal of a cross-site request and the headers by which a browser lets a page read an answer. It must not know
what a route does; `policy.origin` decides, this measures and words it. Invariants: no answer allows credentials; a page
that people read (``Route.refusal_page``) is opened to no other origin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.origin import OriginRules, check_http_request
from openclaw_gateway.server.gatekeeper import GatekeeperRules
from openclaw_gateway.server.routes import HttpReply, Route, bearer_of, json_reply
from openclaw_gateway.value import Value

__all__ = ["HttpRules", "cors_headers", "cross_site_refusal", "is_preflight", "preflight_headers"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpRules(Value):
    """What configuration decides about HTTP; replaced as a whole on reload."""

    enabled: bool = True
    cors_origins: tuple[str, ...] = ()
    origins: OriginRules = attrs.field(factory=OriginRules)


def cross_site_refusal(
    route: Route, method: str, headers: Mapping[bytes, bytes], peer: Peer, rules: HttpRules, admitting: GatekeeperRules
) -> HttpReply | None:
    """The answer to a request that a page of another origin makes its reader's browser send; None where it is none."""
    verdict = check_http_request(
        method,
        peer,
        rules.origins,
        sec_fetch_site=_text(headers.get(b"sec-fetch-site")),
        content_type=_text(headers.get(b"content-type")),
        # Where it is not what lets the caller in, an Authorization header that a page may add proves nothing.
        bearer=bearer_of(headers) is not None and not _open_to(peer, admitting),
        cors_allowed=route.refusal_page is None and _cors_allowed(rules, headers.get(b"origin")),
    )
    if verdict.status == 200:
        return None
    if route.refusal_page is not None:
        return route.refusal_page(verdict.status, verdict.reason, verdict.fix)
    kind = "misdirected_request" if verdict.status == 421 else "cross_site_refused"
    return json_reply(verdict.status, {"error": {"message": verdict.reason, "type": kind, "fix": verdict.fix}})


def _open_to(peer: Peer, admitting: GatekeeperRules) -> bool:
    """Whether this peer comes in without a credential of its own in the request."""
    if peer.vouched is not None and peer.vouched.ok:
        return True
    return admitting.on(peer.arrival).admission.auth_type == "none"


# --- CORS (C16): as the seed says, and never with credentials


def _cors_allowed(rules: HttpRules, origin: bytes | None) -> bool:
    if origin is None:
        return False
    return "*" in rules.cors_origins or origin.decode("latin-1").lower() in rules.cors_origins


def cors_headers(rules: HttpRules, route: Route | None, scope: Any) -> list[tuple[bytes, bytes]]:
    """What lets a browser show the answer of ``route`` to the page that asked."""
    if route is None or route.probe or route.refusal_page is not None or not rules.cors_origins:
        return []
    if "*" in rules.cors_origins:
        return [(b"access-control-allow-origin", b"*")]
    origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
    if not _cors_allowed(rules, origin):
        return [(b"vary", b"Origin")]
    return [(b"access-control-allow-origin", origin or b""), (b"vary", b"Origin")]


def is_preflight(rules: HttpRules, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks, for a page that CORS opens to, what that page may send."""
    return b"access-control-request-method" in headers and _cors_allowed(rules, headers.get(b"origin"))


def preflight_headers(route: Route) -> list[tuple[bytes, bytes]]:
    """The answer to it."""
    return [
        (b"access-control-allow-methods", ", ".join(route.methods).encode()),
        (b"access-control-allow-headers", b"authorization, content-type"),
        (b"access-control-max-age", b"600"),
    ]


def _text(value: bytes | None) -> str | None:
    return value.decode("latin-1") if value is not None else None
