"""One run: what is known of it while it lives, what stays when it has ended, and what is told of it.

Owns these records and the kinds under which a question lies in the inbound queue. It must not know how a run is
accepted or carried out, nor who listens.

Invariants: the kind in the queue says all that a later process has to know of an abort; a question that is let go is
still told from another one by its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import attrs
import trio

from openclaw_gateway.agents.records import AgentFailed, Delta, Message, Outcome, RunRequest, Session
from openclaw_gateway.queues import Effect, QueuedMessage
from openclaw_gateway.value import Value

__all__ = ["KIND", "KINDS", "Ended", "Past", "Run", "RunEvents", "State", "digest_of", "key_digest"]

KIND: Final = "agent.run"
ABORTED: Final = "agent.run.aborted"  # to be ended, not asked
FORGOTTEN: Final = "agent.run.forgotten"  # the same, and nothing of it goes into a transcript
KINDS: Final = (KIND, ABORTED, FORGOTTEN)

State = Literal["queued", "running", "ok", "error", "aborted"]


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


def digest_of(request: RunRequest) -> bytes:
    """What tells two questions under one run id apart, long after the text is let go."""
    return hashlib.sha256(request.text.encode("utf-8", "surrogatepass")).digest()


def key_digest(request: RunRequest) -> bytes:
    """The same for what is kept beside the run id on the disk: the question and the session it is asked in."""
    return hashlib.sha256(request.session_key.encode("utf-8", "surrogatepass") + b"\0" + digest_of(request)).digest()
