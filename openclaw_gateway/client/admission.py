"""From the challenge to hello: how a connection gets itself let in.

Owns the order of these first messages and what each failure among them is called. What is said in them is
`client.handshake`'s, how a secure channel is agreed on `client.secure`'s. Invariant: where a channel is agreed on, no
credential leaves before it stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from openclaw_gateway.client.dial import not_spoken
from openclaw_gateway.client.errors import ClientClosed, ConnectFailed
from openclaw_gateway.client.handshake import Hello, Introduction, connect_params, refusal
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.client.link import GOODBYE_SECONDS, FrameLink
from openclaw_gateway.protocol.close import CloseCode

if TYPE_CHECKING:
    from openclaw_gateway.client.secure import SecureChannelWish

__all__ = ["shake_hands"]


async def shake_hands(link: FrameLink, who: Introduction, wish: SecureChannelWish | None, max_frame: int) -> Hello:
    """Wait for the challenge, open the secure channel where ``wish`` asks for it, and be let in.

    Raises `ConnectFailed`. Cancelled, the connection is half way in: it must not be used any more.
    """
    try:
        challenge = await link.receive()
    except ClientClosed as error:
        raise _closed_early(link, error) from error
    payload = challenge.payload
    if challenge.event != "connect.challenge" or not isinstance(payload, dict):
        raise ConnectFailed(
            stage="websocket",
            url=link.url,
            message="a WebSocket, but not a gateway: the first message is no connect.challenge",
            fix="give the gateway's own URL with --url",
        )
    nonce, ts = payload.get("nonce"), payload.get("ts")
    if not isinstance(nonce, str) or not isinstance(ts, int):
        fault = "the gateway's challenge has no nonce or time"
        raise ConnectFailed(stage="websocket", url=link.url, message=fault)
    if wish is not None and who.identity is not None:
        nonce = await _greet(link, wish, who.identity, who.role, payload, max_frame)
    params = connect_params(who, nonce=nonce, ts_ms=ts)
    await link.send(link.speech.request("0", "connect", params))
    try:
        frame = await link.receive()
        while frame.type != "res" or frame.id != "0":
            frame = await link.receive()
    except ClientClosed as error:
        raise _closed_early(link, error) from error
    if not frame.ok:
        refused = refusal(link.url, frame.error or {})
        # The Close frame that follows says the code; it is worth waiting for, but not for long.
        with trio.move_on_after(GOODBYE_SECONDS):
            farewell = await _next_close(link)
            refused.close_code, refused.close_reason = farewell.code, farewell.reason
        raise refused
    hello = Hello.from_wire(frame.payload)
    if hello is None:
        raise ConnectFailed(stage="websocket", url=link.url, message="the gateway's answer is no hello-ok")
    return hello


async def _greet(
    link: FrameLink,
    wish: SecureChannelWish,
    identity: DeviceIdentity,
    role: str,
    challenge: dict[str, Any],
    max_frame: int,
) -> str:
    """Open the secure channel if that is wanted and offered; the nonce that the device signs from then on."""
    from openclaw_gateway.client.secure import greet_gateway
    from openclaw_gateway.protocol.noisegreeting import bound_nonce

    nonce: str = challenge["nonce"]
    try:
        channel = await greet_gateway(
            wish, identity, role, challenge, url=link.url, send=link.send, receive=link.receive_binary
        )
    except ClientClosed as error:
        raise _closed_early(link, error) from error
    if channel is None:
        return nonce
    link.seal(channel, max_frame)
    return bound_nonce(nonce, channel.name)


async def _next_close(link: FrameLink) -> ClientClosed:
    while True:
        try:
            await link.receive()
        except ClientClosed as error:
            return error


def _closed_early(link: FrameLink, error: ClientClosed) -> ConnectFailed:
    if error.by_us and link.speech.subprotocol is not None:
        return not_spoken(link.url)  # it echoed the subprotocol without a thought, and goes on in JSON
    return ConnectFailed(
        stage="websocket",
        url=link.url,
        message=f"closed before an answer: {error.code} {error.reason}".rstrip(),
        close_code=error.code,
        close_reason=error.reason,
        retryable=error.code in {CloseCode.SERVICE_RESTART, CloseCode.TRY_AGAIN_LATER, CloseCode.GOING_AWAY},
        fix="openclaw logs   (on the gateway's host)",
    )
