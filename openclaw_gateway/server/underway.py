"""Admitted requests under way: their connections are nobody's strangers.

Owns the count of such requests and the place of their connections among the sockets that have not authenticated. It
must not know HTTP. Invariants: while an admitted request is under way its connection cannot be pushed out by sockets
that are not (an answer may stream for minutes); between requests a connection is a stranger again, because HTTP asks
for a credential each time; at most `MAX_UNDER_WAY` at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from openclaw_gateway.server.registry import Strangers
from openclaw_gateway.server.wire import Wire

__all__ = ["MAX_UNDER_WAY", "UnderWay", "under_way"]

MAX_UNDER_WAY: Final = 256


class UnderWay:
    """``count``: admitted requests now."""

    def __init__(self, strangers: Strangers) -> None:
        self._strangers = strangers
        self.count = 0

    @contextmanager
    def serving(self, wire: Wire, key: str) -> Iterator[None]:
        """Tasks that are started inside serve requests of this connection. It is a stranger from here on."""
        self._strangers.add(wire, key)
        token = _here.set((self, wire, key))
        try:
            yield
        finally:
            _here.reset(token)

    def enter(self, wire: Wire) -> bool:
        if self.count >= MAX_UNDER_WAY:
            return False
        self.count += 1
        self._strangers.discard(wire)
        return True

    def leave(self, wire: Wire, key: str) -> None:
        self.count -= 1
        self._strangers.add(wire, key)  # whoever serves the connection discards it for good


_here: ContextVar[tuple[UnderWay, Wire, str] | None] = ContextVar("openclaw_gateway_request", default=None)


@contextmanager
def under_way() -> Iterator[bool]:
    """An admitted request of this task's connection, as long as the block lasts. False: there are too many."""
    here = _here.get()
    if here is None:  # an application that is called without a connection
        yield True
        return
    place, wire, key = here
    if not place.enter(wire):
        yield False
        return
    try:
        yield True
    finally:
        place.leave(wire, key)
