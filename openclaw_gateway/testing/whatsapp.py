"""WhatsApp's Cloud API for tests, written from developers.facebook.com/docs/whatsapp/cloud-api: one phone number.

Owns the number's token, what was sent, the 24-hour window, and notifications with their signatures, brought to a
webhook as Meta does: again until it answers 200. It must not know the gateway. Invariant: a person who has not written
within 24 hours gets no free text (error 131047).
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio

from openclaw_gateway.testing.httpservice import Asked, HttpService, Told, open_http_service

__all__ = ["FakeWhatsApp", "graph_fault", "notification", "open_fake_whatsapp", "sign"]

NUMBER: Final = "106540352242922"
TOKEN: Final = "EAAG-fake-access-token-of-the-tests"  # noqa: S105 - the fake's own
APP_SECRET: Final = "fake-app-secret-of-the-tests"  # noqa: S105
VERIFY_TOKEN: Final = "fake-verify-token-of-the-tests"  # noqa: S105
WINDOW_SECONDS: Final = 24 * 3600
TEXT_LIMIT: Final = 4096


class FakeWhatsApp:
    """Made by `open_fake_whatsapp`. ``sent`` holds the bodies of the messages that were accepted."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.written: dict[str, float] = {}
        self.commands: deque[Told] = deque()
        self.service: HttpService | None = None
        self._changed = trio.Event()
        self._next = 1

    @property
    def url(self) -> str:
        assert self.service is not None
        return self.service.url

    def settings(self, **more: Any) -> dict[str, Any]:
        """What an account needs in the configuration."""
        return {
            "accessToken": TOKEN, "appSecret": APP_SECRET, "verifyToken": VERIFY_TOKEN, "phoneNumberId": NUMBER,
            "apiRoot": self.url, **more,
        }  # fmt: skip

    def write(self, sender: str, text: str = "hello", **more: Any) -> bytes:
        """The notification of a person's message."""
        self.written[sender] = time.time()
        number, self._next = self._next, self._next + 1
        return notification(sender, text, id_=f"wamid.{number}", **more)

    async def wait_sent(self, count: int) -> list[dict[str, Any]]:
        while len(self.sent) < count:
            await self._changed.wait()
        return self.sent

    async def answer(self, asked: Asked) -> Told:
        if asked.headers.get("authorization") != f"Bearer {TOKEN}":
            return graph_fault(401, 190, "Invalid OAuth access token - Cannot parse access token")
        if self.commands:
            return self.commands.popleft()
        steps = asked.path.strip("/").split("/")
        if len(steps) < 2 or steps[1] != NUMBER:
            return graph_fault(400, 100, "Unsupported get request. Object does not exist")
        if asked.method == "GET" and len(steps) == 2:
            found = {"id": NUMBER, "display_phone_number": "+1 555 0100", "verified_name": "Test"}
            wanted = asked.query.get("fields", "").split(",")
            return Told.json({key: value for key, value in found.items() if key == "id" or key in wanted})
        if asked.method == "POST" and steps[2:] == ["messages"]:
            return self._take(asked.json)
        return graph_fault(400, 100, "Unsupported request")

    def _take(self, body: Any) -> Told:
        text = body.get("text", {}).get("body", "") if body.get("messaging_product") == "whatsapp" else ""
        if not text or len(text) > TEXT_LIMIT:
            return graph_fault(400, 100, "(#100) Invalid parameter")
        if time.time() - self.written.get(body["to"], 0) > WINDOW_SECONDS:
            return graph_fault(400, 131047, "(#131047) Re-engagement message")
        self.sent.append(body)
        self._changed.set()
        self._changed = trio.Event()
        contact = {"input": body["to"], "wa_id": body["to"]}
        ids = [{"id": f"wamid.out.{len(self.sent)}"}]
        return Told.json({"messaging_product": "whatsapp", "contacts": [contact], "messages": ids})


def notification(
    sender: str,
    text: str = "hello",
    *,
    id_: str = "wamid.1",
    number: str = NUMBER,
    at: float | None = None,
    change: Callable[[dict[str, Any]], None] = lambda value: None,
) -> bytes:
    """The body of a notification about one text; ``change`` may alter its ``value``."""
    message = {
        "from": sender, "id": id_, "timestamp": str(int(at or time.time())), "type": "text", "text": {"body": text},
    }  # fmt: skip
    value: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550100", "phone_number_id": number},
        "contacts": [{"profile": {"name": "Ann"}, "wa_id": sender}],
        "messages": [message],
    }
    change(value)
    entry = {"id": "1", "changes": [{"value": value, "field": "messages"}]}
    return msgspec.json.encode({"object": "whatsapp_business_account", "entry": [entry]})


def sign(body: bytes, secret: str = APP_SECRET) -> str:
    """``X-Hub-Signature-256`` of a body."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def graph_fault(status: int, code: int, message: str, **headers: str) -> Told:
    """An error as the Graph API words it."""
    return Told.json({"error": {"message": message, "type": "OAuthException", "code": code}}, status, **headers)


@asynccontextmanager
async def open_fake_whatsapp() -> AsyncIterator[FakeWhatsApp]:
    """A Graph API with one phone number, under `FakeWhatsApp.url`."""
    whatsapp = FakeWhatsApp()
    async with open_http_service(whatsapp.answer) as service:
        whatsapp.service = service
        yield whatsapp
