"""``GET /j/<code>``: a join URL, good for one look (C23, V23).

Owns the route and its answers. It must not know what a code grants: `pairing.setupcodes` gives out what it stands for,
once. Invariants: every other method, every text that is no code, and a code that is unknown, used or over get the same
404; nothing of a code is logged; one address asks at most so often, whatever it asks for.
"""

from __future__ import annotations

import time
from typing import Final

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.devices import DeviceBookUnreadable
from openclaw_gateway.pairing.setupcodes import SetupCodes
from openclaw_gateway.policy.setup import JoinLimiter, setup_payload
from openclaw_gateway.server.gatekeeper import Grant
from openclaw_gateway.server.http import HttpApp, HttpReply, HttpRequest, Route, json_reply
from openclaw_gateway.store import StoreError

__all__ = ["JOIN_CHARS", "PREFIX", "add_joins"]

PREFIX: Final = "/j/"
JOIN_CHARS: Final = 22  # base64url of 128 bits

log = get_logger("pairing")


def add_joins(http: HttpApp, codes: SetupCodes, *, limiter: JoinLimiter | None = None) -> None:
    """Serve join URLs on ``http``. Without a ``limiter``: 20 requests a minute and address."""
    limiter = limiter if limiter is not None else JoinLimiter()

    async def join(request: HttpRequest, grant: Grant | None) -> HttpReply:
        wait = limiter.wait(request.peer.limiter_key, now=time.monotonic())
        if wait > 0:
            body = {"error": "rate_limited"}
            return json_reply(429, body, (b"retry-after", b"%d" % max(1, round(wait))))
        code = request.path.removeprefix(PREFIX)
        # A browser that fetches ahead, or a preview of a chat, must not use the code up.
        ahead = b"prefetch" in request.headers.get(b"sec-purpose", b"") + request.headers.get(b"purpose", b"")
        if request.method != "GET" or len(code) != JOIN_CHARS or "/" in code or ahead:
            return _not_found()
        try:
            joined = await codes.fetch(code)
        except (StoreError, DeviceBookUnreadable) as exc:
            log.error("pairing state cannot be written", error=str(exc), peer=request.peer.client_address)
            return json_reply(503, {"error": "unavailable"}, (b"retry-after", b"1"))
        if joined is None:
            return _not_found()
        log.info("pairing: a join URL was fetched", peer=request.peer.client_address)
        payload = setup_payload(joined.urls, joined.token, joined.expires_at_ms, tls_fingerprint=joined.tls_fingerprint)
        return json_reply(200, payload)

    http.prefixes[PREFIX] = Route(methods=("GET",), handler=join, needs_admission=False, every_method=True)


def _not_found() -> HttpReply:
    return json_reply(404, {"error": "not_found"})
