"""Being found, as a service of the gateway: whether to announce at all, and the one place that `status` asks.

Owns the decision. Imported at every start, so it imports nothing heavy: the responder is loaded when there is somebody
to be found by. It must not know packets or networks.

Invariants: a gateway that only its own host can reach announces nothing and loads nothing; announcing begins
`SETTLE_SECONDS` after the listener is up, so a start never waits for it (DISC-1); when a stop is asked for, everything
is taken back at once, beside the draining of connections.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import trio

from openclaw_gateway.policy.addresses import is_loopback
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from openclaw_gateway.discovery.records import Announcement
    from openclaw_gateway.discovery.responder import Responder
    from openclaw_gateway.discovery.signer import Signer

__all__ = ["DiscoveryService", "Facts"]

SETTLE_SECONDS: Final = 0.3


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Facts(Value):
    """What there is to say. ``listening``: the addresses that are listened on; ``port`` 0: nothing is listened on;
    ``tls_sha256``: SHA-256 of the certificate, 64 hex digits.
    """

    mode: Literal["off", "minimal", "full"]
    listening: tuple[str, ...]
    port: int
    version: str
    auth: str
    capabilities: tuple[str, ...] = ("gateway",)
    tls: bool = False
    tls_sha256: str | None = None
    display_name: str | None = None
    tailnet_dns: str | None = None
    ssh_port: int | None = None
    cli_path: str | None = None


class DiscoveryService:
    """``facts`` is asked whenever something may have changed; the identity that signs is that of ``state_dir``."""

    def __init__(self, facts: Callable[[], Facts], state_dir: Path | None) -> None:
        self._facts = facts
        self._state_dir = state_dir
        self._signer: Signer | None = None
        self._changed = trio.Event()
        self._responder: Responder | None = None
        self._off: str | None = "starting"
        self._trouble: str | None = None

    def nudge(self) -> None:
        """The facts may have changed (a reload). Synchronous and cheap."""
        self._changed.set()
        if self._responder is not None:
            self._responder.nudge()

    def tell(self, trouble: str | None) -> None:
        """What its supervisor hears: why the last run broke, None where it runs."""
        self._trouble = trouble

    async def announcement(self) -> Announcement:
        """What is to be said about this gateway, signed now; whether mDNS says it or not (the zone file asks too).

        Takes up to some 200 ms. Raises what `Signer.announcement` raises.
        """
        return await self._own_signer().announcement(self._facts())

    def _own_signer(self) -> Signer:
        from openclaw_gateway.discovery.signer import Signer

        if self._signer is None:
            self._signer = Signer(self._state_dir)
        return self._signer

    def view(self) -> dict[str, Any]:
        """The ``discovery`` member of `status`: ``state`` (off, waiting, claiming, announcing, retrying, parked,
        failed), ``reason``, ``text`` for a person, and what is announced where.
        """
        mode = self._facts().mode
        if self._trouble is not None:
            return {"mode": mode, "state": "failed", "reason": self._trouble, "text": self._trouble, "interfaces": []}
        if self._responder is None:
            return {"mode": mode, "state": "off", "reason": self._off, "text": f"off: {self._off}", "interfaces": []}
        return {"mode": mode, **self._responder.view()}

    def _why_off(self) -> str | None:
        facts = self._facts()
        if facts.mode == "off":
            return "discovery.mdns.mode is off"
        if facts.port == 0:
            return "the gateway does not listen on a port"
        if all(is_loopback(host) for host in facts.listening):
            return "the gateway listens on this host only (gateway.bind): nobody else could connect"
        from openclaw_gateway.discovery.environment import why_not_here

        return why_not_here()

    async def serve(self, wait_stopped: Callable[[], Awaitable[None]]) -> None:
        """Announce while that makes sense. Returns after ``wait_stopped`` returned and everything is taken back;
        cancelling takes it back as well, shielded, within a second.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            await wait_stopped()
            nursery.cancel_scope.cancel()

    async def _keep(self) -> None:
        while True:
            self._off = self._why_off()
            if self._off is None:
                await trio.sleep(SETTLE_SECONDS)
                self._off = await self._announce()
            await self._changed.wait()
            self._changed = trio.Event()

    async def _announce(self) -> str | None:
        """Announce until the facts speak against it; gives the reason why no more."""
        from openclaw_gateway.discovery.responder import Responder

        self._responder = Responder(self._facts, self._own_signer())
        reason: str | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._responder.serve)
                while (reason := self._why_off()) is None:
                    await self._changed.wait()
                    self._changed = trio.Event()
                nursery.cancel_scope.cancel()
        except* ImportError:
            reason = "the package zeroconf is missing: pip install zeroconf"
        finally:
            self._responder = None
        return reason
