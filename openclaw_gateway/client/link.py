"""Frames over one WebSocket, in the clear or through a secure channel; and the one cause by which it ends.

Owns the order in which messages leave, their sealing, and why the connection is over. It must not know what a frame
says, nor who waits for one (``on_end`` tells whoever does). Invariants: a frame that has begun to be sent is sent whole
(within `SEND_SECONDS`) or ends the connection, because half a frame would garble everything after it, under
cancellation too; the first cause of an end stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from openclaw_gateway.client.errors import ClientClosed
from openclaw_gateway.client.speech import Frame, Speech
from openclaw_gateway.protocol.close import CloseCode

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

    from openclaw_gateway.protocol.noisechannel import SecureChannel

__all__ = ["GOODBYE_SECONDS", "FrameLink"]

SEND_SECONDS: Final = 30.0
GOODBYE_SECONDS: Final = 1.0  # what the other side's Close frame is worth waiting for


def _nobody_waits() -> None:
    return None


class FrameLink:
    """One connection after its upgrade. ``heard``: when something last came, in Trio's time."""

    def __init__(self, websocket: WebSocketConnection, url: str, speech: Speech) -> None:
        self.url = url
        self.speech = speech
        self.heard = trio.current_time()
        self.on_end: Callable[[], None] = _nobody_waits
        self._websocket = websocket
        self._closed: ClientClosed | None = None
        self._send_lock = trio.Lock()
        self._channel: SecureChannel | None = None
        self._max_frame = 0

    @property
    def secure(self) -> bool:
        """Whether everything but the greeting travels end-to-end encrypted inside the WebSocket."""
        return self._channel is not None

    @property
    def closed(self) -> ClientClosed | None:
        """Why the connection ended, None while it lives."""
        return self._closed

    def seal(self, channel: SecureChannel, max_frame: int) -> None:
        """Let all from here on go through ``channel``; a frame in it may have ``max_frame`` bytes."""
        self._channel, self._max_frame = channel, max_frame

    async def send(self, message: str | bytes) -> None:
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
                    self.end(_why(error))
            if scope.cancelled_caught:
                self.end(ClientClosed(CloseCode.ABNORMAL, "the gateway does not read"))

    def end(self, why: ClientClosed) -> None:
        """First cause wins. Says nothing to the peer."""
        if self._closed is not None:
            return
        self._closed = why
        self.on_end()

    async def close(self, code: int, reason: str | None = None) -> None:
        """Send a Close frame and wait for its echo, for as long as the caller lets it."""
        await self._websocket.aclose(code, reason)

    async def _receive_message(self) -> str | bytes:
        from trio_websocket import ConnectionClosed

        try:
            message: str | bytes = await self._websocket.get_message()
        except ConnectionClosed as error:
            raise _why(error) from error
        self.heard = trio.current_time()
        return message

    async def receive_binary(self) -> bytes:
        """The next message of the channel's greeting; empty where it was a text. Raises `ClientClosed`."""
        message = await self._receive_message()
        return message if isinstance(message, bytes) else b""

    def _unseal(self, channel: SecureChannel, message: str | bytes) -> bytes:
        from openclaw_gateway.protocol.noise import NoiseFault

        try:
            return channel.open(message if isinstance(message, bytes) else b"", limit=self._max_frame)
        except NoiseFault as fault:
            raise ClientClosed(CloseCode.PROTOCOL_ERROR, f"secure channel: {fault}", by_us=True) from fault

    async def receive(self) -> Frame:
        """The next frame. Raises `ClientClosed`."""
        message = await self._receive_message()
        if self._channel is not None:
            message = self._unseal(self._channel, message)
        try:
            return self.speech.frame(message)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ClientClosed(CloseCode.PROTOCOL_ERROR, "the gateway sent what is not a frame", by_us=True) from error


def _why(error: Any) -> ClientClosed:
    reason = error.reason
    if reason is None:
        return ClientClosed(CloseCode.ABNORMAL, "")
    return ClientClosed(int(reason.code), reason.reason or "")
