"""The HTTP client of what dials out here, without anything of ours in it.

Owns its settings and how it is loaded: httpx and the system's certificate authorities take tenths of a second to read,
so that happens on a thread, once. Invariants: no proxy, ``.netrc`` or other credential of the environment goes along,
no cookie is kept or sent, redirects are not followed, TLS is verified (V56).
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    import httpx

__all__ = ["Body", "open_client"]

MAX_CONNECTIONS: Final = 16


class Body:
    """A request's body, whose length goes into ``content-length``. httpx's own is an async generator, which a cancelled
    request leaves to the garbage collector half-way, with a warning.
    """

    def __init__(self, content: bytes) -> None:
        self._content: bytes | None = content

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        content, self._content = self._content, None
        if content is None:
            raise StopAsyncIteration
        return content


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
