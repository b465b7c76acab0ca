"""The live connection: calls out, answers and events in, a watchdog on silence.

Owns the tasks of one connection (one reads, one watches) and what waits for answers. It must not know what a method
means, or where credentials come from. Invariants: a secret goes to the address that was given and nowhere else; at
most `MAX_CALLS` calls wait at once and at most `MAX_EVENTS` events are kept, the oldest giving way (counted in
`ClientEvent.gap`); whatever ends the connection, every waiting call ends with it.

Cancellation: a call that is cancelled gives up its answer; a frame that has begun to be sent is sent whole (within
`SEND_SECONDS`) or ends the connection, because half a frame would garble everything after it.
"""

from __future__ import annotations

import math
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
import trio

from openclaw_gateway._version import __version__
from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.dial import dial_stream, not_spoken, upgrade, upgrade_rejected
from openclaw_gateway.client.errors import CallTimedOut, ClientClosed, ConnectFailed, Stage
from openclaw_gateway.client.handshake import Credentials, Hello, Introduction, connect_params, refusal
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.client.speech import Form, Frame, Speech, preferred_form, speech_of
from openclaw_gateway.client.tls import ClientCertificate
from openclaw_gateway.errors import CallFailed, LocalProtocolError
from openclaw_gateway.protocol.close import CloseCode

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

    from openclaw_gateway.client.secure import SecureChannelWish
    from openclaw_gateway.protocol.noisechannel import SecureChannel

__all__ = ["MAX_CALLS", "MAX_EVENTS", "ClientEvent", "GatewayClient", "open_client"]

MAX_CALLS: Final = 1024
MAX_EVENTS: Final = 1024
SEND_SECONDS: Final = 30.0
GOODBYE_SECONDS: Final = 1.0
LAST_WORD_SECONDS: Final = 0.05


@attrs.frozen
class ClientEvent:
    """One event. ``gap``: how many events before this one were lost, on the way or because nobody took them in time."""

    name: str
    payload: Any
    seq: int | None = None
    gap: int = 0


@attrs.define
class _Waiting:
    done: trio.Event = attrs.field(factory=trio.Event)
    frame: Frame | None = None


class GatewayClient:
    """Made by `open_client`. Safe to use from several tasks of one Trio run."""

    def __init__(self, websocket: WebSocketConnection, url: str, speech: Speech) -> None:
        self._websocket = websocket
        self._speech = speech
        self._url = url
        self._hello: Hello | None = None
        self._pending: dict[str, _Waiting] = {}
        self._next_id = 0
        self._events: deque[ClientEvent] = deque()
        self._lost = 0
        self._seq: int | None = None
        self._wake = trio.Event()
        self._closed: ClientClosed | None = None
        self._heard = trio.current_time()
        self._send_lock = trio.Lock()
        self._channel: SecureChannel | None = None
        self._max_frame = 0

    @property
    def hello(self) -> Hello:
        if self._hello is None:
            raise LocalProtocolError("not connected yet")
        return self._hello

    @property
    def secure(self) -> bool:
        """Whether everything but the greeting travels end-to-end encrypted inside the WebSocket."""
        return self._channel is not None

    @property
    def closed(self) -> ClientClosed | None:
        """Why the connection ended, None while it lives."""
        return self._closed

    async def call(self, method: str, params: object = None, *, timeout: float | None = 30.0) -> Any:
        """Send one request and wait for its answer: the decoded ``payload``.

        ``params``: anything msgspec can encode as a JSON object, None for none; ``timeout``: seconds, None waits for
        ever. Raises `CallFailed` (the gateway's error), `CallTimedOut`, `ClientClosed`, `LocalProtocolError` (over
        `MAX_CALLS`). Cancelled, the answer is given up; the gateway may carry out the request all the same."""
        if self._closed is not None:
            raise self._closed
        if len(self._pending) >= MAX_CALLS:
            raise LocalProtocolError(f"more than {MAX_CALLS} calls wait for answers on this connection")
        self._next_id += 1
        id_ = str(self._next_id)
        encoded = self._speech.request(id_, method, params)
        waiting = self._pending[id_] = _Waiting()
        try:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                await self._send(encoded)
                await waiting.done.wait()
        finally:
            del self._pending[id_]
        frame = waiting.frame
        if frame is None:
            if self._closed is not None:
                raise self._closed
            raise CallTimedOut(method, timeout or 0.0)
        if frame.ok:
            return frame.payload
        raise _call_failed(frame.error or {})

    async def events(self) -> AsyncIterator[ClientEvent]:
        """The events as they come, for one task at a time. Ends when we closed; raises `ClientClosed` when others
        did."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed is not None:
                if self._closed.by_us:
                    return
                raise self._closed
            await self._wake.wait()

    async def wait_closed(self) -> ClientClosed:
        """Wait until the connection has ended, and say why."""
        while self._closed is None:
            await self._wake.wait()
        return self._closed

    # --- used by open_client

    async def _send(self, message: str | bytes) -> None:
        """Texts go through the secure channel where there is one; bytes are its greeting and go as they are."""
        from trio_websocket import ConnectionClosed

        async with self._send_lock:
            if self._closed is not None:
                return
            with trio.CancelScope(shield=True, deadline=trio.current_time() + SEND_SECONDS) as scope:
                try:
                    if self._channel is not None and isinstance(message, str):
                        # Sealed under the lock: messages leave in the order in which they were sealed.
                        message = self._channel.seal(message.encode(), trio.current_time())
                    await self._websocket.send_message(message)
                except ConnectionClosed as error:
                    self._end(_why(error))
            if scope.cancelled_caught:
                self._end(ClientClosed(CloseCode.ABNORMAL, "the gateway does not read"))

    def _end(self, why: ClientClosed) -> None:
        """First cause wins. Wakes everybody who waits."""
        if self._closed is not None:
            return
        self._closed = why
        for waiting in self._pending.values():
            waiting.done.set()
        self._wake.set()

    async def _receive_message(self) -> str | bytes:
        from trio_websocket import ConnectionClosed

        try:
            message: str | bytes = await self._websocket.get_message()
        except ConnectionClosed as error:
            raise _why(error) from error
        self._heard = trio.current_time()
        return message

    async def _receive_binary(self) -> bytes:
        message = await self._receive_message()
        return message if isinstance(message, bytes) else b""

    def _unseal(self, channel: SecureChannel, message: str | bytes) -> bytes:
        from openclaw_gateway.protocol.noise import NoiseFault

        try:
            return channel.open(message if isinstance(message, bytes) else b"", limit=self._max_frame)
        except NoiseFault as fault:
            raise ClientClosed(CloseCode.PROTOCOL_ERROR, f"secure channel: {fault}", by_us=True) from fault

    async def _receive(self) -> Frame:
        """The next frame. Raises `ClientClosed`."""
        message = await self._receive_message()
        if self._channel is not None:
            message = self._unseal(self._channel, message)
        try:
            return self._speech.frame(message)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ClientClosed(CloseCode.PROTOCOL_ERROR, "the gateway sent what is not a frame", by_us=True) from error

    async def _shake_hands(self, who: Introduction, wish: SecureChannelWish | None, max_frame: int) -> None:
        try:
            challenge = await self._receive()
        except ClientClosed as error:
            raise self._closed_early(error) from error
        payload = challenge.payload
        if challenge.event != "connect.challenge" or not isinstance(payload, dict):
            raise ConnectFailed(
                stage="websocket",
                url=self._url,
                message="a WebSocket, but not a gateway: the first message is no connect.challenge",
                fix="give the gateway's own URL with --url",
            )
        nonce, ts = payload.get("nonce"), payload.get("ts")
        if not isinstance(nonce, str) or not isinstance(ts, int):
            fault = "the gateway's challenge has no nonce or time"
            raise ConnectFailed(stage="websocket", url=self._url, message=fault)
        if wish is not None and who.identity is not None:
            nonce = await self._greet(wish, who.identity, who.role, payload, max_frame)
        params = connect_params(who, nonce=nonce, ts_ms=ts)
        await self._send(self._speech.request("0", "connect", params))
        try:
            frame = await self._receive()
            while frame.type != "res" or frame.id != "0":
                frame = await self._receive()
        except ClientClosed as error:
            raise self._closed_early(error) from error
        if not frame.ok:
            refused = refusal(self._url, frame.error or {})
            # The Close frame that follows says the code; it is worth waiting for, but not for long.
            with trio.move_on_after(GOODBYE_SECONDS):
                farewell = await self._next_close()
                refused.close_code, refused.close_reason = farewell.code, farewell.reason
            raise refused
        self._hello = Hello.from_wire(frame.payload)
        if self._hello is None:
            raise ConnectFailed(stage="websocket", url=self._url, message="the gateway's answer is no hello-ok")

    async def _greet(
        self, wish: SecureChannelWish, identity: DeviceIdentity, role: str, challenge: dict[str, Any], max_frame: int
    ) -> str:
        """Open the secure channel if that is wanted and offered; the nonce that the device signs from then on."""
        from openclaw_gateway.client.secure import greet_gateway
        from openclaw_gateway.protocol.noisegreeting import bound_nonce

        nonce: str = challenge["nonce"]
        try:
            channel = await greet_gateway(
                wish, identity, role, challenge, url=self._url, send=self._send, receive=self._receive_binary
            )
        except ClientClosed as error:
            raise self._closed_early(error) from error
        if channel is None:
            return nonce
        self._channel, self._max_frame = channel, max_frame
        return bound_nonce(nonce, channel.name)

    async def _next_close(self) -> ClientClosed:
        while True:
            try:
                await self._receive()
            except ClientClosed as error:
                return error

    def _closed_early(self, error: ClientClosed) -> ConnectFailed:
        if error.by_us and self._speech.subprotocol is not None:
            return not_spoken(self._url)  # it echoed the subprotocol without a thought, and goes on in JSON
        return ConnectFailed(
            stage="websocket",
            url=self._url,
            message=f"closed before an answer: {error.code} {error.reason}".rstrip(),
            close_code=error.code,
            close_reason=error.reason,
            retryable=error.code in {CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER, CloseCode.GOING_AWAY},
            fix="openclaw logs   (on the gateway's host)",
        )

    async def _read(self) -> None:
        """One task for the life of the connection. Never waits for those who use what it reads."""
        try:
            while True:
                self._take(await self._receive())
        except ClientClosed as error:
            self._end(error)

    def _take(self, frame: Frame) -> None:
        if frame.type == "res":
            waiting = self._pending.get(frame.id or "")
            if waiting is not None:
                waiting.frame = frame
                waiting.done.set()
            return
        if frame.type != "event" or frame.event is None:
            return
        if frame.seq is not None:
            if self._seq is not None and frame.seq > self._seq + 1:
                self._lost += frame.seq - self._seq - 1
            self._seq = frame.seq
        if frame.event == "tick":
            return  # news only for the watchdog
        if len(self._events) >= MAX_EVENTS:
            oldest = self._events.popleft()
            following = self._events[0]
            self._events[0] = attrs.evolve(following, gap=following.gap + oldest.gap + 1)
        self._events.append(ClientEvent(frame.event, frame.payload, frame.seq, self._lost))
        self._lost = 0
        self._wake.set()
        self._wake = trio.Event()

    async def _watch(self) -> None:
        """Ends a connection that has been silent for two tick intervals (close code 4000, spec wire.md section 1)."""
        patience = 2 * self.hello.tick_interval_ms / 1000
        while self._closed is None:
            await trio.sleep_until(self._heard + patience)
            if trio.current_time() >= self._heard + patience:
                self._end(ClientClosed(CloseCode.TICK_TIMEOUT, "tick timeout"))


def _why(error: Any) -> ClientClosed:
    reason = error.reason
    if reason is None:
        return ClientClosed(CloseCode.ABNORMAL, "")
    return ClientClosed(int(reason.code), reason.reason or "")


def _call_failed(error: dict[str, Any]) -> CallFailed:
    details, after = error.get("details"), error.get("retryAfterMs")
    return CallFailed(
        code=str(error.get("code", "")),
        message=str(error.get("message", "")),
        details=details if isinstance(details, dict) else None,
        retryable=error.get("retryable") is True,
        retry_after_ms=after if isinstance(after, int) else None,
    )


async def _close_when_over(client: GatewayClient) -> None:
    """Carries out what `_end` decided: a watchdog's verdict must reach the wire too."""
    why = await client.wait_closed()
    if why.code in {CloseCode.TICK_TIMEOUT, CloseCode.PROTOCOL_ERROR}:
        with trio.move_on_after(GOODBYE_SECONDS):
            await client._websocket.aclose(why.code, why.reason)  # noqa: SLF001  the same module


@asynccontextmanager
async def open_client(
    url: str,
    *,
    auth: Credentials | None = None,
    identity: DeviceIdentity | None = None,
    role: str = "operator",
    scopes: Sequence[str] = ("operator.read",),
    client_id: str = "gateway-client",
    mode: str = "backend",
    version: str = __version__,
    display_name: str | None = None,
    instance_id: str | None = None,
    caps: Sequence[str] = (),
    commands: Sequence[str] = (),
    tls_fingerprint: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    client_certificate: ClientCertificate | None = None,
    allow_insecure: bool = False,
    timeout: float = 15.0,
    max_message_bytes: int = 100 * 1024 * 1024,
    secure: SecureChannelWish | None = None,
    protocol: Form | None = None,
) -> AsyncIterator[GatewayClient]:
    """Connect, authenticate, and hand out a `GatewayClient` that lives until the block ends.

    ``timeout``: seconds for everything up to hello. ``allow_insecure``: permit ws:// to any host (the secret then
    travels readable; see `GatewayAddress`). ``secure``: use end-to-end encryption inside the WebSocket; it takes an
    ``identity`` (else `LocalProtocolError`) and speaks JSON. ``protocol``: "json" or "proto" (Protocol Buffers; the
    values are the same); None takes what `speech.preferred_form` says, JSON by default. Raises `ConnectFailed` with the
    stage that was reached. What the block raises comes out as itself. Leaving sends a Close frame and waits at most
    `GOODBYE_SECONDS` for its echo, under cancellation too."""
    if secure is not None and identity is None:
        raise LocalProtocolError("a secure channel takes an identity; without one everything would go in the clear")
    if secure is not None and protocol == "proto":
        raise LocalProtocolError("a secure channel carries JSON: leave out protocol, or say json")
    address = GatewayAddress.parse(url, allow_insecure=allow_insecure)
    speech = speech_of("json" if secure is not None else protocol or preferred_form.get())
    who = Introduction(
        auth=auth or Credentials(), identity=identity, role=role, scopes=tuple(scopes), client_id=client_id, mode=mode,
        version=version, display_name=display_name, caps=tuple(caps), commands=tuple(commands), instance_id=instance_id,
    )  # fmt: skip
    until = trio.current_time() + timeout
    stream: trio.abc.Stream | None = None
    with trio.move_on_at(until):
        stream = await dial_stream(
            address,
            tls_fingerprint=tls_fingerprint,
            ssl_context=ssl_context,
            client_certificate=client_certificate,
        )
    if stream is None:
        raise _too_slow("tcp", address, timeout)
    try:
        async with trio.open_nursery() as nursery:
            client: GatewayClient | None = None
            with trio.move_on_at(until):
                websocket = await upgrade(
                    nursery, stream, address, max_message_bytes=_on_the_wire(max_message_bytes, secure),
                    subprotocol=speech.subprotocol,
                )
                unsure = GatewayClient(websocket, address.url, speech)
                try:
                    await unsure._shake_hands(who, secure, max_message_bytes)  # noqa: SLF001  the same module
                except BaseException:
                    await _goodbye(websocket)
                    raise
                client = unsure
            if client is None:
                raise _too_slow("websocket", address, timeout)
            nursery.start_soon(client._read)  # noqa: SLF001  the same module
            nursery.start_soon(client._watch)  # noqa: SLF001  the same module
            nursery.start_soon(_close_when_over, client)
            try:
                yield client
            finally:
                client._end(ClientClosed(CloseCode.NORMAL, "", by_us=True))  # noqa: SLF001  the same module
                await _goodbye(websocket)
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery is ours; that it wraps what the block raised is not the caller's business.
        if len(group.exceptions) != 1:
            raise
        rejected = upgrade_rejected(address, group.exceptions[0])
        if rejected is not None:
            raise rejected from group.exceptions[0]
        raise group.exceptions[0] from group.exceptions[0].__cause__
    finally:
        # trio-websocket leaves the stream open where the peer closed first or refused the upgrade.
        await trio.aclose_forcefully(stream)


def _on_the_wire(size: int, secure: SecureChannelWish | None) -> int:
    if secure is None:
        return size
    from openclaw_gateway.protocol.noisechannel import sealed_size

    return sealed_size(size)


def _too_slow(stage: Stage, address: GatewayAddress, timeout: float) -> ConnectFailed:
    return ConnectFailed(
        stage=stage,
        url=address.url,
        message=f"no answer within {timeout:g} s",
        retryable=True,
        fix="openclaw gateway status" if address.is_loopback else "check the network in between",
    )


async def _goodbye(websocket: WebSocketConnection) -> None:
    # Under cancellation the reader is gone already and no echo can arrive: only the sending is worth time.
    patience = LAST_WORD_SECONDS if trio.current_effective_deadline() == -math.inf else GOODBYE_SECONDS
    with trio.CancelScope(shield=True, deadline=trio.current_time() + patience):
        await websocket.aclose(CloseCode.NORMAL)
