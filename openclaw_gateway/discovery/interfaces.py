"""Which network interfaces this host has, and being told when that changes.

Owns asking the kernel: rtnetlink(7) on Linux, a look each second elsewhere (macOS has no netlink). It must not know
what an interface is used for. Nothing is sent to any network.

Invariants: `list_interfaces` never raises and never gives more than `MAX_INTERFACES`; an address that is still being
checked for duplicates, has failed or is running out is not given; `watch_interfaces` reports a change within
`POLL_SECONDS` + `SETTLE_SECONDS`, a storm of changes as few reports, and holds nothing but one socket.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Final

import attrs
import trio

from openclaw_gateway.value import Value

__all__ = ["MAX_INTERFACES", "Interface", "list_interfaces", "watch_interfaces"]

MAX_INTERFACES: Final = 64
MAX_ADDRESSES: Final = 16  # of one interface
POLL_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 0.15  # a cable that is plugged in changes link and addresses in a row
_LONGEST_STORM_SECONDS: Final = 0.6

# linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
_GETLINK, _NEWLINK, _GETADDR, _NEWADDR, _ERROR, _DONE = 18, 16, 22, 20, 2, 3
_REQUEST_DUMP: Final = 0x1 | 0x300
_IFLA_IFNAME, _IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 3, 1, 2, 8
_UNUSABLE: Final = 0x01 | 0x08 | 0x20 | 0x40  # temporary, failed, deprecated, tentative
_UP, _LOOPBACK, _POINT_TO_POINT, _RUNNING, _MULTICAST = 0x1, 0x8, 0x10, 0x40, 0x1000
_GROUPS: Final = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Interface(Value):
    """``addresses``: (canonical text without zone, prefix length), IPv4 first, in the kernel's order. ``up``: switched
    on and with a carrier.
    """

    name: str
    index: int
    up: bool
    multicast: bool
    loopback: bool = False
    point_to_point: bool = False
    addresses: tuple[tuple[str, int], ...] = ()


def list_interfaces() -> tuple[Interface, ...]:
    """Every interface now. Blocks for well under a millisecond on Linux; () where the system does not tell."""
    try:
        found = _from_netlink() if sys.platform == "linux" else _from_ifaddr()
    except (OSError, struct.error, ValueError):
        return ()
    return tuple(found[:MAX_INTERFACES])


# --- Linux


def _from_netlink() -> list[Interface]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(1.0)
        sock.bind((0, 0))
        links: dict[int, tuple[str, int]] = {}
        for body in _dump(sock, _GETLINK, _NEWLINK):
            index, flags = struct.unpack_from("=iI", body, 4)
            name = dict(_attributes(body[16:])).get(_IFLA_IFNAME, b"")
            links[index] = (name.rstrip(b"\0").decode("utf-8", "replace"), flags)
        addresses: dict[int, list[tuple[str, int]]] = {}
        for body in _dump(sock, _GETADDR, _NEWADDR):
            family, prefix, short_flags = struct.unpack_from("=BBB", body)
            (index,) = struct.unpack_from("=I", body, 4)
            row = dict(_attributes(body[8:]))
            (flags,) = struct.unpack("=I", row[_IFA_FLAGS]) if _IFA_FLAGS in row else (short_flags,)
            raw = row.get(_IFA_LOCAL) or row.get(_IFA_ADDRESS, b"")
            unusable = family == socket.AF_INET6 and flags & _UNUSABLE
            if len(raw) in {4, 16} and not unusable:
                addresses.setdefault(index, []).append((str(ipaddress.ip_address(raw)), prefix))
    return [_interface(index, name, flags, addresses.get(index, [])) for index, (name, flags) in links.items()]


def _dump(sock: socket.socket, question: int, answer: int) -> Iterator[bytes]:
    sock.send(struct.pack("=IHHIIBxxxIII", 32, question, _REQUEST_DUMP, 1, 0, socket.AF_UNSPEC, 0, 0, 0))
    while True:
        data = sock.recv(1 << 17)
        at = 0
        while at + 16 <= len(data):
            length, kind = struct.unpack_from("=IH", data, at)
            if kind in {_DONE, _ERROR} or length < 16:
                return
            if kind == answer:
                yield data[at + 16 : at + length]
            at += (length + 3) & ~3


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _interface(index: int, name: str, flags: int, addresses: list[tuple[str, int]]) -> Interface:
    return Interface(
        name=name,
        index=index,
        up=bool(flags & _UP and flags & _RUNNING),
        multicast=bool(flags & _MULTICAST),
        loopback=bool(flags & _LOOPBACK),
        point_to_point=bool(flags & _POINT_TO_POINT),
        addresses=tuple(sorted(addresses, key=lambda row: ":" in row[0]))[:MAX_ADDRESSES],
    )


# --- elsewhere


def _from_ifaddr() -> list[Interface]:
    import ifaddr  # comes with zeroconf; reads getifaddrs(3), which tells no flags

    found = []
    for adapter in ifaddr.get_adapters():
        rows = []
        for row in adapter.ips:
            text = row.ip if isinstance(row.ip, str) else row.ip[0]
            rows.append((str(ipaddress.ip_address(text.partition("%")[0])), row.network_prefix))
        loopback = bool(rows) and all(ipaddress.ip_address(text).is_loopback for text, _ in rows)
        inner = adapter.name.startswith(("utun", "tun", "ppp", "gif", "stf", "awdl", "llw"))
        flags = _UP | _RUNNING | (_LOOPBACK if loopback else _MULTICAST) | (_POINT_TO_POINT if inner else 0)
        found.append(_interface(adapter.index or 0, adapter.name, flags, rows))
    return found


# --- being told


async def watch_interfaces(
    look: Callable[[], tuple[Interface, ...]] = list_interfaces,
) -> AsyncGenerator[tuple[Interface, ...], None]:
    """The interfaces now, and again whenever they differ. Never ends; close it (``contextlib.aclosing``).

    Cancelling is safe anywhere. Where the kernel tells nothing it is asked each `POLL_SECONDS`.
    """
    before = look()
    events = _netlink_events()
    try:
        yield before
        while True:
            await _wait_change(events)
            now = look()
            if now != before:
                before = now
                yield now
    finally:
        if events is not None:
            events.close()


def _netlink_events() -> trio.socket.SocketType | None:
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError):
        sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        try:
            sock.bind((0, _GROUPS))
            return trio.socket.from_stdlib_socket(sock)
        except OSError:
            sock.close()
            raise
    return None


async def _wait_change(events: trio.socket.SocketType | None) -> None:
    if events is None:
        await trio.sleep(POLL_SECONDS)
        return
    await _receive(events)
    with trio.move_on_after(_LONGEST_STORM_SECONDS):
        quiet = False
        while not quiet:
            with trio.move_on_after(SETTLE_SECONDS) as silence:
                await _receive(events)
            quiet = silence.cancelled_caught


async def _receive(events: trio.socket.SocketType) -> None:
    try:
        await events.recv(1 << 16)
    except OSError as error:
        if error.errno != errno.ENOBUFS:  # the kernel dropped reports; something changed, and that is all we ask
            raise

