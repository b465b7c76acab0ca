"""What connections are told unasked: presence, health, pairing, and the picture that comes with hello.

Owns when these events are published, their state versions, and who may hear of whom (V21). It must not know how an
event reaches a connection (`events.bus`) nor what made the news.

Invariant: whoever holds one device's token alone hears of no other device.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any, Final

from openclaw_gateway._version import __version__
from openclaw_gateway.app.inforce import InForce
from openclaw_gateway.events.bus import EventBus, Listener
from openclaw_gateway.events.presence import Presence
from openclaw_gateway.nodes.records import EVENTS as NODE_EVENTS
from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.health import Health, now_ms
from openclaw_gateway.ops.loop import LoopMonitor
from openclaw_gateway.pairing.records import BookEvent
from openclaw_gateway.protocol.hello import HelloSnapshot
from openclaw_gateway.rpc import pairing, senders, system
from openclaw_gateway.server.recording import record_expired
from openclaw_gateway.server.session import Session

__all__ = ["EVENTS", "News", "may_learn_of"]

EVENTS: Final = (
    "connect.challenge",
    "presence",
    "tick",
    "health",
    "shutdown",
    "device.pair.requested",
    "device.pair.resolved",
    *NODE_EVENTS,
    "device.pair.changed",
    "device.pair.setup.completed",
    *senders.EVENTS,
)


class News:
    """``host`` is the name under which this gateway shows itself."""

    def __init__(self, bus: EventBus, loop: LoopMonitor, *, in_force: InForce, audit: AuditTrail) -> None:
        self._bus = bus
        self._in_force = in_force
        self._audit = audit
        self.health = Health(loop, __version__, on_change=self.health_changed)
        self.host = platform.node() or "localhost"
        self.presence = Presence(
            system.host_facts(__version__, self.host), now_ms=now_ms, on_change=self.presence_changed
        )

    def presence_changed(self, entries: list[dict[str, Any]]) -> None:
        versions = {"presence": self.presence.version, "health": self.health.version}
        self._bus.publish_nowait("presence", {"presence": entries}, droppable=True, state_version=versions)

    def health_changed(self) -> None:
        self.presence.tell()  # first: its version goes out with this event
        versions = {"presence": self.presence.version, "health": self.health.version}
        self._bus.publish_nowait("health", self.health.view(), droppable=True, state_version=versions)

    def book_event(self, event: BookEvent) -> None:
        """Something was asked or decided about pairing."""
        hears = may_learn_of(event.payload.get("deviceId"))
        self._bus.publish_nowait(event.name, event.payload, scope="operator.pairing", hears=hears)

    def publish_all(self, events: tuple[BookEvent, ...]) -> None:
        """What ended by itself: nobody decided it, so it is recorded here."""
        record_expired(self._audit, events)
        for event in events:
            self.book_event(event)

    def snapshot(self) -> HelloSnapshot:
        config, loaded = self._in_force.config, self._in_force.loaded
        return HelloSnapshot(
            presence=self.presence.encoded(),
            health=self.health.view(),
            presence_version=self.presence.version,
            health_version=self.health.version,
            uptime_ms=self.health.uptime_ms,
            config_path=str(loaded.path) if loaded is not None else None,
            state_dir=str(config.state_dir) if config.state_dir is not None else None,
            auth_mode=self._in_force.auth.type,
            applied_config_hash=self._in_force.applied_hash(),
        )


def may_learn_of(device_id: str | None) -> Callable[[Listener], bool]:
    """Whether a listener may learn of that device: who holds only its own device's token of no other (V21)."""

    def hears(listener: Listener) -> bool:
        own = pairing.own_device_of(listener) if isinstance(listener, Session) else None
        return device_id is None or own is None or own == device_id

    return hears
