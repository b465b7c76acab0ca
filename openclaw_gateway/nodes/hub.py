"""The hub of nodes: ties the live registry, the approved surfaces, the pairing records and the broker together.

Owns what a node may be asked at this moment (pinned kind, declared, approved, allowed: all four, V31, V33) and what
follows when one of these changes. It must not know frames or methods; `rpc.nodes` is its face to peers.

Invariants: the pairing record is looked at anew for every command, so what was taken back counts at once; a surface of
another pairing grants nothing; declaring costs the connection nothing, a task of the hub writes it down; an event goes
out after the change that it tells of is durable.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
import trio

from openclaw_gateway.events.bus import EventBus, Listener, make_event
from openclaw_gateway.nodes.broker import Broker, Invocation, not_connected
from openclaw_gateway.nodes.facts import FactsBook
from openclaw_gateway.nodes.queue import WorkQueue
from openclaw_gateway.nodes.records import Declaration, SurfaceRequest, names, request_to_wire, resolved_payload
from openclaw_gateway.nodes.registry import NodeLink, NodeRegistry, NodeSession
from openclaw_gateway.nodes.surfaces import SurfaceBook, SurfacesUnreadable
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.decisions import Decider
from openclaw_gateway.pairing.devices import DeviceBook, DeviceBookUnreadable
from openclaw_gateway.pairing.records import BookEvent, PairedDevice
from openclaw_gateway.policy.nodes import NodePolicy, exec_capable, node_kind, reserved_field
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.table import CallError
from openclaw_gateway.store import Store, StoreError

if TYPE_CHECKING:
    from openclaw_gateway.config.schema import NodesConfig
    from openclaw_gateway.nodes.rows import SurfaceChange

__all__ = ["NodeHub", "open_node_hub"]

UPKEEP_SECONDS: Final = 5.0
FLUSH_SECONDS: Final = 60.0
STATS_SECONDS: Final = 1.0  # host stats that come faster are dropped
_CLOSING_FLUSH_SECONDS: Final = 1.0

log = get_logger("nodes")

Hears = Callable[[Listener], bool]


class NodeHub:
    """What `open_node_hub` yields. ``attach`` it to a gateway's event bus; times are Unix milliseconds."""

    def __init__(self, store: Store, book: DeviceBook, *, clock: Callable[[], int]) -> None:
        self.book = book
        self.clock = clock
        self.registry = NodeRegistry()
        self.surfaces = SurfaceBook(store)
        self.facts = FactsBook(store)
        self.queue = WorkQueue(store)
        self.broker = Broker(self.registry, authorise=self._authorise)
        self.policy = NodePolicy()
        self.invoke_timeout_ms = 30_000
        self.bus = EventBus()
        self._hears_of: Callable[[str], Hears | None] = lambda node_id: None
        self._dirty: dict[str, None] = {}  # nodes whose declaration waits to be written down
        self._wake = trio.Event()
        self._flushed_at = trio.current_time()

    def attach(self, bus: EventBus, hears_of: Callable[[str], Hears | None]) -> None:
        """Publish on this bus from now on; ``hears_of(node_id)`` says who may learn of that node's pairing (V21)."""
        self.bus = bus
        self._hears_of = hears_of

    def configure(self, config: NodesConfig) -> None:
        """Use another policy and default deadline; what nodes lend follows at once."""
        self.policy = NodePolicy(allow=frozenset(config.commands.allow), deny=frozenset(config.commands.deny))
        self.invoke_timeout_ms = config.invoke_timeout_ms
        for node in self.registry:
            self._redeclare(node)

    # --- moments of a connection; synchronous

    def joined(self, link: NodeLink) -> None:
        """A connection of role node was admitted: it speaks for its node from now on (LIVE-1)."""
        grant, node_id = link.grant, link.device_id
        if grant is None or grant.role != "node" or node_id is None:
            return
        record = self.record(node_id)
        kind = node_kind(record.platform, record.device_family, record.client_id) if record is not None else "unknown"
        now = self.clock()
        node, retired = self.registry.join(node_id, link, kind, now)
        if retired is not None:
            self.broker.lost(retired, "a newer connection of the node took its place")
            retired.link.scope.close(CloseCode.POLICY, "superseded by a newer connection of this node")
        if record is not None:
            changes: dict[str, Any] = {"last_connected_at_ms": now, "version": grant.params.client.version}
            self.facts.note(node_id, **changes, last_seen_at_ms=now, last_seen_reason="connect")
        self._redeclare(node)

    def left(self, link: NodeLink) -> None:
        """A connection ended; a retired one changes nothing any more."""
        node = self.registry.leave(link)
        if node is None:
            return
        self.broker.lost(node, "its connection ended")
        if self.record(node.node_id) is not None:
            self.facts.note(node.node_id, last_seen_at_ms=self.clock(), last_seen_reason="disconnect")

    # --- what may be asked

    def record(self, node_id: str) -> PairedDevice | None:
        """The live pairing of the node; None where there is none, or it cannot be known (fail closed)."""
        try:
            return self.book.lookup(node_id, "node")
        except DeviceBookUnreadable:
            return None

    def lends(self, node: NodeSession) -> frozenset[str]:
        """What this session may be asked now: declared, approved, allowed."""
        record = self.record(node.node_id)
        surface = self.surfaces.surface(node.node_id, record.approved_at_ms) if record is not None else None
        if surface is None:
            return frozenset()
        return frozenset(surface.commands) & node.declared

    def may_invoke(self, node: NodeSession, command: str) -> bool:
        """`lends` for one command, without building the set."""
        record = self.record(node.node_id)
        surface = self.surfaces.surface(node.node_id, record.approved_at_ms) if record is not None else None
        return surface is not None and command in node.declared and command in surface.commands

    def _authorise(self, call: Invocation) -> NodeSession:
        record = self.record(call.node_id)
        surface = self.surfaces.surface(call.node_id, record.approved_at_ms) if record is not None else None
        if surface is None:
            raise CallError(wire_error("node-pairing-changed"))
        node = self.registry.get(call.node_id)
        if node is None:
            raise CallError(not_connected())
        if not self.may_invoke(node, call.command):
            details = {"reason": "command not allowlisted", "command": call.command[:128]}
            raise CallError(wire_error("node-command-refused", details=details, command=call.command[:128]))
        return node

    async def invoke(self, call: Invocation) -> dict[str, Any]:
        """Ask a node; see `Broker.invoke`. Raises `CallError`."""
        field = reserved_field(call.params, call.command)
        if field is not None:
            log.warning("node invoke with a reserved field refused", node_id=call.node_id[:80], command=call.command)
            raise CallError(wire_error("node-reserved-field", command=call.command[:128], field=field))
        if exec_capable(call.command):
            log.info("node invoke", node_id=call.node_id[:80], command=call.command, subject=call.principal)
        return await self.broker.invoke(call)

    def default_node(self) -> str | None:
        """The only live node that lends anything; None where there is none or more than one (NODE-2)."""
        able = [node.node_id for node in self.registry if self.lends(node)]
        return able[0] if len(able) == 1 else None

    # --- surfaces

    async def approve(self, request: SurfaceRequest, via: str) -> SurfaceChange | None:
        """Let the node lend what ``request`` lists, at once where it is connected. None: it was answered meanwhile.

        Raises `StoreError`, `SurfacesUnreadable`.
        """
        record = self.record(request.node_id)
        if record is None or record.approved_at_ms != request.paired_at_ms:
            return None
        change = await self.surfaces.approve(request, via, self.clock())
        self._tell(change)
        return change

    async def reject(self, request_id: str) -> SurfaceChange | None:
        """End a request. Raises as `approve`."""
        change = await self.surfaces.reject(request_id)
        self._tell(change)
        return change

    async def remove(self, node_id: str, by: Decider, *, whole: bool) -> None:
        """Forget a node with its surface and its work, end its connections (4001).

        ``whole``: the device is a node and nothing else, and goes; else it loses the role node. Raises as
        `DeviceBook.remove` and `DeviceBook.revoke`, and `SurfacesUnreadable`.
        """
        record, now = self.record(node_id), self.clock()
        waiting = self.surfaces.request(node_id, record.approved_at_ms) if record is not None else None
        if whole:
            decided = await self.book.remove(node_id, by, now)
        else:
            decided = await self.book.revoke(node_id, "node", by, now)
        node = self.registry.get(node_id)
        if node is not None:  # at once: what follows may fail, and the role is gone already
            node.link.scope.close(CloseCode.DEVICE_REMOVED, "device removed")
        change = await self.surfaces.remove(node_id)
        if waiting is not None and not change.ended:  # its row went with the device's
            change = attrs.evolve(change, ended=((waiting, "removed"),))
        self.facts.forget(node_id)
        self.queue.forget(node_id)
        self._tell(change)
        self._publish("node.pair.resolved", resolved_payload("", node_id, "removed", self.clock()), node_id)
        self._publish_book(decided.events)
        log.info("pairing: node removed", node_id=node_id)

    def forget(self, node_id: str) -> None:
        """The device was removed, and its rows with it: nothing of the node stays in memory either."""
        self.surfaces.forget(node_id)
        self.facts.forget(node_id)
        self.queue.forget(node_id)

    async def rename(self, node_id: str, label: str, by: Decider) -> None:
        """Give the node the name that operators see. Raises as `DeviceBook.rename`."""
        self._publish_book((await self.book.rename(node_id, label, by)).events)

    def _publish(self, event: str, payload: dict[str, Any], node_id: str) -> None:
        self.bus.publish_nowait(event, payload, scope="operator.pairing", hears=self._hears_of(node_id))

    def _publish_book(self, events: tuple[BookEvent, ...]) -> None:
        for event in events:  # they name no device
            self.bus.publish_nowait(event.name, event.payload, scope="operator.pairing")

    def _tell(self, change: SurfaceChange | None) -> None:
        if change is None:
            return
        now = self.clock()
        for request, decision in change.ended:
            payload = resolved_payload(request.request_id, request.node_id, decision, now)
            self._publish("node.pair.resolved", payload, request.node_id)
            node = self.registry.get(request.node_id)
            if node is not None:
                node.link.offer(make_event("node.pair.resolved", payload, role="node", numbered=False))
            log.info("node pairing resolved", request_id=request.request_id, node_id=request.node_id, decision=decision)
        if change.created and change.request is not None:
            request = change.request
            self._publish("node.pair.requested", request_to_wire(request), request.node_id)
            log.info("node pairing requested", request_id=request.request_id, node_id=request.node_id)

    def _tell_standing(self, node: NodeSession, record: PairedDevice) -> None:
        """Let the node itself know whether what it offers waits for somebody or is approved."""
        request = self.surfaces.request(node.node_id, record.approved_at_ms)
        if request is not None:
            payload, name = request_to_wire(request), "node.pair.requested"
        elif self.lends(node):
            payload, name = resolved_payload("", node.node_id, "approved", self.clock()), "node.pair.resolved"
        else:
            return
        node.link.offer(make_event(name, payload, role="node", numbered=False))

    def _redeclare(self, node: NodeSession) -> None:
        """Cut what the node declares to what it may, and have it held against what was approved."""
        grant = node.link.grant
        if grant is None:
            return
        node.declared = frozenset(self.policy.ceiling(names(grant.params.commands), node.kind))
        node.caps = names(grant.params.caps)
        node.awaiting = True
        self._dirty[node.node_id] = None
        self._wake.set()

    def _declaration(self, node: NodeSession, record: PairedDevice) -> Declaration:
        """Who it is comes from the pairing record, what it can do from the connection (V31)."""
        grant = node.link.grant
        assert grant is not None
        return Declaration(
            node_id=node.node_id,
            paired_at_ms=record.approved_at_ms,
            caps=node.caps,
            commands=tuple(sorted(node.declared)),
            client_id=record.client_id,
            client_mode=record.client_mode,
            display_name=record.label or record.display_name or record.client_id,
            platform=record.platform,
            version=names([grant.params.client.version])[0] if names([grant.params.client.version]) else "",
            device_family=record.device_family,
            remote_ip=node.link.client_address,
        )

    async def _declare(self, node_id: str) -> None:
        node, record = self.registry.get(node_id), self.record(node_id)
        if node is None or record is None:
            return
        grant = node.link.grant
        # Only who holds operator.admin makes setup codes (V24), so a code of the role node is an approval beforehand.
        by_code = grant is not None and grant.method == "bootstrap-token"
        via = "setup-code" if by_code else None
        with suppress(sqlite3.IntegrityError):  # the device was removed in this very moment
            self._tell(await self.surfaces.declare(self._declaration(node, record), self.clock(), via=via))
        node.awaiting = node_id in self._dirty
        if self.registry.get(node_id) is node:  # it may have gone while this was written
            self._tell_standing(node, record)

    # --- upkeep

    async def serve(self) -> None:
        """Never returns: writes down declarations as they come, forgets what is past its time, flushes facts.

        What the store refuses now is tried again five seconds later.
        """
        while True:
            with trio.move_on_after(UPKEEP_SECONDS):
                await self._wake.wait()
            self._wake = trio.Event()
            try:
                if self.surfaces.fault is not None:
                    await self.load()
                await self._declare_dirty()
                self.broker.expire()
                await self.queue.expire(self.clock())
                if trio.current_time() - self._flushed_at >= FLUSH_SECONDS:
                    self._flushed_at = trio.current_time()
                    await self.facts.flush()
            except (StoreError, SurfacesUnreadable, DeviceBookUnreadable) as error:
                log.warning("node state cannot be written; trying again", error=str(error))
                await trio.sleep(UPKEEP_SECONDS)

    async def _declare_dirty(self) -> None:
        while self._dirty:
            node_id = next(iter(self._dirty))
            del self._dirty[node_id]
            try:
                await self._declare(node_id)
            except BaseException:
                self._dirty[node_id] = None
                raise

    async def load(self) -> None:
        """Read everything from the store. Raises `SurfacesUnreadable`."""
        snapshot = await self.surfaces.reload()
        self.facts.restore(snapshot.facts)
        self.queue.restore(snapshot.items)

    def report_stats(self, node: NodeSession, stats: dict[str, Any]) -> bool:
        """Keep a node's host stats and tell operators; False where they come too fast."""
        now = trio.current_time()
        if now - node.stats_at < STATS_SECONDS:
            self.registry.drops["too-frequent"] += 1
            return False
        stamped = {**stats, "updatedAtMs": self.clock()}
        node.stats, node.stats_at = stamped, now
        if self.record(node.node_id) is not None:
            self.facts.note(node.node_id, host_stats=stamped)
        payload = msgspec.Raw(msgspec.json.encode({"nodeId": node.node_id, "hostStats": stamped}))
        self.bus.publish_nowait("node.hostStats", payload, droppable=True)
        return True


@asynccontextmanager
async def open_node_hub(store: Store, book: DeviceBook, *, clock: Callable[[], int]) -> AsyncGenerator[NodeHub, None]:
    """The hub over an open store and device book. On exit facts are flushed, within a second."""
    hub = NodeHub(store, book, clock=clock)
    with suppress(SurfacesUnreadable):  # fail closed: nothing is lent until `NodeHub.serve` could read it
        await hub.load()
    try:
        yield hub
    finally:
        deadline = trio.current_time() + _CLOSING_FLUSH_SECONDS
        with suppress(StoreError), trio.CancelScope(shield=True, deadline=deadline):
            await hub.facts.flush()
