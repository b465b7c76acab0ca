"""Who stands behind a request: its address, the proxies before it, and the person that somebody vouches for.

Owns the way from a socket's address and headers to a `Peer`, whether the address lists keep out whom a proxy speaks
for, and for how long a proxy's word counts. It must not know credentials, nor what a peer may do. The judging is pure
(`policy.locality`, `policy.vouching`, `policy.tailnet`).

Invariants: what a proxy said under rules that were replaced since counts no more (V16); whom tailscaled names is asked
back before it counts (TS-6); what was warned of once is not warned of again, and the memory of it is bounded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Final

import attrs

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.addresses import is_loopback
from openclaw_gateway.policy.locality import Peer, describe_peer, is_trusted_proxy, trusted_proxies_hint
from openclaw_gateway.policy.network import DIRECT, Arrival
from openclaw_gateway.policy.tailnet import TailnetClaim, read_claim, refused_claim
from openclaw_gateway.policy.vouching import Vouched, Voucher, judge_vouching
from openclaw_gateway.server.grants import GatekeeperRules

__all__ = ["Peers"]

_HINTED_PEERS: Final = 256

log = get_logger("auth")


class Peers:
    """``tailnet`` asks tailscaled who somebody is; until it is set, nobody is named."""

    def __init__(self, rules: GatekeeperRules, own_addresses: Callable[[], Collection[str]]) -> None:
        self.rules = rules
        self.own_addresses = own_addresses
        self.tailnet: Callable[[TailnetClaim, Mapping[str, tuple[str, ...]]], Awaitable[Vouched]] = _nobody
        self._epoch = 0
        self._said: dict[tuple[str, str], None] = {}

    def configure(self, rules: GatekeeperRules) -> None:
        """Use other rules from now on; every proxy's word of before has to be given again (V16)."""
        self.rules = rules
        self._epoch += 1

    def describe(self, address: str, headers: tuple[tuple[bytes, bytes], ...], arrival: Arrival = DIRECT) -> Peer:
        """Where a request comes from. Says once per peer how to trust it as a proxy, where that would help
        (PROXY-1).
        """
        peer = describe_peer(address, headers, self.rules.peers, arrival=arrival)
        if peer.proxied_untrusted:
            hint = trusted_proxies_hint(peer, self.rules.peers)
            if hint is not None:
                self.say_once(peer, "proxied by an address that is not trusted", fix=hint)
        return self._vouched(peer, headers)

    def kept_out(
        self, address: str, headers: tuple[tuple[bytes, bytes], ...], arrival: Arrival
    ) -> tuple[Peer, str] | None:
        """Whom a trusted proxy speaks for in this request, and why the address lists keep him out; None: they do not.

        By the lists of now: a proxy keeps its connections (V16).
        """
        if self.rules.network_on(arrival).open:
            return None
        peer = describe_peer(address, headers, self.rules.peers, arrival=arrival)
        reason = self.outside(peer)
        if reason is None:
            return None
        log.warning(
            "peer refused by network policy", peer=peer.way[-1], proxy=peer.address, listener=arrival.listener,
            reason=reason,
        )  # fmt: skip
        return peer, reason

    def outside(self, peer: Peer) -> str | None:
        """Why somebody who came in through trusted proxies would be kept out by the address lists of now."""
        return self.rules.network_on(peer.arrival).refusal_behind(peer.way)

    def _vouched(self, peer: Peer, headers: tuple[tuple[bytes, bytes], ...]) -> Peer:
        """The same peer with what a trusted proxy says about the person behind it, where that is asked for."""
        rules = self.rules
        claim = read_claim(headers, peer.arrival.provenance) if rules.tailnet or peer.arrival.relayed else None
        if isinstance(claim, str):
            return attrs.evolve(peer, vouched=refused_claim(claim))
        if claim is not None:
            off = None if rules.tailnet else refused_claim("tailscale_off")
            return attrs.evolve(peer, tailnet=claim if rules.tailnet else None, vouched=off)
        # What the rules say now, not what the listener said when a kept-alive connection came in (V16).
        asked_for = rules.on(peer.arrival).admission.auth_type == "trusted-proxy"
        if rules.vouch is None or not asked_for:
            return peer
        trusted = is_trusted_proxy(peer.address, peer.arrival, rules.peers)
        # Only where it would matter: asking the system for its addresses costs some system calls.
        here = trusted and (is_loopback(peer.address) or peer.address in self.own_addresses())
        voucher = Voucher(trusted=trusted, here=here, attributed=peer.attributed)
        vouched = judge_vouching(voucher, headers, rules.vouch)
        return attrs.evolve(peer, vouched=attrs.evolve(vouched, epoch=self._epoch))

    def as_now(self, peer: Peer) -> Peer:
        """The same peer, without a proxy's word that was judged by rules which have been replaced since (V16)."""
        vouched = peer.vouched
        if vouched is None or vouched.source != "trusted-proxy" or vouched.epoch == self._epoch:
            return peer
        return attrs.evolve(peer, vouched=attrs.evolve(vouched, user=None, scopes=(), reason="rules_changed"))

    async def from_tailnet(self, peer: Peer, rules: GatekeeperRules) -> Peer:
        """The same peer with the person that tailscaled names, if its whois bears it out (TS-6). Only for who presented
        no credential: a wrong one is never outweighed by where somebody sits (V9, V59)."""
        claim = peer.tailnet
        if claim is None or not rules.tailnet:
            return peer
        return attrs.evolve(peer, vouched=await self.tailnet(claim, rules.identity_scopes))

    def say_once(self, peer: Peer, reason: str, *, fix: str | None = None) -> None:
        """One warning per peer and reason; the memory of what was said is bounded."""
        key = (peer.limiter_key, reason)
        if key in self._said:
            return
        if len(self._said) >= _HINTED_PEERS:
            del self._said[next(iter(self._said))]
        self._said[key] = None
        log.warning("auth", peer=peer.address, reason=reason, fix=fix)


async def _nobody(claim: TailnetClaim, identity_scopes: Mapping[str, tuple[str, ...]]) -> Vouched:
    return refused_claim("tailscale_unavailable")
