"""The heartbeat watchdog: one task that pings every connection and notices the ones that are gone (S046-S048, C12).

Owns the schedule. It must not know what a connection carries. Times come from `time.monotonic`, in seconds.

Invariants: the pong window opens when the ping has left this host, not when it was queued, nor while the kernel keeps
it because the peer's receive window is closed (LIVE-3); bytes that move in either direction are a sign of life; a
connection that takes nothing for a whole interval and window is a slow consumer, not a dead one, and is told so.
"""

from __future__ import annotations

from time import monotonic

import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.server.registry import SessionRegistry
from openclaw_gateway.server.session import Session

__all__ = ["Heartbeat"]

log = get_logger("heartbeat")


class Heartbeat:
    def __init__(self, registry: SessionRegistry, *, interval: float, timeout: float) -> None:
        self._registry = registry
        self.configure(interval=interval, timeout=timeout)

    def configure(self, *, interval: float, timeout: float) -> None:
        self.interval = interval
        self.timeout = timeout

    @property
    def step(self) -> float:
        """Seconds between two looks: fine enough for the window, coarse enough to cost nothing."""
        return min(1.0, self.interval / 4, self.timeout / 4)

    async def serve(self) -> None:
        """Look at every connection each step, for ever."""
        while True:
            await trio.sleep(self.step)
            now = monotonic()
            for session in self._registry:
                self.look(session, now)

    def look(self, session: Session, now: float) -> None:
        """Ping what is due, judge what was pinged. Synchronous, so that a test can move the clock by hand."""
        writer = session.writer
        # What the kernel took says nothing about the peer: only what its host confirmed does (LIVE-1).
        unconfirmed = session.wire.unacknowledged
        # All that was sent is confirmed and the rest may not leave: the peer's window is closed, its reader is slow.
        held = unconfirmed if unconfirmed and session.wire.unsent == unconfirmed else 0
        progress = (session.received, writer.sent - unconfirmed)
        moved = progress != session.progress
        session.progress = progress
        if moved or not (writer.size or held):
            session.moved_at = now  # with nothing waiting to leave there is nothing to be slow with
        if session.ping_mark is not None:
            self._judge(session, now, moved=moved, left=writer.sent - held)
        elif session.ping_at <= now:
            if session.ping_at:
                session.ping_mark = session.ping()
            session.ping_at = now + self.interval
        if now - session.moved_at > self.interval + self.timeout:
            log.warning("disconnect: the peer takes no data", conn_id=session.conn_id, queued_bytes=writer.size + held)
            session.scope.close(CloseCode.POLICY, "slow consumer")

    def _judge(self, session: Session, now: float, *, moved: bool, left: int) -> None:
        assert session.ping_mark is not None
        if left < session.ping_mark:
            session.pong_by = None  # nobody can answer what has not left this host
        elif session.pong_by is None or moved:
            # Bytes came in, or the peer's host took some of ours: alive, however slow (LIVE-3).
            session.pong_by = now + self.timeout
        elif now >= session.pong_by:
            log.info("disconnect: no pong", conn_id=session.conn_id, reason="ping timeout")
            session.scope.close(CloseCode.ABNORMAL, "ping timeout", abrupt=True)
