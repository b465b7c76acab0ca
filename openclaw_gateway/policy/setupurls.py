"""Which addresses a setup code names, in which order, and when there is none that could work (PAIR-11); and which ones
a person at this host is shown.

Pure: what the gateway listens on, what this host is called, and where the request came from, in; the addresses out.
Order: what the person wrote in the request; else the public origin that the request came through, then
``gateway.publicUrl``, then the name under which tailscaled serves the gateway, then this host's LAN addresses, then its
tailnet address.

Invariants: an address that works on this host alone is named only where a person wrote it; plaintext is never named
for a host on the open internet; what cannot be named is refused with the reason and the command that changes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import attrs

from openclaw_gateway.policy.addresses import canonical_ip, is_loopback, is_private_literal
from openclaw_gateway.policy.locality import Peer, host_name, is_loopback_name
from openclaw_gateway.value import Value

__all__ = [
    "MAX_URLS",
    "Reachability",
    "SetupUrls",
    "Unreachable",
    "join_base",
    "proxied_origin",
    "setup_urls",
    "shown_urls",
]

MAX_URLS: Final = 8  # as many as OpenClaw's clients take
MAX_URL_CHARS: Final = 512
_ANY: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}
_LOCAL_SUFFIXES: Final = (".local", ".home.arpa", ".internal", ".lan")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Reachability(Value):
    """Where this gateway can be reached. ``listening``: (address, port) pairs; ``lan``: this host's own addresses."""

    listening: tuple[tuple[str, int], ...]
    lan: tuple[str, ...] = ()
    tailnet: str | None = None
    public_url: str | None = None
    served_url: str | None = None  # https:// address under which tailscaled serves the gateway
    remote_url: str | None = None
    tls: bool = False
    container: bool = False


@attrs.frozen(eq=False, repr=False)
class SetupUrls(Value):
    """``urls``: WebSocket addresses, the best first. ``source``: where the first one comes from, for a person."""

    urls: tuple[str, ...]
    source: str

    @property
    def exposed(self) -> bool:
        """True where the first address sends the code's token in plaintext over a network."""
        return _is_exposed(self.urls[0])

    def sheltered(self) -> SetupUrls:
        """The same without the addresses that send it in plaintext over a network."""
        return SetupUrls(tuple(url for url in self.urls if not _is_exposed(url)), self.source)


@attrs.frozen(eq=False, repr=False)
class Unreachable(Value):
    """Why no code can be made, and the one command that changes it."""

    reason: str
    fix: str


def proxied_origin(peer: Peer | None) -> str | None:
    """The public address that a request came through: a trusted proxy's host; None where nothing stands between."""
    if peer is None or not peer.forwarded or peer.proxied_untrusted or peer.host is None:
        return None
    return f"{'wss' if peer.encrypted else 'ws'}://{peer.host}"


def setup_urls(
    reach: Reachability, *, written: str | None = None, proxied: str | None = None, prefer_remote: bool = False
) -> SetupUrls | Unreachable:
    """The addresses for a code. ``written``: the one that the request names; then it is the only one."""
    if written is not None:
        return _alone(written, "publicUrl")
    if prefer_remote:
        if reach.remote_url is None:
            reason = "gateway.remote.url is not set, and the request prefers it"
            return Unreachable(reason, "openclaw config set gateway.remote.url wss://<host>")
        return _alone(reach.remote_url, "gateway.remote.url")
    found: dict[str, str] = {}
    refused: str | None = None
    named = ((proxied, "trusted proxy"), (reach.public_url, "gateway.publicUrl"), (reach.served_url, "tailscale"))
    for text, source in named:
        url = None if text is None else _websocket_url(text)
        if url is None:
            continue
        if _plain_to_the_world(url):
            refused = refused or url
        else:
            found.setdefault(url, source)
    for url, source in _own_addresses(reach):
        if _plain_to_the_world(url):
            refused = refused or url
        else:
            found.setdefault(url, source)
    if found:
        urls = tuple(found)[:MAX_URLS]
        return SetupUrls(urls, found[urls[0]])
    return _plaintext(refused) if refused is not None else _nowhere(reach)


def shown_urls(reach: Reachability) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Addresses that can be typed in: (at this host, from elsewhere), the nearest first, `MAX_URLS` of each.

    ``0.0.0.0`` and ``::`` stand for addresses and are none: what they stand for is named instead.
    """
    scheme = "wss" if reach.tls else "ws"
    here: dict[str, None] = {}
    for host, port in reach.listening:
        if is_loopback(host) or host in _ANY:
            here[_url(scheme, "127.0.0.1" if host in _ANY else host, port)] = None
    elsewhere = dict.fromkeys(url for url, _ in _own_addresses(reach))
    for text in (reach.served_url, reach.public_url):
        url = _websocket_url(text) if text is not None else None
        if url is not None:
            elsewhere[url] = None
    return tuple(here)[:MAX_URLS], tuple(elsewhere)[:MAX_URLS]


def join_base(urls: Iterable[str]) -> str | None:
    """The HTTP(S) address under which a join URL may be handed out: encrypted, or this host's own; None: none is."""
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme == "wss" or _works_here_alone(parts.hostname or ""):
            scheme = "https" if parts.scheme == "wss" else "http"
            return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    return None


def _alone(text: str, source: str) -> SetupUrls | Unreachable:
    url = _websocket_url(text)
    if url is None:
        return Unreachable(f"{source} is no address such as wss://gateway.example.com", "name a ws:// or wss:// URL")
    return _plaintext(url) if _plain_to_the_world(url) else SetupUrls((url,), source)


def _websocket_url(text: str) -> str | None:
    """``https://Host/path/`` -> ``wss://host/path``; None for what has a user, a query, or is no address."""
    if len(text) > MAX_URL_CHARS or not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text)
        scheme, host, port = _SCHEMES.get(parts.scheme.lower()), parts.hostname, parts.port
    except ValueError:
        return None
    if scheme is None or not host or parts.username is not None or parts.query or parts.fragment:
        return None
    shown = f"[{host}]" if ":" in host else host
    if host_name(shown) is None:
        return None
    default = 443 if scheme == "wss" else 80
    return f"{scheme}://{shown}{'' if port in {None, default} else f':{port}'}{parts.path.rstrip('/')}"


def _own_addresses(reach: Reachability) -> Iterable[tuple[str, str]]:
    scheme = "wss" if reach.tls else "ws"
    where = " (container)" if reach.container else ""
    for host, port in reach.listening:
        address = canonical_ip(host)
        if address is None or is_loopback(host):
            continue
        if str(address) not in _ANY:
            kind = "tailnet" if str(address) == reach.tailnet else "bind"
            yield _url(scheme, str(address), port), f"gateway.{kind}"
            continue
        for own in reach.lan:
            # A listener on 0.0.0.0 has no IPv6 address.
            if own != reach.tailnet and (host == "::" or ":" not in own):
                yield _url(scheme, own, port), f"gateway.bind=lan{where}"
        if reach.tailnet is not None:
            yield _url(scheme, reach.tailnet, port), "tailnet"


def _url(scheme: str, address: str, port: int) -> str:
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def _works_here_alone(host: str) -> bool:
    return is_loopback_name(host) or is_loopback(host)


def _is_tailnet(host: str) -> bool:
    # 100.64.0.0/10 (RFC 6598): what travels there is encrypted by WireGuard.
    address = canonical_ip(host)
    return address is not None and address.version == 4 and int(address) >> 22 == (100 << 2 | 64 >> 6)


def _is_exposed(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "ws" and not _works_here_alone(host) and not _is_tailnet(host)


def _plain_to_the_world(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "wss" or is_loopback_name(host):
        return False
    if canonical_ip(host) is not None:
        return not is_private_literal(host)
    return "." in host and not host.endswith(_LOCAL_SUFFIXES)


def _plaintext(url: str) -> Unreachable:
    reason = f"{url} is plaintext to a host on the open internet; a setup code needs wss:// there"
    return Unreachable(reason, "openclaw config set gateway.publicUrl wss://<host>")


def _nowhere(reach: Reachability) -> Unreachable:
    if any(not is_loopback(host) for host, _ in reach.listening):
        reason = "Gateway listens beyond this host, but no address of this host is known that others could reach"
        return Unreachable(reason, "openclaw config set gateway.publicUrl wss://<host>")
    reason = (
        "Gateway is only bound to loopback, so no other device could reach it: "
        "set gateway.publicUrl, or gateway.bind to lan or tailnet"
    )
    return Unreachable(reason, "openclaw config set gateway.bind lan, then openclaw gateway restart")
