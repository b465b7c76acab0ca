"""What goes out to a channel account: an answer, handed to the adapter piece by piece.

Owns how far each message has come, so that a retry goes on where it stopped. It must not know which accounts run
(`hub`), nor any service.

Invariants: pieces leave in order; an account that is not connected costs a message no try; the memory of progress is
bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec
import trio

from openclaw_gateway.channels.accounts import Account
from openclaw_gateway.channels.adapter import Outgoing, State
from openclaw_gateway.channels.text import pieces
from openclaw_gateway.queues import Effect, QueuedMessage, RetryLater, Undeliverable

__all__ = ["MAX_PROGRESS", "SEND_SECONDS", "Delivery"]

MAX_PROGRESS: Final = 1_000
SEND_SECONDS: Final = 60.0
_NOT_NOW_MS: Final[Mapping[State, int]] = {"reconnecting": 5_000, "starting": 1_000, "off": 1_000}
_NOT_NOW_LONG_MS: Final = 30_000


class Delivery:
    """``accounts`` are the hub's, by channel and name."""

    def __init__(self, accounts: Mapping[tuple[str, str], Account], *, clock: Callable[[], int]) -> None:
        self._accounts = accounts
        self._clock = clock
        self._progress: OrderedDict[str, int] = OrderedDict()

    async def deliver(self, message: QueuedMessage) -> Sequence[Effect] | None:
        """The handler of ``channel.send``: every piece in order, going on where an earlier try stopped."""
        body = msgspec.json.decode(message.payload)
        account = self._accounts.get((body["channel"], body["account"]))
        if account is None:
            raise Undeliverable(f"there is no account {body['channel']}/{body['account']} any more")
        adapter = account.adapter
        if adapter is None or not account.connected:
            wait = _NOT_NOW_MS.get(account.state, _NOT_NOW_LONG_MS)
            raise RetryLater(f"{account.label} is {account.state}", wait, counts=False)
        conversation = body["conversationId"]
        if conversation is None:  # said by hand to a person: where they are reached is the service's to say
            conversation = await adapter.conversation_with(body["to"])
        parts = pieces(body["text"], adapter.limit)
        first = self._progress.get(message.id, 0)
        for number in range(first, len(parts)):
            outgoing = Outgoing(
                key=f"{message.id}:{number}",
                conversation=conversation,
                text=parts[number],
                thread=body.get("threadId"),
                reply_to=body.get("replyTo") if number == 0 else None,
                uncertain=message.uncertain,
            )
            try:
                with trio.fail_after(SEND_SECONDS):
                    await adapter.send(outgoing)
            except trio.TooSlowError as exc:
                raise RetryLater(f"not sent within {SEND_SECONDS:g} s") from exc
            account.last_out_ms = account.last_activity_ms = self._clock()
            if number + 1 < len(parts):
                self._progress[message.id] = number + 1
                while len(self._progress) > MAX_PROGRESS:
                    self._progress.popitem(last=False)
        self._progress.pop(message.id, None)
        return None
