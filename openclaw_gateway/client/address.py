"""The address of a gateway: reading a URL, and whether a secret may go there unencrypted.

Pure: no sockets, no look-ups. Invariant (requirement NET-6, attack V56): cleartext ``ws://`` is allowed to loopback,
to private and link-local address literals and to a tailnet (100.64.0.0/10, fd7a:115c:a1e0::/48, which is encrypted
below), never to a name that a resolver could answer for, except ``localhost``, which is dialled as loopback without
asking one."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

import attrs

from openclaw_gateway.client.errors import ConnectFailed

__all__ = ["GatewayAddress", "in_tailnet"]

_TAILNETS: Final = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
_SCHEMES: Final = {"ws": False, "wss": True, "http": False, "https": True}


def in_tailnet(host: str) -> bool:
    """Whether an address literal lies in a tailnet."""
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(literal in network for network in _TAILNETS)


@attrs.frozen
class GatewayAddress:
    """``host`` without brackets; ``resource`` is the path and query as sent; `url` is without the query, fit to be
    shown."""

    host: str
    port: int
    tls: bool
    resource: str = "/"

    @classmethod
    def parse(cls, url: str, *, allow_insecure: bool = False) -> GatewayAddress:
        """Read ``ws://``, ``wss://``, ``http://`` or ``https://``. Raises `ConnectFailed` at stage ``address``."""
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError as error:
            raise _refused(_shown(url), f"not a URL: {error}", "give a URL such as ws://127.0.0.1:18789") from error
        if parts.scheme not in _SCHEMES or not parts.hostname:
            raise _refused(_shown(url), "not the URL of a gateway", "give a URL such as ws://127.0.0.1:18789")
        if parts.username is not None or parts.password is not None:
            raise _refused(_shown(url), "a URL must not hold a secret", "pass --token or --password instead")
        if any(ord(c) <= 0x20 or ord(c) == 0x7F for c in url.strip()):
            raise _refused(_shown(url), "a URL must not hold spaces or control characters", "give the URL alone")
        tls = _SCHEMES[parts.scheme]
        resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        address = cls(parts.hostname, port or (443 if tls else 80), tls, resource)
        if not tls and not allow_insecure and not address.may_be_cleartext:
            raise _refused(
                address.url,
                "ws:// to this host would send the secret over the network unencrypted",
                f"use wss://{parts.hostname}, or a tunnel: ssh -N -L 18789:127.0.0.1:18789 {parts.hostname}",
            )
        return address

    @property
    def is_loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def may_be_cleartext(self) -> bool:
        """True where an unencrypted connection is acceptable: loopback, private literals, a tailnet."""
        if self.is_loopback:
            return True
        try:
            literal = ipaddress.ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        if isinstance(literal, ipaddress.IPv6Address) and literal.ipv4_mapped is not None:
            literal = literal.ipv4_mapped
        if literal.is_unspecified or literal.is_multicast or literal.is_reserved:
            return False
        return literal.is_private or literal.is_link_local or any(literal in network for network in _TAILNETS)

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        path = self.resource.partition("?")[0]
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}{'' if path == '/' else path}"


def _shown(url: str) -> str:
    """A URL that could not be read, without what may be a secret in it."""
    return url.partition("?")[0].rpartition("@")[2][:80]


def _refused(url: str, message: str, fix: str) -> ConnectFailed:
    return ConnectFailed(stage="address", url=url, message=message, fix=fix)
