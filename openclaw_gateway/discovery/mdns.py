"""What is announced, by python-zeroconf: one responder for each network, all in one asyncio loop.

Runs in the discovery thread only (`discovery.mdnsthread`); importing it costs 5 MB, so nothing else imports it. Owns
the zeroconf instances. It must not know Trio, configuration, or why an announcement changes.

One instance for each network, because an instance says everything it knows on every network it is on, and RFC 6762
section 6.2 forbids to tell the addresses of one interface on another. Each is made deaf to the other networks (bound to
its device, ``IP_MULTICAST_ALL`` off), so one network's questions are not answered on the next.

Invariants: after `Announcer.announce` exactly the given claims are announced; what is left out was taken back with a
goodbye (RFC 6762 section 10.1); a network that fails does not hinder the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Awaitable, Iterable
from typing import Final

import attrs
from zeroconf import IPVersion, ServiceInfo, Zeroconf
from zeroconf.asyncio import AsyncZeroconf

from openclaw_gateway.discovery.claims import Claim, Place
from openclaw_gateway.discovery.lans import Lan
from openclaw_gateway.discovery.linkonly import hear_link_only

__all__ = ["Announcer"]

_IP_MULTICAST_ALL: Final = 49  # linux/in.h
_IPV6_MULTICAST_ALL: Final = 29  # linux/in6.h
_START_SECONDS: Final = 3.0


@attrs.define(eq=False)
class _Responder:
    """One network's responder and what it says."""

    claim: Claim
    zeroconf: AsyncZeroconf
    infos: list[ServiceInfo]
    broadcasts: list[asyncio.Future[None]] = attrs.field(factory=list)


class Announcer:
    """Not safe for overlapping calls: whoever calls waits for the end of one before the next."""

    def __init__(self) -> None:
        self._responders: dict[Place, _Responder] = {}
        # What is worth saying comes out as an error of `announce`; zeroconf's own lines would repeat it.
        logging.getLogger("zeroconf").setLevel(logging.CRITICAL)

    async def announce(self, claims: Iterable[Claim]) -> dict[str, str]:
        """Announce exactly these. Returns what failed: interface → reason; () of claims takes everything back, which
        takes a quarter of a second.
        """
        wanted = {claim.place: claim for claim in claims}
        gone = [self._responders.pop(place) for place in list(self._responders) if place not in wanted]
        await asyncio.gather(*(_close(responder) for responder in gone))
        failed: dict[str, str] = {}
        for place, claim in wanted.items():
            try:
                await self._say(place, claim)
            except Exception as error:  # noqa: BLE001  zeroconf's errors share no base; the caller tells and tries again
                failed[claim.lan.interface] = _reason(error)
        return failed

    async def _say(self, place: Place, claim: Claim) -> None:
        responder = self._responders.get(place)
        if responder is None:
            self._responders[place] = await _open(claim)
        elif responder.claim != claim:
            responder.infos = _infos(claim)
            for info in responder.infos:
                responder.broadcasts.append(_kept(await responder.zeroconf.zeroconf.async_update_service(info)))
            responder.claim = claim  # not before: what failed is said again at the next try
        if (responder := self._responders.get(place)) is not None:
            responder.broadcasts = [task for task in responder.broadcasts if not task.done()]


def _kept(broadcast: Awaitable[None]) -> asyncio.Future[None]:
    task = asyncio.ensure_future(broadcast)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # a send that fails shows in the look
    return task


async def _open(claim: Claim) -> _Responder:
    zeroconf = AsyncZeroconf(zc=_instance(claim.lan))
    try:
        await zeroconf.zeroconf.async_wait_for_start(_START_SECONDS)
        if not zeroconf.zeroconf.engine.senders:
            raise OSError(f"{claim.lan.interface} does not take part in multicast")
        for reader in zeroconf.zeroconf.engine.readers:
            _deafen(reader.sock, claim.lan.interface)
            hear_link_only(reader.sock)
        responder = _Responder(claim, zeroconf, _infos(claim))
        for info in responder.infos:
            # The name was asked for before (discovery.look), in a way that knows its own echo.
            sent = await zeroconf.zeroconf.async_register_service(info, cooperating_responders=True)
            responder.broadcasts.append(_kept(sent))
    except BaseException:
        await zeroconf.async_close()
        raise
    return responder


def _instance(lan: Lan) -> Zeroconf:
    interfaces: list[str | int] = []
    if lan.speak4 is not None:
        interfaces.append(lan.speak4)
    if lan.speak6 or lan.speak4 is None:
        interfaces.append(lan.index)
    both = len(interfaces) == 2
    version = IPVersion.All if both else IPVersion.V6Only if lan.speak4 is None else IPVersion.V4Only
    return Zeroconf(interfaces=interfaces, ip_version=version, use_asyncio=True)


def _deafen(sock: socket.socket, interface: str) -> None:
    """Let ``sock`` hear its own network only."""
    if sys.platform == "linux":
        # Of two sockets on the port that take no other groups Linux 6.18 gives a packet to one, now and then the wrong
        # one (tests/discovery: each network hears its own address); bound to its device neither can get the other's.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)
        if sock.family == socket.AF_INET6:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)


def _infos(claim: Claim) -> list[ServiceInfo]:
    return [
        ServiceInfo(
            said.type_name,
            said.full_name,
            port=claim.port,
            properties=said.txt,
            server=claim.server,
            parsed_addresses=list(claim.lan.addresses),
        )
        for said in claim.services
    ]


async def _close(responder: _Responder) -> None:
    for task in responder.broadcasts:
        task.cancel()
    with contextlib.suppress(Exception):  # an interface that is gone cannot be told goodbye
        await responder.zeroconf.async_close()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        import errno

        if error.errno == errno.EADDRINUSE:
            return "UDP port 5353 is taken by a program that does not share it"
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"
