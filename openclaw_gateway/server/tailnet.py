"""What the gateway knows of its tailnet: this host's own addresses, and the exposure where one is configured.

Owns the two sources (the routing table, which costs nothing; tailscaled, where `gateway.tailscale.mode` is not off) and
loads `openclaw_gateway.tailscale` at the first configuration that wants it. It must not know what an address or a name
opens.

Invariants: without an exposure nothing is dialled; an address that this host no longer has is no longer its own
`MEASURE_SECONDS` later (S099); the answers are from memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.policy.tailnet import TailnetClaim, refused_claim
from openclaw_gateway.policy.vouching import Vouched
from openclaw_gateway.server.addresses import own_tailnet_address
from openclaw_gateway.server.listening import Listening

if TYPE_CHECKING:
    from openclaw_gateway.tailscale.supervisor import Exposure, Wanted

__all__ = ["Tailnet"]

MEASURE_SECONDS: Final = 30.0


class Tailnet:
    """``changed`` is called when `addresses`, `origin` or the view are others than before."""

    def __init__(self, listening: Callable[[], Listening], changed: Callable[[], None]) -> None:
        self.exposure: Exposure | None = None
        self._listening = listening
        self._changed = changed
        self._routed = _measured()
        self._wanted = trio.Event()
        self._stopping = False

    @property
    def addresses(self) -> frozenset[str]:
        """This host's own tailnet addresses, canonical."""
        return self._routed if self.exposure is None else self._routed | self.exposure.own_addresses

    @property
    def dns_name(self) -> str | None:
        """This host's name in its tailnet (``tailnetDns``); None where it has none or tailscaled is not asked."""
        return self.exposure.dns_name if self.exposure is not None else None

    @property
    def origin(self) -> str | None:
        """``https://name[:port]`` under which tailscaled serves the gateway right now."""
        url = self.exposure.url if self.exposure is not None else None
        return url.rstrip("/") if url is not None else None

    @property
    def state(self) -> str:
        """The name of the exposure's state; see `tailscale.conditions`."""
        return self.exposure.condition.state if self.exposure is not None else "off"

    @property
    def public(self) -> bool:
        """Whether the whole internet can reach the gateway through a funnel right now."""
        return self.origin is not None and self.exposure is not None and self.exposure.wanted.mode == "funnel"

    def view(self) -> dict[str, Any]:
        """The ``tailscale`` member of `status`."""
        if self.exposure is None:
            return {"mode": "off", "state": "off", "addresses": sorted(self.addresses)}
        return {**self.exposure.view(), "addresses": sorted(self.addresses)}

    async def vouch(self, claim: TailnetClaim, identity_scopes: Mapping[str, tuple[str, ...]]) -> Vouched:
        """Who is behind a claim; see `tailscale.identity`."""
        if self.exposure is None:
            return refused_claim("tailscale_unavailable")
        return await self.exposure.vouch(claim, identity_scopes)

    def configure(self, config: GatewayConfig, port: int) -> None:
        """Go by ``config`` from now on. ``port``: of the main listener. Synchronous."""
        if self.exposure is None and config.tailscale.mode == "off":
            return
        wanted = _wanted(config, port)
        if self.exposure is not None:
            self.exposure.configure(wanted)
            return
        from openclaw_gateway.tailscale.door import ProvenanceDoor
        from openclaw_gateway.tailscale.supervisor import Exposure

        self.exposure = Exposure(wanted, ProvenanceDoor(self._listening()), self._changed)
        self._wanted.set()

    def stop(self) -> None:
        """The gateway ends: let go of what is served. Synchronous and harmless when repeated."""
        self._stopping = True
        self._wanted.set()
        if self.exposure is not None:
            self.exposure.stop()

    async def serve(self) -> None:
        """Keep the exposure as it is wanted, until `stop`."""
        await self._wanted.wait()
        if self.exposure is not None and not self._stopping:
            await self.exposure.serve()

    def trouble(self, why: str | None) -> None:
        """For `ops.supervision`: what goes wrong with the exposure is its own state, not the gateway's (TS-1)."""
        if self.exposure is not None:
            self.exposure.crashed(why)

    async def follow(self) -> None:
        """Look at the routing table for ever: tailscale may come, go or get another address (S099)."""
        while True:
            await trio.sleep(MEASURE_SECONDS)
            routed = _measured()
            if routed != self._routed:
                self._routed = routed
                self._changed()


def _measured() -> frozenset[str]:
    address = own_tailnet_address()
    return frozenset({address} if address else ())


def _wanted(config: GatewayConfig, port: int) -> Wanted:
    from openclaw_gateway.tailscale.supervisor import Wanted

    settings = config.tailscale
    return Wanted(
        mode=settings.mode,
        background=not settings.reset_on_exit,
        port=settings.port,
        socket=settings.socket,
        command=settings.command,
        gateway_port=port,
        state_dir=config.state_dir,
    )
