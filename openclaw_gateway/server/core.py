"""What every connection of one gateway shares, put together by `app`.

Owns the moments between a connection and the rest: what it is told when it is admitted (hello), who hears that it came
or went (presence, log). It must not know bytes or frames. Everything in here is synchronous and runs between two
checkpoints.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import attrs
import msgspec

from openclaw_gateway.events.bus import EventBus
from openclaw_gateway.events.presence import Presence
from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.ops.stability import StabilityLog
from openclaw_gateway.policy.network import Ceiling
from openclaw_gateway.protocol.connect import CONTROL_UI_ID
from openclaw_gateway.protocol.errors import WireError
from openclaw_gateway.protocol.hello import DeviceTokenGrant, HelloLimits, HelloSnapshot, hello_ok
from openclaw_gateway.rpc.dispatch import Dispatcher
from openclaw_gateway.rpc.table import MethodTable
from openclaw_gateway.server.recording import record_joined, record_left, record_turned_away
from openclaw_gateway.server.registry import SessionRegistry
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from openclaw_gateway.server.gatekeeper import Gatekeeper, Grant
    from openclaw_gateway.server.secure import SecureDoor
    from openclaw_gateway.server.session import Session

__all__ = ["Limits", "ServerCore"]

BEARER_SCOPES: Final = ("operator.read", "operator.write")  # what a bare ``?token=`` asks for; connect asks for more
_PRESENT_MODES: Final = frozenset({"node", "webchat", "ui"})

log = get_logger("session")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Limits(Value):
    """Bytes and seconds; every one of them is stated in ``hello-ok.policy`` or in docs/reference/limits.md."""

    max_payload: int
    max_buffered_bytes: int
    tick_interval_ms: int
    handshake_seconds: float


class Watcher(Protocol):
    """Who is told of every connection that is admitted and of every one that ends."""

    def joined(self, link: Session, /) -> None: ...
    def left(self, link: Session, /) -> None: ...


def _deaf_logger() -> logging.Logger:
    return logging.Logger("websockets", logging.CRITICAL + 1)  # noqa: LOG001 - one that nobody can reach is the point


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@attrs.define(eq=False, kw_only=True, repr=False)
class ServerCore:
    limits: Limits
    table: MethodTable
    dispatcher: Dispatcher
    registry: SessionRegistry
    gatekeeper: Gatekeeper
    bus: EventBus
    presence: Presence
    stability: StabilityLog
    snapshot: Callable[[], HelloSnapshot]
    server_version: str
    boot_id: str
    audit: AuditTrail = attrs.field(factory=AuditTrail)
    nodes: Watcher | None = None
    secure: SecureDoor | None = None
    bearer_scopes: tuple[str, ...] = BEARER_SCOPES
    now_ms: Callable[[], int] = now_ms
    # websockets logs whole frames at debug, secrets included: its logger hangs in no tree and takes nothing (V52)
    frame_logger: logging.Logger = attrs.field(factory=_deaf_logger)
    _features: tuple[tuple[int, int], msgspec.Raw, msgspec.Raw] | None = attrs.field(init=False, default=None)
    _present: dict[str, set[Session]] = attrs.field(init=False, factory=dict)  # whose entry each presence entry is

    def hello(self, session: Session, grant: Grant) -> dict[str, Any]:
        token = None
        if grant.device_token is not None:
            token = DeviceTokenGrant(**attrs.asdict(grant.device_token))
        limits = self.limits
        methods, events = self._listed(session.peer.arrival.ceiling)
        return hello_ok(
            protocol=grant.protocol,
            server_version=self.server_version,
            conn_id=session.conn_id,
            boot_id=self.boot_id,
            methods=methods,
            events=events,
            snapshot=self.snapshot(),
            limits=HelloLimits(
                max_payload=limits.max_payload,
                max_buffered_bytes=limits.max_buffered_bytes,
                tick_interval_ms=limits.tick_interval_ms,
            ),
            role=grant.role,
            scopes=grant.scopes,
            method=grant.method,
            device_token=token,
            handed=grant.handed,
        )

    def _listed(self, ceiling: Ceiling) -> tuple[Sequence[str] | msgspec.Raw, msgspec.Raw]:
        """The names of methods and events: the same JSON for all, until one is added or taken away. Only a ceiling on
        methods makes a list of its own.
        """
        made, now = self._features, (self.table.revision, len(self.bus.names))  # names of events are never taken away
        if made is None or made[0] != now:
            encode = msgspec.json.encode
            methods, events = encode(["connect", *self.table.names]), encode(list(self.bus.names))
            made = self._features = (now, msgspec.Raw(methods), msgspec.Raw(events))
        if ceiling.methods is None:
            return made[1], made[2]
        return ["connect", *filter(ceiling.allows, self.table.names)], made[2]

    def joined(self, session: Session) -> None:
        """A session was admitted and has its hello."""
        self.bus.add(session)
        grant = session.grant
        assert grant is not None
        log.info(
            "connect",
            conn_id=session.conn_id,
            role=grant.role,
            client=grant.params.client.id,
            mode=grant.params.client.mode,
            peer=session.peer.client_address,
            auth=grant.method,
            scopes=grant.scopes,
            dialect=session.dialect,
            device_id=grant.device_id,
            secure=session.secure or None,
        )
        record_joined(self.audit, session)
        self.stability.note("connect", {"role": grant.role, "client": grant.params.client.id})
        if self.nodes is not None:
            self.nodes.joined(session)
        key = _presence_key(session)
        if key is not None:
            self._present.setdefault(key, set()).add(session)
            self.presence.update(key, _presence_entry(session, grant), reason="connect")

    def turned_away(self, session: Session, error: WireError) -> None:
        """A session that the gatekeeper let in found no room."""
        record_turned_away(self.audit, error, session.peer, session.conn_id)

    def left(self, session: Session) -> None:
        """A session ends, admitted or not."""
        self.bus.discard(session)
        if self.nodes is not None:
            self.nodes.left(session)
        cause = session.scope.cause
        grant = session.grant
        code = int(cause.close.code) if cause is not None else None
        reason = cause.close.reason if cause is not None else ""
        # Who was never let in leaves a line that repeats word for word, so that a flood of them collapses (LOG-1).
        admitted = grant is not None
        log.info(
            "disconnect",
            conn_id=session.conn_id if admitted else None,
            peer=session.peer.client_address,
            role=grant.role if grant is not None else None,
            close_code=code,
            reason=reason or None,
            duration_ms=round((time.monotonic() - session.opened_at) * 1000) if admitted else None,
        )
        record_left(self.audit, session)
        self.stability.note("disconnect", {"code": code, "reason": reason})
        key = _presence_key(session)
        here = self._present.get(key) if key is not None else None
        if key is not None and here is not None:
            here.discard(session)
            if not here:  # with its last connection
                del self._present[key]
                self.presence.remove(key)


def _presence_key(session: Session) -> str | None:
    """Nodes and user interfaces are shown; command line, probe and backend connections are not."""
    grant = session.grant
    if grant is None:
        return None
    client = grant.params.client
    if grant.role != "node" and client.mode not in _PRESENT_MODES and client.id != CONTROL_UI_ID:
        return None
    return grant.device_id or client.instance_id or session.conn_id


def _presence_entry(session: Session, grant: Grant) -> dict[str, Any]:
    client = grant.params.client
    name = client.display_name or client.id
    title = "Node" if grant.role == "node" else "Client"
    entry: dict[str, Any] = {
        "host": name,
        "clientId": client.id,
        "version": client.version,
        "platform": client.platform,
        "mode": client.mode,
        "roles": [grant.role],
        "instanceId": client.instance_id or grant.device_id or session.conn_id,
        "text": f"{title}: {name} · mode {client.mode}",
    }
    if client.device_family is not None:
        entry["deviceFamily"] = client.device_family
    if grant.device_id is not None:
        entry["deviceId"] = grant.device_id
    return entry
