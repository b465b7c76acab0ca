"""What comes in from a channel account: through the sender gate, into a run, and the word that is said outside of one.

Owns the way of one message: a challenge is answered at once, an admitted message becomes a run whose id is the
delivery's key, so a delivery that comes twice is one run. It must not know which accounts run (`hub`), nor any service.

Invariants: nothing is said to anybody whom the gate did not let in, but the one challenge; a word that a service asked
to hold back is tried again while the process lives, at most `MAX_WORDS` of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from openclaw_gateway.agents.keys import channel_key
from openclaw_gateway.agents.records import Reply, RunRequest
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.agents.sessions import TooManySessions
from openclaw_gateway.channels.accounts import Account
from openclaw_gateway.channels.adapter import Incoming, Outgoing
from openclaw_gateway.channels.delivery import SEND_SECONDS
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.sender_records import InboundMessage
from openclaw_gateway.pairing.senders import SenderGate
from openclaw_gateway.policy.senders import canonical_sender
from openclaw_gateway.queues import RetryLater, Undeliverable

__all__ = ["MAX_WORDS", "Intake"]

MAX_WORDS: Final = 32  # challenges and notes that wait for a service which asked to wait
SAY_TRIES: Final = 4
_NO_ROOM: Final = "I cannot take up another conversation right now. Please try again later."

log = get_logger("channels")


class Intake:
    """``nursery`` is where words wait; None while the hub does not serve: then none waits."""

    def __init__(self, gate: SenderGate, runs: AgentRuns, router: AgentRouter, *, clock: Callable[[], int]) -> None:
        self._gate = gate
        self._runs = runs
        self._router = router
        self._clock = clock
        self._words = 0
        self.nursery: trio.Nursery | None = None

    async def take(self, account: Account, message: Incoming) -> None:
        """One message from an account's service: through the gate, into a run."""
        now = self._clock()
        account.last_in_ms = account.last_activity_ms = now
        verdict = await self._gate.admit(
            InboundMessage(
                channel=account.channel,
                account=account.name,
                sender_id=message.sender_id,
                display_name=message.sender_name,
                context=message.context,
                text=message.text,
                live=message.live,
                sent_at_ms=message.sent_at_ms,
            )
        )
        if verdict.kind == "challenge" and verdict.text is not None:
            await self._say(account, message.conversation, verdict.text, key=f"challenge:{message.key}")
        if verdict.kind != "allow":
            return
        sender = canonical_sender(account.channel, message.sender_id) or message.sender_id
        agent = self._router.default_id
        text = "\n".join((*([message.text] if message.text.strip() else ()), *message.attachments))
        if not text.strip():
            return
        try:
            request = RunRequest(
                run_id=f"{account.channel}:{account.name}:{message.key}"[:256],
                agent_id=agent,
                session_key=channel_key(
                    agent,
                    channel=account.channel,
                    account=account.name,
                    context=message.context,
                    peer=sender if message.context == "dm" else message.conversation,
                    thread=message.thread,
                    scope=self._router.session.dm_scope,
                ),
                text=text,
                source=f"channel:{account.channel}:{account.name}"[:256],
                accepted_at_ms=now,
                sender=sender,
                sender_name=message.sender_name[:128] or None,
                reply=Reply(account.channel, account.name, message.conversation, message.thread, message.message_id),
            )
            await self._runs.start(request)
        except (ValueError, TooManySessions) as exc:  # trying again changes nothing: the sender is told instead
            log.warning("channel message refused", channel=account.channel, account=account.name, error=str(exc))
            await self._say(account, message.conversation, _NO_ROOM, key=f"refused:{message.key}")

    async def _say(self, account: Account, conversation: str, text: str, *, key: str) -> None:
        """A word outside of any run. Where the service asks to wait, it is tried again while the process lives."""
        outgoing = Outgoing(key=key, conversation=conversation, text=text)
        again = await self._try_to_say(account, outgoing)
        if again is not None and self.nursery is not None and self._words < MAX_WORDS:
            self.nursery.start_soon(self._say_later, account, outgoing, again)

    async def _say_later(self, account: Account, outgoing: Outgoing, after: float) -> None:
        again: float | None = after
        self._words += 1
        try:
            for _ in range(SAY_TRIES):
                await trio.sleep(again or 0.0)
                again = await self._try_to_say(account, outgoing)
                if again is None:
                    return
        finally:
            self._words -= 1

    async def _try_to_say(self, account: Account, outgoing: Outgoing) -> float | None:
        """Seconds after which another try makes sense; None when it was said, or never can be."""
        adapter = account.adapter
        if adapter is None:
            return 5.0
        try:
            with trio.fail_after(SEND_SECONDS):
                await adapter.send(outgoing)
        except (RetryLater, Undeliverable, trio.TooSlowError) as exc:
            log.warning("channel message not sent", channel=account.channel, account=account.name, error=str(exc))
            return min(60.0, (exc.after_ms or 5_000) / 1000) if isinstance(exc, RetryLater) else None
        return None
