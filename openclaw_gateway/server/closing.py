"""A close is a value: `CloseScope` ties a cancel scope to the close code that the peer will read (design rule 9).

Owns the first cause of a connection's end and the cancellation that carries it. It must not know what is cleaned up,
nor how the Close frame travels. Invariants: the first `close` wins, later ones change nothing; leaving the scope always
leaves a cause behind; an outer cancellation (the gateway stops) gets the cause the scope was told to use for it.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Self

import attrs
import trio

from openclaw_gateway.protocol.close import Close, CloseCode
from openclaw_gateway.value import Value

__all__ = ["Cause", "CloseScope"]


@attrs.frozen(eq=False, repr=False)
class Cause(Value):
    """Why a connection ended. ``by_peer``: the peer said so first. ``abrupt``: nothing can or should be flushed any
    more.
    """

    close: Close
    by_peer: bool = False
    abrupt: bool = False


class CloseScope:
    """``with scope: …`` runs until somebody calls `close`, the deadline passes, or the body ends."""

    __slots__ = ("_at_deadline", "_scope", "cause")

    def __init__(self) -> None:
        self._scope = trio.CancelScope()
        self._at_deadline = Cause(Close(CloseCode.NORMAL))
        self.cause: Cause | None = None

    def close(self, code: CloseCode, reason: str = "", *, by_peer: bool = False, abrupt: bool = False) -> None:
        """Record the cause and cancel. Synchronous, callable from anywhere, harmless when repeated."""
        if self.cause is None:
            self.cause = Cause(Close(code, reason), by_peer=by_peer, abrupt=abrupt)
            self._scope.cancel()

    @property
    def closing(self) -> bool:
        return self.cause is not None

    def close_at(self, deadline: float, close: Close) -> None:
        """Close with this value when Trio's clock reaches ``deadline`` (seconds), unless `keep_open` is called
        before.
        """
        self._at_deadline = Cause(close)
        self._scope.deadline = deadline

    def keep_open(self) -> None:
        self._scope.deadline = math.inf

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool:
        swallowed = self._scope.__exit__(exc_type, exc, tb)
        if self.cause is None:
            if self._scope.cancelled_caught:
                self.cause = self._at_deadline
            elif exc is not None and not swallowed:
                self.cause = Cause(Close(CloseCode.SERVICE_RESTART, "service restart"))
            else:
                self.cause = Cause(Close(CloseCode.ABNORMAL), by_peer=True, abrupt=True)
        return swallowed
