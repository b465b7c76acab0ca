"""What a model service is asked and what it answers, whatever it speaks.

Pure. Owns the records between agents and services, the reasons why a service gives no answer, and the two protocols: a
`Dialect` (pure: how one API spells a question and an answer) and a `ModelProvider` (the shell that calls it). It must
not know HTTP clients, keys or configuration.

Invariants: every fault of a service has one of `REASONS`, with words for whoever asked that hold no secret; what may
help (another try, another service) follows from the reason alone, in `policy_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, Protocol

import attrs

from openclaw_gateway.agents.records import AgentFailed, Delta, ErrorKind, Sampling, Usage
from openclaw_gateway.models.sse import SseEvent
from openclaw_gateway.value import Value

__all__ = [
    "REASONS",
    "Dialect",
    "Finish",
    "Image",
    "ModelFailed",
    "ModelProvider",
    "ModelRequest",
    "Reader",
    "Reason",
    "ServiceSettings",
    "Spoken",
    "Trouble",
    "WireCall",
    "policy_of",
]

Reason = Literal[
    "auth",  # the key is missing, wrong or may not do this
    "billing",  # the account has no money
    "rate_limit",
    "overloaded",  # the service says that it has too much to do
    "server",  # any other fault of the service
    "unreachable",  # no connection, or one that broke before anything came
    "timeout",
    "cut_off",  # the answer broke off
    "malformed",  # what came is not of the API
    "not_found",  # the service does not know the model
    "context_length",
    "refusal",
    "bad_request",
]


@attrs.frozen(eq=False, repr=False)
class ReasonPolicy(Value):
    """``again``: the same question to the same service may be answered; ``elsewhere``: another service may answer;
    ``rest``: the service is left alone for a while."""

    kind: ErrorKind
    again: bool
    elsewhere: bool
    rest: bool


REASONS: Final[Mapping[Reason, ReasonPolicy]] = {
    "auth": ReasonPolicy("unknown", again=False, elsewhere=True, rest=True),
    "billing": ReasonPolicy("unknown", again=False, elsewhere=True, rest=True),
    "rate_limit": ReasonPolicy("rate_limit", again=True, elsewhere=True, rest=True),
    "overloaded": ReasonPolicy("rate_limit", again=True, elsewhere=True, rest=True),
    "server": ReasonPolicy("unknown", again=True, elsewhere=True, rest=True),
    "unreachable": ReasonPolicy("unknown", again=True, elsewhere=True, rest=True),
    "timeout": ReasonPolicy("timeout", again=True, elsewhere=True, rest=True),
    "cut_off": ReasonPolicy("unknown", again=True, elsewhere=True, rest=False),
    "malformed": ReasonPolicy("unknown", again=True, elsewhere=True, rest=False),
    "not_found": ReasonPolicy("unknown", again=False, elsewhere=True, rest=False),
    "context_length": ReasonPolicy("context_length", again=False, elsewhere=False, rest=False),
    "refusal": ReasonPolicy("refusal", again=False, elsewhere=False, rest=False),
    "bad_request": ReasonPolicy("unknown", again=False, elsewhere=False, rest=False),
}


def policy_of(reason: Reason) -> ReasonPolicy:
    return REASONS[reason]


@attrs.frozen(eq=False, repr=False)
class Image(Value):
    """``data`` is base64."""

    mime: str
    data: str = attrs.field(repr=False)


@attrs.frozen(eq=False, repr=False)
class Spoken(Value):
    """One message of what a model is handed. The first is a user's and the two take turns (`agents.window` sees to
    it)."""

    role: Literal["user", "assistant"]
    text: str = attrs.field(repr=False)
    images: tuple[Image, ...] = ()


@attrs.frozen(eq=False, repr=False)
class ModelRequest(Value):
    """A question to a service. ``model`` is its own name of the model; ``max_tokens`` None: as the service likes."""

    model: str
    messages: tuple[Spoken, ...]
    system: str | None = attrs.field(default=None, repr=False)
    max_tokens: int | None = None
    reasoning: bool = False
    sampling: Sampling = attrs.field(factory=Sampling)


@attrs.frozen(eq=False, repr=False)
class Finish(Value):
    """How an answer ended: ``stop`` is stop or length."""

    stop: str
    usage: Usage = attrs.field(factory=Usage)
    model: str | None = None


@attrs.frozen(eq=False, repr=False)
class WireCall(Value):
    """A request as one API wants it: the path behind the base URL, the body as JSON, headers without the key."""

    path: str
    body: dict[str, Any] = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Trouble(Exception):
    """What a service said instead of an answer, as its dialect understands it. ``text`` is the service's own, or
    ``ours``."""

    reason: Reason
    text: str = ""
    after_ms: int | None = None
    ours: bool = False


@attrs.define(eq=False)
class ModelFailed(AgentFailed):
    """A service that gave no answer. ``message`` is for whoever asked; ``shown``: part of an answer was given out."""

    reason: Reason = "server"
    shown: bool = False

    def __str__(self) -> str:
        return self.message


class Reader(Protocol):
    """Takes the events of one answer in their order."""

    def take(self, event: SseEvent) -> Iterable[Delta]:
        """What the event adds to the answer. Raises `Trouble`."""
        ...

    @property
    def done(self) -> bool:
        """Whether the service has said that the answer is over."""
        ...

    def finish(self) -> Finish:
        """Once the stream has ended. Raises `Trouble` (cut_off) where the answer had not."""
        ...


class Dialect(Protocol):
    name: str
    base_url: str
    key_variable: str  # the environment variable that people keep the key in

    def call(self, request: ModelRequest, *, at_home: bool) -> WireCall:
        """``at_home``: the service is the API's maker, not somebody who speaks it too."""
        ...

    def key_header(self, key: str) -> tuple[str, str]: ...

    def reader(self) -> Reader: ...

    def trouble(self, status: int, body: Any) -> Trouble:
        """What an answer with an error status means; ``body`` is its JSON, or None."""
        ...


@attrs.frozen(eq=False, repr=False)
class ServiceSettings(Value):
    """What makes a service: changed settings make another one. ``seconds``: of silence that are waited."""

    name: str
    dialect: Dialect = attrs.field(repr=False)
    base_url: str
    key: str | None = attrs.field(default=None, repr=False)
    bearer: bool = False
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    seconds: float = 120.0

    @property
    def at_home(self) -> bool:
        """Whether this is the API's maker, not somebody who speaks it too."""
        return self.base_url == self.dialect.base_url

    @property
    def key_fix(self) -> str:
        return f"set {self.dialect.key_variable} or models.providers.{self.name}.apiKey"


class ModelProvider(Protocol):
    name: str

    async def answer(self, request: ModelRequest, emit: Callable[[Delta], None]) -> Finish:
        """Ask, and emit the answer as it comes. Cancellation ends the request at once. Raises `ModelFailed`."""
        ...
