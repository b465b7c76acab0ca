"""Words to people on message channels, by hand: `send`, and `message.action` as OpenClaw's command line calls it.

Owns their parameters and shapes (OpenClaw's). It must not know any service or how a message is delivered. Text alone is
sent: what a caller adds besides and this gateway cannot carry (files, voice) is refused by name, not left out.

Invariants: what was acknowledged lies in the outbound queue and survives a crash; the same idempotency key of the same
caller sends one message; what is sent by hand leaves room in the queue for agents' answers; the answer says that the
message waits, because nothing has been delivered by then.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec

from openclaw_gateway.agents.records import MAX_MESSAGE
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.queues import MessageQueue, NewMessage, QueueFull
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from openclaw_gateway.channels.accounts import Account
    from openclaw_gateway.channels.hub import ChannelHub

__all__ = ["register"]

MAX_KEY: Final = 256
MOST_OF_QUEUE: Final = 0.75  # what is sent by hand may take of the queue: the rest is for answers to people (ROB-1)
# Before a colon in a target: a conversation of the service itself, not the person behind an id.
_CONVERSATIONS: Final = frozenset({"channel", "chat", "group"})
_PERSONS: Final = frozenset({"user", "direct"})
# Ids become parts of requests to services: nothing that means something in a path or a query.
_ID: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9@+_=-][A-Za-z0-9@+._=-]{0,127}")
_FILES: Final = ("media", "mediaUrl", "mediaUrls", "buffer", "path", "filePath", "filename", "attachments", "asVoice")


@attrs.frozen(eq=False, repr=False)
class SendParams(Value):
    to: str
    idempotency_key: str
    message: str | None = None
    channel: str | None = None
    account_id: str | None = None
    thread_id: str | None = None
    reply_to_id: str | None = None
    media_url: str | None = None
    media_urls: list[str] | None = None
    buffer: str | None = None
    filename: str | None = None
    as_voice: bool = False


@attrs.frozen(eq=False, repr=False)
class ActionParams(Value):
    """``params`` are the action's own: ``to`` (or ``target``), ``message``, ``threadId``, ``replyTo``, ``dryRun``."""

    channel: str
    action: str
    params: dict[str, Any]
    idempotency_key: str
    account_id: str | None = None


class _Methods:
    def __init__(self, hub: Callable[[], ChannelHub | None], outbound: MessageQueue, kind: str) -> None:
        self._hub = hub
        self._outbound = outbound
        self._kind = kind

    async def send(self, context: CallContext, params: SendParams) -> dict[str, Any]:
        given = {
            "mediaUrl": params.media_url,
            "mediaUrls": params.media_urls,
            "buffer": params.buffer,
            "filename": params.filename,
            "asVoice": params.as_voice,
        }
        return await self._queue(
            "send", context, given, channel=params.channel, account=params.account_id, to=params.to,
            text=params.message, key=params.idempotency_key, thread=params.thread_id, reply_to=params.reply_to_id,
        )  # fmt: skip

    async def action(self, context: CallContext, params: ActionParams) -> dict[str, Any]:
        if params.action != "send":
            raise _fault("message.action", f"at /action: must be 'send': this gateway cannot {params.action[:40]!r}")
        inner = params.params
        return await self._queue(
            "message.action", context, inner, channel=params.channel, account=params.account_id,
            to=_text(inner, "to") or _text(inner, "target"), text=_text(inner, "message"), key=params.idempotency_key,
            thread=_text(inner, "threadId"), reply_to=_text(inner, "replyTo") or _text(inner, "replyToId"),
            dry=inner.get("dryRun") is True,
        )  # fmt: skip

    async def _queue(
        self, method: str, context: CallContext, given: dict[str, Any], *, channel: str | None, account: str | None,
        to: str | None, text: str | None, key: str, thread: str | None, reply_to: str | None, dry: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        for name in _FILES:
            if given.get(name):
                raise _fault(method, f"at /{name}: files and voice cannot be sent by hand, only text")
        if not text or not text.strip() or len(text) > MAX_MESSAGE:
            raise _fault(method, f"at /message: must have 1 to {MAX_MESSAGE} characters")
        if not key.strip() or len(key) > MAX_KEY:
            raise _fault(method, f"at /idempotencyKey: must have 1 to {MAX_KEY} characters")
        chosen = self._account(method, channel, account)
        person, conversation, topic = _target(to or "", chosen.channel)
        ids = [person or conversation or "", *([topic] if thread and topic else [])]
        thread = thread or topic
        if to is None or any(_ID.fullmatch(one) is None for one in ids):
            raise _fault(method, "at /to: must be an id such as 111, user:111 or channel:222, at most 128 characters")
        for name, value in (("threadId", thread), ("replyToId", reply_to)):
            if value is not None and _ID.fullmatch(value) is None:
                raise _fault(method, f"at /{name}: must be an id of the channel's service")
        told = {"channel": chosen.channel, "accountId": chosen.name, "to": to, "runId": key}
        if dry:
            return {**told, "dryRun": True}
        body = {
            "channel": chosen.channel,
            "account": chosen.name,
            "conversationId": conversation,
            "to": person,
            "threadId": thread,
            "replyTo": reply_to,
            "text": text,
        }
        digest = hashlib.sha256(f"{context.principal}\n{key}".encode("utf-8", "surrogatepass")).hexdigest()
        if self._outbound.fullness >= MOST_OF_QUEUE:
            raise CallError(wire_error("queue-full"))
        try:
            message = NewMessage(
                f"{chosen.channel}:{chosen.name}:{to}", f"send:{digest}", f"rpc:{context.principal}"[:256], self._kind,
                msgspec.json.encode(body),
            )  # fmt: skip
            accepted = await self._outbound.put(message)
        except ValueError as exc:
            raise _fault(method, f"at /message: {exc}") from exc
        except QueueFull as exc:
            raise CallError(wire_error("queue-full")) from exc
        except StoreError as exc:
            raise CallError(wire_error("store-unavailable")) from exc
        return {**told, "ok": True, "status": "queued", "queueId": accepted.id, "duplicate": accepted.duplicate}

    def _account(self, method: str, channel: str | None, account: str | None) -> Account:
        hub = self._hub()
        accounts = hub.accounts if hub is not None else []
        name = channel.strip().lower() if channel else ""
        if not name:
            channels = list(dict.fromkeys(one.channel for one in accounts))
            if len(channels) != 1:
                known = ", ".join(channels) or "none"
                raise _fault(method, f"at /channel: must name the channel (there are: {known})")
            name = channels[0]
        mine = [one for one in accounts if one.channel == name]
        if hub is None or not any(account in {None, "", one.name} for one in mine):
            told = f"{name}/{account}" if account else name
            known = ", ".join(one.label for one in accounts)[:500] or "none"
            raise CallError(wire_error("channel-unknown", channel=told[:128], known=known))
        return hub.account(name, account)


def _target(to: str, channel: str) -> tuple[str | None, str | None, str | None]:
    """The person or the conversation that a target names, and the topic: ``111`` and ``user:111``, ``channel:222``;
    OpenClaw's command line puts the channel in front and a topic behind (``telegram:-100222:topic:7``)."""
    whole, _, topic = to.removeprefix(f"{channel}:").partition(":topic:")
    kind, colon, rest = whole.partition(":")
    if colon and kind in _CONVERSATIONS:
        return None, rest, topic or None
    return (rest if colon and kind in _PERSONS else whole), None, topic or None


def _text(given: dict[str, Any], name: str) -> str | None:
    value = given.get(name)
    return value if isinstance(value, str) and value else None


def _fault(method: str, fault: str) -> CallError:
    return CallError(wire_error("invalid-params", method=method, fault=fault))


def register(table: MethodTable, *, hub: Callable[[], ChannelHub | None], outbound: MessageQueue, kind: str) -> None:
    """Put the methods into ``table``. ``kind`` is what the outbound queue calls a message for a channel."""
    methods = _Methods(hub, outbound, kind)
    write = "operator.write"
    table.method("send", scope=write, params=SendParams, lenient=True)(methods.send)
    table.method("message.action", scope=write, params=ActionParams, lenient=True)(methods.action)
