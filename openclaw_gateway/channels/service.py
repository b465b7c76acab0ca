"""Calls to a message service's HTTP API: one client per account, with limits.

Owns time limits, the size of an answer, and that a redirect is never followed (it would carry the token elsewhere,
V56). It must not know what a call means. httpx is loaded with the first account that needs it.

Invariants: no URL reaches a log line or an error text (Telegram's hold the token); an answer over `MAX_ANSWER` bytes is
not read to its end.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs
import msgspec
import trio

from openclaw_gateway._version import __version__
from openclaw_gateway.channels.adapter import AdapterFailed
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.httpbody import put_body
from openclaw_gateway.protocol.wholetext import decode_whole
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "Service", "ServiceUnreachable", "base_url", "open_service", "secret"]

MAX_ANSWER: Final = 4 * 1024 * 1024
CONNECT_SECONDS: Final = 10.0
READ_SECONDS: Final = 20.0
CLOSE_SECONDS: Final = 1.0


@attrs.define(eq=False)
class ServiceUnreachable(GatewayError):
    """No answer, or none that can be read. ``why`` is a word, never a URL. ``sent``: the request may have arrived."""

    why: str
    sent: bool

    def __str__(self) -> str:
        return self.why


@attrs.frozen(eq=False, repr=False)
class Answer(Value):
    status: int
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return decode_whole(msgspec.json.decode, self.body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

    @property
    def retry_after_ms(self) -> int | None:
        """``Retry-After`` in seconds (RFC 9110 section 10.2.3), as milliseconds; a date counts as none."""
        text = self.headers.get("retry-after", "")
        try:
            return max(0, int(float(text) * 1000)) if text else None
        except (ValueError, OverflowError):
            return None


class Service:
    """Made by `open_service`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        read_seconds: float = READ_SECONDS,
    ) -> Answer:
        """One request; whatever status comes back is an answer. Raises `ServiceUnreachable`."""
        import httpx

        timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, read=read_seconds)
        content = None if json is None else msgspec.json.encode(json)
        given = {"content-type": "application/json", **(headers or {})} if content is not None else dict(headers or {})
        try:
            request = self._client.build_request(method, path, headers=given, timeout=timeout)
            if content is not None:
                put_body(request, content)
            response = await self._client.send(request, stream=True)
            try:
                body = bytearray()
                chunks = response.aiter_raw()
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MAX_ANSWER:
                        break
                if len(body) > MAX_ANSWER:
                    await response.aclose()
                    with suppress(httpx.HTTPError, httpx.StreamError):
                        async for _ in chunks:  # closed: this ends it at once, and leaves no generator half-way
                            pass
                    raise ServiceUnreachable("the answer is too large", sent=True)
                return Answer(response.status_code, dict(response.headers), bytes(body))
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
                    await response.aclose()
        except httpx.ConnectTimeout as exc:
            raise ServiceUnreachable("no connection in time", sent=False) from exc
        except httpx.ConnectError as exc:
            raise ServiceUnreachable("no connection", sent=False) from exc
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as exc:
            raise ServiceUnreachable(f"broken off: {type(exc).__name__}", sent=True) from exc


@asynccontextmanager
async def open_service(base: str) -> AsyncIterator[Service]:
    """A client of the API under ``base``, closed with the block; requests are cancelled with their callers."""
    import httpx

    _quiet()
    limits = httpx.Limits(max_connections=8, max_keepalive_connections=4)
    agent = {"user-agent": f"openclaw-gateway/{__version__}", "accept-encoding": "identity"}
    async with httpx.AsyncClient(
        base_url=base, follow_redirects=False, limits=limits, headers=agent, trust_env=True
    ) as client:
        yield Service(client)


def _quiet() -> None:
    """httpx logs the whole address of each request, tokens included: not unless somebody asks for exactly that."""
    for name in ("httpx", "httpcore"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)


def secret(settings: Mapping[str, Any], key: str, channel: str, *, env: str | None = None) -> str:
    """A secret out of an account's settings. Raises `AdapterFailed` (misconfigured) where it is missing."""
    import os

    value = settings.get(key)
    if isinstance(value, str) and value.strip():
        return value.strip()
    found = os.environ.get(env, "").strip() if env else ""
    if found:
        return found
    hint = f"openclaw config set channels.{channel}.{key} '${{NAME_OF_A_VARIABLE}}'"
    raise AdapterFailed("misconfigured", f"channels.{channel}.{key} is not set", hint)


def base_url(settings: Mapping[str, Any], key: str, default: str, channel: str) -> str:
    """An API's address out of the settings. Raises `AdapterFailed` for what is no http(s) address."""
    value = settings.get(key)
    text = value.strip().rstrip("/") if isinstance(value, str) and value.strip() else default
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.username is None
    except ValueError:
        usable = False
    if not usable:
        fix = f"openclaw config set channels.{channel}.{key} {default}"
        raise AdapterFailed("misconfigured", f"channels.{channel}.{key} is no http(s) address", fix)
    return text
