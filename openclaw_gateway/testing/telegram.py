"""A Telegram Bot API server for tests, written from core.telegram.org/bots/api: as much of it as a gateway uses.

Owns bots with their tokens, updates with their confirmation by ``offset`` (what was not confirmed comes again),
sent messages, webhooks with their secret header, and faults that a test asks for. It must not know the gateway.

Invariants: one poller per bot (the earlier one gets 409); a text is refused as Telegram refuses it: empty, over 4096
characters, or HTML that is not balanced or has tags that Telegram does not know.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html import unescape
from html.parser import HTMLParser
from typing import Any, Final

import trio

from openclaw_gateway.testing.httpservice import Asked, HttpService, Told, open_http_service

__all__ = ["FakeTelegram", "open_fake_telegram", "telegram_fault"]

MAX_KEPT: Final = 10_000
TEXT_LIMIT: Final = 4096
_TAGS: Final = frozenset({"b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "code", "pre", "a", "blockquote"})


class FakeTelegram:
    """Made by `open_fake_telegram`. ``sent`` holds the parameters of each sendMessage that was accepted; ``calls`` the
    name of every method called."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.sent: list[dict[str, Any]] = []
        self.calls: deque[str] = deque(maxlen=MAX_KEPT)
        self.webhook: dict[str, Any] | None = None
        self.commands: dict[str, deque[Told]] = {}
        # Called with the method's name and its parameters; what `before` gives is the answer, and nothing is done.
        self.before: Callable[[str, Any], Told | None] = lambda method, params: None
        self.after: Callable[[str, Any], None] = lambda method, params: None
        self._updates: list[dict[str, Any]] = []
        self._next_update = 1_000
        self._next_message = 1
        self._changed = trio.Event()
        self._poll: object | None = None
        self.service: HttpService | None = None

    @property
    def url(self) -> str:
        assert self.service is not None
        return self.service.url

    @property
    def unconfirmed(self) -> int:
        """Updates that the bot has not confirmed yet."""
        return len(self._updates)

    # --- what people and the test do

    def write(self, sender: int, text: str | None = "hello", *, age: float = 0, **more: Any) -> int:
        """A person writes to the bot, ``age`` seconds ago; the update's id."""
        message: dict[str, Any] = {
            "message_id": self._next_message,
            "date": int(time.time() - age),
            "from": {"id": sender, "is_bot": False, "first_name": "Ann"},
            "chat": {"id": sender, "type": "private", "first_name": "Ann"},
            **more,
        }
        if text is not None:
            message["text"] = text
        self._next_message += 1
        return self.deliver({"message": message})

    def deliver(self, update: dict[str, Any]) -> int:
        """Any update, as it is."""
        number = self._next_update
        self._next_update += 1
        self._updates.append({"update_id": number, **update})
        self._wake()
        return number

    def fail_next(self, method: str, *answers: Told) -> None:
        """What the next calls of ``method`` get instead of an answer."""
        self.commands.setdefault(method, deque()).extend(answers)

    async def wait_sent(self, count: int) -> list[dict[str, Any]]:
        """Until so many messages were sent in all."""
        while len(self.sent) < count:
            await self._changed.wait()
        return self.sent

    async def wait_called(self, method: str, count: int = 1) -> None:
        while self.calls.count(method) < count:
            await self._changed.wait()

    async def wait_confirmed(self) -> None:
        """Until the bot has confirmed every update."""
        while self._updates:
            await self._changed.wait()

    def texts_to(self, sender: int) -> list[str]:
        return [one["text"] for one in self.sent if str(one["chat_id"]) == str(sender)]

    # --- the API

    async def answer(self, asked: Asked) -> Told:
        prefix, _, method = asked.path.removeprefix("/bot").rpartition("/")
        if not asked.path.startswith("/bot") or prefix != self.token:
            return _fault(401, "Unauthorized")
        self.calls.append(method)
        self._wake()
        params = asked.json or {}
        waiting = self.commands.get(method)
        if waiting:
            return waiting.popleft()
        handler = getattr(self, f"_{method}", None)
        if handler is None:
            return _fault(404, "Not Found")
        instead = self.before(method, params)
        if instead is not None:
            return instead
        told: Told = await handler(params)
        self.after(method, params)
        return told

    async def _getMe(self, params: dict[str, Any]) -> Told:  # noqa: N802 - Telegram's names
        return _result({"id": int(self.token.partition(":")[0]), "is_bot": True, "username": "fake_bot"})

    async def _getUpdates(self, params: dict[str, Any]) -> Told:  # noqa: N802
        if self.webhook is not None:
            text = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook first"
            return _fault(409, text)
        mine = self._poll = object()
        self._wake()
        offset = params.get("offset")
        if isinstance(offset, int):
            self._updates = [one for one in self._updates if one["update_id"] >= offset]
            self._wake()
        with trio.move_on_after(params.get("timeout", 0)):
            while not self._updates and self._poll is mine:
                await self._changed.wait()
        if self._poll is not mine:
            text = "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running"
            return _fault(409, text)
        return _result(self._updates[: params.get("limit", 100)])

    async def _sendMessage(self, params: dict[str, Any]) -> Told:  # noqa: N802
        text = params.get("text", "")
        if params.get("parse_mode") == "HTML":
            reader = _Html()
            reader.feed(text)
            reader.close()
            if reader.fault or reader.open:
                return _fault(400, f"Bad Request: can't parse entities: {reader.fault or 'unclosed tag'}")
            text = "".join(reader.text)
        if not text.strip():
            return _fault(400, "Bad Request: message text is empty")
        if len(text) > TEXT_LIMIT:
            return _fault(400, "Bad Request: message is too long")
        self.sent.append({**params, "shown": text})
        self._next_message += 1
        self._wake()
        chat = {"id": params["chat_id"], "type": "private"}
        return _result({"message_id": self._next_message, "date": int(time.time()), "chat": chat, "text": text})

    async def _setWebhook(self, params: dict[str, Any]) -> Told:  # noqa: N802
        self.webhook = params or None
        return _result(True)

    async def _deleteWebhook(self, params: dict[str, Any]) -> Told:  # noqa: N802
        self.webhook = None
        return _result(True)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class _Html(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.open: list[str] = []
        self.text: list[str] = []
        self.fault: str | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in _TAGS:
            self.fault = f'Unsupported start tag "{tag}"'
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.fault = f'Unmatched end tag "{tag}"'

    def handle_data(self, data: str) -> None:
        if "<" in data:
            self.fault = "unescaped <"
        self.text.append(data)

    def handle_entityref(self, name: str) -> None:
        self.text.append(unescape(f"&{name};"))

    def handle_charref(self, name: str) -> None:
        self.text.append(unescape(f"&#{name};"))


def _result(value: Any) -> Told:
    return Told.json({"ok": True, "result": value})


def _fault(status: int, description: str, **parameters: Any) -> Told:
    body: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    return Told.json({**body, **({"parameters": parameters} if parameters else {})}, status)


def telegram_fault(status: int, description: str = "", **parameters: Any) -> Told:
    """An error as Telegram words it; ``retry_after`` goes into ``parameters``."""
    return _fault(status, description, **parameters)


@asynccontextmanager
async def open_fake_telegram(token: str = "123456:fake-token-of-the-tests") -> AsyncIterator[FakeTelegram]:  # noqa: S107
    """A Bot API with one bot, under `FakeTelegram.url`."""
    telegram = FakeTelegram(token)
    async with open_http_service(telegram.answer) as service:
        telegram.service = service
        yield telegram
