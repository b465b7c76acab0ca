"""The message side of a gateway, composed: queues, and who fills and empties them.

Owns which parts there are and how they meet, as `app` does for the whole. It must not know how any of them works, nor
connections and admission.

Invariants: what was accepted lies in a queue before anybody is told so; the parts that call out (channels, model
services, webhooks) are loaded when the configuration asks for them, and none of them can harm another (ROB-1).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.queues import MessageQueue, open_queues
from openclaw_gateway.rpc import queues as queue_methods
from openclaw_gateway.rpc.table import MethodTable
from openclaw_gateway.store import Store

__all__ = ["Messaging", "open_messaging"]

Task = Callable[[], Coroutine[Any, Any, None]]


class Messaging:
    """``inbound`` holds what people and services sent, ``outbound`` what goes to them."""

    def __init__(self, inbound: MessageQueue, outbound: MessageQueue) -> None:
        self.inbound = inbound
        self.outbound = outbound

    def register(self, table: MethodTable, *, audit: AuditTrail) -> None:
        """Put the methods of all parts into ``table``."""
        queue_methods.register(table, queues=(self.inbound, self.outbound), audit=audit)

    def tasks(self) -> Iterator[tuple[str, Task]]:
        """The tasks that run as long as the gateway, by name; each is supervised by itself."""
        yield "inbound-queue", self.inbound.supervise_upkeep
        yield "outbound-queue", self.outbound.supervise_upkeep


@asynccontextmanager
async def open_messaging(store: Store) -> AsyncIterator[Messaging]:
    """The message side with what the store holds of it. Raises `StoreError`."""
    async with open_queues(store, "inbound", "outbound", clock=now_ms) as (inbound, outbound):
        yield Messaging(inbound, outbound)
