"""What agents work with: requests, turns, deltas, messages, sessions.

Owns the records, their limits, and how a request and a message become JSON and back. It must not know tasks, the store
or any service. Times are Unix milliseconds.

Invariants: a request read from the queue is checked like one that came over the wire; texts and lists have limits; what
a client is shown of a message is text and its metadata, nothing that a provider sent besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs
import msgspec

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.protocol.wholetext import whole, whole_or_none
from openclaw_gateway.value import Value

__all__ = [
    "MAX_MESSAGE",
    "MAX_REPLY",
    "AgentFailed",
    "Attachment",
    "Delta",
    "Message",
    "Outcome",
    "Reply",
    "RunRequest",
    "Said",
    "Sampling",
    "Session",
    "Turn",
    "Usage",
    "decode_request",
    "encode_request",
]

MAX_MESSAGE: Final = 512 * 1024  # characters of what somebody writes to an agent
MAX_REPLY: Final = 1024 * 1024  # characters of what an agent answers in one run
MAX_HISTORY: Final = 4 * 1024 * 1024  # characters of a conversation that its caller keeps
MAX_SAID: Final = 1_000  # messages of it
MAX_ATTACHMENTS: Final = 16
MAX_ATTACHMENT_CHARS: Final = 8 * 1024 * 1024  # of base64, all of a message together

Role = Literal["user", "assistant", "system"]
ErrorKind = Literal["refusal", "timeout", "rate_limit", "context_length", "unknown"]


@attrs.frozen(eq=False, repr=False)
class Attachment(Value):
    """A file with a message: ``data`` is base64."""

    mime: str = attrs.field(converter=whole)
    data: str = attrs.field(repr=False)
    name: str | None = attrs.field(default=None, converter=whole_or_none)


@attrs.frozen(eq=False, repr=False)
class Reply(Value):
    """Where the answer goes besides the transcript: a conversation on a channel."""

    channel: str
    account: str
    conversation: str
    thread: str | None = None
    reply_to: str | None = None


@attrs.frozen(eq=False, repr=False)
class Said(Value):
    """One earlier message of a conversation that its caller keeps."""

    role: Literal["user", "assistant"]
    text: str = attrs.field(repr=False, converter=whole)


@attrs.frozen(eq=False, repr=False)
class Sampling(Value):
    """How a caller wants a model to choose its words; passed on to services that know the setting."""

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None


@attrs.frozen(eq=False, repr=False)
class RunRequest(Value):
    """One question to an agent, as it lies in the inbound queue. ``run_id`` is its idempotency key.

    ``interactive``: somebody waits and is told of a failure at once, instead of it being tried again later.
    ``history``: what was said before, where the caller keeps it; None: the session's transcript.
    """

    run_id: str
    agent_id: str
    session_key: str
    text: str = attrs.field(repr=False, converter=whole)
    source: str
    accepted_at_ms: int
    attachments: tuple[Attachment, ...] = ()
    sender: str | None = attrs.field(default=None, converter=whole_or_none)
    sender_name: str | None = attrs.field(default=None, converter=whole_or_none)
    reply: Reply | None = None
    model: str | None = None
    system: str | None = attrs.field(default=None, repr=False, converter=whole_or_none)
    timeout_ms: int | None = None
    interactive: bool = False
    history: tuple[Said, ...] | None = attrs.field(default=None, repr=False)
    sampling: Sampling | None = None

    def __attrs_post_init__(self) -> None:
        if not 0 < len(self.run_id) <= 256:
            raise ValueError("a run id has 1 to 256 characters")
        if len(self.text) > MAX_MESSAGE or len(self.system or "") > MAX_MESSAGE:
            raise ValueError(f"a message has at most {MAX_MESSAGE} characters")
        if len(self.attachments) > MAX_ATTACHMENTS:
            raise ValueError(f"a message has at most {MAX_ATTACHMENTS} attachments")
        if sum(len(one.data) for one in self.attachments) > MAX_ATTACHMENT_CHARS:
            raise ValueError("the attachments are too large")
        if sum(len(one.text) for one in self.history or ()) > MAX_HISTORY or len(self.history or ()) > MAX_SAID:
            raise ValueError(f"a conversation has at most {MAX_SAID} messages and {MAX_HISTORY} characters")
        if not self.text.strip() and not self.attachments:
            raise ValueError("a message needs a text or an attachment")


@attrs.frozen(eq=False, repr=False)
class Usage(Value):
    """Tokens as the service counted them; ``total`` where it says more than the sum."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    @property
    def total(self) -> int:
        return self.input + self.output + self.cache_read + self.cache_write

    def to_wire(self) -> dict[str, int]:
        return {
            "input": self.input,
            "output": self.output,
            "cacheRead": self.cache_read,
            "cacheWrite": self.cache_write,
            "totalTokens": self.total,
        }


@attrs.frozen(eq=False, repr=False)
class Message(Value):
    """One entry of a transcript."""

    id: str
    role: Role
    text: str = attrs.field(repr=False)
    at_ms: int
    run_id: str | None = None
    model: str | None = None
    stop: str | None = None  # why an answer ended: stop, length, aborted, error
    error: str | None = None
    usage: Usage | None = None
    sender_name: str | None = None
    attachments: tuple[Attachment, ...] = attrs.field(default=(), repr=False)
    seq: int = 0  # its place in the session, from 1

    def to_wire(self) -> dict[str, Any]:
        """As OpenClaw's clients read an entry of ``chat.history``."""
        content: list[dict[str, Any]] = [{"type": "text", "text": self.text}]
        content += [{"type": "attachment", "mimeType": one.mime, "fileName": one.name} for one in self.attachments]
        out: dict[str, Any] = {
            "role": self.role,
            "content": content,
            "timestamp": self.at_ms,
            "__openclaw": {"id": self.id, "seq": self.seq},
        }
        if self.run_id is not None:
            out["__openclaw"]["runId"] = self.run_id
        if self.sender_name is not None:
            out["senderLabel"] = self.sender_name
        if self.role == "assistant":
            out["stopReason"] = self.stop or "stop"
            out["model"] = self.model
            if self.error is not None:
                out["errorMessage"] = self.error
            if self.usage is not None:
                out["usage"] = self.usage.to_wire()
        return out


@attrs.frozen(eq=False, repr=False)
class Session(Value):
    """A conversation. ``session_id`` changes with each reset, the key stays."""

    key: str
    session_id: str
    agent_id: str
    created_at_ms: int
    started_at_ms: int
    updated_at_ms: int
    last_interaction_ms: int
    label: str | None = None
    channel: str | None = None
    chat_type: str = "direct"
    model: str | None = None
    archived: bool = False
    pinned: bool = False
    last_read_ms: int = 0
    usage: Usage = attrs.field(factory=Usage)
    messages: int = 0


@attrs.frozen(eq=False, repr=False)
class Turn(Value):
    """What an agent is handed: the request, its session, and what was said before (oldest first, without the request's
    own message). ``uncertain``: the same request was under way when the process died.
    """

    request: RunRequest
    session: Session
    history: tuple[Message, ...] = attrs.field(repr=False)
    uncertain: bool = False


@attrs.frozen(eq=False, repr=False)
class Delta(Value):
    """A piece of an answer on its way: ``text`` is appended to it; other kinds are shown, not kept."""

    kind: Literal["text", "thinking", "tool", "status"] = "text"
    text: str = attrs.field(default="", repr=False)
    data: Mapping[str, Any] | None = attrs.field(default=None, repr=False)


@attrs.frozen(eq=False, repr=False)
class Outcome(Value):
    """How a run ended well. The answer itself is what was emitted."""

    stop: str = "stop"
    model: str | None = None
    usage: Usage | None = None


@attrs.define(eq=False)
class AgentFailed(GatewayError):
    """A run that ended without an answer. ``retryable``: the same request may succeed later (``after_ms`` from now).

    ``message`` is shown to whoever asked: it holds no secret and names what mends it where that is known.
    """

    message: str
    kind: ErrorKind = "unknown"
    retryable: bool = False
    after_ms: int | None = None
    detail: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return self.message


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(RunRequest).decode


def encode_request(request: RunRequest) -> bytes:
    return _encode(request)


def decode_request(data: bytes) -> RunRequest:
    """Raises `ValueError` for what no version of this program wrote."""
    try:
        return _decode(data)
    except msgspec.MsgspecError as exc:
        raise ValueError(str(exc)) from exc
