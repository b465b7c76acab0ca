"""The life of a gateway's connections, from the first accept to the last one drained.

Owns the one nursery that connections run in, and the stop (design rule 3): asked first (stop accepting, unannounce,
`shutdown` event), then a deadline. It must not know what outlives connections.

Invariants: TCP is not accepted before an upgrade could be answered (LIVE-4); whatever ends it, the listeners are closed
and `drained` is set.
"""

from __future__ import annotations

import os
from typing import Final

import trio

from openclaw_gateway._version import __version__
from openclaw_gateway.app.parts import Parts
from openclaw_gateway.ops.audit import Action
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.server.recording import record_start

__all__ = ["DRAIN_SECONDS", "STOP_SECONDS", "Life"]

STOP_SECONDS: Final = 4.5  # the whole stop
DRAIN_SECONDS: Final = 3.0  # of which connections get so much to go by themselves

log = get_logger("gateway")


class Life:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stop = trio.Event()
        self.started = False
        self.drained = trio.Event()
        self.stop_reason = "gateway stopping"

    @property
    def stopping(self) -> bool:
        return self._stop.is_set()

    def request_stop(self, reason: str = "gateway stopping") -> None:
        """Ask for the end; whoever waits in `wait_stopped` goes on. Synchronous and harmless when repeated."""
        if not self._stop.is_set():
            self.stop_reason = reason
            self._stop.set()

    async def wait_stopped(self) -> None:
        """Wait until somebody asked for the end."""
        await self._stop.wait()

    async def serve_until_drained(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until a stop was asked for and is done; ``started`` once every address accepts. Raises
        `BindFailed`.
        """
        parts, in_force = self._parts, self._parts.in_force
        try:
            async with trio.open_nursery() as connections:
                self.started = True
                parts.listening.attach(connections)
                if in_force.listen:
                    parts.configured.apply(in_force.config, in_force.listener_auth)
                    parts.tailnet.configure(in_force.config, parts.listening.port)
                port = parts.listening.port
                record_start(parts.services.audit, in_force.config, in_force.auth, port=port, version=__version__)
                task_status.started()
                await self._stop.wait()
                await self._drain(connections)
        finally:
            parts.listening.close_all()
            parts.listening.attach(None)
            parts.configured.close()
            self.drained.set()

    async def _drain(self, connections: trio.Nursery) -> None:
        """Stop accepting, tell everybody, close everybody; what is left after `DRAIN_SECONDS` is dropped (design rule
        3).
        """
        parts, registry = self._parts, self._parts.core.registry
        parts.services.audit.note(Action.GATEWAY_STOPPED, actor="gateway", reason=self.stop_reason, pid=os.getpid())
        log.info("stopping", reason=self.stop_reason, clients=len(registry))
        parts.server.draining = parts.http.draining = True
        parts.tailnet.stop()
        parts.listening.close_all()
        parts.listening.attach(None)
        parts.events.publish_nowait("shutdown", {"reason": self.stop_reason}, scope=None)
        registry.close_all(CloseCode.SERVICE_RESTART, "service restart")
        await parts.server.http.stop_idle()
        with trio.move_on_after(DRAIN_SECONDS):
            await parts.server.wait_empty()
        parts.server.abort_all()
        connections.cancel_scope.cancel()
