"""Asking a DNS server for gateways: DNS-SD over unicast (RFC 6763, "wide area").

Owns the questions, their deadlines and limits. It must not know rows or trust. dnspython is imported when the first
question is asked. Invariants: only instances below the asked domain are resolved (their hosts may have any name); at
most `MAX_NAMES` of a type, `MAX_ASKING` at a time, each question within `QUESTION_SECONDS`; nothing that a server
answers raises; an answer that went missing is told as a goodbye.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import trio

from openclaw_gateway.discovery.found import Sighting, SightingKey, read_sighting
from openclaw_gateway.discovery.records import SERVICE_TYPES
from openclaw_gateway.discovery.zone import normal_domain

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver
    from dns.name import Name

__all__ = ["AGAIN_SECONDS", "browse_domain", "read_nameserver"]

MAX_NAMES: Final = 64
MAX_ASKING: Final = 8
QUESTION_SECONDS: Final = 1.5
AGAIN_SECONDS: Final = 15.0
_DNS_PORT: Final = 53


async def browse_domain(
    domain: str,
    tell: Callable[[list[Sighting], list[SightingKey]], None],
    trouble: Callable[[str], None],
    *,
    nameserver: str | None = None,
    clock: Callable[[], float] = time.time,
) -> None:
    """Ask for the gateways of ``domain``, and again every `AGAIN_SECONDS`, until cancelled.

    ``nameserver``: ``HOST``, ``HOST:PORT`` or ``[HOST]:PORT`` (literals), None for the system's own. ``tell`` hears
    answers as they come; ``trouble`` why there are none, once for each reason. Raises ValueError for what is no domain
    or no address.
    """
    zone = normal_domain(domain)
    resolver = _resolver(nameserver)
    before: set[SightingKey] = set()
    told: set[str] = set()
    while True:
        seen: set[SightingKey] = set()
        limiter = trio.CapacityLimiter(MAX_ASKING)
        asked = _Asked(resolver, zone, tell, clock, limiter, seen)
        faults: list[str] = []
        async with trio.open_nursery() as nursery:
            for service_type in SERVICE_TYPES:
                nursery.start_soon(asked.browse, service_type, nursery, faults)
        if len(faults) < len(SERVICE_TYPES):
            if gone := before - seen:
                tell([], sorted(gone))
            before = seen
        elif faults[0] not in told and len(told) < len(SERVICE_TYPES):
            told.add(faults[0])
            trouble(f"{zone} {faults[0]}")
        await trio.sleep(AGAIN_SECONDS)


class _Asked:
    """One round of questions. ``seen`` collects the keys of what answered."""

    def __init__(
        self,
        resolver: Resolver,
        zone: str,
        tell: Callable[[list[Sighting], list[SightingKey]], None],
        clock: Callable[[], float],
        limiter: trio.CapacityLimiter,
        seen: set[SightingKey],
    ) -> None:
        self._resolver = resolver
        self._zone = zone
        self._tell = tell
        self._clock = clock
        self._limiter = limiter
        self._seen = seen

    async def browse(self, service_type: str, nursery: trio.Nursery, faults: list[str]) -> None:
        import dns.name

        base = dns.name.from_text(f"{service_type}.{self._zone}")
        names, fault = await self._ask(base, "PTR")
        if fault is not None:
            faults.append(fault)
        for record in names[:MAX_NAMES]:
            target: Name = record.target
            if len(target) == len(base) + 1 and target.is_subdomain(base):
                nursery.start_soon(self._resolve, service_type, target)

    async def _resolve(self, service_type: str, name: Name) -> None:
        services, _ = await self._ask(name, "SRV")
        if not services:
            return
        service = min(services, key=lambda record: (record.priority, -record.weight))
        texts, _ = await self._ask(name, "TXT")
        txt = b"".join(bytes([len(part)]) + part for part in texts[0].strings) if texts else b""
        addresses: list[str] = []
        for kind in ("A", "AAAA"):
            records, _ = await self._ask(service.target, kind)
            addresses += [record.address for record in records]
        sighting = read_sighting(
            service_type=service_type,
            instance=name.labels[0].decode("utf-8", "replace"),
            domain=self._zone,
            host=service.target.to_text(omit_final_dot=True),
            port=service.port,
            addresses=addresses,
            txt=txt,
            now=self._clock(),
        )
        if sighting is not None:
            self._seen.add(sighting.key)
            self._tell([sighting], [])

    async def _ask(self, name: Name, kind: str) -> tuple[Sequence[Any], str | None]:
        """The records, or none and why."""
        from dns.exception import DNSException
        from dns.resolver import NXDOMAIN, LifetimeTimeout, NoAnswer, NoNameservers

        async with self._limiter:
            try:
                answer = await self._resolver.resolve(
                    name, kind, search=False, lifetime=QUESTION_SECONDS, raise_on_no_answer=False
                )
            except (NXDOMAIN, NoAnswer):
                return (), "is not known to the DNS server that was asked"
            except LifetimeTimeout:
                return (), f"cannot be looked up: no DNS server answered within {QUESTION_SECONDS:g} s"
            except NoNameservers:
                return (), "cannot be looked up: every DNS server refused, failed or cannot be reached"
            except (DNSException, OSError) as error:
                return (), f"cannot be looked up: {type(error).__name__}"
        return list(answer.rrset or ())[:MAX_NAMES], None


def _resolver(nameserver: str | None) -> Resolver:
    from dns.asyncresolver import Resolver
    from dns.resolver import NoResolverConfiguration

    if nameserver is None:
        try:
            return Resolver(configure=True)
        except (NoResolverConfiguration, OSError):
            resolver = Resolver(configure=False)
            resolver.nameservers = ["127.0.0.1"]
            return resolver
    host, port = read_nameserver(nameserver)
    resolver = Resolver(configure=False)
    resolver.nameservers = [host]
    resolver.port = port
    return resolver


def read_nameserver(text: str) -> tuple[str, int]:
    """Address and port. Raises ValueError where it is not an address literal with or without a port."""
    host, port = text.strip(), _DNS_PORT
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        if rest:
            port = _port(rest.removeprefix(":"), text)
    elif host.count(":") == 1:
        host, _, digits = host.partition(":")
        port = _port(digits, text)
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        raise ValueError(f"{text!r} is not the address of a DNS server, such as 100.64.0.9 or 10.0.0.1:5353") from None


def _port(digits: str, text: str) -> int:
    if digits.isascii() and digits.isdecimal() and len(digits) <= 5 and 0 < int(digits) < 65536:
        return int(digits)
    raise ValueError(f"{text!r} has no usable port")
