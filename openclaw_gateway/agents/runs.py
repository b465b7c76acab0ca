"""Runs: a question becomes an answer, once, in the order of its session.

Owns acceptance of questions into the inbound queue, abort and waiting. It must not know how a run is carried out
(`answering`), how agents work, what a channel is, or who is connected: `RunEvents` are told what happens.

Theory of operation. `start` writes the question into the inbound queue, its lane being the session: the queue gives
order, one run per session at a time, durability and another try. What waits when a process starts is known to it from
the start (`restore`), so it is listed, waited for and aborted like any other run. An abort is noted at the question
itself, by its kind in the queue: whoever is handed it later ends it and asks nobody.

Invariants: one run per run id within the dedupe window; a run whose abort was acknowledged is carried out by no later
process; nobody hears "accepted" before the question is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.agents.agent import Agent
from openclaw_gateway.agents.answering import Answering
from openclaw_gateway.agents.known import KnownRuns
from openclaw_gateway.agents.records import Reply, RunRequest, decode_request, encode_request
from openclaw_gateway.agents.runstate import ABORTED, FORGOTTEN, KIND, KINDS, Ended, Past, Run, RunEvents, key_digest
from openclaw_gateway.agents.sessions import Sessions
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.queues import Effect, MessageQueue, NewMessage, QueuedMessage

__all__ = ["AgentRuns", "waiting_runs"]

DEFAULT_TIMEOUT_SECONDS: Final = 600.0

log = get_logger("agents")


class AgentRuns:
    """``agents(request)`` gives the agent that answers, or raises `AgentFailed`; ``outbound(request, reply, text)``
    gives the effects that send an answer to where the question came from."""

    def __init__(
        self,
        inbound: MessageQueue,
        sessions: Sessions,
        *,
        agents: Callable[[RunRequest], Agent],
        outbound: Callable[[RunRequest, Reply, str], Sequence[Effect]],
        events: RunEvents,
        clock: Callable[[], int],
    ) -> None:
        self.inbound = inbound
        self.sessions = sessions
        self.events = events
        self.timeout_seconds = DEFAULT_TIMEOUT_SECONDS
        self._known = KnownRuns()
        self._answering = Answering(
            self._known,
            sessions,
            agents=agents,
            outbound=outbound,
            events=lambda: self.events,
            timeout_seconds=lambda: self.timeout_seconds,
            clock=clock,
        )

    # --- acceptance

    async def start(self, request: RunRequest, *, audience: Any = None) -> tuple[Run | Ended | Past, bool]:
        """Accept a question: durable when this returns. The run (or how it ended, as far as that is remembered) and
        whether it was known before. Raises `QueueFull`, `StoreError`, `TooManySessions`.
        """
        while (known := self.get(request.run_id)) is not None:
            if not isinstance(known, Run) or known.accepted:
                await trio.lowlevel.checkpoint()
                return known, True
            await known.settled.wait()  # nobody may say "accepted" before the first of the two is
        self.sessions.current(request.session_key, agent_id=request.agent_id)
        run = self._known.add(Run(request, audience=audience, accepted=False))
        try:
            return await self._accept(run)
        finally:
            run.accepted = True
            run.settled.set()

    async def _accept(self, run: Run) -> tuple[Run | Past, bool]:
        request = run.request
        try:
            payload, digest = encode_request(request), key_digest(request)
            accepted = await self.inbound.put(
                NewMessage(request.session_key, f"run:{request.run_id}", request.source, KIND, payload, digest)
            )
        except BaseException:
            if run.state == "queued" and self._known.alive(request.run_id) is run:
                self._known.discard(request.run_id)
            raise
        run.message_id = accepted.id
        if accepted.duplicate and run.state == "queued":
            # Of an earlier process: it ended there, or it still lies in the queue and runs when it is handed out.
            if not self.inbound.holds(accepted.id) or not accepted.same:
                self._known.discard(request.run_id)
                return Past(request.run_id, accepted.same), True
            return run, True
        return run, False

    def restore(self, waiting: Sequence[Run]) -> None:
        """Take over what an earlier process accepted and left (`waiting_runs`), before anything is handed out."""
        self._known.restore(waiting)

    # --- what is known

    def get(self, run_id: str) -> Run | Ended | None:
        return self._known.get(run_id)

    def active(self, session_key: str | None = None) -> list[Run]:
        """Runs that have not ended, in the order of acceptance."""
        return self._known.active(session_key)

    async def wait(self, run_id: str, seconds: float) -> Run | Ended | None:
        """Until the run has ended, at most ``seconds``; how it stands then."""
        run = self._known.alive(run_id)
        if run is not None:
            with trio.move_on_after(seconds):
                await run.done.wait()
        else:
            await trio.lowlevel.checkpoint()
        return self.get(run_id)

    # --- abort

    async def abort(self, session_key: str, run_id: str | None = None, *, forget: bool = False) -> list[str]:
        """End runs of a session (or one of them); what was said so far stays in the transcript. The ids of those that
        this ended. ``forget``: the transcript itself ends.

        When this returns no later process carries them out either. Raises `StoreError`: they have ended, but a later
        process may begin them anew; the same call mends that.
        """
        told = self.abort_nowait(session_key, run_id, forget=forget)
        kinds: dict[str, str] = {}
        for run in [one for one in self.active(session_key) if one.aborted and run_id in {None, one.request.run_id}]:
            await run.settled.wait() if not run.accepted else await trio.lowlevel.checkpoint()
            run_kind = FORGOTTEN if run.forgotten else ABORTED
            if run.message_id is not None and run.noted != run_kind and not run.done.is_set():
                kinds[run.message_id] = run_kind
        if kinds:
            await self.inbound.reclassify(kinds)
            for run in self.active(session_key):
                run.noted = kinds.get(run.message_id or "", run.noted)
        return told

    def abort_nowait(self, session_key: str, run_id: str | None = None, *, forget: bool = False) -> list[str]:
        """The same for as long as this process lives."""
        told = []
        for run in self.active(session_key):
            run.forgotten = run.forgotten or forget
            if run_id in {None, run.request.run_id} and not run.aborted and run.spoken is None:
                run.aborted = True
                if run.scope is not None:
                    run.scope.cancel()
                told.append(run.request.run_id)
        return told

    # --- for the inbound queue

    async def handle(self, message: QueuedMessage) -> Sequence[Effect]:
        """Carry out one question, as `Answering.handle` says."""
        return await self._answering.handle(message)

    def gone(self, message: QueuedMessage) -> None:
        """A question that the queue gave up or that a person dropped: its run is over, and whoever waits is told."""
        self._answering.gone(message)


async def waiting_runs(inbound: MessageQueue) -> list[Run]:
    """The runs whose questions wait in the queue, oldest first. What only their agents need stays there. Raises
    `StoreError`."""
    found: list[Run] = []

    def take(message: QueuedMessage) -> None:
        try:
            whole = decode_request(message.payload)
        except ValueError as exc:  # whoever is handed it says so, and the queue gives it up
            log.warning("a question that waits cannot be read", message_id=message.id, error=str(exc))
            return
        files = tuple(attrs.evolve(one, data="") for one in whole.attachments)
        run = Run(attrs.evolve(whole, attachments=files, history=None, system=None))
        run.mark(message)
        found.append(run)

    await inbound.look_through(KINDS, take)
    return found
