"""The gateway's side of an adapter under test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import trio

from openclaw_gateway.channels.adapter import Incoming

__all__ = ["Port"]


@attrs.define(eq=False)
class Port:
    """The gateway's side: what came in, and what is answered to it."""

    taken: list[Incoming] = attrs.field(factory=list)
    identity: Mapping[str, Any] | None = None
    refuse: list[Exception] = attrs.field(factory=list)
    changed: trio.Event = attrs.field(factory=trio.Event)

    async def incoming(self, message: Incoming) -> None:
        await trio.lowlevel.checkpoint()
        if self.refuse:
            raise self.refuse.pop(0)
        self.taken.append(message)
        self._wake()

    def connected(self, identity: Mapping[str, Any]) -> None:
        self.identity = identity
        self._wake()

    def activity(self) -> None:
        pass

    def _wake(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def wait(self, count: int = 0) -> None:
        with trio.fail_after(10):
            while self.identity is None or len(self.taken) < count:
                await self.changed.wait()
