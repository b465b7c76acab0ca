"""Where a connection comes from: its address, whether a proxy stands between, and whether it is truly of this host.

Pure: a socket address, the request's headers and the rules in; one `Peer` out. Invariants: local means a loopback peer,
a loopback Host and no forwarding header of any kind (V13); a loopback value out of X-Forwarded-For is never local
(V35); headers of a proxy that is not trusted attribute nothing and refuse nothing (PROXY-1). Only X-Forwarded-For
attributes: a proxy that writes it may well pass on a ``Forwarded`` header that the client made up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Final

import attrs

from openclaw_gateway.policy.addresses import NO_NETWORKS, NetworkSet, canonical_text, is_loopback, limiter_key
from openclaw_gateway.value import Value

__all__ = ["Peer", "PeerRules", "describe_peer", "host_name", "is_loopback_name", "trusted_proxies_hint"]

MAX_HOPS: Final = 32
MAX_HOST: Final = 255
MAX_USER_AGENT: Final = 256

_FORWARDING: Final = frozenset(
    {
        b"cdn-loop",
        b"client-ip",
        b"forwarded",
        b"proxy-client-ip",
        b"true-client-ip",
        b"via",
        b"wl-proxy-client-ip",
        b"x-arr-ssl",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-host",
        b"x-http-host-override",
        b"x-original-host",
        b"x-originating-ip",
        b"x-proxyuser-ip",
        b"x-real-ip",
        b"x-remote-addr",
        b"x-remote-ip",
    }
)
# Every vendor has a name of its own for "the address I got this from"; they end alike.
_FORWARDING_ENDINGS: Final = (b"client-ip", b"clientip", b"forwarded-for", b"real-ip", b"remote-addr", b"remote-ip")
_FORWARDING_PREFIXES: Final = (
    b"akamai-",
    b"cf-",
    b"fastly-",
    b"fly-",
    b"tailscale-",
    b"x-amz-cf-",
    b"x-amzn-",
    b"x-appengine-",
    b"x-azure-",
    b"x-envoy-",
    b"x-forwarded",
    b"x-forwarder",
    b"x-original-forwarded",
    b"x-vercel-",
)
_HOP: Final = re.compile(r"\[([0-9a-fA-F:.%\w]+)\](?::\d{1,5})?|([0-9.]+):\d{1,5}|([0-9a-fA-F:.%\w]+)")
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PeerRules(Value):
    """What the configuration says about proxies."""

    trusted_proxies: NetworkSet = NO_NETWORKS


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Peer(Value):
    """One connection's origin on the network, as far as it can be believed."""

    address: str  # of the socket, canonical; "unknown" where the transport has none
    client_address: str  # through trusted proxies; equals `address` where nothing can be attributed
    limiter_key: str
    forwarded: bool  # any forwarding header at all
    proxied_untrusted: bool  # forwarded by a proxy that is not in gateway.trustedProxies
    direct_loopback: bool
    encrypted: bool  # TLS here, or at a trusted proxy
    host: str | None  # effective Host (X-Forwarded-Host of a trusted proxy), lower case; None: absent or unusable
    origin: str | None  # the Origin header as sent; "" where it was sent more than once
    user_agent: str


def host_name(host: str) -> str | None:
    """The name or IP literal (without brackets) of a ``Host`` value; None where it is not one."""
    found = _HOST.fullmatch(host)
    if found is None or len(host) > MAX_HOST:
        return None
    name = found[1].removesuffix(".")
    return name.strip("[]") or None


def is_loopback_name(name: str) -> bool:
    """``localhost`` or a loopback literal.

    Other names that resolve to loopback do not count: names can be made to (V13).
    """
    return name == "localhost" or is_loopback(name)


class _Headers:
    """The few headers that matter here, by lower-case name, each with all its values in order."""

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[str]] = {}
        self.forwarded = False
        for raw_name, value in headers:
            name = raw_name.lower()
            self._values.setdefault(name, []).append(value.decode("latin-1").strip())
            # Proxies of every kind mark what they pass on; one mark is enough not to believe that nobody is between.
            if name in _FORWARDING or name.startswith(_FORWARDING_PREFIXES) or name.endswith(_FORWARDING_ENDINGS):
                self.forwarded = True

    def all(self, name: bytes) -> list[str]:
        return self._values.get(name, [])

    def single(self, name: bytes) -> str | None:
        """The value of a header that was sent exactly once."""
        values = self.all(name)
        return values[0] if len(values) == 1 else None

    def listed(self, name: bytes) -> list[str]:
        return [item.strip() for value in self.all(name) for item in value.split(",") if item.strip()]


def describe_peer(
    socket_peer: str | None, headers: Iterable[tuple[bytes, bytes]], rules: PeerRules, *, tls: bool = False
) -> Peer:
    """``socket_peer`` is the peer's IP address without port (None: a transport without addresses, never local)."""
    seen = _Headers(headers)
    address = canonical_text(socket_peer or "")
    trusted = seen.forwarded and address in rules.trusted_proxies
    host = _effective_host(seen, trusted=trusted)
    client, key = address, limiter_key(address)
    if trusted:
        client = _client_of(seen.listed(b"x-forwarded-for"), address, rules)
        key = limiter_key(client)
    if seen.forwarded and is_loopback(client):
        # Whoever comes through a proxy on this host must not share the account of those who sit at it (V35).
        key = f"forwarded:{key}"
    own_name = host_name((seen.single(b"host") or "").lower())
    return Peer(
        address=address,
        client_address=client,
        limiter_key=key,
        forwarded=seen.forwarded,
        proxied_untrusted=seen.forwarded and not trusted,
        direct_loopback=(
            not seen.forwarded and is_loopback(address) and own_name is not None and is_loopback_name(own_name)
        ),
        encrypted=tls or (trusted and _https_all_the_way(seen.listed(b"x-forwarded-proto"))),
        host=host,
        origin=_origin(seen.all(b"origin")),
        user_agent=_printable((seen.all(b"user-agent") or [""])[0]),
    )


def _client_of(hops: list[str], proxy: str, rules: PeerRules) -> str:
    """Walk X-Forwarded-For from the right; the first hop that is no trusted proxy is the client (PROXY-3)."""
    client = proxy
    for hop in reversed(hops[-MAX_HOPS:]):
        found = _HOP.fullmatch(hop)
        address = canonical_text(next((part for part in found.groups() if part), "")) if found else "unknown"
        if address == "unknown":
            # What stands left of a hop that cannot be read was written by nobody we know.
            return client
        client = address
        if address not in rules.trusted_proxies:
            break
    return client


def _effective_host(seen: _Headers, *, trusted: bool) -> str | None:
    host = seen.single(b"host")
    if trusted and seen.all(b"x-forwarded-host"):
        host = seen.single(b"x-forwarded-host")
    if host is None:
        return None
    lowered = host.lower()
    return lowered if host_name(lowered) is not None else None


def _https_all_the_way(schemes: list[str]) -> bool:
    return bool(schemes) and all(scheme.lower() in ("https", "wss") for scheme in schemes)


def _origin(values: list[str]) -> str | None:
    if not values:
        return None
    return values[0] if len(values) == 1 else ""


def _printable(text: str) -> str:
    return "".join(char if char.isascii() and char.isprintable() else "?" for char in text[:MAX_USER_AGENT])


def trusted_proxies_hint(peer: Peer, rules: PeerRules) -> str | None:
    """The command that would trust this peer as a proxy; None where it would change nothing. Log it once per peer."""
    if not peer.proxied_untrusted or peer.address == "unknown":
        return None
    entries = [*rules.trusted_proxies.entries, peer.address]
    return f"openclaw config set gateway.trustedProxies '{json.dumps(entries)}'"
