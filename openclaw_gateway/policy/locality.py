"""Where a connection comes from: its address, whether a proxy stands between, and whether it is truly of this host.

Pure: a socket address, the request's headers and the rules in; one `Peer` out. Invariants: local means a loopback peer,
a loopback Host and no forwarding header of any kind (V13); a loopback value out of X-Forwarded-For is never local
(V35); headers of a proxy that is not trusted attribute nothing and refuse nothing (PROXY-1). One header attributes, the
one that the configuration says the proxies write (X-Forwarded-For unless told otherwise): a proxy that writes one may
well pass on the other as the client made it up. What cannot be read ends the walk: everything left of it was written
by nobody we know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import attrs

from openclaw_gateway.policy.addresses import NO_NETWORKS, NetworkSet, canonical_text, is_loopback, limiter_key
from openclaw_gateway.policy.forwarded import UNKNOWN, UNREADABLE, ForwardedHop, hop_address, parse_forwarded
from openclaw_gateway.policy.network import DIRECT, Arrival
from openclaw_gateway.policy.tailnet import TailnetClaim
from openclaw_gateway.policy.vouching import Vouched
from openclaw_gateway.value import Value

__all__ = [
    "ClientHeader",
    "Peer",
    "PeerRules",
    "describe_peer",
    "host_name",
    "is_loopback_name",
    "is_trusted_proxy",
    "trusted_proxies_hint",
]

ClientHeader = Literal["x-forwarded-for", "forwarded"]

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
_HOST: Final = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(\d{1,5}))?")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PeerRules(Value):
    """What the configuration says about proxies. ``marks``: header names (lower case) that only a proxy has reason to
    send, beside those that are known everywhere.
    """

    trusted_proxies: NetworkSet = NO_NETWORKS
    client_header: ClientHeader = "x-forwarded-for"
    marks: frozenset[bytes] = frozenset()


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
    arrival: Arrival = DIRECT  # the listener it came in on, and how
    attributed: bool = False  # a trusted proxy said on whose behalf: `client_address` is not the proxy's own word
    tailnet: TailnetClaim | None = None  # whom tailscaled named, through its own listener; whois has not been asked yet
    vouched: Vouched | None = None  # the person a proxy or the tailnet vouches for; the shell asks and fills it in
    # What trusted proxies said, from the nearest to the client; `UNKNOWN` where one cannot be read, `UNREADABLE` alone
    # where the header cannot.
    way: tuple[str, ...] = ()


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

    def __init__(self, headers: Iterable[tuple[bytes, bytes]], marks: frozenset[bytes]) -> None:
        self._values: dict[bytes, list[str]] = {}
        self.forwarded = False
        for raw_name, value in headers:
            name = raw_name.lower()
            self._values.setdefault(name, []).append(value.decode("latin-1").strip())
            # Proxies of every kind mark what they pass on; one mark is enough not to believe that nobody is between.
            known = name in _FORWARDING or name.startswith(_FORWARDING_PREFIXES) or name.endswith(_FORWARDING_ENDINGS)
            if known or name in marks:
                self.forwarded = True

    def all(self, name: bytes) -> list[str]:
        return self._values.get(name, [])

    def single(self, name: bytes) -> str | None:
        """The value of a header that was sent exactly once."""
        values = self.all(name)
        return values[0] if len(values) == 1 else None

    def listed(self, name: bytes) -> list[str]:
        return [item.strip() for value in self.all(name) for item in value.split(",") if item.strip()]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class _Attribution(Value):
    """What trusted proxies said. ``address`` is the client's; None: nothing that can be read."""

    address: str | None = None
    https: bool = False
    host: str | None = None
    way: tuple[str, ...] = ()


def describe_peer(
    socket_peer: str | None,
    headers: Iterable[tuple[bytes, bytes]],
    rules: PeerRules,
    *,
    tls: bool = False,
    arrival: Arrival = DIRECT,
) -> Peer:
    """``socket_peer`` is the peer's IP address without port (None: a transport without addresses, never local)."""
    seen = _Headers(headers, rules.marks)
    address = canonical_text(socket_peer or "")
    forwarded = seen.forwarded or arrival.relayed
    # What comes in through the listener that tailscale was pointed at, tailscaled wrote the headers of.
    tailscaled = arrival.provenance in {"tailscale-serve", "tailscale-funnel"} and is_loopback(address)
    trusted = seen.forwarded and (tailscaled or is_trusted_proxy(address, arrival, rules))
    said = _Attribution(host=seen.single(b"host"))
    if trusted:
        read = _by_forwarded if rules.client_header == "forwarded" and not tailscaled else _by_x_forwarded
        said = read(seen, rules)
    client = said.address or address
    key = limiter_key(client)
    if forwarded and is_loopback(client):
        # Whoever comes through a proxy on this host must not share the account of those who sit at it (V35).
        key = f"forwarded:{key}"
    own_name = host_name((seen.single(b"host") or "").lower())
    return Peer(
        address=address,
        client_address=client,
        limiter_key=key,
        forwarded=forwarded,
        proxied_untrusted=seen.forwarded and not trusted,
        direct_loopback=(
            not forwarded and is_loopback(address) and own_name is not None and is_loopback_name(own_name)
        ),
        encrypted=tls or arrival.encrypted or said.https,
        host=_usable_host(said.host),
        origin=_origin(seen.all(b"origin")),
        user_agent=_printable((seen.all(b"user-agent") or [""])[0]),
        arrival=arrival,
        attributed=said.address is not None and not is_loopback(said.address),
        way=said.way,
    )


def is_trusted_proxy(address: str, arrival: Arrival, rules: PeerRules) -> bool:
    """Whether HTTP headers from ``address`` (canonical, of the connection) are a trusted proxy's.

    Where bytes were relayed (a tunnel, a PROXY header) nobody read them on the way, so the relaying end has no word of
    its own: its address, and every loopback address, may stand for whoever reached it.
    """
    if arrival.relayed and (is_loopback(address) or address == canonical_text(arrival.proxy or "")):
        return False
    return address in rules.trusted_proxies


def _walk(hops: Sequence[str], rules: PeerRules) -> tuple[str, ...]:
    """From the right to the first hop that is no trusted proxy, that one included (PROXY-3). `UNKNOWN` at the end where
    the walk ended before the client: at what cannot be read, after too many hops, or where there are none.
    """
    way: list[str] = []
    for hop in hops[: -MAX_HOPS - 1 : -1]:
        way.append(hop)
        if hop not in rules.trusted_proxies:  # what cannot be read is in no network
            return tuple(way)
    return tuple(way) if way and len(hops) <= MAX_HOPS else (*way, UNKNOWN)


def _client(way: tuple[str, ...]) -> str | None:
    """The last address on the way; None: not even one could be read."""
    return next((hop for hop in reversed(way) if hop != UNKNOWN), None)


def _by_x_forwarded(seen: _Headers, rules: PeerRules) -> _Attribution:
    last = seen.listed(b"x-forwarded-for")[-MAX_HOPS - 1 :]  # one more than is walked tells that there are too many
    way = _walk([hop_address(hop) for hop in last], rules)
    host = seen.single(b"x-forwarded-host") if seen.all(b"x-forwarded-host") else seen.single(b"host")
    https = _https_all_the_way(seen.listed(b"x-forwarded-proto"))
    return _Attribution(address=_client(way), https=https, host=host, way=way)


def _by_forwarded(seen: _Headers, rules: PeerRules) -> _Attribution:
    """The pairs that trusted proxies wrote, and no others: those right of the client's element, and its own."""
    parsed = parse_forwarded(seen.all(b"forwarded"))
    if parsed is None:
        return _Attribution(host=seen.single(b"host"), way=(UNREADABLE,))
    hops: tuple[ForwardedHop, ...] = parsed
    way = _walk([hop.address for hop in hops], rules)
    read = sum(hop != UNKNOWN for hop in way)
    ours = hops[len(hops) - read :]
    named = next((hop.host for hop in ours if hop.host is not None), None)
    return _Attribution(
        address=_client(way),
        way=way,
        https=bool(ours) and _https_all_the_way([hop.proto or "" for hop in ours]),
        host=named if named is not None else seen.single(b"host"),
    )


def _usable_host(host: str | None) -> str | None:
    lowered = (host or "").lower()
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
