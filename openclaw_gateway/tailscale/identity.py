"""Whose machine a tailnet address is: tailscaled's whois, remembered for a short while.

Owns the cache, its limits and the deadline. It must not know what a person may do (`policy.admission`), nor decide
about a claim itself: `policy.tailnet.judge_claim` does, the same for WebSocket and HTTP (TS-6).

Invariants: an answer is used for `KNOWN_SECONDS`, a failure or "nobody" for `UNKNOWN_SECONDS`; at most `MAX_ENTRIES`
are remembered and `MAX_LOOKUPS` are under way; one question per address at a time; what cannot be found out in time is
nobody; where the other end of a connection cannot be shown to be tailscaled, nobody is believed (V36).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import attrs
import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.tailnet import TailnetClaim, TailnetPerson, judge_claim, refused_claim
from openclaw_gateway.policy.vouching import Vouched
from openclaw_gateway.tailscale.localapi import DaemonUnreachable
from openclaw_gateway.tailscale.protocol import NodeStatus, TailscaleUnreadable

__all__ = ["Identities"]

KNOWN_SECONDS: Final = 60.0
UNKNOWN_SECONDS: Final = 5.0
WHOIS_SECONDS: Final = 5.0
MAX_ENTRIES: Final = 512
MAX_LOOKUPS: Final = 8

log = get_logger("tailscale")


@attrs.frozen
class _Known:
    until: float
    person: TailnetPerson | None
    failed: bool = False


class Identities:
    """``whois`` asks the daemon, ``node`` tells this machine's status (None: not known)."""

    def __init__(
        self, whois: Callable[[str], Awaitable[TailnetPerson | None]], node: Callable[[], NodeStatus | None]
    ) -> None:
        self._whois = whois
        self._node = node
        self._known: dict[str, _Known] = {}
        self._asking: dict[str, trio.Event] = {}
        self._epoch = 0
        self.provable = False  # whether the daemon's own connections can be told from others'
        self.lookups = 0

    def forget(self) -> None:
        """Ask anew from now on: the daemon, the machine or its tailnet is another one. What the former one is about to
        answer is not kept either."""
        self._known.clear()
        self._epoch += 1

    def __len__(self) -> int:
        return len(self._known)

    async def vouch(self, claim: TailnetClaim, identity_scopes: Mapping[str, tuple[str, ...]]) -> Vouched:
        """Decide on a claim within `WHOIS_SECONDS`. Never raises but for cancellation."""
        if not self.provable:
            return refused_claim("tailscale_unprovable")
        known: _Known | None = None
        with trio.move_on_after(WHOIS_SECONDS):
            known = await self._person(claim.address)
        node = self._node()
        if known is None or known.failed or node is None or not node.running:
            return refused_claim("tailscale_unavailable")
        return judge_claim(
            claim,
            known.person,
            own_node=node.node_id,
            own_addresses=frozenset(node.addresses),
            identity_scopes=identity_scopes,
        )

    async def _person(self, address: str) -> _Known | None:
        while True:
            known = self._known.get(address)
            if known is not None and known.until > trio.current_time():
                return known
            under_way = self._asking.get(address)
            if under_way is None:
                break
            await under_way.wait()
        if len(self._asking) >= MAX_LOOKUPS:
            return None  # a flood of strangers costs the daemon no more than this
        self._asking[address] = trio.Event()
        try:
            return await self._ask(address)
        finally:
            self._asking.pop(address).set()

    async def _ask(self, address: str) -> _Known:
        self.lookups += 1
        person, failed, epoch = None, False, self._epoch
        try:
            with trio.fail_after(WHOIS_SECONDS):
                person = await self._whois(address)
        except (DaemonUnreachable, TailscaleUnreadable, trio.TooSlowError) as exc:
            log.warning("auth: tailscaled does not say whose an address is", error=str(exc), address=address)
            failed = True
        if epoch != self._epoch:
            return _Known(0.0, None, failed=True)
        seconds = UNKNOWN_SECONDS if person is None else KNOWN_SECONDS
        known = _Known(trio.current_time() + seconds, person, failed)
        if len(self._known) >= MAX_ENTRIES:
            del self._known[next(iter(self._known))]
        self._known[address] = known
        return known
