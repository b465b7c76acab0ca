"""Which web pages may talk to the gateway: WebSocket origins (V1-V3, NET-3) and cross-site HTTP (V4).

Pure. Invariants: a verdict never looks at credentials, so a valid token does not help a foreign page; an ``Origin``
that merely equals a ``Host`` by name proves nothing (DNS rebinding), only loopback and private IP literals and
``localhost`` are same-origin by default; forwarding headers never skip the rule.
"""

from __future__ import annotations

import json
import re
from typing import Final, Literal

import attrs

from openclaw_gateway.policy.addresses import canonical_ip, is_private_literal
from openclaw_gateway.policy.locality import Peer, host_name, is_loopback_name
from openclaw_gateway.value import Value

__all__ = [
    "HttpVerdict",
    "OriginRules",
    "OriginVerdict",
    "check_http_request",
    "check_origin",
    "normalise_origin",
    "origin_entry_fault",
]

MAX_ORIGIN: Final = 300
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@attrs.frozen(kw_only=True, eq=False, repr=False)
class OriginRules(Value):
    """``allowed``: origins as configured; ``known_hosts``: lower-case names that are this gateway's own."""

    allowed: tuple[str, ...] = ()
    known_hosts: frozenset[str] = frozenset()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class OriginVerdict(Value):
    """Whether the page behind a connection may talk to us."""

    ok: bool
    reason: str  # a constant text: goes into the trail and details.reason
    browser: bool = False  # an Origin header was there: failures count even on loopback (V2)
    fix: str | None = None  # the exact command that would allow it


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpVerdict(Value):
    """200: go on. 403: a foreign page. 421: a Host that is not this gateway's."""

    status: Literal[200, 403, 421]
    reason: str
    fix: str | None = None


@attrs.frozen(eq=False, repr=False)
class _Origin(Value):
    scheme: str
    host: str  # without brackets; loopback names and literals are all "localhost"
    port: int | None  # None: a scheme without a port of its own

    @property
    def text(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = self.port is None or self.port == _DEFAULT_PORTS.get(self.scheme)
        return f"{self.scheme}://{host}" if default else f"{self.scheme}://{host}:{self.port}"


def _fold(name: str) -> str:
    """One spelling per host: every loopback name is ``localhost`` (NET-3), every literal is canonical."""
    if is_loopback_name(name):
        return "localhost"
    address = canonical_ip(name)
    return str(address) if address is not None else name


def _parse(text: str) -> _Origin | None:
    found = _ORIGIN.fullmatch(text.lower()) if len(text) <= MAX_ORIGIN else None
    if found is None:
        return None
    scheme, host, port = found.groups()
    if host.startswith("[") and canonical_ip(host.strip("[]")) is None:
        return None
    number = int(port) if port else _DEFAULT_PORTS.get(scheme)
    if number is not None and not 0 < number < 65536:
        return None
    name = host.strip("[]").removesuffix(".")
    return _Origin(scheme, _fold(name), number) if name else None


def normalise_origin(text: str) -> str | None:
    """``scheme://host[:port]`` in lower case without the scheme's default port; None where it is not an origin.

    Loopback names and literals come out as ``localhost``.
    """
    origin = _parse(text)
    return origin.text if origin is not None else None


def origin_entry_fault(entry: str) -> str | None:
    """Why a configured origin cannot be used, with the fix; None: it can. For the configuration's validator."""
    if entry == "*":
        return "'*' would let every web page in; list the origins, such as https://claw.example.com"
    if _parse(entry) is not None:
        return None
    if "://" not in entry:
        return f"{entry!r} has no scheme; write https://{entry} or http://{entry}"
    bare = "/".join(entry.split("/")[:3])
    if bare != entry and _parse(bare) is not None:
        return f"{entry!r} has a path; an origin is only scheme, host and port: {bare}"
    return f"{entry!r} is not an origin; write scheme://host or scheme://host:port"


def _allowed(origin: _Origin, rules: OriginRules) -> bool:
    return any(_parse(entry) == origin for entry in rules.allowed)


def _same_literal_origin(origin: _Origin, host: str | None) -> bool:
    """Origin equals Host, and the host is one that no DNS answer can be behind."""
    if host is None or origin.scheme not in ("http", "https"):
        return False
    served = _parse(f"{origin.scheme}://{host}")
    if served is None or (served.host, served.port) != (origin.host, origin.port):
        return False
    return origin.host == "localhost" or is_private_literal(origin.host)


def _fix(origin: _Origin, rules: OriginRules) -> str:
    known = [text for text in map(normalise_origin, rules.allowed) if text is not None]
    return f"openclaw config set gateway.controlUi.allowedOrigins '{json.dumps([*known, origin.text])}'"


def check_origin(peer: Peer, rules: OriginRules, *, client_is_ui: bool) -> OriginVerdict:
    """The WebSocket rule. ``client_is_ui``: the client says it is the Control UI, which no program but a browser is."""
    if peer.origin is None:
        if client_is_ui:
            return OriginVerdict(ok=False, reason="origin missing for the Control UI")
        return OriginVerdict(ok=True, reason="no origin: not a browser")
    origin = _parse(peer.origin)
    if origin is None:
        return OriginVerdict(ok=False, reason="origin is opaque or malformed", browser=True)
    if _allowed(origin, rules):
        return OriginVerdict(ok=True, reason="origin is configured", browser=True)
    if _same_literal_origin(origin, peer.host):
        return OriginVerdict(ok=True, reason="origin is this gateway's own address", browser=True)
    return OriginVerdict(ok=False, reason="origin is not allowed", browser=True, fix=_fix(origin, rules))


def _own_host(host: str | None, rules: OriginRules) -> bool:
    """True where a Host is a literal, ``localhost``, or a name that the configuration says is ours."""
    name = host_name(host) if host is not None else None
    if name is None:
        return False
    if is_loopback_name(name) or canonical_ip(name) is not None or name in rules.known_hosts:
        return True
    origins = (_parse(entry) for entry in rules.allowed)
    return any(origin is not None and origin.host == name for origin in origins)


def check_http_request(
    method: str,
    peer: Peer,
    rules: OriginRules,
    *,
    sec_fetch_site: str | None,
    content_type: str | None,
    bearer: bool,
    cors_allowed: bool,
) -> HttpVerdict:
    """The HTTP rule: 200 go on, 403 cross-site, 421 a Host that is not this gateway's.

    ``bearer``: an Authorization header is there (a page cannot make a browser add one by itself); ``cors_allowed``: the
    Origin is in gateway.transports.http.cors.origins. Reading (GET, HEAD, and the preflight) is CORS's business alone.
    """
    if method.upper() in _SAFE_METHODS:
        return HttpVerdict(status=200, reason="changes nothing")
    page = peer.origin is not None or sec_fetch_site not in (None, "none")
    if not _own_host(peer.host, rules) and (page or not bearer):
        # A rebound name makes a foreign page same-origin in the browser's eyes; only the Host still tells.
        return HttpVerdict(status=421, reason="host is not this gateway's", fix=_host_fix(peer, rules))
    if not page:
        return HttpVerdict(status=200, reason="not a browser")
    if peer.origin is None and sec_fetch_site == "same-origin":
        return HttpVerdict(status=200, reason="same-origin page")
    origin = _parse(peer.origin) if peer.origin is not None else None
    if origin is not None and (_allowed(origin, rules) or _same_literal_origin(origin, peer.host)):
        return HttpVerdict(status=200, reason="origin is this gateway's own or configured")
    # JSON and Authorization force a preflight: CORS let the page in, and it knows the secret by itself.
    json_body = (content_type or "").partition(";")[0].strip().lower() == "application/json"
    if origin is not None and bearer and json_body and cors_allowed:
        return HttpVerdict(status=200, reason="CORS with the caller's own credential")
    return HttpVerdict(status=403, reason="cross-site request", fix=_fix(origin, rules) if origin is not None else None)


def _host_fix(peer: Peer, rules: OriginRules) -> str | None:
    served = _parse(f"{'https' if peer.encrypted else 'http'}://{peer.host}") if peer.host is not None else None
    return _fix(served, rules) if served is not None else None
