"""What lies in a queue, what may be done with it, and how a handler says how it went.

Owns the records and their limits. It must not know SQL, tasks or what a payload means.

Invariants: a dedupe key names one message of one queue within the dedupe window; messages of one lane are worked on one
after the other in the order they were accepted; every text has a length that fits its limit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.value import Value

__all__ = [
    "MAX_PAYLOAD",
    "MAX_TEXT",
    "Accepted",
    "Effect",
    "NewMessage",
    "QueueFull",
    "QueueRules",
    "QueuedMessage",
    "RetryLater",
    "State",
    "Undeliverable",
]

MAX_TEXT: Final = 512  # characters of a lane, a dedupe key, a source
MAX_PAYLOAD: Final = 4 * 1024 * 1024

State = Literal["waiting", "running", "dead"]


@attrs.frozen(eq=False, repr=False)
class QueueRules(Value):
    """Limits of one queue. Times in milliseconds, sizes in bytes of payload."""

    max_messages: int = 10_000
    max_bytes: int = 64 * 1024 * 1024
    max_dead: int = 1_000  # dead letters, which count towards no other limit
    max_dead_bytes: int = 16 * 1024 * 1024
    max_attempts: int = 12
    first_retry_ms: int = 1_000
    longest_retry_ms: int = 300_000
    dedupe_ms: int = 24 * 3_600_000
    max_seen: int = 100_000
    full_retry_ms: int = 5_000  # what somebody is told who found no room


@attrs.frozen(eq=False, repr=False)
class NewMessage(Value):
    """A message to be accepted. ``lane`` is the conversation whose order counts; ``dedupe`` names the message within
    its queue; ``source`` says who brought it, ``kind`` what the payload (JSON, at most `MAX_PAYLOAD` bytes) is;
    ``digest`` tells two messages under one dedupe key apart (None: nobody asks).

    Raises `ValueError` where a text is empty or longer than `MAX_TEXT`, or the payload is too large.
    """

    lane: str
    dedupe: str
    source: str
    kind: str
    payload: bytes = attrs.field(repr=False)
    digest: bytes | None = None

    def __attrs_post_init__(self) -> None:
        for name in ("lane", "dedupe", "source", "kind"):
            if not 0 < len(getattr(self, name)) <= MAX_TEXT:
                raise ValueError(f"{name} must have 1 to {MAX_TEXT} characters")
        if len(self.payload) > MAX_PAYLOAD:
            raise ValueError(f"the payload is larger than {MAX_PAYLOAD} bytes")


@attrs.frozen(eq=False, repr=False)
class QueuedMessage(Value):
    """A message that was accepted. ``attempts`` counts the tries that began before this one; ``uncertain``: one of them
    was under way when the process died, or its end could not be written, so its effect on the outside may have
    happened; later tries do not undo that.
    """

    id: str
    queue: str
    lane: str
    dedupe: str
    source: str
    kind: str
    payload: bytes = attrs.field(repr=False)
    accepted_at_ms: int
    attempts: int = 0
    due_at_ms: int = 0
    state: State = "waiting"
    uncertain: bool = False
    last_error: str | None = None
    order: int = 0  # grows with every message accepted


@attrs.frozen(eq=False, repr=False)
class Accepted(Value):
    """``duplicate``: a message of that dedupe key was accepted before, and ``id`` is its id; ``same``: it had the same
    digest, as far as that is known."""

    id: str
    duplicate: bool
    same: bool = True


@attrs.frozen(eq=False, repr=False)
class Effect(Value):
    """A change that is committed together with the end of a message. ``work`` may run again from the start (see
    `Store.run`); ``then`` gets its result once it is durable, on the Trio loop.
    """

    work: Callable[[sqlite3.Connection], Any]
    then: Callable[[Any], None] | None = None


@attrs.define(eq=False)
class QueueFull(GatewayError):
    """No room: nothing was accepted; trying again later may help."""

    queue: str
    retry_after_ms: int

    def __str__(self) -> str:
        return f"the {self.queue} queue is full; try again in {self.retry_after_ms / 1000:g} s"


@attrs.define(eq=False)
class RetryLater(GatewayError):
    """A handler's word: not now. ``after_ms`` (None: the queue's own backoff) as the other side asked for it.
    ``counts`` False: nothing was tried (nobody is there to try with), so it brings no message nearer to its end.
    """

    why: str
    after_ms: int | None = None
    counts: bool = True

    def __str__(self) -> str:
        return self.why


@attrs.define(eq=False)
class Undeliverable(GatewayError):
    """A handler's word: never. The message goes to the dead letters at once."""

    why: str

    def __str__(self) -> str:
        return self.why
