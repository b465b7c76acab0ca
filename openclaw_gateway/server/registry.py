"""Who is connected: live sessions, and the sockets that have not authenticated yet.

Owns both caps of the door (checklist C14): admitted connections in all, unauthenticated sockets per address and in all.
It must not know what a session does. Invariants: a socket is counted from its accept to its admission or end; over the
cap of unauthenticated sockets the oldest of that address makes room, so that a flood can neither grow nor keep an
honest client out (V46).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.errors import WireError, wire_error
from openclaw_gateway.server.wire import Wire

if TYPE_CHECKING:
    from openclaw_gateway.server.session import Session

__all__ = ["SessionRegistry", "Strangers"]

MAX_STRANGERS: Final = 512


class Strangers:
    """Sockets before authentication, oldest first, by address key."""

    def __init__(self, per_address: int, *, total: int = MAX_STRANGERS) -> None:
        self.per_address = per_address
        self.total = total
        self.evicted = 0
        self._all: OrderedDict[Wire, str] = OrderedDict()
        self._by_key: dict[str, OrderedDict[Wire, None]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def count(self, key: str) -> int:
        return len(self._by_key.get(key, ()))

    def add(self, wire: Wire, key: str) -> None:
        """Count a fresh socket; aborts the oldest of the same address, or of all, where there are too many."""
        mine = self._by_key.setdefault(key, OrderedDict())
        if len(mine) >= self.per_address:
            self._evict(next(iter(mine)))
            mine = self._by_key.setdefault(key, OrderedDict())
        elif len(self._all) >= self.total:
            # The address with the most sockets pays, so that a flood from many does not push out an honest one.
            crowd = max(self._by_key.values(), key=len)
            self._evict(next(iter(crowd)))
        mine[wire] = None
        self._all[wire] = key

    def _evict(self, wire: Wire) -> None:
        self.evicted += 1
        self.discard(wire)
        wire.abort()

    def move(self, wire: Wire, key: str) -> None:
        """Count a socket under the address that it turned out to speak for."""
        if wire in self._all:
            self.discard(wire)
            self.add(wire, key)

    def discard(self, wire: Wire) -> None:
        key = self._all.pop(wire, None)
        if key is None:
            return
        mine = self._by_key[key]
        del mine[wire]
        if not mine:
            del self._by_key[key]


class SessionRegistry:
    """Live sessions. Synchronous; every change happens between two checkpoints."""

    def __init__(self, *, limit: int, strangers: Strangers) -> None:
        self.limit = limit
        self.strangers = strangers
        self._all: dict[Session, None] = {}
        self._admitted: dict[Session, None] = {}

    def __iter__(self) -> Iterator[Session]:
        """Admitted sessions, in the order they came; a copy, so that a session may end while one looks."""
        return iter(tuple(self._admitted))

    def __len__(self) -> int:
        return len(self._admitted)

    @property
    def live(self) -> tuple[Session, ...]:
        """All sessions, admitted or not."""
        return tuple(self._all)

    def add(self, session: Session) -> None:
        self._all[session] = None

    def refuse_admission(self, session: Session) -> WireError | None:
        """The error for a session that would be one too many; None where there is room."""
        if len(self._admitted) < self.limit:
            return None
        return wire_error("connection-limit", limit=self.limit)

    def admitted(self, session: Session) -> None:
        self.strangers.discard(session.wire)
        self._admitted[session] = None

    def remove(self, session: Session) -> None:
        self._all.pop(session, None)
        self._admitted.pop(session, None)

    def of_device(self, device_id: str, role: str | None = None) -> list[Session]:
        return [s for s in self._admitted if s.device_id == device_id and role in {None, s.role}]

    def cut_device(self, device_id: str, role: str | None, spared: str | None = None) -> None:
        """End what a device (in one role, or all) has open, without another byte of answers. ``spared``: the id of the
        connection that itself asked for it; it ends behind its answer.
        """
        for session in self.of_device(device_id, role):
            if session.conn_id == spared:
                session.disarm()
            else:
                session.cut(CloseCode.DEVICE_REMOVED, "device removed")

    def close_all(self, code: CloseCode, reason: str) -> None:
        for session in self.live:
            session.scope.close(code, reason)
