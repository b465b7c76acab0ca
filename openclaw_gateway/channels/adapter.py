"""What a channel adapter is: the way between one account on a message service and the gateway.

Owns the protocol that adapters follow, the records that cross it, and the names of states. It must not know any
service, the sender gate, queues or agents.

An adapter receives in `run` and sends in `send`. It brings each message to its `Port` and may tell its service "got it"
only when `Port.incoming` has returned: then the message is durable, or was refused for good. It raises `AdapterFailed`
with the state that says why it cannot go on; the hub starts it again with the backoff of that state.

Invariants: a token is in no error text, no state and no log line; an adapter that breaks harms no other (ROB-1).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Literal, Protocol

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.protocol.wholetext import whole, whole_or_none
from openclaw_gateway.value import Value

__all__ = [
    "RETRY_MS",
    "Adapter",
    "AdapterFailed",
    "Incoming",
    "Outgoing",
    "Port",
    "State",
    "WebhookReply",
    "WebhookRequest",
]

State = Literal["off", "starting", "connected", "reconnecting", "auth-failed", "conflict", "misconfigured", "stopped"]

# What the hub waits before the next try, by state: first and longest, milliseconds. None: not before a person acts.
RETRY_MS: Final[Mapping[str, tuple[int, int] | None]] = {
    "reconnecting": (1_000, 60_000),
    "conflict": (15_000, 300_000),
    "auth-failed": (300_000, 3_600_000),
    "misconfigured": None,
}


def _whole_lines(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(whole, lines))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Incoming(Value):
    """One message as a service delivered it. Ids are the service's immutable ones; times are Unix milliseconds.

    ``key`` names the delivery (an update id): the same key is accepted once. ``attachments``: one line of words each.
    """

    key: str = attrs.field(converter=whole)
    message_id: str = attrs.field(converter=whole)
    conversation: str = attrs.field(converter=whole)
    context: Literal["dm", "group"]
    sender_id: str = attrs.field(converter=whole)
    sender_name: str = attrs.field(default="", converter=whole)
    text: str = attrs.field(default="", repr=False, converter=whole)
    thread: str | None = attrs.field(default=None, converter=whole_or_none)
    sent_at_ms: int
    live: bool = True
    attachments: tuple[str, ...] = attrs.field(default=(), converter=_whole_lines)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Outgoing(Value):
    """One text on its way out. ``key`` names it for services that can tell a repetition; ``uncertain``: an earlier try
    may have reached the service.
    """

    key: str
    conversation: str
    text: str = attrs.field(repr=False)
    thread: str | None = None
    reply_to: str | None = None
    uncertain: bool = False


@attrs.frozen(eq=False, repr=False)
class WebhookRequest(Value):
    """A request that a service sent to this account's webhook: its head. Header names are lower case.

    ``read`` gives the body, within the limits of the HTTP side; an adapter calls it after what the head can prove is
    proved (V47). What it raises is not the adapter's to catch.
    """

    method: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    query: Mapping[str, str] = attrs.field(repr=False)
    read: Callable[[], Awaitable[bytes]] = attrs.field(repr=False)


@attrs.frozen(eq=False, repr=False)
class WebhookReply(Value):
    status: int
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


@attrs.define(eq=False)
class AdapterFailed(GatewayError):
    """An adapter cannot go on. ``state`` says how; ``fix`` is the one act that mends it; ``after_ms`` is what the
    service asked to wait.
    """

    state: State
    why: str
    fix: str | None = None
    after_ms: int | None = None

    def __str__(self) -> str:
        return f"{self.why} ({self.fix})" if self.fix else self.why


class Port(Protocol):
    """What an adapter is given of the gateway."""

    async def incoming(self, message: Incoming) -> None:
        """Hand on a message: durable (or refused for good) when this returns. Raises `QueueFull`, `StoreError`: then it
        was not taken, and the service must not be told that it was."""
        ...

    def connected(self, identity: Mapping[str, Any]) -> None:
        """The service knows us: ``identity`` (ids and names, no secrets) is shown in the status."""
        ...

    def activity(self) -> None:
        """Something came from the service: it is alive."""
        ...


class Adapter(Protocol):
    """One account. `run` and `send` may run at the same time; both are cancelled when the account is stopped."""

    @property
    def limit(self) -> int:
        """Characters that one message of this service holds."""
        ...

    async def run(self, port: Port) -> None:
        """Receive until something ends it. Raises `AdapterFailed`."""
        ...

    async def send(self, message: Outgoing) -> None:
        """Deliver one text (already at most `limit` characters). Raises `RetryLater`, `Undeliverable`."""
        ...

    async def conversation_with(self, sender_id: str) -> str:
        """The direct chat with a person. Raises `RetryLater`, `Undeliverable`."""
        ...

    async def webhook(self, port: Port, request: WebhookRequest) -> WebhookReply:
        """Answer a request to this account's webhook; its own secret or signature is checked before anything else."""
        ...

    async def probe(self) -> Mapping[str, Any]:
        """Ask the service who we are, `run` or no `run`: the identity, without secrets. Raises `AdapterFailed`."""
        ...

    async def logout(self) -> bool:
        """Give back what the service keeps for us (a webhook); False where there is nothing."""
        ...


MakeAdapter = Callable[[str, Mapping[str, Any]], Adapter]
