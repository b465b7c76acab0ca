"""Discord's gateway and REST API for tests, written from docs.discord.com/developers: one bot, its direct messages.

Owns sessions with their events (kept for a resume), heartbeats, identify and resume with their close codes, REST calls
with rate-limit headers, enforced nonces, and faults that a test asks for. It must not know the gateway under test.

Invariants: a wrong token is 401 and 4004; intents that were not asked for bring nothing; a resume replays every event
after the number it names, or is answered with an invalid session; the same nonce twice is one message.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs
import msgspec
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from openclaw_gateway.testing.httpservice import Asked, HttpService, Told, open_http_service

__all__ = ["FakeDiscord", "open_fake_discord"]

TOKEN: Final = "MTIz.fake.token-of-the-discord-tests"  # noqa: S105 - the fake's own
BOT: Final = "900000000000000001"
TEXT_LIMIT: Final = 2000
_DIRECT: Final = 1 << 12
_EPOCH_MS: Final = 1_420_070_400_000


@attrs.define(eq=False)
class _Session:
    id: str
    seq: int = 0
    events: list[dict[str, Any]] = attrs.field(factory=list)
    socket: WebSocketConnection | None = None


class FakeDiscord:
    """Made by `open_fake_discord`. ``sent`` holds the bodies of accepted messages with their channel; ``heard`` every
    frame that the client sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.heard: list[dict[str, Any]] = []
        self.interval_ms = 30_000
        self.acknowledges = True
        self.close_identify_with: int | None = None
        self.resumable = True
        self.commands: deque[Told] = deque()
        self.message_headers: dict[str, str] = {}
        self.resume_url: str | None = None
        self.connections = 0
        self.sessions: dict[str, _Session] = {}
        self.current: _Session | None = None
        self.service: HttpService | None = None
        self.gateway_url = ""
        self._nonces: dict[str, Any] = {}
        self._next = 0
        self._changed = trio.Event()

    @property
    def url(self) -> str:
        assert self.service is not None
        return f"{self.service.url}/api"

    def settings(self, **more: Any) -> dict[str, Any]:
        return {"token": TOKEN, "apiRoot": self.url, **more}

    def snowflake(self) -> str:
        self._next += 1
        return str(((time.time_ns() // 1_000_000 - _EPOCH_MS) << 22) + self._next)

    async def until(self, true: Any) -> None:
        while not true():
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    # --- what people and the test do

    async def write(self, sender: str, text: str = "hello", **more: Any) -> str:
        """A person writes to the bot directly; the message's id."""
        message = {
            "id": self.snowflake(),
            "channel_id": f"7{sender[1:]}",
            "author": {"id": sender, "username": "ann", "global_name": "Ann"},
            "content": text,
            "timestamp": "2026-01-01T00:00:00.000000+00:00",
            "type": 0,
            "attachments": [],
            **more,
        }
        await self.dispatch("MESSAGE_CREATE", message)
        return str(message["id"])

    async def dispatch(self, name: str, data: Any) -> None:
        """An event for the session: sent now, or when it is resumed."""
        session = self.current
        assert session is not None
        session.seq += 1
        event = {"op": 0, "t": name, "s": session.seq, "d": data}
        session.events.append(event)
        if session.socket is not None:
            await self.say(event)

    async def say(self, frame: Any) -> None:
        """Any frame, as it is."""
        assert self.current is not None
        if self.current.socket is not None:
            raw = frame if isinstance(frame, str) else msgspec.json.encode(frame).decode()
            await self.current.socket.send_message(raw)

    async def drop(self, code: int = 4000) -> None:
        """Close the connection with ``code``."""
        assert self.current is not None
        socket, self.current.socket = self.current.socket, None
        if socket is not None:
            await socket.aclose(code=code)

    # --- the gateway

    async def serve(self, request: WebSocketRequest) -> None:
        socket = await request.accept()
        self.connections += 1
        session: _Session | None = None
        try:
            await socket.send_message(
                msgspec.json.encode({"op": 10, "d": {"heartbeat_interval": self.interval_ms}}).decode()
            )
            while True:
                frame = msgspec.json.decode(await socket.get_message())
                self.heard.append(frame)
                if frame["op"] == 1:
                    if self.acknowledges:
                        await socket.send_message('{"op":11}')
                elif frame["op"] in {2, 6}:
                    if self.close_identify_with is not None or frame["d"]["token"] != TOKEN:
                        await socket.aclose(code=self.close_identify_with or 4004)
                        return
                    session = await self._begin(socket, frame)
                self._wake()
        except ConnectionClosed:
            self._wake()
        finally:
            if session is not None and session.socket is socket:
                session.socket = None

    async def _begin(self, socket: WebSocketConnection, frame: dict[str, Any]) -> _Session | None:
        if frame["op"] == 6:
            session = self.sessions.get(frame["d"]["session_id"])
            if session is None or not self.resumable:
                await socket.send_message('{"op":9,"d":false}')
                return None
            session.socket = socket
            for event in [one for one in session.events if one["s"] > frame["d"]["seq"]]:
                await socket.send_message(msgspec.json.encode(event).decode())
            await self.dispatch("RESUMED", {})
            return session
        if not frame["d"]["intents"] & _DIRECT:
            await socket.aclose(code=4013)
            return None
        session = self.current = _Session(f"session-{len(self.sessions) + 1}", socket=socket)
        self.sessions[session.id] = session
        ready = {
            "v": 10, "session_id": session.id, "resume_gateway_url": self.resume_url or self.gateway_url,
            "user": {"id": BOT, "username": "fake-bot", "bot": True},
        }  # fmt: skip
        await self.dispatch("READY", ready)
        return session

    # --- REST

    async def answer(self, asked: Asked) -> Told:
        if asked.headers.get("authorization") != f"Bot {TOKEN}":
            return Told.json({"message": "401: Unauthorized", "code": 0}, 401)
        if self.commands:
            return self.commands.popleft()
        path = asked.path.removeprefix("/api/v10/")
        if (asked.method, path) == ("GET", "gateway/bot"):
            limits = {"total": 1000, "remaining": 999, "reset_after": 1000, "max_concurrency": 1}
            return Told.json({"url": self.gateway_url, "shards": 1, "session_start_limit": limits})
        if (asked.method, path) == ("GET", "users/@me"):
            return Told.json({"id": BOT, "username": "fake-bot", "bot": True})
        if (asked.method, path) == ("POST", "users/@me/channels"):
            return Told.json({"id": f"7{asked.json['recipient_id'][1:]}", "type": 1})
        steps = path.split("/")
        if asked.method == "POST" and len(steps) == 3 and (steps[0], steps[2]) == ("channels", "messages"):
            return self._take(steps[1], asked.json)
        return Told.json({"message": "404: Not Found", "code": 0}, 404)

    def _take(self, channel: str, body: dict[str, Any]) -> Told:
        text = body.get("content", "")
        if not text or len(text) > TEXT_LIMIT:
            return Told.json({"message": "Invalid Form Body", "code": 50035}, 400)
        nonce = body.get("nonce")
        if nonce is not None and len(str(nonce)) > 25:
            return Told.json({"message": "Invalid Form Body", "code": 50035}, 400)
        if nonce in self._nonces and body.get("enforce_nonce"):
            return Told.json(self._nonces[nonce])
        message = {"id": self.snowflake(), "channel_id": channel, "content": text}
        if nonce is not None:
            self._nonces[nonce] = message
        self.sent.append({**body, "channel": channel})
        self._wake()
        told = Told.json(message)
        return attrs.evolve(told, headers={**told.headers, **self.message_headers})


@asynccontextmanager
async def open_fake_discord() -> AsyncIterator[FakeDiscord]:
    """A Discord with one bot; its API is under `FakeDiscord.url`."""
    discord = FakeDiscord()
    async with open_http_service(discord.answer) as service, trio.open_nursery() as nursery:
        discord.service = service
        server = await nursery.start(partial(serve_websocket, discord.serve, "127.0.0.1", 0, None))
        discord.gateway_url = f"ws://127.0.0.1:{server.port}"
        try:
            yield discord
        finally:
            nursery.cancel_scope.cancel()
