"""Runs: a question becomes an answer, once, in the order of its session.

Owns acceptance of questions into the inbound queue, the run of each, what clients hear of it, abort and waiting. It
must not know how agents work, what a channel is, or who is connected: it tells `RunEvents` what happens.

Theory of operation. `start` writes the question into the inbound queue, its lane being the session: the queue gives
order, one run per session at a time, durability and another try. A run writes its question into the transcript, lets
the agent speak, and ends with effects: the answer in the transcript and, where the question came from a channel, the
answer in the outbound queue, both in the transaction that takes the question out. If the process dies in between, the
question is asked again; nothing of the first try was visible to anybody but as deltas. What waits when a process starts
is known to it from the start (`restore`), so it is listed, waited for and aborted like any other run. An abort is noted
at the question itself, by its kind in the queue: whoever is handed it later ends it and asks nobody.

Invariants: one run per run id within the dedupe window; an interactive run that fails is over (its client was told),
any other is tried again while that can help and ends with words for whoever wrote; text is coalesced, so a fast agent
cannot flood slow clients; what is kept of ended runs is capped; a run whose abort was acknowledged is carried out by no
later process.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import attrs
import trio

from openclaw_gateway.agents.agent import Agent
from openclaw_gateway.agents.records import (
    MAX_REPLY,
    AgentFailed,
    Delta,
    Message,
    Outcome,
    Reply,
    RunRequest,
    Session,
    Turn,
    decode_request,
    encode_request,
)
from openclaw_gateway.agents.sessions import Sessions, TooManySessions
from openclaw_gateway.errors import flat_errors
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.wholetext import whole, whole_or_none, whole_value
from openclaw_gateway.queues import (
    Effect,
    MessageQueue,
    NewMessage,
    QueuedMessage,
    QueueFull,
    RetryLater,
    Undeliverable,
)
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["KIND", "KINDS", "AgentRuns", "Ended", "Past", "Run", "RunEvents", "digest_of", "waiting_runs"]

KIND: Final = "agent.run"
ABORTED: Final = "agent.run.aborted"  # to be ended, not asked
FORGOTTEN: Final = "agent.run.forgotten"  # the same, and nothing of it goes into a transcript
KINDS: Final = (KIND, ABORTED, FORGOTTEN)
COALESCE_SECONDS: Final = 0.04
DEFAULT_TIMEOUT_SECONDS: Final = 600.0
MAX_ENDED: Final = 1_000
MAX_CONTEXT: Final = 400  # messages of a session that an agent may be handed; what fits is the agent's to choose
MAX_TRIES: Final = 4  # of a question whose agent failed for now, before its sender is told
_FAILED_TEXT: Final = "Sorry, something went wrong and I could not answer this. Please try again later."

State = Literal["queued", "running", "ok", "error", "aborted"]

log = get_logger("agents")


@attrs.frozen(eq=False, repr=False)
class Ended(Value):
    """How a run ended, as long as it is remembered."""

    run_id: str
    session_key: str
    state: State
    ended_at_ms: int
    started_at_ms: int
    error: str | None = None
    asked: bytes = attrs.field(default=b"", repr=False)  # the digest of the question


@attrs.frozen(eq=False, repr=False)
class Past(Value):
    """A run that an earlier process ended, or that is forgotten: all that is known is that it was accepted, and whether
    it was the same question."""

    run_id: str
    same: bool


@attrs.define(eq=False)
class Run:
    """A run that was accepted and has not ended."""

    request: RunRequest
    state: State = "queued"
    text: str = ""
    seq: int = 0
    started_at_ms: int = 0
    scope: trio.CancelScope | None = None
    aborted: bool = False
    forgotten: bool = False  # aborted with its transcript: a question that waits is not written into the next one
    message_id: str | None = None  # of its question in the queue
    noted: str = KIND  # what kind the queue knows the question as
    accepted: bool = True  # False: its question is on its way into the queue
    spoken: tuple[Session, Outcome | None, AgentFailed | None] | None = None  # the agent is done; it is not written yet
    settled: trio.Event = attrs.field(factory=trio.Event)  # accepted, or refused
    done: trio.Event = attrs.field(factory=trio.Event)
    audience: Any = None  # whoever started it; RunEvents decides what that means

    def mark(self, message: QueuedMessage) -> None:
        """What the queue says of its question."""
        self.message_id, self.noted = message.id, message.kind
        self.aborted = self.aborted or message.kind != KIND
        self.forgotten = self.forgotten or message.kind == FORGOTTEN


class RunEvents:
    """What is told of runs. The base class tells nobody."""

    def delta(self, run: Run, text: str) -> None:
        """A piece of the answer; ``run.text`` is all of it so far."""

    def other(self, run: Run, delta: Delta) -> None:
        """Thinking, a tool, a status."""

    def started(self, run: Run) -> None:
        """The agent is about to speak."""

    def effects(self, run: Run, message: Message, *, error: AgentFailed | None) -> Sequence[Effect]:
        """What is committed together with the end that `ended` will tell of."""
        return ()

    def ended(self, run: Run, message: Message, *, error: AgentFailed | None) -> None:
        """The answer is in the transcript; ``run.state`` says how it ended."""


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
        self._agents = agents
        self._outbound = outbound
        self._clock = clock
        self._runs: dict[str, Run] = {}
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self.timeout_seconds = DEFAULT_TIMEOUT_SECONDS

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
        run = self._runs[request.run_id] = Run(request, audience=audience, accepted=False)
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
            if run.state == "queued" and self._runs.get(request.run_id) is run:
                del self._runs[request.run_id]
            raise
        run.message_id = accepted.id
        if accepted.duplicate and run.state == "queued":
            # Of an earlier process: it ended there, or it still lies in the queue and runs when it is handed out.
            if not self.inbound.holds(accepted.id) or not accepted.same:
                self._runs.pop(request.run_id, None)
                return Past(request.run_id, accepted.same), True
            return run, True
        return run, False

    def restore(self, waiting: Sequence[Run]) -> None:
        """Take over what an earlier process accepted and left (`waiting_runs`), before anything is handed out."""
        self._runs.update((run.request.run_id, run) for run in waiting)

    def get(self, run_id: str) -> Run | Ended | None:
        return self._runs.get(run_id) or self._ended.get(run_id)

    def active(self, session_key: str | None = None) -> list[Run]:
        """Runs that have not ended, in the order of acceptance."""
        return [run for run in self._runs.values() if session_key in {None, run.request.session_key}]

    async def wait(self, run_id: str, seconds: float) -> Run | Ended | None:
        """Until the run has ended, at most ``seconds``; how it stands then."""
        run = self._runs.get(run_id)
        if run is not None:
            with trio.move_on_after(seconds):
                await run.done.wait()
        else:
            await trio.lowlevel.checkpoint()
        return self.get(run_id)

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

    def gone(self, message: QueuedMessage) -> None:
        """A question that the queue gave up or that a person dropped: its run is over, and whoever waits is told."""
        run = self._runs.get(message.dedupe.removeprefix("run:")) if message.kind in KINDS else None
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
        self._forget(run, failure, now)
        run.done.set()
        self.events.ended(run, answer, error=failure)

    # --- the handler of the inbound queue

    async def handle(self, message: QueuedMessage) -> Sequence[Effect]:
        """Carry out one question; what is returned is committed with its end."""
        request = decode_request(message.payload)
        run = self._runs.get(request.run_id)
        if run is None:
            run = self._runs[request.run_id] = Run(request)
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
                self._runs.pop(request.run_id, None)
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
        session, asked = await self.sessions.append(session, asked)
        run.started_at_ms = self._clock()
        run.state = "running"
        failure: AgentFailed | None = None
        outcome: Outcome | None = None
        if not run.aborted:
            self.events.started(run)
            try:
                outcome = await self._speak(run, session, asked, uncertain=message.uncertain)
            except AgentFailed as exc:
                failure = _whole_failure(exc)
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
        return self.sessions.current(request.session_key, agent_id=request.agent_id, channel=channel)

    @staticmethod
    def _may_try_again(run: Run, failure: AgentFailed, message: QueuedMessage) -> bool:
        return failure.retryable and not run.request.interactive and message.attempts + 1 < MAX_TRIES

    async def _speak(self, run: Run, session: Session, asked: Message, *, uncertain: bool) -> Outcome | None:
        request = run.request
        agent = self._agents(request)
        history = _told(request)
        if history is None:
            history = await self.sessions.history(session, before=asked.seq, limit=MAX_CONTEXT)
        if run.aborted:  # while the transcript was read; from here to the scope nothing waits
            return None
        turn = Turn(request, session, history, uncertain=uncertain)
        seconds = request.timeout_ms / 1000 if request.timeout_ms is not None else self.timeout_seconds
        outcome: Outcome | None = None
        with trio.move_on_after(seconds) as run.scope, flat_errors():
            try:
                async with trio.open_nursery() as nursery:
                    wake = trio.Event()
                    tell = _Teller(run, self.events, wake)
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
            effects.append(self.sessions.append_effect(session, answer, only=True))
        if request.reply is not None and run.state != "aborted":
            text = run.text if failure is None else _FAILED_TEXT
            if text.strip():
                effects.extend(self._outbound(request, request.reply, text))

        effects.extend(self.events.effects(run, answer, error=failure))

        def told(_: object) -> None:
            self._forget(run, failure, now)
            self.events.ended(run, answer, error=failure)
            run.done.set()

        return (*effects, Effect(lambda db: None, told))

    def _forget(self, run: Run, failure: AgentFailed | None, now: int) -> None:
        request = run.request
        self._runs.pop(request.run_id, None)
        self._ended[request.run_id] = Ended(
            run_id=request.run_id,
            session_key=request.session_key,
            state=run.state,
            ended_at_ms=now,
            started_at_ms=run.started_at_ms,
            error=failure.message if failure is not None else None,
            asked=digest_of(request),
        )
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)


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


def digest_of(request: RunRequest) -> bytes:
    """What tells two questions under one run id apart, long after the text is let go."""
    return hashlib.sha256(request.text.encode("utf-8", "surrogatepass")).digest()


def key_digest(request: RunRequest) -> bytes:
    """The same for what is kept beside the run id on the disk: the question and the session it is asked in."""
    return hashlib.sha256(request.session_key.encode("utf-8", "surrogatepass") + b"\0" + digest_of(request)).digest()


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


def _whole_failure(failure: AgentFailed) -> AgentFailed:
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
