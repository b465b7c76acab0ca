"""What was found: many answers of many interfaces, types and domains become one row per gateway.

Pure. Owns cleaning an answer, merging, the verdicts about a row, and what changed. It must not know where answers come
from (multicast, a DNS server, a test) nor print them. Sources: RFC 6763 (DNS-SD), attack V39 (what is discovered steers
nothing by itself).

Invariants: any answer gives a `Sighting` or None, never an exception, and holds no control, format or bidirectional
character; at most `MAX_INSTANCES` sightings are kept, and a flood of strangers takes no place from a gateway that
proves to be a known one; a row whose signature holds is made of signed answers alone, so that nobody adds an address to
it; the rows do not depend on the order of the answers; the changes told, applied in order, give the rows.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import attrs

from openclaw_gateway.discovery.beacon import verify_beacon
from openclaw_gateway.discovery.records import (
    LOCAL_DOMAIN,
    MAX_TEXT,
    OPENCLAW_TYPE,
    SERVICE_TYPES,
    Advert,
    clean_text,
    decode_txt,
    read_advert,
    stable_id,
)
from openclaw_gateway.value import Value

__all__ = [
    "MAX_ADDRESSES",
    "MAX_INSTANCES",
    "Change",
    "FoundGateway",
    "Known",
    "Reach",
    "Sighting",
    "SightingKey",
    "Signature",
    "Table",
    "Trust",
    "judge",
    "read_sighting",
]

MAX_INSTANCES: Final = 256
MAX_ADDRESSES: Final = 8
_MAX_ANSWERED: Final = 64  # addresses of one answer that are looked at
_MAX_NAME: Final = 255  # RFC 1035: a whole name

Signature = Literal["signed", "unsigned", "expired", "forged"]
Trust = Literal["paired", "different-key", "unknown"]
SightingKey = tuple[str, str, str]  # domain, service type, instance


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Sighting(Value):
    """One instance of one service type in one domain. ``instance`` is the label as announced (the key of a goodbye, and
    what a beacon signs), everything else is clean. ``signer``: the device id whose signature holds, else None; then
    ``signature`` is ``signed``, whoever that is.
    """

    service_type: str
    instance: str
    domain: str
    host: str  # without the last dot, lower case
    port: int
    addresses: tuple[str, ...]
    txt: Mapping[str, str] = attrs.field(eq=False)
    advert: Advert
    signature: Signature = "unsigned"
    signer: str | None = None

    @property
    def key(self) -> SightingKey:
        return (self.domain, self.service_type, self.instance)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Reach(Value):
    """What a probe saw at one address. ``fingerprint``: hex SHA-256 of the certificate; ``ms``: until the answer."""

    ok: bool
    address: str
    ms: int | None = None
    fingerprint: str | None = None
    fault: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Known(Value):
    """A gateway that this side has met before: by the key of its identity, its certificate, its URL, or several.
    ``source`` says where that is kept and may be shown.
    """

    device_id: str | None = None
    tls_sha256: str | None = None
    url: str | None = None
    source: str = ""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class FoundGateway(Value):
    """One gateway. ``trust`` says what this side knows about it: ``paired`` was proved by a key, everything else here
    is a claim of the network. ``known`` is the acquaintance that it is, or only pretends to be.
    """

    key: str
    name: str
    instance: str
    host: str
    port: int
    addresses: tuple[str, ...]
    domains: tuple[str, ...]
    service_types: tuple[str, ...]
    advert: Advert
    txt: Mapping[str, str]
    signature: Signature
    signer: str | None
    trust: Trust = "unknown"
    known: Known | None = None
    reach: Reach | None = None

    @property
    def tls(self) -> bool:
        """Also where only the fingerprint is said: the signature covers that, not the word before it."""
        return self.advert.tls or self.advert.tls_sha256 is not None

    @property
    def id(self) -> str | None:
        """The stable id: proved where the signature holds, otherwise a claim."""
        return stable_id(self.signer) if self.signer is not None else self.advert.id

    @property
    def address(self) -> str | None:
        """Where it answered, else the best of its addresses."""
        if self.reach is not None and self.reach.ok:
            return self.reach.address
        return self.addresses[0] if self.addresses else None

    @property
    def url(self) -> str:
        """``ws://`` or ``wss://`` by number where it has one; `ws_url` has the name that it announces."""
        return _url(self.tls, self.address or self.host, self.port)

    @property
    def ws_url(self) -> str:
        return _url(self.tls, self.host, self.port)


@attrs.frozen(eq=False, repr=False)
class Change(Value):
    kind: Literal["added", "changed", "removed"]
    gateway: FoundGateway


def read_sighting(
    *, service_type: str, instance: str, domain: str, host: str, port: int, addresses: Iterable[str], txt: bytes,
    now: float,
) -> Sighting | None:  # fmt: skip
    """An answer as it came, or None where it is no gateway: another type, no port, no host. Total; ``now`` in Unix
    seconds, for the age of a signature.
    """
    if service_type not in SERVICE_TYPES or not 0 < port < 65536 or not instance or len(instance) > _MAX_NAME:
        return None
    target = clean_text(host[:_MAX_NAME]).rstrip(".").lower()
    if not target or " " in target:
        return None
    pairs = decode_txt(txt)
    advert = read_advert(pairs)
    signature, signer = _verified(advert, instance, port, now)
    return Sighting(
        service_type=service_type,
        instance=instance,
        domain=_domain(domain),
        host=target,
        port=port,
        addresses=_addresses(addresses),
        txt={clean_text(key): clean_text(value)[:MAX_TEXT] for key, value in pairs.items()},
        advert=advert,
        signature=signature,
        signer=signer,
    )


def _verified(advert: Advert, instance: str, port: int, now: float) -> tuple[Signature, str | None]:
    verdict = verify_beacon(advert.beacon, instance=instance, port=port, tls_sha256=advert.tls_sha256, now=now)
    if verdict.word not in {"signed", "verified"} or verdict.device_id is None:
        return ("expired" if verdict.word == "expired" else "forged" if verdict.word == "forged" else "unsigned"), None
    if advert.id not in {None, stable_id(verdict.device_id)}:
        return "forged", None  # a key that speaks under another's id
    return "signed", verdict.device_id


def _domain(text: str) -> str:
    return clean_text(text[:_MAX_NAME]).strip(".").lower() + "."


def _addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """Usable ones, IPv4 first, link-local last; no loopback, multicast or unspecified address (V39)."""
    ranked: set[tuple[int, int, int, str]] = set()
    for number, text in enumerate(texts):
        if number >= _MAX_ANSWERED:
            break
        try:
            literal = ipaddress.ip_address(text)
        except ValueError:
            continue
        mapped = getattr(literal, "ipv4_mapped", None)
        plain = mapped or literal
        unfit = plain.is_loopback or plain.is_multicast or plain.is_unspecified or str(plain) == "255.255.255.255"
        if not unfit:
            ranked.add((int(plain.is_link_local), plain.version, int(plain), clean_text(str(plain))))
    return tuple(row[-1] for row in sorted(ranked)[:MAX_ADDRESSES])


def _url(tls: bool, host: str, port: int) -> str:
    return f"{'wss' if tls else 'ws'}://{f'[{host}]' if ':' in host else host}:{port}"


class Table:
    """All sightings and the rows made of them. ``known``: whom this side has met; ``limit``: sightings kept.

    ``dropped`` counts answers that found no place.
    """

    def __init__(self, known: Iterable[Known] = (), *, limit: int = MAX_INSTANCES) -> None:
        self._known = tuple(known)
        self._known_ids = {entry.device_id for entry in self._known if entry.device_id is not None}
        self._limit = limit
        self._sightings: dict[SightingKey, Sighting] = {}
        self._reach: dict[tuple[str, int], Reach] = {}
        self._rows: dict[str, FoundGateway] = {}
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._sightings)

    @property
    def gateways(self) -> tuple[FoundGateway, ...]:
        """By name, known ones first."""
        return tuple(sorted(self._rows.values(), key=lambda row: (row.trust == "unknown", row.name.lower(), row.key)))

    def update(self, seen: Iterable[Sighting] = (), lost: Iterable[SightingKey] = ()) -> list[Change]:
        """Take in answers and goodbyes (a goodbye counts before an answer of the same call)."""
        for key in lost:
            self._sightings.pop(key, None)
        for sighting in seen:
            if sighting.key in self._sightings or len(self._sightings) < self._limit or self._make_room(sighting):
                self._sightings[sighting.key] = sighting
            else:
                self.dropped += 1
        return self._rebuild()

    def reached(self, found: Reach, port: int) -> list[Change]:
        """Take in what a probe saw at ``found.address`` and ``port``. Forgotten when no row has that address."""
        self._reach[(found.address, port)] = found
        return self._rebuild()

    def _make_room(self, sighting: Sighting) -> bool:
        """A gateway that proves to be a known one pushes the last stranger out."""
        if sighting.signer not in self._known_ids:
            return False
        for key in reversed(self._sightings):
            if self._sightings[key].signer not in self._known_ids:
                del self._sightings[key]
                self.dropped += 1
                return True
        return False

    def _rebuild(self) -> list[Change]:
        groups = _grouped(self._sightings.values())
        live = {(address, one.port) for one in self._sightings.values() for address in one.addresses}
        self._reach = {endpoint: reach for endpoint, reach in self._reach.items() if endpoint in live}
        rows = {key: self._row(key, group) for key, group in groups.items()}
        before, self._rows = self._rows, rows
        gone = [Change("removed", row) for key, row in before.items() if key not in rows]
        fresh = [Change("added", row) for key, row in rows.items() if key not in before]
        other = [Change("changed", row) for key, row in rows.items() if key in before and before[key] != row]
        return gone + fresh + other

    def _row(self, key: str, group: Sequence[Sighting]) -> FoundGateway:
        first = group[0]
        advert = _merged([one.advert for one in group])
        addresses = _addresses(address for one in group for address in one.addresses)
        reach = self._best_reach(addresses, first.port, first.advert.tls_sha256)
        row = FoundGateway(
            key=key,
            name=advert.display_name or clean_text(first.instance)[:MAX_TEXT] or first.host,
            instance=clean_text(first.instance)[:MAX_TEXT],
            host=first.host,
            port=first.port,
            addresses=addresses,
            domains=tuple(dict.fromkeys(one.domain for one in group)),
            service_types=tuple(dict.fromkeys(one.service_type for one in group)),
            advert=advert,
            txt={name: value for one in reversed(group) for name, value in one.txt.items()},
            signature=first.signature,
            signer=first.signer,
            reach=reach,
        )
        trust, known = judge(row, self._known)
        return attrs.evolve(row, trust=trust, known=known)

    def _best_reach(self, addresses: Sequence[str], port: int, pin: str | None) -> Reach | None:
        """That of the announced certificate before any other: anybody can add an address that answers."""
        seen = [self._reach[(address, port)] for address in addresses if (address, port) in self._reach]
        seen.sort(key=lambda reach: (not reach.ok, pin is not None and reach.fingerprint != pin))
        return seen[0] if seen else None


def judge(row: FoundGateway, known: Sequence[Known]) -> tuple[Trust, Known | None]:
    """What ``row`` is to this side. ``paired`` needs a proof: a signature by the kept key, or the kept certificate seen
    at its address. ``different-key``: says it is, or stands where, a known one does, and has another key.
    """
    fingerprint = row.reach.fingerprint if row.reach is not None else None
    signed_by = next((one for one in known if one.device_id is not None and one.device_id == row.signer), None)
    if signed_by is not None:
        # A kept pin is never overridden by an announced one, and the signature covers the announced one: whoever shows
        # another certificate repeats what the known gateway said.
        pin = signed_by.tls_sha256 or row.advert.tls_sha256
        if pin is not None and {row.advert.tls_sha256, fingerprint} - {None, pin}:
            return "different-key", signed_by
        return "paired", signed_by
    for one in known:
        if one.tls_sha256 is not None and one.tls_sha256 == fingerprint:
            return "paired", one
    places = {row.ws_url, *(_url(row.tls, address, row.port) for address in row.addresses)}
    for one in known:
        same_id = one.device_id is not None and row.id == stable_id(one.device_id)
        same_pin = one.tls_sha256 is not None and row.advert.tls_sha256 == one.tls_sha256
        same_place = one.url is not None and one.url in places
        other_signer = row.signer is not None and one.device_id is not None
        other_pin = one.tls_sha256 is not None and fingerprint is not None
        broken = row.signature == "forged" and same_id
        if (same_id or same_pin or same_place) and (other_signer or other_pin or broken):
            return "different-key", one
    return "unknown", None


def _grouped(sightings: Iterable[Sighting]) -> dict[str, list[Sighting]]:
    """Row key → its sightings, best first. Those with an id by id, port, pin and whether it is proved; those without
    one by host and port, beside an unsigned gateway of the same host and port where there is exactly one."""
    groups: dict[str, list[Sighting]] = {}
    nameless: list[Sighting] = []
    places: dict[tuple[str, int], set[str]] = {}
    for one in sorted(sightings, key=_rank):
        if one.signer is None and one.advert.id is None:
            nameless.append(one)
            continue
        claimed = one.signer or f"{one.advert.id}?{one.signature}"
        key = f"{claimed}:{one.port}:{one.advert.tls_sha256 or ''}"
        groups.setdefault(key, []).append(one)
        if one.signer is None:
            places.setdefault((one.host, one.port), set()).add(key)
    for one in nameless:
        beside = places.get((one.host, one.port), set())
        key = next(iter(beside)) if len(beside) == 1 else f"{one.host}:{one.port}"
        groups.setdefault(key, []).append(one)
    return groups


def _rank(one: Sighting) -> tuple[object, ...]:
    return (one.domain != LOCAL_DOMAIN, one.service_type != OPENCLAW_TYPE, one.domain, one.instance)


def _merged(adverts: Sequence[Advert]) -> Advert:
    """The first that says something, field by field."""
    said = {}
    for field in attrs.fields(Advert):
        values = [getattr(one, field.name) for one in adverts]
        said[field.name] = next((value for value in values if value), values[0])
    return Advert(**said)
