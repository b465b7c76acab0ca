"""What clients hear of runs and sessions: the events ``chat``, ``agent``, ``sessions.changed``, ``session.message``.

Owns the shapes (OpenClaw's) and who hears what. It must not know how a run works or how bytes travel.

Invariants: pieces of an answer go to whoever asked and to those who subscribed to the session, ends go to every
operator who may read; pieces are droppable, ends are not; subscriptions end with their connection and are capped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from openclaw_gateway.agents.records import AgentFailed, Delta, Message, Session
from openclaw_gateway.agents.runstate import Run, RunEvents
from openclaw_gateway.events.bus import EventBus, Listener
from openclaw_gateway.queues import Effect

__all__ = ["EVENTS", "Broadcast", "TooManySubscriptions"]

EVENTS: Final = ("chat", "agent", "sessions.changed", "session.message")
MAX_PER_CONNECTION: Final = 64
MAX_CONNECTIONS: Final = 4096
_READ: Final = "operator.read"


class TooManySubscriptions(ValueError):
    pass


class Broadcast(RunEvents):
    """``clock`` gives Unix milliseconds; ``session_view`` the wire form of a session."""

    def __init__(
        self, bus: EventBus, *, clock: Callable[[], int], session_view: Callable[[Session], dict[str, Any]]
    ) -> None:
        self._bus = bus
        self.on_end: Callable[[dict[str, Any]], Sequence[Effect]] = lambda body: ()  # of the `chat` event of an end
        self._clock = clock
        self._session_view = session_view
        self._keys: dict[str, set[str]] = {}  # connection id → session keys
        self._lists: set[str] = set()  # connections that follow the list of sessions
        bus.declare(EVENTS)

    # --- subscriptions

    def follow(self, conn_id: str, key: str) -> None:
        """Raises `TooManySubscriptions`."""
        keys = self._keys.setdefault(conn_id, set()) if len(self._keys) < MAX_CONNECTIONS else self._keys.get(conn_id)
        if keys is None or (key not in keys and len(keys) >= MAX_PER_CONNECTION):
            raise TooManySubscriptions(f"at most {MAX_PER_CONNECTION} sessions can be followed on one connection")
        keys.add(key)

    def unfollow(self, conn_id: str, key: str) -> None:
        keys = self._keys.get(conn_id, set())
        keys.discard(key)
        if not keys:
            self._keys.pop(conn_id, None)

    def follow_list(self, conn_id: str, *, follow: bool = True) -> None:
        if not follow:
            self._lists.discard(conn_id)
        elif len(self._lists) < MAX_CONNECTIONS:
            self._lists.add(conn_id)

    def forget(self, conn_id: str) -> None:
        """A connection has ended."""
        self._keys.pop(conn_id, None)
        self._lists.discard(conn_id)

    def _hears(self, run: Run) -> Callable[[Listener], bool]:
        key, asker = run.request.session_key, run.audience

        def hears(listener: Listener) -> bool:
            conn_id = getattr(listener, "conn_id", None)
            return conn_id == asker or key in self._keys.get(conn_id or "", ())

        return hears

    # --- RunEvents

    def started(self, run: Run) -> None:
        self._agent(run, "lifecycle", {"phase": "start", "startedAt": run.started_at_ms}, everybody=True)

    def delta(self, run: Run, text: str) -> None:
        body = {**_head(run), "state": "delta", "deltaText": text}
        self._bus.publish_nowait("chat", body, scope=_READ, droppable=True, hears=self._hears(run))

    def other(self, run: Run, delta: Delta) -> None:
        run.seq += 1
        self._agent(run, delta.kind, {"text": delta.text, **(delta.data or {})}, everybody=False)

    def effects(self, run: Run, message: Message, *, error: AgentFailed | None) -> Sequence[Effect]:
        return self.on_end(_end_body(run, message, error, seq=run.seq + 1))

    def ended(self, run: Run, message: Message, *, error: AgentFailed | None) -> None:
        run.seq += 1
        self._bus.publish_nowait("chat", _end_body(run, message, error, seq=run.seq), scope=_READ)
        phase = {"phase": "error" if run.state == "error" else "end", "endedAt": message.at_ms}
        self._agent(run, "lifecycle", phase, everybody=True)

    def _agent(self, run: Run, stream: str, data: dict[str, Any], *, everybody: bool) -> None:
        body = {
            "runId": run.request.run_id,
            "sessionKey": run.request.session_key,
            "agentId": run.request.agent_id,
            "seq": run.seq,
            "stream": stream,
            "ts": self._clock(),
            "data": data,
        }
        hears = None if everybody else self._hears(run)
        self._bus.publish_nowait("agent", body, scope=_READ, droppable=not everybody, hears=hears)

    # --- sessions

    def session_changed(self, session: Session | None, key: str, reason: str) -> None:
        body: dict[str, Any] = {"sessionKey": key, "key": key, "reason": reason, "ts": self._clock()}
        if session is not None:
            body["session"] = self._session_view(session)
        self._bus.publish_nowait(
            "sessions.changed",
            body,
            scope=_READ,
            droppable=True,
            hears=lambda listener: getattr(listener, "conn_id", None) in self._lists,
        )

    def message_written(self, session: Session, message: Message) -> None:
        """A transcript grew: whoever follows the session, or the list of sessions, sees the new entry."""
        body: dict[str, Any] = {
            "sessionKey": session.key,
            "agentId": session.agent_id,
            "messageId": message.id,
            "messageSeq": message.seq,
            "message": message.to_wire(),
            "session": self._session_view(session),
        }
        if message.run_id is not None:
            body["runId"] = message.run_id

        def hears(listener: Listener) -> bool:
            conn_id = getattr(listener, "conn_id", None)
            return conn_id in self._lists or session.key in self._keys.get(conn_id or "", ())

        self._bus.publish_nowait("session.message", body, scope=_READ, hears=hears)


def _head(run: Run) -> dict[str, Any]:
    request = run.request
    return {"runId": request.run_id, "sessionKey": request.session_key, "agentId": request.agent_id, "seq": run.seq}


def _end_body(run: Run, message: Message, error: AgentFailed | None, *, seq: int) -> dict[str, Any]:
    body: dict[str, Any] = {**_head(run), "seq": seq}
    if run.state == "error" and error is not None:
        body |= {"state": "error", "errorMessage": error.message, "errorKind": error.kind}
        if error.detail:
            body["errorDetail"] = dict(error.detail)
    else:
        body |= {"state": "aborted" if run.state == "aborted" else "final", "stopReason": message.stop or "stop"}
    if run.text:
        body["message"] = message.to_wire()
    if message.usage is not None:
        body["usage"] = message.usage.to_wire()
    return body
