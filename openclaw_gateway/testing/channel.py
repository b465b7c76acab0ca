"""A scripted message channel: it brings messages to the gate as a real adapter does, and keeps what it sends.

Owns nothing but the two ends: people write (live, or replayed out of a backlog), the assistant's words go to `outbox`.
It must not decide anything: that is what is under test. Invariants: what the gate says is carried out literally, as
every adapter has to; nothing is sent that the gate or an operator did not ask for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import attrs
import trio

from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.pairing.sender_records import DEFAULT_ACCOUNT, InboundMessage
from openclaw_gateway.pairing.senders import SenderGate, Verdict
from openclaw_gateway.policy.senders import Context

__all__ = ["OutboundMessage", "ScriptedChannel", "open_scripted_channel"]

MAX_KEPT: Final = 1_000


@attrs.frozen
class OutboundMessage:
    """What was sent to a person."""

    account: str
    sender_id: str
    text: str


class ScriptedChannel:
    """Made by `open_scripted_channel`. ``outbox`` holds what was sent, ``delivered`` what was let in; the newest
    `MAX_KEPT` of each."""

    def __init__(self, gate: SenderGate, channel: str, account: str, clock: Callable[[], int]) -> None:
        self.gate = gate
        self.channel = channel
        self.account = account
        self.outbox: deque[OutboundMessage] = deque(maxlen=MAX_KEPT)
        self.delivered: deque[InboundMessage] = deque(maxlen=MAX_KEPT)
        self.broken: Exception | None = None  # what sending raises, where set
        self._clock = clock
        self._sent = trio.Event()

    async def send(self, account: str, sender_id: str, text: str) -> None:
        """The gateway speaks (`ChannelOutbox`)."""
        await trio.lowlevel.checkpoint()
        if self.broken is not None:
            raise self.broken
        self.outbox.append(OutboundMessage(account, sender_id, text))
        self._sent.set()
        self._sent = trio.Event()

    async def wait_sent(self, count: int) -> OutboundMessage:
        """Wait until ``count`` messages were sent in all; the last of them."""
        while len(self.outbox) < count:
            await self._sent.wait()
        return self.outbox[count - 1]

    async def write(
        self,
        sender_id: str,
        text: str = "/pair",
        *,
        name: str = "",
        context: Context = "dm",
        live: bool = True,
        age_ms: int = 0,
        account: str | None = None,
    ) -> Verdict:
        """Somebody writes; the verdict is carried out and returned. ``age_ms``: how long ago it was sent."""
        message = InboundMessage(
            channel=self.channel,
            account=account if account is not None else self.account,
            sender_id=sender_id,
            display_name=name,
            context=context,
            text=text,
            live=live,
            sent_at_ms=self._clock() - age_ms,
        )
        verdict = await self.gate.admit(message)
        if verdict.kind == "allow":
            self.delivered.append(message)
        elif verdict.text is not None:
            await self.send(message.account, sender_id, verdict.text)
        return verdict

    async def replay(self, sender_id: str, texts: list[str], *, name: str = "") -> list[Verdict]:
        """Messages out of a backlog, as after a restart."""
        return [await self.write(sender_id, text, name=name, live=False) for text in texts]


@asynccontextmanager
async def open_scripted_channel(
    gate: SenderGate, channel: str = "telegram", *, account: str = DEFAULT_ACCOUNT, clock: Callable[[], int] = now_ms
) -> AsyncIterator[ScriptedChannel]:
    """A channel that is registered with ``gate`` (`Gateway.senders`) until the block ends."""
    scripted = ScriptedChannel(gate, channel, account, clock)
    gate.register(channel, scripted, account=account)
    try:
        yield scripted
    finally:
        gate.unregister(channel, scripted, account=account)
