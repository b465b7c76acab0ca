"""`ScriptedPeer`: a WebSocket client that does what a test tells it to, on any Trio stream.

Owns the client's side of the wire (websockets' sans-IO protocol) and the words of a connect. It must not know the
gateway it speaks to, and it does nothing by itself: bytes are read only while a method of it waits, so a test decides
when a client reads. Pings and closes are answered while it reads, unless ``answers=False``.

Not for concurrent use: one task at a time reads, one writes.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import msgspec
import trio
from websockets.client import ClientProtocol
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.errors import CallFailed, GatewayError
from openclaw_gateway.protocol.connect import decode_connect
from openclaw_gateway.protocol.device import signature_payload_v2, signature_payload_v3

__all__ = ["PeerClosed", "ScriptedPeer", "connect_params"]

_RECEIVE_BYTES: Final = 64 * 1024


@attrs.define(eq=False)
class PeerClosed(GatewayError):
    """The gateway ended the connection. ``code`` 1006: without a Close frame (RFC 6455 section 7.1.5), 1005: with an
    empty one.
    """

    code: int
    reason: str = ""

    def __str__(self) -> str:
        return f"closed with {self.code} {self.reason}".rstrip()


def connect_params(
    challenge: Mapping[str, Any],
    *,
    client_id: str = "gateway-client",
    mode: str = "backend",
    role: str = "operator",
    scopes: Sequence[str] = ("operator.admin",),
    token: str | None = None,
    password: str | None = None,
    device_token: str | None = None,
    bootstrap_token: str | None = None,
    device: DeviceIdentity | None = None,
    signature: str = "v3",
    min_protocol: int = 4,
    max_protocol: int = 4,
    client: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The parameters of ``connect``, signed where a ``device`` is given (``signature``: v2 or v3, over the challenge's
    nonce and time). ``client`` adds to or replaces members of ``client``, ``more`` those of the whole.
    """
    credentials = {
        "token": token,
        "password": password,
        "deviceToken": device_token,
        "bootstrapToken": bootstrap_token,
    }
    params: dict[str, Any] = {
        "minProtocol": min_protocol,
        "maxProtocol": max_protocol,
        "client": {"id": client_id, "version": "0.0.0", "platform": "linux", "mode": mode, **(client or {})},
        "role": role,
        "scopes": list(scopes),
        "caps": [],
        "auth": {name: value for name, value in credentials.items() if value is not None},
        **more,
    }
    if device is not None:
        proof = {
            "id": device.device_id,
            "publicKey": device.public_key,
            "signature": "to be signed",
            "signedAt": challenge["ts"],
            "nonce": challenge["nonce"],
        }
        decoded = decode_connect(msgspec.Raw(msgspec.json.encode({**params, "device": proof})))
        if isinstance(decoded, str) or decoded.device is None:
            raise ValueError(f"cannot be signed: {decoded}")
        sign = signature_payload_v2 if signature == "v2" else signature_payload_v3
        params["device"] = {**proof, "signature": device.sign(sign(decoded, decoded.device))}
    return params


class ScriptedPeer:
    """A client on ``stream``. ``events`` are those that came by while something else was waited for, oldest first."""

    def __init__(self, stream: trio.abc.Stream, *, answers: bool = True) -> None:
        self.stream = stream
        self.answers = answers
        self.events: deque[dict[str, Any]] = deque()
        self.challenge: dict[str, Any] = {}
        self.hello: dict[str, Any] = {}
        self._protocol: ClientProtocol | None = None
        self._frames: deque[Frame] = deque()
        self._ids = itertools.count(1)
        self._ended = False

    # --- bytes and frames

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are. Raises what the stream raises."""
        await self.stream.send_all(data)

    async def upgrade(self, path: str = "/", *, headers: Mapping[str, str] | None = None) -> Response:
        """Ask for WebSocket and return the answer, whatever it says; after a 101 the peer speaks frames."""
        protocol = ClientProtocol(parse_uri(f"ws://127.0.0.1{path}"), max_size=None)
        request = protocol.connect()
        for name, value in (headers or {}).items():
            request.headers.pop(name, None)
            request.headers[name] = value
        protocol.send_request(request)
        await self.send_bytes(b"".join(protocol.data_to_send()))
        while True:
            data = await self.stream.receive_some(_RECEIVE_BYTES)
            if data:
                protocol.receive_data(bytes(data))
            else:
                protocol.receive_eof()
            events = protocol.events_received()
            self._keep(events)
            for event in events:
                if isinstance(event, Response):
                    self._protocol = protocol
                    return event
            if not data:
                raise PeerClosed(1006)

    def _keep(self, events: Sequence[Any]) -> None:
        self._frames.extend(event for event in events if isinstance(event, Frame))

    async def send_frame(self, opcode: Opcode, payload: bytes = b"", *, fin: bool = True) -> None:
        """Send one masked frame."""
        await self.send_bytes(Frame(opcode, payload, fin).serialize(mask=True))

    async def send(self, message: Any) -> None:
        """Send a text message: ``bytes`` and ``str`` as they are, anything else as JSON."""
        if isinstance(message, str):
            message = message.encode()
        await self.send_frame(Opcode.TEXT, message if isinstance(message, bytes) else msgspec.json.encode(message))

    async def receive_frame(self) -> Frame:
        """The next frame, control frames included. Raises `PeerClosed` at the end of the stream."""
        protocol = self._protocol
        if protocol is None:
            raise GatewayError("upgrade first")
        while not self._frames:
            if self._ended:
                raise PeerClosed(1006)
            try:
                data = await self.stream.receive_some(_RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            self._ended = not data
            if data:
                protocol.receive_data(bytes(data))
            self._keep(protocol.events_received())
            answer = b"".join(protocol.data_to_send())
            if answer and self.answers:
                try:
                    await self.send_bytes(answer)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._ended = True
        return self._frames.popleft()

    async def receive(self) -> Any:
        """The next JSON message. Raises `PeerClosed` with what the Close frame says."""
        while True:
            frame = await self.receive_frame()
            if frame.opcode is Opcode.TEXT:
                return msgspec.json.decode(frame.data)
            if frame.opcode is Opcode.CLOSE:
                close = CloseFrame.parse(bytes(frame.data))
                raise PeerClosed(int(close.code), close.reason)

    # --- conversation

    async def expect_event(self, name: str) -> Any:
        """The payload of the next event of that name; what comes before it is kept, replies are dropped."""
        for message in self.events:
            if message["event"] == name:
                self.events.remove(message)
                return message["payload"]
        while True:
            message = await self.receive()
            if not isinstance(message, dict) or message.get("type") != "event":
                continue
            if message["event"] == "connect.challenge":
                self.challenge = message["payload"]
            if message["event"] == name:
                return message["payload"]
            self.events.append(message)

    async def reply(self, id_: str) -> dict[str, Any]:
        """The reply to request ``id_``; events go to `events`, other replies are dropped."""
        while True:
            message = await self.receive()
            if message.get("type") == "event":
                self.events.append(message)
            elif message.get("type") == "res" and message.get("id") == id_:
                found: dict[str, Any] = message
                return found

    async def start(self, method: str, params: Any = None) -> str:
        """Send a request without waiting; returns its id."""
        id_ = f"peer-{next(self._ids)}"
        message = {"type": "req", "id": id_, "method": method}
        await self.send(message if params is None else {**message, "params": params})
        return id_

    async def request(self, method: str, params: Any = None) -> Any:
        """Call a method and return its payload. Raises `CallFailed` with the error's fields."""
        reply = await self.reply(await self.start(method, params))
        if reply["ok"]:
            return reply["payload"]
        error = reply["error"]
        raise CallFailed(
            error["code"],
            error["message"],
            error.get("details"),
            error.get("retryable", False),
            error.get("retryAfterMs"),
        )

    async def connect(self, **who: Any) -> dict[str, Any]:
        """Answer the challenge with `connect_params`; returns hello-ok. Raises `CallFailed` where refused."""
        if not self.challenge:
            await self.expect_event("connect.challenge")
        self.hello = await self.request("connect", connect_params(self.challenge, **who))
        return self.hello

    async def wait_closed(self) -> PeerClosed:
        """Read until the gateway ends the connection: how it ended. Events go to `events`, replies are dropped."""
        while True:
            try:
                message = await self.receive()
            except PeerClosed as closed:
                return closed
            if isinstance(message, dict) and message.get("type") == "event":
                self.events.append(message)

    async def close(self, code: int | None = None, reason: str = "") -> PeerClosed:
        """Say goodbye (None: an empty Close frame, as official clients do) and wait for the answer."""
        payload = b"" if code is None else CloseFrame(code, reason).serialize()
        await self.send_frame(Opcode.CLOSE, payload)
        return await self.wait_closed()
