"""The HTTP client of what dials out here, without anything of ours in it.

Owns its settings and how it is loaded: httpx and the system's certificate authorities take tenths of a second to read,
so that happens on a thread, once. Invariants: no proxy, ``.netrc`` or other credential of the environment goes along,
no cookie is kept or sent, redirects are not followed, TLS is verified (V56).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from openclaw_gateway.httpbody import put_body

if TYPE_CHECKING:
    import httpx

__all__ = ["open_answer", "open_client"]

MAX_CONNECTIONS: Final = 16


@asynccontextmanager
async def open_answer(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> AsyncIterator[httpx.Response]:
    """The answer to one request, while the block lasts; what it says is still to be read. Raises ``httpx.HTTPError``
    and ``httpx.InvalidURL``.
    """
    request = client.build_request(method, url, headers=dict(headers), extensions=dict(extensions or {}))
    if body is not None:
        put_body(request, body)
    response = await client.send(request, stream=True)
    try:
        yield response
    finally:
        await response.aclose()


async def open_client(seconds: float, tls: ssl.SSLContext | None = None) -> httpx.AsyncClient:
    """A client for single requests; ``tls`` instead of the system's certificates. The caller closes it."""
    return await trio.to_thread.run_sync(_make, seconds, tls)


def _make(seconds: float, tls: ssl.SSLContext | None) -> httpx.AsyncClient:
    from http.cookiejar import DefaultCookiePolicy

    import httpx

    from openclaw_gateway._version import __version__

    client = httpx.AsyncClient(
        timeout=httpx.Timeout(seconds),
        limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=0),
        follow_redirects=False,
        trust_env=False,
        verify=tls if tls is not None else ssl.create_default_context(),
        headers={"user-agent": f"openclaw-gateway/{__version__}", "accept-encoding": "identity"},
    )
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return client
