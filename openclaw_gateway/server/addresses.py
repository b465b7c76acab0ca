"""Which addresses a bind mode means on this host, and opening the listening sockets (C2, NET-4).

Owns bind modes and listening sockets. It must not know what is served on them. Linux first: container and tailnet
detection read /proc and the routing table through the socket interface, and fall back to loopback where they cannot.

Invariants: whatever the bind, this host's own commands reach the gateway over loopback (NET-6); ``loopback`` never
opens anything but loopback addresses; what cannot be bound is an error that names address, port and reason, never a
silent other address.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
from pathlib import Path

import attrs

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.errors import GatewayError

__all__ = ["BindFailed", "bind_addresses", "in_container", "open_listening_sockets", "own_tailnet_address"]

_TAILNET = ipaddress.ip_network("100.64.0.0/10")
_TAILNET_RESOLVER = "100.100.100.100"
BACKLOG = 1024


@attrs.define(eq=False)
class BindFailed(GatewayError):
    """An address could not be listened on. ``busy``: somebody else listens there."""

    host: str
    port: int
    reason: str
    busy: bool

    def __str__(self) -> str:
        return f"cannot listen on {self.host}:{self.port}: {self.reason}"


def in_container() -> bool:
    return (
        Path("/.dockerenv").exists() or Path("/run/.containerenv").exists() or "KUBERNETES_SERVICE_HOST" in os.environ
    )


def own_tailnet_address() -> str | None:
    """This host's address in 100.64/10, found by asking which source address a packet to the tailnet would carry;
    nothing is sent.
    """
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((_TAILNET_RESOLVER, 53))
        address = str(probe.getsockname()[0])
        if ipaddress.ip_address(address) in _TAILNET:
            return address
    return None


def bind_addresses(config: GatewayConfig) -> list[str]:
    """The addresses to listen on. Raises `BindFailed` where the mode has none on this host."""
    mode = config.bind
    if mode == "auto":
        mode = "0.0.0.0" if in_container() else "loopback"  # noqa: S104 - NET-7: a published port reaches nothing else
    if mode == "loopback":
        return ["127.0.0.1", "::1"] if _has_ipv6_loopback() else ["127.0.0.1"]
    if mode == "lan":
        return ["0.0.0.0"]  # noqa: S104 - what the mode means; admission guards it
    if mode == "tailnet":
        address = own_tailnet_address()
        if address is None:
            raise BindFailed("tailnet", config.port, "this host has no tailnet address", busy=False)
        return _with_loopback(address)
    if mode == "custom":
        return _with_loopback(config.custom_bind_host or "127.0.0.1")
    return _with_loopback(mode)


def _with_loopback(address: str) -> list[str]:
    """One address of this host, and 127.0.0.1 beside it unless it is a loopback address or stands for all of them."""
    literal = ipaddress.ip_address(address)
    return [address] if literal.is_loopback or literal.is_unspecified else ["127.0.0.1", address]


def _has_ipv6_loopback() -> bool:
    if not socket.has_ipv6:
        return False
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def open_listening_sockets(hosts: list[str], port: int) -> list[socket.socket]:
    """Listen on every host at one port (0: one free port for all). All or nothing. Raises `BindFailed`."""
    opened: list[socket.socket] = []
    try:
        for host in hosts:
            sock = _listen(host, port)
            opened.append(sock)
            port = sock.getsockname()[1]
    except BaseException:
        for sock in opened:
            sock.close()
        raise
    return opened


def _listen(host: str, port: int) -> socket.socket:
    try:
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(info[0], info[1], info[2])
    except OSError as exc:
        raise BindFailed(host, port, exc.strerror or str(exc), busy=False) from exc
    try:
        if os.name != "nt":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if info[0] == socket.AF_INET6:
            # "::" takes IPv4 too; a literal such as ::1 has nothing to share
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        sock.bind(info[4])
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as exc:
        sock.close()
        busy = exc.errno == errno.EADDRINUSE
        reason = "another program listens there" if busy else exc.strerror or str(exc)
        raise BindFailed(host, port, reason, busy=busy) from exc
    return sock
