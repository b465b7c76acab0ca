"""Who may reach which listener, and what a connection that came in through it may do at most.

Pure: addresses and rules in, verdicts out. Owns the allow and deny lists that are asked before TLS and before a byte is
read, the ceilings of a listener, and `Arrival`, the record of how a connection came in. It must not know sockets.

Invariants: deny outranks allow; a list of allowed networks that is there means that nobody else comes in, an address
that cannot be read included; a v4-mapped spelling is the IPv4 address (V14), which no list can be slipped past with,
and an IPv4 address that is denied is denied behind a translator too (NAT64, 6to4), where nothing is allowed by it; the
lists hold for whom a trusted proxy speaks for as they do for a socket, what it says that cannot be read is on no allow
list, and where a client may have made it so (a broken Forwarded header) it passes no deny list either; a ceiling only
takes away; provenance is a fact about the listener and never read from what a peer sent (V36, V37).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, TypeVar

import attrs

from openclaw_gateway.policy.addresses import NO_NETWORKS, NetworkSet, carried_ipv4
from openclaw_gateway.policy.forwarded import UNREADABLE
from openclaw_gateway.protocol.errors import WireError, wire_error
from openclaw_gateway.protocol.scopes import KNOWN_OPERATOR_SCOPES, satisfies
from openclaw_gateway.value import Value

__all__ = [
    "DIRECT",
    "NO_CEILING",
    "OPEN",
    "Arrival",
    "Ceiling",
    "ListenerAuth",
    "NetworkRules",
    "Provenance",
    "beyond_ceiling",
    "under_ceiling",
]

Provenance = Literal["direct", "tailscale-serve", "tailscale-funnel", "tunnel"]
ListenerAuth = Literal["token", "password", "none", "trusted-proxy"]

DENIED: Final = "its address is on the deny list"
HIDDEN: Final = "its address cannot be read, and there is a deny list"
NOT_ALLOWED: Final = "its address is not on the allow list"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NetworkRules(Value):
    """The addresses that may connect at all. ``allow`` empty: everybody who is not denied. ``within``: an outer allow
    list that has to be passed as well.
    """

    allow: NetworkSet = NO_NETWORKS
    deny: NetworkSet = NO_NETWORKS
    within: NetworkSet | None = None

    @property
    def open(self) -> bool:
        """Whether there is nothing to ask."""
        return not (self.allow.networks or self.deny.networks or self.within is not None)

    def refusal(self, address: str) -> str | None:
        """Why ``address`` (of the peer's socket) may not connect; None where it may."""
        if address in self.deny or carried_ipv4(address) in self.deny:
            return DENIED
        if self.allow.networks and address not in self.allow:
            return NOT_ALLOWED
        if self.within is not None and address not in self.within:
            return NOT_ALLOWED
        return None

    def refusal_behind(self, way: Sequence[str]) -> str | None:
        """Why whoever came this ``way`` through trusted proxies (`locality.Peer.way`: the client last) may not come in.

        Every address on it has to be off the deny list, because a denied client whom the configuration trusts as a
        proxy may name anybody before itself; a denied client may as well begin the header so that nobody can read what
        its proxy appended (RFC 7239 section 4: one open quote). The allow list is asked about the client.
        """
        if any(hop in self.deny or carried_ipv4(hop) in self.deny for hop in way):
            return DENIED
        if self.deny.networks and UNREADABLE in way:
            return HIDDEN
        return self.refusal(way[-1]) if way else None


OPEN: Final = NetworkRules()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Ceiling(Value):
    """The most that anybody gets through one listener. None: no ceiling of that kind.

    ``methods``: exact names of RPC methods, ``family.*`` for all that begin with ``family.``, and HTTP paths such as
    ``/join/*``. ``scopes``: operator scopes; what is granted lies within them.
    """

    methods: tuple[str, ...] | None = None
    scopes: frozenset[str] | None = None

    def allows(self, method: str) -> bool:
        """Whether an RPC method (or, with a leading slash, an HTTP path) may be used at all."""
        return self.methods is None or any(_covers(entry, method) for entry in self.methods)

    def clip(self, asked: Iterable[str]) -> tuple[str, ...]:
        """What of ``asked`` lies under the ceiling: a scope that is too much becomes those of its parts that fit."""
        asked = tuple(asked)
        if self.scopes is None:
            return asked
        kept: dict[str, None] = {}
        for scope in asked:
            if scope not in KNOWN_OPERATOR_SCOPES:
                continue
            if satisfies(self.scopes, scope):
                kept[scope] = None
            else:
                kept.update(dict.fromkeys(sorted(part for part in self.scopes if satisfies(frozenset({scope}), part))))
        return tuple(kept)


def _covers(entry: str, name: str) -> bool:
    if entry.endswith("*"):
        return name.startswith(entry[:-1])
    return entry == name


NO_CEILING: Final = Ceiling()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Arrival(Value):
    """How a connection came in. Made by the listener that accepted it; travels with the connection to every verdict."""

    listener: str = "main"
    provenance: Provenance = "direct"
    ceiling: Ceiling = NO_CEILING
    auth: ListenerAuth | None = None  # None: as gateway.auth.type says
    encrypted: bool = False  # TLS ended here
    certificate: str | None = None  # device id of a client certificate that this gateway issued and has not revoked
    proxy: str | None = None  # the socket's address, where a PROXY header told who connects through it

    @property
    def relayed(self) -> bool:
        """Whether somebody else's hands are between: then a loopback address is not somebody who sits at this host."""
        return self.provenance != "direct" or self.proxy is not None


T = TypeVar("T")


class _Clipped(Mapping[str, T]):
    """A live mapping by method name, seen under a ceiling."""

    __slots__ = ("_all", "_ceiling")

    def __init__(self, everything: Mapping[str, T], ceiling: Ceiling) -> None:
        self._all = everything
        self._ceiling = ceiling

    def __getitem__(self, name: str) -> T:
        if not self._ceiling.allows(name):
            raise KeyError(name)
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return filter(self._ceiling.allows, self._all)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def under_ceiling(methods: Mapping[str, T], ceiling: Ceiling) -> Mapping[str, T]:
    """What of ``methods`` may be used under ``ceiling``; without one the same object, which the hot path then reads."""
    return methods if ceiling.methods is None else _Clipped(methods, ceiling)


def beyond_ceiling(method: str, arrival: Arrival) -> WireError:
    """The answer to a call that the listener does not carry. It says no more about ``method`` than the caller did."""
    return wire_error("listener-ceiling", method=method[:80], listener=arrival.listener)


DIRECT: Final = Arrival()
