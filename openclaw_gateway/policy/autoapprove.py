"""Which devices are paired without anybody being asked: one table, first row that fits wins, the last rows ask.

Owns checklist S098-S103 with C4, C5 and PAIR-7. Pure; asked by `policy.admission` only after the peer authenticated
and its device signature was found good: no row replaces either. It must not know how a peer was measured.

Invariants: what a person decided against (revoked, removed) fits no row that approves (V26); a forwarding header of
any kind fits none that goes by where the peer is (V13, V35); a client's id, mode and name are not even visible here
(V12); what is granted is within what was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import attrs

from openclaw_gateway.policy.addresses import NO_NETWORKS, NetworkSet
from openclaw_gateway.protocol.scopes import READ, WRITE, satisfies
from openclaw_gateway.value import Value

__all__ = ["BASELINE", "TABLE", "Applicant", "AutoApproveRules", "Row", "baseline", "judge"]

BASELINE: Final = (READ, WRITE)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AutoApproveRules(Value):
    """``gateway.pairing.autoApprove``."""

    loopback: bool = True
    own_tailnet: bool = True
    lan: NetworkSet = NO_NETWORKS
    shared_secret: Literal["off", "baseline"] = "off"  # noqa: S105 - a setting, not a secret


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Applicant(Value):
    """A device that proved its key and authenticated, and is not paired in the role it asks for."""

    rules: AutoApproveRules
    own_tailnet_addresses: frozenset[str]  # canonical texts
    role: str
    asked: tuple[str, ...]  # known scopes only
    scopeless: bool  # asked for no scope at all, known or not
    address: str  # the socket's, canonical
    loopback: bool  # direct: loopback peer, loopback Host, no forwarding header
    forwarded: bool  # any forwarding header
    secret: bool  # gave the gateway's shared secret (False with auth type none)
    fresh: bool  # nothing was ever decided about this device, in any role
    decided_against: bool  # this device was removed, or revoked in this role

    @property
    def from_own_tailnet_address(self) -> bool:
        return not self.forwarded and self.address in self.own_tailnet_addresses


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Row(Value):
    """One row. ``grants`` None: a person is asked. ``setting``: what switches the row (None: nothing does)."""

    id: str
    source: str
    setting: str | None
    why: str
    fits: Callable[[Applicant], bool]
    grants: Callable[[Applicant], tuple[str, ...]] | None


def baseline(asked: Sequence[str]) -> tuple[str, ...]:
    """The part of the baseline that lies within what was asked; asking for admin asks for read and write too."""
    return tuple(scope for scope in BASELINE if satisfies(frozenset(asked), scope))


def _own_tailnet(who: Applicant) -> bool:
    return who.rules.own_tailnet and who.secret and who.from_own_tailnet_address


def _lan_node(who: Applicant) -> bool:
    fresh_node = who.role == "node" and who.scopeless and who.fresh
    return fresh_node and who.secret and not who.forwarded and who.address in who.rules.lan


def _baseline(who: Applicant) -> bool:
    opted_in = who.rules.shared_secret == "baseline"  # noqa: S105 - a setting's value
    return opted_in and who.secret and who.role == "operator" and (not who.asked or bool(baseline(who.asked)))


_PAIRING: Final = "gateway.pairing.autoApprove"

TABLE: Final[tuple[Row, ...]] = (
    Row(
        id="decided-against",
        source="V26",
        setting=None,
        why="a person revoked or removed it",
        fits=lambda who: who.decided_against,
        grants=None,
    ),
    Row(
        id="loopback",
        source="S098",
        setting=f"{_PAIRING}.loopback",
        why="on this host",
        fits=lambda who: who.rules.loopback and who.loopback,
        grants=lambda who: who.asked,
    ),
    Row(
        id="own-tailnet",
        source="S099, C4",
        setting=f"{_PAIRING}.ownTailnet",
        why="this host's own tailnet address",
        fits=_own_tailnet,
        grants=lambda who: who.asked,
    ),
    Row(
        id="lan",
        source="S100, C5",
        setting=f"{_PAIRING}.lan",
        why=f"a fresh node from {_PAIRING}.lan",
        fits=_lan_node,
        grants=lambda who: (),
    ),
    Row(
        id="shared-secret",
        source="PAIR-7",
        setting=f"{_PAIRING}.sharedSecret",
        why=f"{_PAIRING}.sharedSecret",
        fits=_baseline,
        grants=lambda who: baseline(who.asked),
    ),
    Row(
        id="switched-off",
        source="S098, S099",
        setting=f"{_PAIRING}.loopback, {_PAIRING}.ownTailnet",
        why="this host is asked about too",
        fits=lambda who: who.loopback or who.from_own_tailnet_address,
        grants=None,
    ),
    Row(
        id="unknown-origin",
        source="S103",
        setting=None,
        why="where it comes from is hidden behind forwarding headers, or not known",
        fits=lambda who: who.forwarded or who.address == "unknown",
        grants=None,
    ),
    # A remote tailnet client (S101) and any other remote client (S102) are asked about alike.
    Row(
        id="remote",
        source="S101, S102",
        setting=None,
        why="from another host",
        fits=lambda who: True,
        grants=None,
    ),
)


def judge(who: Applicant) -> tuple[Row, tuple[str, ...] | None]:
    """The first row that fits, and the scopes it grants; None: a person is asked. Never raises."""
    row = next(row for row in TABLE if row.fits(who))
    return row, None if row.grants is None else row.grants(who)
