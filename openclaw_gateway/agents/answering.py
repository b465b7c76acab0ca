"""Carrying out a question that the inbound queue hands over: its agent is asked, and its run ends, once.

Owns the way of one run from its hand-out to its end, what is tried again, and what is committed together with the end.
It must not know how questions are accepted, aborted or waited for (`runs`), nor how an agent speaks (`speaking`).

Theory of operation. A run writes its question into the transcript, lets the agent speak, and ends with effects: the
answer in the transcript and, where the question came from a channel, the answer in the outbound queue, both in the
transaction that takes the question out. If the process dies in between, the question is asked again; nothing of the
first try was visible to anybody but as deltas.

Invariants: an interactive run that fails is over (its client was told), any other is tried again while that can help
and ends with words for whoever wrote; an answer that was given and could not be written is written later, and nobody is
asked twice; whoever waits for a run is told of its end after that end is durable.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Final

from openclaw_gateway.agents.agent import Agent
from openclaw_gateway.agents.known import KnownRuns
from openclaw_gateway.agents.records import AgentFailed, Message, Outcome, Reply, RunRequest, Session, decode_request
from openclaw_gateway.agents.runstate import KINDS, Run, RunEvents
from openclaw_gateway.agents.sessions import Sessions, TooManySessions
from openclaw_gateway.agents.speaking import speak, whole_failure
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.wholetext import whole, whole_or_none
from openclaw_gateway.queues import Effect, QueuedMessage, QueueFull, RetryLater, Undeliverable
from openclaw_gateway.store import StoreError

__all__ = ["Answering"]

MAX_TRIES: Final = 4  # of a question whose agent failed for now, before its sender is told
_FAILED_TEXT: Final = "Sorry, something went wrong and I could not answer this. Please try again later."

log = get_logger("agents")


class Answering:
    """``agents(request)`` gives the agent that answers, or raises `AgentFailed`; ``outbound(request, reply, text)``
    gives the effects that send an answer to where the question came from; ``events()`` and ``timeout_seconds()`` are
    what holds at this moment."""

    def __init__(
        self,
        known: KnownRuns,
        sessions: Sessions,
        *,
        agents: Callable[[RunRequest], Agent],
        outbound: Callable[[RunRequest, Reply, str], Sequence[Effect]],
        events: Callable[[], RunEvents],
        timeout_seconds: Callable[[], float],
        clock: Callable[[], int],
    ) -> None:
        self._known = known
        self._sessions = sessions
        self._agents = agents
        self._outbound = outbound
        self._events = events
        self._timeout_seconds = timeout_seconds
        self._clock = clock

    async def handle(self, message: QueuedMessage) -> Sequence[Effect]:
        """Carry out one question; what is returned is committed with its end."""
        request = decode_request(message.payload)
        run = self._known.alive(request.run_id)
        if run is None:
            run = self._known.add(Run(request))
        run.request = request
        run.mark(message)
        try:
            return await self._carry_out(run, message)
        except (RetryLater, StoreError, QueueFull):
            run.state = "queued"
            if run.spoken is None:
                run.text, run.seq = "", 0
            raise
        except TooManySessions as exc:
            run.state = "queued"
            raise (Undeliverable if request.interactive else RetryLater)(str(exc)) from exc
        except Exception:
            run.state = "queued"  # the queue tries it again, and tells `gone` when it gives it up
            raise
        except BaseException:
            if run.state in {"queued", "running"}:
                self._known.discard(request.run_id)
                run.done.set()
            raise

    async def _carry_out(self, run: Run, message: QueuedMessage) -> Sequence[Effect]:
        request = run.request
        if run.spoken is not None:  # the answer was given, but its end could not be written: nobody is asked twice
            run.state = "running"
            return self._end(run, *run.spoken)
        if run.forgotten:
            run.started_at_ms = run.started_at_ms or self._clock()
            return self._end(run, None, None, None)
        session = self._session_of(request)
        asked = Message(
            id=str(uuid.uuid4()),
            role="user",
            text=request.text,
            at_ms=request.accepted_at_ms,
            run_id=request.run_id,
            sender_name=request.sender_name,
            attachments=request.attachments,
        )
        session, asked = await self._sessions.append(session, asked)
        run.started_at_ms = self._clock()
        run.state = "running"
        failure: AgentFailed | None = None
        outcome: Outcome | None = None
        if not run.aborted:
            self._events().started(run)
            try:
                outcome = await speak(
                    run,
                    session,
                    asked,
                    agent=self._agents(request),
                    sessions=self._sessions,
                    events=self._events(),
                    timeout_seconds=self._timeout_seconds(),
                    uncertain=message.uncertain,
                )
            except AgentFailed as exc:
                failure = whole_failure(exc)
            except StoreError:
                raise
            except Exception as exc:
                log.exception("run broke", exc=exc, agent=request.agent_id)
                failure = AgentFailed(f"the agent {request.agent_id} failed: {type(exc).__name__}")
        if failure is not None and not run.aborted and self._may_try_again(run, failure, message):
            log.info("agent failed for now", agent=request.agent_id, error=failure.message)
            raise RetryLater(failure.message, failure.after_ms)
        run.spoken = (session, outcome, failure)
        return self._end(run, *run.spoken)

    def _session_of(self, request: RunRequest) -> Session:
        channel = request.reply.channel if request.reply is not None else None
        return self._sessions.current(request.session_key, agent_id=request.agent_id, channel=channel)

    @staticmethod
    def _may_try_again(run: Run, failure: AgentFailed, message: QueuedMessage) -> bool:
        return failure.retryable and not run.request.interactive and message.attempts + 1 < MAX_TRIES

    def _end(
        self, run: Run, session: Session | None, outcome: Outcome | None, failure: AgentFailed | None
    ) -> Sequence[Effect]:
        request, now = run.request, self._clock()
        run.state = "aborted" if run.aborted else "error" if failure is not None else "ok"
        stop = whole(outcome.stop) if outcome is not None else "aborted" if run.aborted else "error"
        answer = Message(
            id=str(uuid.uuid4()),
            role="assistant",
            text=run.text,
            at_ms=now,
            run_id=request.run_id,
            model=whole_or_none(outcome.model) if outcome is not None else None,
            stop=stop,
            error=failure.message if failure is not None else None,
            usage=outcome.usage if outcome is not None else None,
        )
        effects: list[Effect] = []
        if session is not None and (run.state == "ok" or run.text or failure is not None):
            effects.append(self._sessions.append_effect(session, answer, only=True))
        if request.reply is not None and run.state != "aborted":
            text = run.text if failure is None else _FAILED_TEXT
            if text.strip():
                effects.extend(self._outbound(request, request.reply, text))

        effects.extend(self._events().effects(run, answer, error=failure))

        def told(_: object) -> None:
            self._known.end(run, failure, now)
            self._events().ended(run, answer, error=failure)
            run.done.set()

        return (*effects, Effect(lambda db: None, told))

    def gone(self, message: QueuedMessage) -> None:
        """A question that the queue gave up or that a person dropped: its run is over, and whoever waits is told."""
        run = self._known.alive(message.dedupe.removeprefix("run:")) if message.kind in KINDS else None
        if run is None:
            return
        why = message.last_error if message.state == "dead" and message.last_error else "it was dropped from the queue"
        failure, now = AgentFailed(f"the question was not answered: {why}"), self._clock()
        run.state = "error"
        request = run.request
        answer = Message(
            id=str(uuid.uuid4()), role="assistant", text=run.text, at_ms=now, run_id=request.run_id, stop="error",
            error=failure.message,
        )  # fmt: skip
        self._known.end(run, failure, now)
        run.done.set()
        self._events().ended(run, answer, error=failure)
