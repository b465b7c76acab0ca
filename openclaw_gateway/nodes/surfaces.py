"""The surface book: what each node may lend and what waits for a person, in memory, each change durable first.

Owns the view in memory over `nodes.rows` and the promises of surface approval (V33): a node that was only paired lends
nothing, a wider declaration waits while what was approved stays in force, an approval is of exactly what was listed. It
must not know who is connected, policy or the event bus: changes return what happened.

Invariants: the view follows commits in their order; a book that could not be read lends nothing (fail closed).
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable
from functools import partial

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.nodes import rows
from openclaw_gateway.nodes.records import Declaration, Surface, SurfaceRequest
from openclaw_gateway.nodes.rows import Snapshot, SurfaceChange
from openclaw_gateway.store import Store, StoreError

__all__ = ["SurfaceBook", "SurfacesUnreadable"]


@attrs.define(eq=False, repr=False)
class SurfacesUnreadable(GatewayError):
    """What nodes may lend is not known, because the store could not be read. Retryable; nothing is lent meanwhile."""

    reason: str

    def __str__(self) -> str:
        return f"the approved surfaces cannot be read: {self.reason}"


class SurfaceBook:
    """All methods belong to the store's Trio run. Times are Unix milliseconds."""

    def __init__(self, store: Store, *, new_id: Callable[[], str] = lambda: str(uuid.uuid4())) -> None:
        self._store = store
        self._new_id = new_id
        self._surfaces: dict[str, Surface] = {}
        self._requests: dict[str, SurfaceRequest] = {}
        self.fault: str | None = "not loaded yet"

    # --- look-ups: synchronous, from memory

    def surface(self, node_id: str, paired_at_ms: int) -> Surface | None:
        """What was approved for this pairing of the node; None where nothing was, or nothing can be known."""
        surface = self._surfaces.get(node_id)
        return surface if surface is not None and surface.paired_at_ms == paired_at_ms else None

    def request(self, node_id: str, paired_at_ms: int) -> SurfaceRequest | None:
        """What waits for this pairing of the node."""
        request = self._requests.get(node_id)
        return request if request is not None and request.paired_at_ms == paired_at_ms else None

    def request_by_id(self, request_id: str) -> SurfaceRequest | None:
        return next((request for request in self._requests.values() if request.request_id == request_id), None)

    def requests(self) -> tuple[SurfaceRequest, ...]:
        """All that wait, oldest first. Raises `SurfacesUnreadable`."""
        self._must_be_readable()
        return tuple(sorted(self._requests.values(), key=lambda one: (one.requested_at_ms, one.request_id)))

    # --- changes: durable when they return; all raise `StoreError` or `SurfacesUnreadable`, and change nothing then

    async def declare(self, declaration: Declaration, now: int, *, via: str | None = None) -> SurfaceChange:
        """Hold what a node declares against what was approved; see `rows.declare`."""
        await self._readable_or_reload()
        work = partial(rows.declare, declaration=declaration, now=now, new_id=self._new_id, via=via)
        return await self._store.run(work, then=self._apply, precious=via is not None)

    async def approve(self, request: SurfaceRequest, via: str, now: int) -> SurfaceChange | None:
        """Approve exactly ``request``; None where it was answered or changed meanwhile."""
        await self._readable_or_reload()
        work = partial(rows.approve, request_id=request.request_id, commands=request.commands, via=via, now=now)
        return await self._store.run(work, then=self._apply, precious=True)

    async def reject(self, request_id: str) -> SurfaceChange | None:
        """End a request; what was approved before stays."""
        await self._readable_or_reload()
        return await self._store.run(partial(rows.reject, request_id=request_id), then=self._apply)

    async def remove(self, node_id: str) -> SurfaceChange:
        """Forget a node; a restored backup does not bring its surface back (V26)."""
        await self._readable_or_reload()
        return await self._store.run(partial(rows.remove, node_id=node_id), then=self._apply, revokes=True)

    def forget(self, node_id: str) -> None:
        """The node's rows are gone with its device; so is what was known of them."""
        self._surfaces.pop(node_id, None)
        self._requests.pop(node_id, None)

    async def reload(self) -> Snapshot:
        """Read everything anew. Raises `SurfacesUnreadable`; the book stays closed then."""
        try:
            return await self._store.run(rows.load, then=self._apply_snapshot)
        except (StoreError, sqlite3.Error, ValueError, TypeError) as error:
            self.fault = str(error)
            self._surfaces, self._requests = {}, {}
            raise SurfacesUnreadable(self.fault) from error

    # --- inside

    def _must_be_readable(self) -> None:
        if self.fault is not None:
            raise SurfacesUnreadable(self.fault)

    async def _readable_or_reload(self) -> None:
        if self.fault is not None:
            await self.reload()

    def _apply_snapshot(self, snapshot: Snapshot) -> None:
        self._surfaces = {surface.node_id: surface for surface in snapshot.surfaces}
        self._requests = {request.node_id: request for request in snapshot.requests}
        self.fault = None

    def _apply(self, change: SurfaceChange | None) -> None:
        if change is None:
            return
        for ended, _decision in change.ended:
            self._requests.pop(ended.node_id, None)
        if change.request is not None:
            self._requests[change.node_id] = change.request
        else:
            self._requests.pop(change.node_id, None)
        if change.surface is not None:
            self._surfaces[change.node_id] = change.surface
        else:
            self._surfaces.pop(change.node_id, None)
