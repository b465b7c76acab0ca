"""One signed request to a target outside (Standard Webhooks 1.0).

Owns the request and where it may go. It must not know events or queues.

Invariants: the target's host is resolved here and the connection goes to the address that was checked: one of this
host, this network or a tailnet only where the target says ``allowPrivate``, since whoever may edit the configuration
need not be on the network (V56); TLS is verified against the name; an answer's body is not read; see `hooks.transport`
for what does not go along.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from openclaw_gateway.config.hookblocks import OutboundHook
from openclaw_gateway.hooks.signature import SignatureRules, sign_headers
from openclaw_gateway.hooks.transport import open_answer, open_client
from openclaw_gateway.policy.addresses import canonical_ip
from openclaw_gateway.queues import RetryLater, Undeliverable

if TYPE_CHECKING:
    import httpx

__all__ = ["SEND_SECONDS", "WebhookSender", "is_public"]

SEND_SECONDS: Final = 15.0  # one try, from the look-up of the name to the head of the answer
CLOSE_SECONDS: Final = 2.0
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in another dress


class WebhookSender:
    """``clock`` gives Unix milliseconds; ``tls``: what servers are verified with instead of the system's
    certificates."""

    def __init__(self, *, clock: Callable[[], int], tls: ssl.SSLContext | None = None) -> None:
        self._clock = clock
        self._tls = tls
        self._client: httpx.AsyncClient | None = None
        self._opening = trio.Lock()

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with trio.move_on_after(CLOSE_SECONDS, shield=True):
                await client.aclose()

    async def send(self, target: OutboundHook, id_: str, body: bytes) -> tuple[int, Mapping[str, str]]:
        """POST ``body`` once; status and headers of the answer. Raises `RetryLater` where nobody answered,
        `Undeliverable` where the target may not be reached. The caller sets the deadline.
        """
        parts = urlsplit(target.url)
        host = parts.hostname or ""
        if parts.scheme != "https" and not target.allow_private:
            raise Undeliverable("http:// is sent in the clear: set allowPrivate for a target in your own network")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await _address(host, port, target)
        client = await self._open()
        import httpx

        rules = SignatureRules(scheme="standard")
        headers = {
            "host": parts.netloc,
            "content-type": "application/json",
            **sign_headers(rules, target.secret, body, id_=id_, now=self._clock() // 1000),
        }
        literal = f"[{address}]" if ":" in address else address
        query = f"?{parts.query}" if parts.query else ""
        url = f"{parts.scheme}://{literal}:{port}{parts.path or '/'}{query}"
        try:
            # The name goes into SNI and the certificate's check; the connection goes to the address that was checked.
            async with open_answer(
                client, "POST", url, body=body, headers=headers, extensions={"sni_hostname": host}
            ) as response:
                return response.status_code, response.headers
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise RetryLater(f"{host} cannot be reached: {type(exc).__name__}") from exc

    async def _open(self) -> httpx.AsyncClient:
        async with self._opening:
            if self._client is None:
                self._client = await open_client(SEND_SECONDS, self._tls)
            return self._client


async def _address(host: str, port: int, target: OutboundHook) -> str:
    try:
        found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        raise RetryLater(f"{host} has no address") from exc
    addresses = [str(entry[4][0]) for entry in found]
    if not target.allow_private:
        addresses = [address for address in addresses if is_public(address)]
        if not addresses:
            raise Undeliverable(f"{host} is in a private network; to allow it set allowPrivate for {target.name}")
    return addresses[0].partition("%")[0]


def is_public(text: str) -> bool:
    """Whether an address is one of the public internet: not of this host, a private or shared network, a group."""
    address = canonical_ip(text)
    if address is None:
        return False
    if isinstance(address, IPv6Address):
        inner = address.sixtofour or (address.teredo[1] if address.teredo else None)
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and not (inner.is_global and not inner.is_multicast):
            return False
    return address.is_global and not address.is_multicast
