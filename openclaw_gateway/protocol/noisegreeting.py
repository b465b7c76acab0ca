"""How a secure channel begins: which handshake, what both sides say in it, whom each side then talks to (S096).

Owns the greeting inside the WebSocket: ``connect.challenge`` says ``"secureChannel": ["noise.v1"]``; a client that
wants it answers with a binary message instead of ``connect``. Each message is one byte for the handshake (``0x01`` XX,
``0x02`` IK) and the Noise message; its payload is the sender's key statement as JSON (empty in the first message of
XX, which nothing protects). It must not know sockets, files or who is paired.

The prologue holds the protocol, the roles and the nonce of the challenge, so a recorded handshake fits no other
connection. Which device and which gateway talk is in the statements: encrypted, so that whoever listens does not learn
it, and part of the transcript, so that both sides agree on it. The channel's name goes into the nonce that the
device's signature in ``connect`` covers (`bound_nonce`): a signature made in one channel is worth nothing in another,
which is what a man in the middle of a first contact would have.

Invariants: any bytes give a step or `NoiseFault`; a finished greeting has the peer's verified statement, whose key is
the very key that the handshake proved.
"""

from __future__ import annotations

from typing import Final

import attrs
import msgspec

from openclaw_gateway.protocol.keystatement import KeyStatement, verify_key_statement
from openclaw_gateway.protocol.noise import Handshake, NoiseFault, Pattern
from openclaw_gateway.protocol.noisechannel import SecureChannel
from openclaw_gateway.value import Value

__all__ = ["OFFER", "ClientGreeting", "KnownGateway", "ServerGreeting", "bound_nonce", "is_greeting", "offers"]

VERSION: Final = "noise.v1"
OFFER: Final = (VERSION,)  # the member ``secureChannel`` of the challenge's payload
MAX_GREETING: Final = 4096  # bytes of one message
_KINDS: Final[dict[int, Pattern]] = {1: "XX", 2: "IK"}
_BYTES: Final[dict[Pattern, bytes]] = {pattern: bytes([kind]) for kind, pattern in _KINDS.items()}


@attrs.frozen(eq=False, repr=False)
class KnownGateway(Value):
    """A gateway that was met before: its identity (device id) and its X25519 key (raw)."""

    device_id: str
    key: bytes


def offers(payload: object) -> bool:
    """Whether the payload of a ``connect.challenge`` offers the channel."""
    offered = payload.get("secureChannel") if isinstance(payload, dict) else None
    return isinstance(offered, list) and VERSION in offered


def is_greeting(message: bytes) -> bool:
    """Whether a first message is a greeting. No JSON text starts with these bytes."""
    return bool(message) and message[0] in _KINDS


def bound_nonce(nonce: str, name: bytes) -> str:
    """The nonce that a device signs inside the channel ``name``."""
    return f"{nonce}.{name.hex()}"


def _prologue(nonce: str) -> bytes:
    return f"openclaw-secure-channel|{VERSION}|client|gateway|{nonce}".encode()


def _said(payload: bytes, key: bytes) -> KeyStatement:
    """The peer's statement, whole and about the key that the handshake proved."""
    try:
        value = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NoiseFault("the peer's key statement cannot be read") from error
    statement = verify_key_statement(value)
    if isinstance(statement, str):
        raise NoiseFault(f"the peer's key statement does not hold: {statement}")
    if statement.raw_key != key:
        raise NoiseFault("the peer's key statement is about another key")
    return statement


class ServerGreeting:
    """The gateway's side. ``client`` is the statement of whoever greeted, once `finished`."""

    __slots__ = ("_ephemeral", "_handshake", "_kind", "_nonce", "_private", "_said", "client")

    def __init__(self, *, private: bytes, statement: KeyStatement, nonce: str, ephemeral: bytes) -> None:
        self._private = private
        self._said = msgspec.json.encode(statement.to_wire())
        self._nonce = nonce
        self._ephemeral = ephemeral
        self._handshake: Handshake | None = None
        self._kind = 0
        self.client: KeyStatement | None = None

    @property
    def finished(self) -> bool:
        return self.client is not None

    def read(self, message: bytes) -> bytes | None:
        """Take the client's next message; what to answer, None for nothing. Raises `NoiseFault`."""
        if not is_greeting(message) or len(message) > MAX_GREETING or self.finished:
            raise NoiseFault("not a greeting of a secure channel")
        if self._handshake is None:
            self._kind = message[0]
            self._handshake = Handshake(
                _KINDS[self._kind], initiator=False, static=self._private, ephemeral=self._ephemeral,
                prologue=_prologue(self._nonce),
            )  # fmt: skip
        elif message[0] != self._kind:
            raise NoiseFault("the greeting changed its kind")
        handshake = self._handshake
        payload = handshake.read(message[1:])
        client = _said(payload, handshake.remote_static) if handshake.remote_static else None
        if client is not None and client.subject == "gateway":
            raise NoiseFault("a gateway's statement is no client's")
        reply = message[:1] + handshake.write(self._said) if handshake.ours else None
        if handshake.finished:
            self.client = client
        return reply

    def channel(self, now: float) -> SecureChannel:
        assert self._handshake is not None
        name = self._handshake.hash
        send, receive = self._handshake.split()
        return SecureChannel(send, receive, name=name, now=now)


class ClientGreeting:
    """The client's side: `begin`, then `read` until `finished`. ``gateway`` is what the gateway said then.

    ``known``: the gateway must be this one (IK). ``expected_id``: at a first contact, its device id where it was told
    by other means (a setup code).
    """

    __slots__ = ("_expected_id", "_handshake", "_kind", "_said", "gateway")

    def __init__(
        self, *, private: bytes, statement: KeyStatement, nonce: str, ephemeral: bytes,
        known: KnownGateway | None = None, expected_id: str | None = None,
    ) -> None:  # fmt: skip
        pattern: Pattern = "XX" if known is None else "IK"
        self._handshake = Handshake(
            pattern, initiator=True, static=private, ephemeral=ephemeral, prologue=_prologue(nonce),
            remote=None if known is None else known.key,
        )  # fmt: skip
        self._kind = _BYTES[pattern]
        self._said = msgspec.json.encode(statement.to_wire())
        self._expected_id = known.device_id if known is not None else expected_id
        self.gateway: KeyStatement | None = None

    @property
    def finished(self) -> bool:
        return self._handshake.finished

    def begin(self) -> bytes:
        """The first message. In XX nothing protects it, so it says nothing. Raises `NoiseFault` for a key that is
        none."""
        return self._kind + self._handshake.write(b"" if self._kind == _BYTES["XX"] else self._said)

    def read(self, message: bytes) -> bytes | None:
        """Take the gateway's answer; what to send then, None for nothing. Raises `NoiseFault`."""
        if message[:1] != self._kind or len(message) > MAX_GREETING:
            raise NoiseFault("the gateway's answer is no greeting")
        payload = self._handshake.read(message[1:])
        gateway = _said(payload, self._handshake.remote_static)
        if gateway.subject != "gateway":
            raise NoiseFault("whoever answers does not say that it is a gateway")
        if self._expected_id is not None and gateway.device_id != self._expected_id:
            raise NoiseFault("it is another gateway")
        self.gateway = gateway
        return self._kind + self._handshake.write(self._said) if self._handshake.ours else None

    def channel(self, now: float) -> SecureChannel:
        name = self._handshake.hash
        send, receive = self._handshake.split()
        return SecureChannel(send, receive, name=name, now=now)
