"""The client's end of a secure channel: whether to greet, with which key, and what to refuse (S096).

Owns the decision that a challenge leads to and the greeting over a live WebSocket. It must not know files, or what is
said afterwards. Invariants: nothing but the greeting leaves before the gateway has proved the key that is known of it;
a gateway that is known to have a key is never talked to in the clear; at a first contact `SecureChannelWish.met` hears
of the key before anything secret is sent.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import trio

from openclaw_gateway.client.errors import ClientClosed, ConnectFailed
from openclaw_gateway.protocol.keystatement import KeyStatement, KeySubject, fingerprint, make_key_statement
from openclaw_gateway.protocol.noise import NoiseFault
from openclaw_gateway.protocol.noisechannel import SecureChannel
from openclaw_gateway.protocol.noisegreeting import ClientGreeting, KnownGateway, offers

if TYPE_CHECKING:
    from openclaw_gateway.client.identity import DeviceIdentity
    from openclaw_gateway.ops.statickey import StaticKey

__all__ = ["KnownGateway", "SecureChannelWish", "greet_gateway"]

_FORGET: Final = "if that was done on purpose: openclaw node forget {url}"


def _deaf(_: KeyStatement) -> None:
    return None


@attrs.frozen(kw_only=True)
class SecureChannelWish:
    """What a client wants of the channel. ``mode``: ``on`` where it is offered, ``required`` or nothing.

    ``known``: this very gateway or none; ``expected_id``: its device id, where that was told by other means; a known
    gateway that is not the expected one is not talked to. ``met`` hears what the gateway proved, once per connection.
    """

    key: StaticKey
    mode: Literal["on", "required"] = "on"
    known: KnownGateway | None = None
    expected_id: str | None = None
    met: Callable[[KeyStatement], None] = _deaf


async def greet_gateway(
    wish: SecureChannelWish, identity: DeviceIdentity, role: str, challenge: dict[str, Any], *, url: str,
    send: Callable[[bytes], Awaitable[None]], receive: Callable[[], Awaitable[bytes]],
) -> SecureChannel | None:  # fmt: skip
    """Greet, if the challenge offers it; the channel that came of it, None for going on in the clear.

    ``receive`` gives the next binary message. Raises `ConnectFailed` (stage ``websocket``) where the channel must be
    had and cannot be, and what ``send`` and ``receive`` raise.
    """
    if wish.known is not None and wish.expected_id not in {None, wish.known.device_id}:
        # Whoever was believed at a first contact does not outweigh what a person was told since.
        raise _refused(
            url, "SECURE_CHANNEL_UNPROVEN",
            f"the gateway that this node knows there ({wish.known.device_id[:16]}) is not the one that it is told to "
            f"expect ({str(wish.expected_id)[:16]}); nothing was sent", _FORGET,
        )  # fmt: skip
    if not offers(challenge):
        if wish.known is not None:
            raise _refused(
                url, "SECURE_CHANNEL_MISSING",
                "this gateway used end-to-end encryption before and offers none now; somebody in between may have "
                "taken the offer away", _FORGET,
            )  # fmt: skip
        if wish.mode == "required" or wish.expected_id is not None:
            raise _refused(
                url, "SECURE_CHANNEL_MISSING", "the gateway offers no end-to-end encryption, and this node demands it",
                "openclaw config set gateway.nodes.secureChannel on   (on the gateway's host)",
            )  # fmt: skip
        return None
    subject: KeySubject = "node" if role == "node" else "operator"
    statement = make_key_statement(
        identity.sign_raw, public_key=identity.raw_public_key, key=wish.key.public, subject=subject,
        created_at_ms=wish.key.created_at_ms,
    )  # fmt: skip
    try:
        greeting = ClientGreeting(
            private=wish.key.private, statement=statement, nonce=challenge["nonce"], ephemeral=os.urandom(32),
            known=wish.known, expected_id=wish.expected_id,
        )  # fmt: skip
        await send(greeting.begin())
        while not greeting.finished:
            answer = greeting.read(await receive())
            if answer is not None:
                await send(answer)
    except NoiseFault as fault:
        raise _unproven(wish, url, str(fault)) from fault
    except ClientClosed as closed:
        if closed.code != 1008:
            raise
        raise _unproven(wish, url, closed.reason, closed) from closed
    assert greeting.gateway is not None
    wish.met(greeting.gateway)
    return greeting.channel(trio.current_time())


def _unproven(wish: SecureChannelWish, url: str, why: str, closed: ClientClosed | None = None) -> ConnectFailed:
    if wish.known is None:
        message = f"the secure channel cannot be opened: {why}"
        fix = "openclaw logs   (on the gateway's host)"
    else:
        known = fingerprint(wish.known.key)
        message = f"the gateway does not prove the key that it had before ({known}): {why}"
        fix = "compare it with: openclaw gateway call gateway.identity.get   (on the gateway's host); " + _FORGET
    return _refused(url, "SECURE_CHANNEL_UNPROVEN", message, fix, closed)


def _refused(url: str, detail: str, message: str, fix: str, closed: ClientClosed | None = None) -> ConnectFailed:
    return ConnectFailed(
        stage="websocket", url=url, message=message, fix=fix.replace("{url}", url), details={"code": detail},
        close_code=closed.code if closed is not None else None, close_reason=closed.reason if closed else None,
    )  # fmt: skip
