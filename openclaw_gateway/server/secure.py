"""The gateway's end of secure channels: its key, one greeting per connection, sealed frames both ways (S096).

Owns the gateway's X25519 key (``credentials/gateway-x25519.json``, said to be ours by the gateway's Ed25519 identity)
and what one connection keeps of its channel. It must not know sessions, admission or what is said inside. Nothing of
it runs for a connection in the clear; the Noise modules and `cryptography` are imported when the first client greets.

Invariants: what a session sends through `SecureLink.wrap` leaves in the order in which it was wrapped; a link that has
found a fault opens nothing any more; the private key shows in no ``repr``.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

from openclaw_gateway.protocol.device import Challenge

if TYPE_CHECKING:
    from openclaw_gateway.protocol.keystatement import KeyStatement
    from openclaw_gateway.protocol.noisechannel import SecureChannel
    from openclaw_gateway.protocol.noisegreeting import ServerGreeting

__all__ = ["GREETINGS", "KEY_FILE", "OFFER", "ChannelFault", "SecureDoor", "SecureLink", "binary_frame"]

KEY_FILE: Final = "gateway-x25519.json"
OFFER: Final = ("noise.v1",)  # protocol.noisegreeting.OFFER, without importing it for those who never use it
GREETINGS: Final = frozenset({b"\x01", b"\x02"})  # first bytes of greetings; no JSON text starts with them


def binary_frame(payload: bytes) -> bytes:
    """One unmasked, unfragmented binary frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x82%c%b" % (size, payload)
    if size < 65536:
        return b"\x82\x7e%b%b" % (struct.pack("!H", size), payload)
    return b"\x82\x7f%b%b" % (struct.pack("!Q", size), payload)


class ChannelFault(Exception):
    """The channel ends here: forged, replayed or cut messages, or a key that does not fit. ``too_big``: an honest
    message may be over the limit."""

    def __init__(self, reason: str, *, too_big: bool = False) -> None:
        super().__init__(reason)
        self.too_big = too_big


class SecureDoor:
    """What all connections of one gateway share. ``offered`` is switched by the configuration."""

    def __init__(self, state_dir: Path | None, *, offered: bool) -> None:
        self._state_dir = state_dir
        self.offered = offered
        self._private = b""
        self._statement: KeyStatement | None = None

    @property
    def statement(self) -> KeyStatement:
        """What the gateway's identity says about its key. Blocks for two small files on the first call, and for a
        flush where they are made.

        Raises `StaticKeyDamaged`, `CredentialDamaged`, `StateDirUnsafe` or OSError.
        """
        if self._statement is None:
            self._private, self._statement = _load(self._state_dir)
        return self._statement

    def begin(self, challenge: Challenge) -> SecureLink:
        """A greeting for one connection. Raises as `statement`."""
        from openclaw_gateway.protocol.noisegreeting import ServerGreeting

        statement = self.statement
        greeting = ServerGreeting(
            private=self._private, statement=statement, nonce=challenge.nonce, ephemeral=os.urandom(32)
        )
        return SecureLink(greeting)


def _load(state_dir: Path | None) -> tuple[bytes, KeyStatement]:
    import base64

    from openclaw_gateway.ops.statickey import load_or_create_static_key, make_static_key
    from openclaw_gateway.pairing.identity import load_gateway_identity
    from openclaw_gateway.protocol.keystatement import make_key_statement

    identity = load_gateway_identity(state_dir)
    path = state_dir / "credentials" / KEY_FILE if state_dir is not None else None
    key = load_or_create_static_key(path) if path is not None else make_static_key()
    statement = make_key_statement(
        identity.sign, public_key=base64.urlsafe_b64decode(identity.public_key + "="), key=key.public,
        subject="gateway", created_at_ms=min(key.created_at_ms, time.time_ns() // 1_000_000),
    )  # fmt: skip
    return key.private, statement


class SecureLink:
    """One connection's channel: first the greeting, then (``ready``) sealed frames."""

    __slots__ = ("_channel", "_greeting", "opened_by", "ready")

    def __init__(self, greeting: ServerGreeting) -> None:
        self._greeting: ServerGreeting | None = greeting
        self._channel: SecureChannel | None = None
        self.opened_by: KeyStatement | None = None
        self.ready = False

    def greet(self, message: bytes) -> bytes | None:
        """Take a message of the greeting; the frame to answer with, None for nothing. Raises `ChannelFault`."""
        from openclaw_gateway.protocol.noise import NoiseFault

        greeting = self._greeting
        assert greeting is not None
        try:
            answer = greeting.read(message)
        except NoiseFault as fault:
            raise ChannelFault(str(fault)) from fault
        if greeting.finished:
            self.opened_by = greeting.client
            self._channel = greeting.channel(monotonic())
            self._greeting = None
            self.ready = True
        return None if answer is None else binary_frame(answer)

    def bind(self, challenge: Challenge) -> Challenge:
        """What the device signs inside this channel, instead of what everybody saw (Noise section 11.2)."""
        from openclaw_gateway.protocol.noisegreeting import bound_nonce

        assert self._channel is not None
        return Challenge(nonce=bound_nonce(challenge.nonce, self._channel.name), ts_ms=challenge.ts_ms)

    def wrap(self, body: bytes) -> bytes:
        """The WebSocket frame that carries ``body`` through the channel; in the place of `writer.text_frame`."""
        assert self._channel is not None
        return binary_frame(self._channel.seal(body, monotonic()))

    def open(self, message: bytes, *, limit: int) -> bytes:
        """The frame in a message. Raises `ChannelFault`."""
        from openclaw_gateway.protocol.noise import NoiseFault
        from openclaw_gateway.protocol.noisechannel import FrameTooBig

        assert self._channel is not None
        try:
            return self._channel.open(message, limit=limit)
        except NoiseFault as fault:
            raise ChannelFault(str(fault), too_big=isinstance(fault, FrameTooBig)) from fault

    @staticmethod
    def sealed_size(size: int) -> int:
        """How long the message is that holds a frame of ``size`` bytes."""
        from openclaw_gateway.protocol.noisechannel import sealed_size

        return sealed_size(size)
