"""Discord: direct messages over the gateway WebSocket, answers through the REST API.

Owns the session (hello, identify or resume, heartbeats and their acknowledgement) and the calls. It must not know the
sender gate or agents. Shapes and codes are `channels.discordwire`'s.

Theory of operation. One task reads frames and answers what has to be answered at once; dispatched events wait in a
short queue for another, which hands messages on. The sequence number that a resume names is that of the last event that
was taken over, so what was not durable comes again after a resume. A heartbeat that is not acknowledged before the next
one means a dead connection. The session outlives `run`: the hub calls it again on the same adapter, and it resumes.

What remains: Discord keeps events of a session for minutes and for no one without a session, so what people write while
no gateway process runs is not brought later.

Invariants: the token goes to the configured API and to the gateway that this API named, and nowhere else (V56); it is
in no error, state or log; a message is sent with an enforced nonce, so a repetition within minutes is no second one.
"""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec
import trio

from openclaw_gateway.channels import discordwire as wire
from openclaw_gateway.channels.adapter import AdapterFailed, Outgoing, Port, WebhookReply, WebhookRequest
from openclaw_gateway.channels.service import Answer, Service, ServiceUnreachable, base_url, open_service, secret
from openclaw_gateway.errors import flat_errors
from openclaw_gateway.protocol.wholetext import decode_whole
from openclaw_gateway.queues import QueueFull, RetryLater, Undeliverable
from openclaw_gateway.store import StoreError

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

__all__ = ["DiscordAdapter", "open_adapter"]

LIMIT: Final = 2000
API_VERSION: Final = 10
OPEN_SECONDS: Final = 20.0
GOODBYE_SECONDS: Final = 0.2
MAX_FRAME: Final = 4 * 1024 * 1024
MAX_WAITING: Final = 256  # events that were read and not handled; more of them end the connection
MAX_CHATS: Final = 1_000
_FIX: Final = "openclaw config set channels.discord.token '${DISCORD_BOT_TOKEN}'"
_TOKEN: Final = re.compile(r"[A-Za-z0-9._-]{10,200}", re.ASCII)
_NEVER: Final = frozenset({10003, 10013, 40003, 50001, 50006, 50007, 50008, 50013, 50035, 50278})


def open_adapter(account: str, settings: Mapping[str, Any]) -> DiscordAdapter:
    """An account's adapter from its settings (``token``, ``apiRoot``). Raises `AdapterFailed`."""
    token = secret(settings, "token", "discord", env="DISCORD_BOT_TOKEN" if account == "default" else None)
    token = token.removeprefix("Bot ").strip()
    if _TOKEN.fullmatch(token) is None:
        raise AdapterFailed("misconfigured", "channels.discord.token is no bot token", _FIX)
    root = base_url(settings, "apiRoot", "https://discord.com/api", "discord")
    return DiscordAdapter(f"{root}/v{API_VERSION}/", token)


class DiscordAdapter:
    limit = LIMIT

    def __init__(self, base: str, token: str) -> None:
        self._base = base
        self._token = token
        self._headers = {"authorization": f"Bot {token}"}
        self._service: Service | None = None
        self._buckets = wire.Buckets()
        self._chats: dict[str, str] = {}
        # The session, kept between connections: resuming needs all three.
        self._session: str | None = None
        self._resume_url: str | None = None
        self._seq: int | None = None
        self._me: dict[str, Any] = {}

    # --- in

    async def run(self, port: Port) -> None:
        async with open_service(self._base) as service:
            self._service = service
            try:
                url = await self._gateway_url(service)
                await self._connected(port, url)
            finally:
                self._service = None

    async def _gateway_url(self, service: Service) -> str:
        if self._session is not None and self._resume_url is not None:
            return self._resume_url
        body = await self._ask(service, "GET", "gateway/bot")
        url = body.get("url") if isinstance(body, dict) else None
        limits = body.get("session_start_limit") if isinstance(body, dict) else None
        if isinstance(limits, dict) and limits.get("remaining") == 0:
            after = limits.get("reset_after")
            why = "Discord allows no more sessions for today; something starts this bot again and again"
            raise AdapterFailed("reconnecting", why, after_ms=after if isinstance(after, int) else 3_600_000)
        if not isinstance(url, str) or not url.startswith(("wss://", "ws://")):
            raise AdapterFailed("reconnecting", "Discord named no gateway")
        if url.startswith("ws://") and not self._base.startswith("http://"):
            raise AdapterFailed("reconnecting", "Discord named a gateway without encryption")
        return url

    async def _connected(self, port: Port, url: str) -> None:
        from trio_websocket import ConnectionClosed

        async with _open_websocket(url) as websocket:
            try:
                with flat_errors():
                    await self._converse(port, websocket, url)
            except ConnectionClosed as exc:
                code = exc.reason.code if exc.reason is not None else None
                raise self._closed(code) from exc
            finally:
                with trio.move_on_after(GOODBYE_SECONDS, shield=True):
                    # 1000 and 1001 would end the session; any other code keeps it for a resume.
                    await websocket.aclose(code=4000, reason="resuming")

    async def _converse(self, port: Port, websocket: WebSocketConnection, url: str) -> None:
        hello: dict[str, Any] | None = None
        with trio.move_on_after(OPEN_SECONDS):
            hello = _frame(await websocket.get_message())
        if hello is None:
            raise AdapterFailed("reconnecting", f"Discord's gateway said nothing within {OPEN_SECONDS:g} s")
        interval = hello["d"].get("heartbeat_interval") if isinstance(hello.get("d"), dict) else None
        if hello.get("op") != wire.HELLO or not isinstance(interval, int) or not 10 <= interval <= 600_000:
            raise AdapterFailed("reconnecting", "Discord's gateway said something else than hello")
        await self._introduce(websocket)
        events, handled = trio.open_memory_channel[tuple[int, str, Any]](MAX_WAITING)
        pulse = _Pulse(interval / 1000)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat, websocket, pulse)
            nursery.start_soon(self._handle, port, handled, url)
            await self._read(port, websocket, events, pulse)

    async def _introduce(self, websocket: WebSocketConnection) -> None:
        if self._session is not None and self._seq is not None:
            await websocket.send_message(wire.resume(self._token, self._session, self._seq).decode())
        else:
            await websocket.send_message(wire.identify(self._token).decode())

    async def _read(
        self,
        port: Port,
        websocket: WebSocketConnection,
        events: trio.MemorySendChannel[tuple[int, str, Any]],
        pulse: _Pulse,
    ) -> None:
        while True:
            frame = _frame(await websocket.get_message())
            port.activity()
            op, data, seq = frame.get("op"), frame.get("d"), frame.get("s")
            if op == wire.DISPATCH and isinstance(seq, int) and isinstance(frame.get("t"), str):
                try:
                    events.send_nowait((seq, frame["t"], data))
                except trio.WouldBlock:
                    why = "more messages than can be kept right now"
                    raise AdapterFailed("reconnecting", why, after_ms=5_000) from None
            elif op == wire.HEARTBEAT_ACK:
                pulse.acknowledged = True
            elif op == wire.HEARTBEAT:
                await websocket.send_message(wire.heartbeat(self._seq).decode())
            elif op == wire.RECONNECT:
                raise AdapterFailed("reconnecting", "Discord asked to connect anew", after_ms=0)
            elif op == wire.INVALID_SESSION:
                if data is not True:
                    self._forget()
                wait = random.randint(1_000, 5_000)  # noqa: S311 - as Discord asks, so that not all come at once
                raise AdapterFailed("reconnecting", "Discord ended the session", after_ms=wait)

    async def _beat(self, websocket: WebSocketConnection, pulse: _Pulse) -> None:
        from trio_websocket import ConnectionClosed

        await trio.sleep(pulse.interval * random.random())  # noqa: S311 - as Discord asks
        while True:
            if not pulse.acknowledged:
                raise AdapterFailed("reconnecting", "Discord no longer answers heartbeats")
            pulse.acknowledged = False
            try:
                await websocket.send_message(wire.heartbeat(self._seq).decode())
            except ConnectionClosed:
                return  # the reader tells why
            await trio.sleep(pulse.interval)

    async def _handle(self, port: Port, events: trio.MemoryReceiveChannel[tuple[int, str, Any]], url: str) -> None:
        async for seq, name, data in events:
            if name == "READY":
                self._begin(data, url)
                port.connected(self._identity())
            elif name == "RESUMED":
                port.connected(self._identity())
            elif name == "MESSAGE_CREATE":
                message = wire.read_message(data, own_id=str(self._me.get("id", "")))
                while message is not None:
                    try:
                        await port.incoming(message)
                        break
                    except QueueFull as exc:
                        await trio.sleep(exc.retry_after_ms / 1000)
                    except StoreError as exc:
                        raise AdapterFailed("reconnecting", f"a message cannot be kept: {exc}") from exc
            self._seq = seq

    def _begin(self, data: Any, url: str) -> None:
        ready = data if isinstance(data, dict) else {}
        user, session, again = ready.get("user"), ready.get("session_id"), ready.get("resume_gateway_url")
        if not isinstance(user, dict) or not isinstance(session, str):
            raise AdapterFailed("reconnecting", "Discord's READY names no session")
        self._me, self._session = user, session
        self._resume_url = again if isinstance(again, str) and wire.same_service(again, url) else url

    def _forget(self) -> None:
        self._session = self._resume_url = self._seq = None

    def _identity(self) -> dict[str, Any]:
        return {
            "id": str(self._me.get("id", ""))[:20],
            "username": str(self._me.get("username", ""))[:64],
            "transport": "gateway",
        }

    def _closed(self, code: int | None) -> AdapterFailed:
        after = wire.after_close(code)
        if after != "resume":
            self._forget()
        if after == "token":
            return AdapterFailed("auth-failed", "Discord does not know this bot token", _FIX)
        if after == "intents":
            why = f"Discord does not allow this bot to read direct messages (close code {code})"
            return AdapterFailed("auth-failed", why, "look at the bot's intents on its page in the developer portal")
        if after == "fatal":
            why = f"Discord wants something of this bot that the gateway cannot do (close code {code})"
            return AdapterFailed("auth-failed", why, "use a bot of its own for this gateway: one that needs no shards")
        return AdapterFailed("reconnecting", f"Discord closed the connection ({code})")

    # --- out

    async def send(self, message: Outgoing) -> None:
        if not message.conversation.isdecimal():  # it becomes a part of the path
            raise Undeliverable(f"Discord has no channel {message.conversation[:64]}: a channel is a number")
        body: dict[str, Any] = {
            "content": message.text,
            "nonce": wire.nonce_of(message.key),
            "enforce_nonce": True,
            "allowed_mentions": {"parse": []},
        }
        if message.reply_to and message.reply_to.isdecimal():
            body["message_reference"] = {"message_id": message.reply_to, "fail_if_not_exists": False}
        await self._post(f"channels/{message.conversation}/messages", body)

    async def conversation_with(self, sender_id: str) -> str:
        known = self._chats.get(sender_id)
        if known is not None:
            await trio.lowlevel.checkpoint()
            return known
        body = await self._post("users/@me/channels", {"recipient_id": sender_id})
        chat = body.get("id") if isinstance(body, dict) else None
        if not isinstance(chat, str) or not chat.isdecimal():
            raise RetryLater("Discord opened no chat")
        while len(self._chats) >= MAX_CHATS:
            del self._chats[next(iter(self._chats))]
        self._chats[sender_id] = chat
        return chat

    async def _post(self, route: str, body: Mapping[str, Any]) -> Any:
        """Raises `RetryLater`, `Undeliverable`."""
        service = self._service
        if service is None:
            raise RetryLater("not connected", counts=False)
        wait = self._buckets.wait(route, trio.current_time())
        if wait > 0:
            raise RetryLater("Discord asked to wait", int(wait * 1000) + 1, counts=False)
        try:
            answer = await service.call("POST", route, json=body, headers=self._headers)
        except ServiceUnreachable as exc:
            raise RetryLater(f"Discord: {exc}") from exc
        self._buckets.learn(route, answer.status, answer.headers, answer.json, trio.current_time())
        if answer.status in {200, 201} and isinstance(answer.json, dict):
            return answer.json
        raise self._send_fault(route, answer)

    def _send_fault(self, route: str, answer: Answer) -> RetryLater | Undeliverable:
        code, told = _error(answer)
        if answer.status == 429:
            wait = self._buckets.wait(route, trio.current_time())
            return RetryLater("Discord asked to wait", int(wait * 1000) + 1, counts=False)
        if code in _NEVER or answer.status in {400, 403, 404}:
            return Undeliverable(f"Discord: {told}")
        return RetryLater(f"Discord: {told}")

    # --- the rest

    async def probe(self) -> Mapping[str, Any]:
        async with self._at_hand() as service:
            me = await self._ask(service, "GET", "users/@me")
        user = me if isinstance(me, dict) else {}
        return {"id": str(user.get("id", ""))[:20], "username": str(user.get("username", ""))[:64]}

    @asynccontextmanager
    async def _at_hand(self) -> AsyncIterator[Service]:
        if self._service is not None:
            yield self._service
            return
        async with open_service(self._base) as service:
            yield service

    async def _ask(self, service: Service, method: str, path: str) -> Any:
        """A call whose result is needed. Raises `AdapterFailed`."""
        try:
            answer = await service.call(method, path, headers=self._headers)
        except ServiceUnreachable as exc:
            raise AdapterFailed("reconnecting", f"Discord: {exc}") from exc
        if answer.status == 200 and answer.json is not None:
            return answer.json
        if answer.status == 401:
            raise AdapterFailed("auth-failed", "Discord does not know this bot token", _FIX)
        _, told = _error(answer)
        body = answer.json
        asked = body.get("retry_after") if isinstance(body, dict) else None
        after = int(asked * 1000) if isinstance(asked, int | float) else answer.retry_after_ms
        raise AdapterFailed("reconnecting", f"Discord answered {answer.status}: {told}", after_ms=after)

    async def webhook(self, port: Port, request: WebhookRequest) -> WebhookReply:
        await trio.lowlevel.checkpoint()
        return WebhookReply(404, b"Not Found")

    async def logout(self) -> bool:
        await trio.lowlevel.checkpoint()
        self._forget()
        return False


class _Pulse:
    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.acknowledged = True


@asynccontextmanager
async def _open_websocket(url: str) -> AsyncIterator[WebSocketConnection]:
    """A WebSocket to Discord's gateway. Raises `AdapterFailed`; what the block raises comes out as it is."""
    from openclaw_gateway.client.address import GatewayAddress
    from openclaw_gateway.client.dial import dial_stream, upgrade, upgrade_rejected
    from openclaw_gateway.client.errors import ConnectFailed

    parts = urlsplit(url)
    full = urlunsplit((parts.scheme, parts.netloc, parts.path or "/", f"v={API_VERSION}&encoding=json", ""))
    stream: trio.abc.Stream | None = None
    websocket: WebSocketConnection | None = None
    try:
        address = GatewayAddress.parse(full)
        with trio.move_on_after(OPEN_SECONDS):
            stream = await dial_stream(address)
        if stream is None:
            raise AdapterFailed("reconnecting", "Discord's gateway cannot be reached in time")
        with flat_errors():
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(OPEN_SECONDS):
                    websocket = await upgrade(nursery, stream, address, max_message_bytes=MAX_FRAME)
                if websocket is None:
                    raise AdapterFailed("reconnecting", "Discord's gateway did not answer in time")
                yield websocket
                nursery.cancel_scope.cancel()
    except ConnectFailed as exc:
        raise AdapterFailed("reconnecting", f"Discord's gateway: {exc.message}") from exc
    except AdapterFailed:
        raise
    except Exception as exc:
        rejected = upgrade_rejected(GatewayAddress.parse(full), exc)
        if rejected is None:
            raise
        raise AdapterFailed("reconnecting", f"Discord's gateway: {rejected.message}") from exc
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)


def _frame(message: str | bytes) -> dict[str, Any]:
    try:
        frame = decode_whole(msgspec.json.decode, message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        raise AdapterFailed("reconnecting", "Discord's gateway sent something that is no JSON") from exc
    if not isinstance(frame, dict):
        raise AdapterFailed("reconnecting", "Discord's gateway sent something that is no payload")
    return frame


def _error(answer: Answer) -> tuple[int | None, str]:
    body = answer.json
    if not isinstance(body, dict):
        return None, f"status {answer.status}"
    code, message = body.get("code"), body.get("message")
    told = message[:200] if isinstance(message, str) else f"status {answer.status}"
    return (code if isinstance(code, int) else None), told
