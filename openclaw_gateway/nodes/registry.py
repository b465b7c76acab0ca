"""The live nodes: one session per node, told from every earlier one by its generation (LIVE-1).

Owns which connection speaks for a node. It must not know what nodes are asked or allowed. Everything is synchronous
and happens between two checkpoints.

Invariants: a node has at most one session; a new one retires the old in the same step, so that nothing the old one
still says is taken for the new one's; generations only grow; what came too late or from the wrong side is counted in
`drops` under one of a closed set of reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

import attrs
import trio

from openclaw_gateway.policy.nodes import NodeKind

if TYPE_CHECKING:
    from openclaw_gateway.events.bus import OutgoingEvent
    from openclaw_gateway.server.closing import CloseScope
    from openclaw_gateway.server.gatekeeper import Grant

__all__ = ["Drop", "NodeLink", "NodeRegistry", "NodeSession"]

Drop = Literal["unknown", "foreign", "retired", "late", "unmatched-exec", "bad-event", "too-frequent"]


class NodeLink(Protocol):
    """A node's connection, as this room needs it; `server.session.Session` is one."""

    @property
    def conn_id(self) -> str: ...
    @property
    def device_id(self) -> str | None: ...
    @property
    def client_address(self) -> str: ...
    @property
    def grant(self) -> Grant | None: ...
    @property
    def scope(self) -> CloseScope: ...
    @property
    def secure(self) -> bool: ...
    def offer(self, event: OutgoingEvent) -> bool: ...


@attrs.define(eq=False, kw_only=True, repr=False)
class NodeSession:
    """One generation of a node. ``declared`` and ``caps`` are cut to what its kind may lend."""

    node_id: str
    generation: int
    link: NodeLink
    kind: NodeKind
    connected_at_ms: int
    declared: frozenset[str] = frozenset()
    caps: tuple[str, ...] = ()
    awaiting: bool = True  # what it declares was not held against what is approved yet
    stats: Mapping[str, Any] | None = None
    stats_at: float = -1e9
    active_at_ms: int | None = None
    activity_at_ms: int | None = None
    skills: list[dict[str, Any]] = attrs.field(factory=list)
    tools: list[dict[str, Any]] = attrs.field(factory=list)
    inventory: dict[str, Any] | None = None
    gone: trio.Event = attrs.field(factory=trio.Event)


class NodeRegistry:
    def __init__(self) -> None:
        self._live: dict[str, NodeSession] = {}
        self._generation = 0
        self.drops: Counter[Drop] = Counter()

    def __iter__(self) -> Iterator[NodeSession]:
        return iter(tuple(self._live.values()))

    def __len__(self) -> int:
        return len(self._live)

    def get(self, node_id: str) -> NodeSession | None:
        return self._live.get(node_id)

    def join(self, node_id: str, link: NodeLink, kind: NodeKind, now_ms: int) -> tuple[NodeSession, NodeSession | None]:
        """Take a new connection as the node's; returns it and the one that it retired."""
        self._generation += 1
        retired = self._live.get(node_id)
        session = NodeSession(
            node_id=node_id, generation=self._generation, link=link, kind=kind, connected_at_ms=now_ms
        )
        self._live[node_id] = session
        if retired is not None:
            retired.gone.set()
        return session, retired

    def leave(self, link: NodeLink) -> NodeSession | None:
        """Forget a connection that ended; None where it was retired before, so that it takes nobody else along."""
        session = self.of(link)
        if session is not None:
            del self._live[session.node_id]
            session.gone.set()
        return session

    def of(self, link: object) -> NodeSession | None:
        """The session that this very connection is; None for one that was retired, or never was a node's."""
        node_id = getattr(link, "device_id", None)
        session = self._live.get(node_id) if node_id is not None else None
        return session if session is not None and session.link is link else None
