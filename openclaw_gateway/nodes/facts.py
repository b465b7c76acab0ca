"""What is remembered of nodes for people to read: when each was here last, its version, its host's last stats.

Owns the facts in memory and writing them now and then: a connect that changes nothing but a time stamp writes nothing
(STATE-3). It must not know who is connected. Invariants: only paired nodes are noted, so there are never more facts
than nodes; a fault of the store keeps what was noted for the next time.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import attrs

from openclaw_gateway.nodes import rows
from openclaw_gateway.nodes.records import NodeFacts
from openclaw_gateway.store import Store

__all__ = ["FactsBook"]


class FactsBook:
    """Times are Unix milliseconds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._facts: dict[str, NodeFacts] = {}
        self._changed: dict[str, None] = {}

    def restore(self, facts: Iterable[NodeFacts]) -> None:
        """Take over what was read; what was noted meanwhile is newer."""
        self._facts = {fact.node_id: fact for fact in facts} | {key: self._facts[key] for key in self._changed}

    def of(self, node_id: str) -> NodeFacts:
        return self._facts.get(node_id) or NodeFacts(node_id=node_id)

    def note(self, node_id: str, **changes: Any) -> None:
        """Change facts of a paired node; on the disk with the next `flush`."""
        self._facts[node_id] = attrs.evolve(self.of(node_id), **changes)
        self._changed[node_id] = None

    def forget(self, node_id: str) -> None:
        self._facts.pop(node_id, None)
        self._changed.pop(node_id, None)

    async def flush(self) -> None:
        """Write what was noted. Raises `StoreError`; then it is kept for the next time."""
        if not self._changed:
            return
        changed, self._changed = self._changed, {}
        facts = [self._facts[key] for key in changed if key in self._facts]
        try:
            await self._store.run(partial(rows.save_facts, facts=facts))
        except BaseException:
            self._changed = {**changed, **self._changed}
            raise
