"""The tunnels of ``gateway.tunnels``, kept up by the gateway.

Owns the way from the configuration to running tunnels, and their last reports. It must not know how listeners are
opened: it is given the port of an entrance. Imported only where a tunnel is configured.

Invariants: a tunnel that publishes this gateway (-R) ends at that entrance and never at the main listener: whoever is
logged in on the ssh host can use its port, and would otherwise look like a process of this host, which local
auto-approval trusts (V13); one task per name; a change of one tunnel leaves the others alone; one that fails takes
nothing else down.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from openclaw_gateway.config.schema import TunnelConfig
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.ops.supervision import supervise
from openclaw_gateway.tunnels.registry import claim
from openclaw_gateway.tunnels.spec import SshTarget, TunnelSpec
from openclaw_gateway.tunnels.supervisor import TunnelReport, run_tunnel

__all__ = ["MAX_CONFIGURED", "TunnelService", "spec_of"]

MAX_CONFIGURED: Final = 32
DEFAULT_PORT: Final = 18789

log = get_logger("tunnel")


def spec_of(tunnel: TunnelConfig, *, entrance: int) -> TunnelSpec:
    """What is configured as what is run. ``entrance``: the port here that a published gateway is reached at."""
    target_port = tunnel.target_port or (entrance if tunnel.direction == "remote" else DEFAULT_PORT)
    return TunnelSpec(
        name=tunnel.name,
        target=SshTarget(tunnel.host, tunnel.user, tunnel.port),
        direction=tunnel.direction,
        bind_port=tunnel.bind_port,
        target_port=target_port,
        identity=tunnel.identity,
        known_hosts=tunnel.known_hosts,
        host_key_policy=tunnel.host_key_policy,
        alive_interval=tunnel.alive_interval,
    )


class TunnelService:
    """``entrance``: opens (once) the listener for tunnels and tells its port; ``changed`` is called at each report."""

    def __init__(
        self, *, state: Path | None, entrance: Callable[[], int], changed: Callable[[], None] = lambda: None
    ) -> None:
        self._state = state
        self._entrance = entrance
        self._changed = changed
        self._wanted: dict[str, TunnelConfig] = {}
        self._running: dict[str, tuple[TunnelConfig, trio.CancelScope]] = {}
        self._reports: dict[str, TunnelReport] = {}
        self._news = trio.Event()

    def configure(self, tunnels: tuple[TunnelConfig, ...]) -> None:
        """Run these from now on; of two with one name the first counts."""
        wanted: dict[str, TunnelConfig] = {}
        for tunnel in tunnels[:MAX_CONFIGURED]:
            if tunnel.enabled:
                wanted.setdefault(tunnel.name, tunnel)
        self._wanted = wanted
        self._news.set()

    def view(self) -> list[dict[str, Any]]:
        """The tunnels as ``status`` shows them, in the order of the configuration."""
        return [self._reports[name].to_wire() for name in self._wanted if name in self._reports]

    async def serve(self) -> None:
        """Run what is wanted until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    self._news = trio.Event()
                    for name, (tunnel, scope) in list(self._running.items()):
                        if self._wanted.get(name) != tunnel:
                            scope.cancel()
                    for name, tunnel in self._wanted.items():
                        if name not in self._running:
                            scope = trio.CancelScope()
                            self._running[name] = (tunnel, scope)
                            nursery.start_soon(self._run, tunnel, scope)
                    await self._news.wait()
        finally:
            self._running.clear()

    async def _run(self, tunnel: TunnelConfig, scope: trio.CancelScope) -> None:
        with scope:
            await supervise(f"tunnel {tunnel.name}", partial(self._keep, tunnel), lambda trouble: None)
        self._running.pop(tunnel.name, None)
        if tunnel.name not in self._wanted:
            self._reports.pop(tunnel.name, None)
        self._news.set()  # its successor may start now: the old ssh has been waited for

    async def _keep(self, tunnel: TunnelConfig) -> None:
        with contextlib.ExitStack() as stack:
            note: Callable[[dict[str, Any]], None] = lambda report: None  # noqa: E731
            if self._state is not None:
                note = stack.enter_context(claim(self._state, tunnel.name, "gateway")).write
            await run_tunnel(spec_of(tunnel, entrance=self._entrance()), tell=partial(self._tell, note))

    def _tell(self, note: Callable[[dict[str, Any]], None], report: TunnelReport) -> None:
        before = self._reports.get(report.name)
        self._reports[report.name] = report
        if before is None or (before.state, before.failure) != (report.state, report.failure):
            tell = log.warning if report.failure is not None else log.info
            tell(
                "tunnel",
                tunnel=report.name,
                state=report.state,
                from_state=before.state if before is not None else None,
                reason=report.failure,
                fix=report.fix,
                delay_ms=report.retry_in_ms,
            )
        note(report.to_wire())
        self._changed()
