"""URLs that the gateway or its clients open, and origins of web pages.

Owns their one spelling. It must not know what is served or asked there. Invariants: no URL carries a user, a query or a
fragment, so none hides a secret; an origin is exact, never a pattern.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from openclaw_gateway.config.values import plain
from openclaw_gateway.config.values.plain import BadValueError

__all__ = ["cors_origins", "issuer", "origin", "origins", "service_url", "url"]

_ORIGIN_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_LOCAL_URL: Final = re.compile(r"http://(localhost|127\.\d+\.\d+\.\d+|\[::1\])(?=[:/]|$)")


def origin(entry: Any) -> str:
    """``https://Example.com:443/`` → ``https://example.com``. Raises `BadValueError`, with what was probably meant as
    ``nearest``.
    """
    word = entry.strip() if isinstance(entry, str) else ""
    if "*" in word or not word:
        raise BadValueError("must be one exact origin such as https://example.com:8443 (no wildcards)")
    if "://" not in word:
        host = word.split("/", 1)[0].lower()
        local = host.rsplit(":", 1)[0] in {"localhost", "127.0.0.1", "[::1]"}
        raise BadValueError("has no scheme", nearest=f"{'http' if local else 'https'}://{host}")
    try:
        parts = urlsplit(word)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise BadValueError("is not a URL") from None
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if not host or _ORIGIN_SCHEME.fullmatch(scheme) is None or parts.username is not None:
        raise BadValueError("must be scheme://host[:port]")
    shown = f"[{host}]" if ":" in host else host
    normal = f"{scheme}://{shown}" + (f":{port}" if port is not None and port != _DEFAULT_PORTS.get(scheme) else "")
    if scheme != parts.scheme:
        raise BadValueError("is a WebSocket URL; browsers send the page's origin", nearest=normal)
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise BadValueError("has a path; an origin is scheme://host[:port]", nearest=normal)
    return normal


def origins(value: Any, path: str) -> tuple[str, ...]:
    return plain.entries(value, path, lambda entry: (origin(entry),))


def cors_origins(value: Any, path: str) -> tuple[str, ...]:
    return plain.entries(value, path, lambda entry: ("*",) if entry == "*" else (origin(entry),))


def url(value: Any, path: str) -> str:
    text = plain.text(value).strip()
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"ws", "wss", "http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    else:
        if parts.username is not None or parts.query or parts.fragment:
            raise BadValueError("must not carry a user, a query or a fragment (secrets have their own settings)")
    if not usable:
        raise BadValueError(
            "must be a URL such as wss://host:18789", fix=f"openclaw config set {path} ws://127.0.0.1:18789"
        )
    return text


def service_url(value: Any, path: str) -> str:
    """The base URL of a model service: http or https, without what could carry a secret."""
    text = url(value, path).rstrip("/")
    if not text.lower().startswith(("http://", "https://")):
        raise BadValueError(
            "must be a URL such as https://host/v1", fix=f"openclaw config set {path} http://127.0.0.1:8000/v1"
        )
    return text


def issuer(value: Any, path: str) -> str:
    """An OpenID issuer exactly as its tokens name it: the slash at its end counts (OpenID Connect Discovery 4.3)."""
    text = url(value, path)
    if not (text.startswith("https://") or _LOCAL_URL.match(text)):
        raise BadValueError("must begin with https:// (http:// only on this host)")
    return text
