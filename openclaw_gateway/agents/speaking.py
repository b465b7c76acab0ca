"""One agent speaks in one run: it is asked, what it says is told in pieces, and its time ends.

Owns what an agent is handed, the way of its words to `RunEvents`, and how a failure, a timeout and an abort are told
apart. It must not know how the run was accepted, what becomes of the answer, or how agents work.

Invariants: text is coalesced, so a fast agent cannot flood slow clients, and bounded by `MAX_REPLY`; what leaves is
whole text (`protocol.wholetext`); an abort is heard whenever it comes; a gateway that stops is no answer of the agent.
"""

from __future__ import annotations

from typing import Final

import attrs
import trio

from openclaw_gateway.agents.agent import Agent
from openclaw_gateway.agents.records import MAX_REPLY, AgentFailed, Delta, Message, Outcome, RunRequest, Session, Turn
from openclaw_gateway.agents.runstate import Run, RunEvents
from openclaw_gateway.agents.sessions import Sessions
from openclaw_gateway.errors import flat_errors
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.wholetext import whole, whole_value

__all__ = ["speak", "whole_failure"]

COALESCE_SECONDS: Final = 0.04
MAX_CONTEXT: Final = 400  # messages of a session that an agent may be handed; what fits is the agent's to choose

log = get_logger("agents")


async def speak(
    run: Run,
    session: Session,
    asked: Message,
    *,
    agent: Agent,
    sessions: Sessions,
    events: RunEvents,
    timeout_seconds: float,
    uncertain: bool,
) -> Outcome | None:
    """Let ``agent`` answer ``asked``, the last message of ``session``; ``run.text`` is what it said. None: the run was
    aborted, before or while it spoke. ``timeout_seconds`` hold where the request has no time of its own.

    Raises `AgentFailed`, after the timeout too, and `StoreError` where the transcript cannot be read. Cancelled from
    outside, the agent is cancelled, and whatever it makes of that is left out.
    """
    request = run.request
    history = _told(request)
    if history is None:
        history = await sessions.history(session, before=asked.seq, limit=MAX_CONTEXT)
    if run.aborted:  # while the transcript was read; from here to the scope nothing waits
        return None
    turn = Turn(request, session, history, uncertain=uncertain)
    seconds = request.timeout_ms / 1000 if request.timeout_ms is not None else timeout_seconds
    outcome: Outcome | None = None
    with trio.move_on_after(seconds) as run.scope, flat_errors():
        try:
            async with trio.open_nursery() as nursery:
                wake = trio.Event()
                tell = _Teller(run, events, wake)
                nursery.start_soon(tell.serve)
                try:
                    outcome = await agent.run(turn, tell.take)
                except AgentFailed:
                    raise
                except Exception as exc:
                    log.exception("agent broke", exc=exc, agent=request.agent_id)
                    raise AgentFailed(f"the agent {request.agent_id} failed: {type(exc).__name__}") from exc
                finally:
                    tell.flush()
                nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            _, other = group.split(AgentFailed)
            if other is not None:  # told to end: how the agent ended then is no answer, and a stop asks again later
                raise other from None
            raise
    if outcome is None and not run.aborted:
        raise AgentFailed(f"no answer within {seconds:g} s", kind="timeout", retryable=True)
    return outcome


class _Teller:
    """Gathers what an agent says and tells it in pieces: the first at once, then every `COALESCE_SECONDS`."""

    def __init__(self, run: Run, events: RunEvents, wake: trio.Event) -> None:
        self._run = run
        self._events = events
        self._wake = wake
        self._parts: list[str] = []
        self._size = len(run.text)

    def take(self, delta: Delta) -> None:
        """What an agent emits. Raises `AgentFailed` over `MAX_REPLY`."""
        if delta.kind != "text":
            self.flush()
            self._events.other(self._run, Delta(delta.kind, whole(delta.text), whole_value(delta.data)))
            return
        self._size += len(delta.text)
        if self._size > MAX_REPLY:
            raise AgentFailed(f"the answer is longer than {MAX_REPLY} characters")
        if delta.text:
            self._parts.append(whole(delta.text))
            self._wake.set()

    def flush(self) -> None:
        if self._parts:
            text = "".join(self._parts)
            self._parts.clear()
            self._run.text += text
            self._run.seq += 1
            self._events.delta(self._run, text)

    async def serve(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            self.flush()
            await trio.sleep(COALESCE_SECONDS)


def whole_failure(failure: AgentFailed) -> AgentFailed:
    """The same failure in whole text."""
    detail = whole_value(failure.detail) if failure.detail is not None else None
    return attrs.evolve(failure, message=whole(failure.message), detail=detail)


def _told(request: RunRequest) -> tuple[Message, ...] | None:
    """The conversation so far as its caller tells it; None where the transcript is to be read."""
    if request.history is None:
        return None
    return tuple(
        Message(id=f"{request.run_id}:{number}", role=said.role, text=said.text, at_ms=request.accepted_at_ms)
        for number, said in enumerate(request.history)
    )
