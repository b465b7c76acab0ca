"""Telegram: the Bot API by long polling, or by webhook where ``webhookUrl`` is set.

Owns the calls, the shape of updates, and Markdown that degrades (a text that Telegram cannot parse goes out plain). It
must not know the sender gate or agents. Source: core.telegram.org/bots/api (getUpdates, setWebhook, sendMessage,
ResponseParameters, limits: 4096 characters a message).

Theory of operation. getUpdates confirms everything below ``offset``: the offset moves only past updates that
`Port.incoming` has taken, so what was not durable comes again. 401 and 404 mean a wrong token, 409 that somebody else
polls or a webhook is set, 429 carries ``retry_after``. A webhook is checked by its secret header before its body is
read as anything (V45).

Invariants: the token is in no error, state or log (`channels.service`); an update is handed on once it has an id and a
sender; media come as a line of words, text and caption as text.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import attrs
import msgspec
import trio

from openclaw_gateway.channels.adapter import (
    AdapterFailed,
    Incoming,
    Outgoing,
    Port,
    WebhookReply,
    WebhookRequest,
)
from openclaw_gateway.channels.markdown import telegram_html
from openclaw_gateway.channels.service import Answer, Service, ServiceUnreachable, base_url, open_service, secret
from openclaw_gateway.policy.secrets import compare
from openclaw_gateway.protocol.wholetext import decode_whole
from openclaw_gateway.queues import QueueFull, RetryLater, Undeliverable
from openclaw_gateway.store import StoreError

__all__ = ["TelegramAdapter", "open_adapter", "read_update"]

LIMIT: Final = 4096
POLL_SECONDS: Final = 25
MAX_UPDATES: Final = 100
IDLE_SECONDS: Final = 0.5  # between polls that a server answers at once with nothing
RECENT_SECONDS: Final = 60  # what came while we were away is live for so long, and history after that (PAIR-10)
_TOKEN: Final = re.compile(r"[0-9]{1,20}:[A-Za-z0-9_-]{1,128}", re.ASCII)
_WEBHOOK_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{16,256}", re.ASCII)
_SECRET_HEADER: Final = "x-telegram-bot-api-secret-token"  # noqa: S105 - a header's name
_MEDIA: Final = (
    ("photo", "photo"),
    ("video", "video"),
    ("animation", "animation"),
    ("voice", "voice message"),
    ("audio", "audio"),
    ("document", "file"),
    ("sticker", "sticker"),
    ("video_note", "video message"),
    ("location", "location"),
    ("contact", "contact"),
    ("poll", "poll"),
)


def open_adapter(account: str, settings: Mapping[str, Any]) -> TelegramAdapter:
    """An account's adapter from its settings (``botToken``, ``apiRoot``, ``webhookUrl``, ``webhookSecret``). Raises
    `AdapterFailed`.
    """
    token = secret(settings, "botToken", "telegram", env="TELEGRAM_BOT_TOKEN" if account == "default" else None)
    if _TOKEN.fullmatch(token) is None:
        why = "channels.telegram.botToken is no bot token (123456:ABC..., from BotFather)"
        fix = "openclaw config set channels.telegram.botToken '${TELEGRAM_BOT_TOKEN}'"
        raise AdapterFailed("misconfigured", why, fix)
    root = base_url(settings, "apiRoot", "https://api.telegram.org", "telegram")
    hook = base_url(settings, "webhookUrl", "", "telegram") if settings.get("webhookUrl") else None
    given = settings.get("webhookSecret")
    if given is not None and not (isinstance(given, str) and _WEBHOOK_SECRET.fullmatch(given)):
        fix = "openclaw config unset channels.telegram.webhookSecret"
        why = "channels.telegram.webhookSecret needs 16 to 256 letters, digits, _ or -; without one, one is made up"
        raise AdapterFailed("misconfigured", why, fix)
    return TelegramAdapter(root, token, webhook_url=hook, webhook_secret=given)


class TelegramAdapter:
    def __init__(
        self, root: str, token: str, *, webhook_url: str | None = None, webhook_secret: str | None = None
    ) -> None:
        self._base = f"{root}/bot{token}/"
        self._bot = token.partition(":")[0]
        self._webhook_url = webhook_url
        self._webhook_secret = webhook_secret or secrets.token_urlsafe(32)
        self._service: Service | None = None
        self._not_before = 0.0
        self.limit = LIMIT

    async def run(self, port: Port) -> None:
        async with open_service(self._base) as service:
            self._service = service
            try:
                me = await self._ask("getMe")
                if self._webhook_url is not None:
                    await self._ask(
                        "setWebhook",
                        url=self._webhook_url,
                        secret_token=self._webhook_secret,
                        allowed_updates=["message"],
                    )
                    port.connected(_identity(me, "webhook"))
                    await trio.sleep_forever()
                await self._ask("deleteWebhook")
                port.connected(_identity(me, "polling"))
                await self._poll(port)
            finally:
                self._service = None

    async def _poll(self, port: Port) -> None:
        offset: int | None = None
        backlog = True  # what waited while we were away is no live message
        while True:
            ask = {"timeout": 0 if backlog else POLL_SECONDS, "limit": MAX_UPDATES, "allowed_updates": ["message"]}
            if offset is not None:
                ask["offset"] = offset
            asked = trio.current_time()
            updates = await self._ask("getUpdates", **ask)
            port.activity()
            if not isinstance(updates, list):
                raise AdapterFailed("reconnecting", "getUpdates answered something that is no list")
            for message, number in _joined(updates):
                if message is not None:
                    live = not backlog or time.time() - message.sent_at_ms / 1000 <= RECENT_SECONDS
                    await self._hand_on(port, self._named(message, live=live))
                offset = number + 1
            if not updates and not backlog and trio.current_time() - asked < IDLE_SECONDS:
                await trio.sleep(IDLE_SECONDS)
            backlog = backlog and len(updates) == MAX_UPDATES

    def _named(self, message: Incoming, *, live: bool) -> Incoming:
        """Update ids are unique to a bot, and an account may be given another bot."""
        return attrs.evolve(message, key=f"{self._bot}:{message.key}", live=live)

    async def _hand_on(self, port: Port, message: Incoming) -> None:
        """Until it is taken: what is not durable must not be confirmed."""
        while True:
            try:
                await port.incoming(message)
            except QueueFull as exc:
                await trio.sleep(exc.retry_after_ms / 1000)
            except StoreError as exc:
                raise AdapterFailed("reconnecting", f"a message cannot be kept: {exc}") from exc
            else:
                return

    async def send(self, message: Outgoing) -> None:
        service = self._service
        if service is None:
            raise RetryLater("not connected")
        wait = self._not_before - trio.current_time()
        if wait > 0:
            raise RetryLater("Telegram asked to wait", int(wait * 1000) + 1, counts=False)
        body: dict[str, Any] = {"chat_id": message.conversation}
        if message.thread:
            if not message.thread.isdecimal():
                raise Undeliverable(f"Telegram has no topic {message.thread[:64]}: a topic is a number")
            body["message_thread_id"] = int(message.thread)
        if message.reply_to and message.reply_to.isdigit():
            body["reply_parameters"] = {"message_id": int(message.reply_to), "allow_sending_without_reply": True}
        answer = await self._deliver(service, {**body, "text": telegram_html(message.text), "parse_mode": "HTML"})
        if answer.status == 400 and any(word in _description(answer) for word in ("parse", "empty", "entit")):
            answer = await self._deliver(service, {**body, "text": message.text})
        if answer.status != 200:
            raise self._send_fault(answer)

    async def _deliver(self, service: Service, body: dict[str, Any]) -> Answer:
        try:
            return await service.call("POST", "sendMessage", json=body)
        except ServiceUnreachable as exc:
            raise RetryLater(f"Telegram: {exc}") from exc

    def _send_fault(self, answer: Answer) -> RetryLater | Undeliverable:
        told = _description(answer) or f"status {answer.status}"
        if answer.status == 429:
            after = _retry_after_ms(answer)
            self._not_before = trio.current_time() + after / 1000
            return RetryLater("Telegram asked to wait", after, counts=False)
        if answer.status in {400, 403, 404}:  # blocked by the user, chat not found, message empty
            return Undeliverable(f"Telegram: {told}")
        return RetryLater(f"Telegram: {told}")

    async def webhook(self, port: Port, request: WebhookRequest) -> WebhookReply:
        given = request.headers.get(_SECRET_HEADER, "")
        if self._webhook_url is None:
            return WebhookReply(404, b"Not Found")
        if not compare(given, self._webhook_secret):
            return WebhookReply(401, b"Unauthorized")
        if request.method != "POST":
            return WebhookReply(405, b"Method Not Allowed")
        body = await request.read()
        try:
            update = decode_whole(msgspec.json.decode, body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return WebhookReply(400, b"Bad Request")
        port.activity()
        message = read_update(update) if isinstance(update, dict) else None
        if message is not None:
            try:
                await port.incoming(self._named(message, live=True))
            except (QueueFull, StoreError):
                return WebhookReply(503, b"Try again")  # Telegram sends it again
        return WebhookReply(200, b"ok")

    async def conversation_with(self, sender_id: str) -> str:
        await trio.lowlevel.checkpoint()
        return sender_id  # a private chat has its person's id

    async def probe(self) -> Mapping[str, Any]:
        async with self._at_hand() as service:
            return _identity(await self._ask("getMe", service), "polling" if self._webhook_url is None else "webhook")

    async def logout(self) -> bool:
        if self._webhook_url is None:
            return False
        async with self._at_hand() as service:
            await self._ask("deleteWebhook", service)
        return True

    @asynccontextmanager
    async def _at_hand(self) -> AsyncIterator[Service]:
        """The client of `run`, or one of its own where nothing runs."""
        if self._service is not None:
            yield self._service
            return
        async with open_service(self._base) as service:
            yield service

    async def _ask(self, method: str, service: Service | None = None, /, **params: Any) -> Any:
        """A call whose result is needed. Raises `AdapterFailed`."""
        service = service or self._service
        assert service is not None
        read = float(params.get("timeout", 0)) + 20.0
        try:
            answer = await service.call("POST", method, json=params, read_seconds=read)
        except ServiceUnreachable as exc:
            raise AdapterFailed("reconnecting", f"Telegram: {exc}") from exc
        body = answer.json
        if answer.status == 200 and isinstance(body, dict) and body.get("ok") is True:
            return body.get("result")
        told = _description(answer)
        if answer.status in {401, 404}:
            fix = "openclaw config set channels.telegram.botToken '${TELEGRAM_BOT_TOKEN}'"
            why = "Telegram does not know this bot token; BotFather says which one is good"
            raise AdapterFailed("auth-failed", why, fix)
        if answer.status == 409:
            why = f"another program uses this bot: {told}"
            raise AdapterFailed("conflict", why, "stop the other program, or give this gateway a bot of its own")
        if answer.status == 429:
            raise AdapterFailed("reconnecting", "Telegram asked to wait", after_ms=_retry_after_ms(answer))
        raise AdapterFailed("reconnecting", f"Telegram answered {answer.status} {told}".strip())


def _joined(updates: Sequence[Any]) -> Iterator[tuple[Incoming | None, int]]:
    """The messages of a batch with the id of the last update that each is made of. The parts of an album, which come
    one behind the other, are one message.
    """
    album: tuple[str, Incoming, int] | None = None
    for update in updates:
        number = update.get("update_id") if isinstance(update, dict) else None
        if not isinstance(number, int):
            continue
        message = read_update(update)
        group = update["message"].get("media_group_id") if message is not None else None
        if album is not None:
            name, first, _ = album
            if message is not None and group == name:
                text = "\n".join(part for part in (first.text, message.text) if part)
                first = attrs.evolve(first, text=text, attachments=(*first.attachments, *message.attachments))
                album = (name, first, number)
                continue
            yield first, album[2]
            album = None
        if message is not None and isinstance(group, str):
            album = (group, message, number)
        else:
            yield message, number
    if album is not None:
        yield album[1], album[2]


def read_update(update: Mapping[str, Any]) -> Incoming | None:
    """A message out of an update; None for everything that is none, or that no person sent."""
    message, number = update.get("message"), update.get("update_id")
    if not isinstance(message, dict) or not isinstance(number, int):
        return None
    chat, sender = message.get("chat"), message.get("from")
    if not isinstance(chat, dict) or not isinstance(sender, dict) or sender.get("is_bot") is True:
        return None
    chat_id, sender_id, at = chat.get("id"), sender.get("id"), message.get("date")
    if not isinstance(chat_id, int) or not isinstance(sender_id, int) or not isinstance(at, int):
        return None
    name = " ".join(part for key in ("first_name", "last_name") if isinstance(part := sender.get(key), str))
    text = message.get("text") or message.get("caption")
    thread = message.get("message_thread_id")
    return Incoming(
        key=str(number),
        message_id=str(message.get("message_id", "")),
        conversation=str(chat_id),
        context="dm" if chat.get("type") == "private" else "group",
        sender_id=str(sender_id),
        sender_name=name,
        text=text if isinstance(text, str) else "",
        thread=str(thread) if isinstance(thread, int) and message.get("is_topic_message") is True else None,
        sent_at_ms=at * 1000,
        attachments=tuple(_media(message)),
    )


def _media(message: Mapping[str, Any]) -> list[str]:
    told = []
    for key, word in _MEDIA:
        item = message.get(key)
        if item is None or (key == "document" and "animation" in message):
            continue
        name = item.get("file_name") if isinstance(item, dict) else None
        told.append(f"[{word}: {name[:200]}]" if isinstance(name, str) else f"[{word}]")
    return told


def _identity(me: Any, transport: str) -> dict[str, Any]:
    if not isinstance(me, dict):
        return {"transport": transport}
    return {"id": str(me.get("id", "")), "username": str(me.get("username", ""))[:64], "transport": transport}


def _description(answer: Answer) -> str:
    body = answer.json
    told = body.get("description") if isinstance(body, dict) else None
    return told[:200] if isinstance(told, str) else ""


def _retry_after_ms(answer: Answer) -> int:
    body = answer.json
    parameters = body.get("parameters") if isinstance(body, dict) else None
    seconds = parameters.get("retry_after") if isinstance(parameters, dict) else None
    if isinstance(seconds, int | float) and 0 <= seconds <= 86_400:
        return int(seconds * 1000)
    return answer.retry_after_ms or 5_000
