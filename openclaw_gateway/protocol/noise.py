"""Noise: the handshakes XX and IK over 25519, ChaChaPoly and SHA256, and the two ciphers that come out of them.

Owns the Noise Protocol Framework (revision 34) as far as it is used here: CipherState, SymmetricState, HandshakeState.
Source: noiseprotocol.org/noise.html, the sections named below; RFC 7748 for X25519, RFC 8439 for ChaCha20-Poly1305, RFC
5869 for HKDF. Pure but for `cryptography`, imported when a key is first used: ephemeral keys are given by the caller,
who has the randomness. It must not know WebSocket, what the payloads mean or who is trusted.

XX is for a peer whose key is not known yet: both send theirs, encrypted. IK is for a gateway whose key is known: the
client's first message is readable for the holder of that key alone.

Invariants: any bytes give a payload or `NoiseFault`, never another exception; after a fault the state refuses
everything; a nonce is used once per key; no key shows in a ``repr``. Exchanges whose result is zero (a point of small
order) are faults (section 12.1 leaves that open; here they are refused).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

__all__ = ["MAX_MESSAGE", "TAG_BYTES", "CipherState", "Handshake", "NoiseFault", "Pattern", "public_key"]

Pattern = Literal["XX", "IK"]

KEY_BYTES: Final = 32
TAG_BYTES: Final = 16
MAX_MESSAGE: Final = 65_535  # section 3
MAX_NONCE: Final = 2**64 - 1  # reserved for rekeying (section 5.1)

# Section 7.5. Each tuple is one message; who sends it alternates, the initiator first.
_MESSAGES: Final[dict[Pattern, tuple[tuple[str, ...], ...]]] = {
    "XX": (("e",), ("e", "ee", "s", "es"), ("s", "se")),
    "IK": (("e", "es", "s", "ss"), ("e", "ee", "se")),
}


class NoiseFault(Exception):
    """The peer's message cannot be read with the keys that are in use: forged, replayed, out of order or cut."""


class CipherState:
    """One direction of a channel, or the cipher inside a handshake (section 5.1)."""

    __slots__ = ("_cipher", "_key", "nonce")

    def __init__(self, key: bytes) -> None:
        self._use(key)
        self.nonce = 0

    def __repr__(self) -> str:
        return f"CipherState(nonce={self.nonce})"

    def _use(self, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        self._key = key
        self._cipher: ChaCha20Poly1305 = ChaCha20Poly1305(key)

    def encrypt(self, ad: bytes, plaintext: bytes | bytearray | memoryview) -> bytes:
        """The ciphertext, `TAG_BYTES` longer. Raises `NoiseFault` when the nonces are used up."""
        nonce = self._next()
        return self._cipher.encrypt(nonce, plaintext, ad)

    def decrypt(self, ad: bytes, ciphertext: bytes | bytearray | memoryview) -> bytes:
        """The plaintext. Raises `NoiseFault`; the nonce is spent only by what was genuine (section 5.1)."""
        from cryptography.exceptions import InvalidTag

        nonce = self._next()
        try:
            return self._cipher.decrypt(nonce, ciphertext, ad)
        except (InvalidTag, ValueError) as error:
            self.nonce -= 1
            raise NoiseFault("the message is not genuine") from error

    def rekey(self) -> None:
        """Go on with the key that follows from this one (section 11.3); who learns it cannot read what came before."""
        self._use(self._cipher.encrypt(_nonce(MAX_NONCE), bytes(KEY_BYTES), b"")[:KEY_BYTES])

    def _next(self) -> bytes:
        if self.nonce >= MAX_NONCE:
            raise NoiseFault("no nonce is left")
        self.nonce += 1
        return _nonce(self.nonce - 1)


def _nonce(counter: int) -> bytes:
    return bytes(4) + counter.to_bytes(8, "little")  # section 12.3


class _Symmetric:
    """Chaining key and transcript hash of a handshake (section 5.2)."""

    __slots__ = ("_chain", "cipher", "hash")

    def __init__(self, name: bytes) -> None:
        self.hash = name.ljust(KEY_BYTES, b"\0") if len(name) <= KEY_BYTES else hashlib.sha256(name).digest()
        self._chain = self.hash
        self.cipher: CipherState | None = None

    def mix_key(self, material: bytes) -> None:
        self._chain, key = _derive(self._chain, material)
        self.cipher = CipherState(key)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        out = plaintext if self.cipher is None else self.cipher.encrypt(self.hash, plaintext)
        self.mix_hash(out)
        return out

    def decrypt_and_hash(self, data: bytes) -> bytes:
        out = data if self.cipher is None else self.cipher.decrypt(self.hash, data)
        self.mix_hash(data)
        return out

    def split(self) -> tuple[CipherState, CipherState]:
        first, second = _derive(self._chain, b"")
        return CipherState(first), CipherState(second)


def _derive(chain: bytes, material: bytes) -> tuple[bytes, bytes]:
    """HKDF with two outputs (section 4.3)."""
    temporary = hmac.digest(chain, material, "sha256")
    first = hmac.digest(temporary, b"\x01", "sha256")
    return first, hmac.digest(temporary, first + b"\x02", "sha256")


def public_key(private: bytes) -> bytes:
    """The X25519 public key of 32 raw private bytes (RFC 7748)."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _exchange(private: bytes, public: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    try:
        return X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:  # a result of zero
        raise NoiseFault("the peer's key is a point of small order") from error


class Handshake:
    """One side of one handshake (section 5.3). All keys are raw 32 bytes.

    ``static`` and ``ephemeral`` are our private keys; ``ephemeral`` must be fresh and random for every handshake.
    ``remote`` is the gateway's public key and goes with the initiator of IK alone. ``prologue`` is what both sides
    must agree on besides: with another prologue no message can be read.
    """

    __slots__ = ("_ephemeral", "_failed", "_initiator", "_remote_ephemeral", "_script", "_static", "_symmetric",
                 "_turn", "remote_static")  # fmt: skip

    def __init__(
        self, pattern: Pattern, *, initiator: bool, static: bytes, ephemeral: bytes, prologue: bytes,
        remote: bytes | None = None,
    ) -> None:  # fmt: skip
        if (remote is not None) != (pattern == "IK" and initiator):
            raise ValueError("the gateway's key belongs to the initiator of IK, and to nobody else")
        self._script = _MESSAGES[pattern]
        self._initiator = initiator
        self._static = static
        self._ephemeral = ephemeral
        self._remote_ephemeral = b""
        self.remote_static = remote or b""  # the peer's key; empty until it was read
        self._turn = 0
        self._failed = False
        self._symmetric = _Symmetric(f"Noise_{pattern}_25519_ChaChaPoly_SHA256".encode())
        self._symmetric.mix_hash(prologue)
        if pattern == "IK":  # its pre-message: the gateway's key is known to both
            self._symmetric.mix_hash(self.remote_static if initiator else public_key(static))

    def __repr__(self) -> str:
        return f"Handshake(turn={self._turn}, finished={self.finished})"

    @property
    def finished(self) -> bool:
        return self._turn == len(self._script)

    @property
    def ours(self) -> bool:
        """True where the next message is ours to write."""
        return not self.finished and (self._turn % 2 == 0) == self._initiator

    @property
    def hash(self) -> bytes:
        """What names this very handshake, once it is finished (section 11.2): 32 bytes, the same on both sides."""
        return self._symmetric.hash

    def write(self, payload: bytes) -> bytes:
        """Our next message with ``payload`` in it. Raises ValueError out of turn or over `MAX_MESSAGE`, `NoiseFault`
        where the peer's keys are no good."""
        if self._failed or not self.ours:
            raise ValueError("it is not our turn")
        with _Step(self):
            symmetric = self._symmetric
            out = bytearray()
            for step in self._script[self._turn]:
                if step == "e":
                    key = public_key(self._ephemeral)
                    symmetric.mix_hash(key)
                    out += key
                elif step == "s":
                    out += symmetric.encrypt_and_hash(public_key(self._static))
                else:
                    self._mix(step)
            out += symmetric.encrypt_and_hash(payload)
            if len(out) > MAX_MESSAGE:
                raise ValueError("a handshake message must not be over 65535 bytes")
            self._turn += 1
            return bytes(out)

    def read(self, message: bytes) -> bytes:
        """The payload of the peer's next message. Raises `NoiseFault`; then this handshake is over."""
        if self._failed or self.finished or self.ours:
            raise NoiseFault("no handshake message is expected")
        with _Step(self):
            if len(message) > MAX_MESSAGE:
                raise NoiseFault("a handshake message must not be over 65535 bytes")
            symmetric, at = self._symmetric, 0

            def take(size: int) -> bytes:
                nonlocal at
                part = message[at : at + size]
                if len(part) < size:
                    raise NoiseFault("the handshake message is cut")
                at += size
                return part

            for step in self._script[self._turn]:
                if step == "e":
                    self._remote_ephemeral = take(KEY_BYTES)
                    symmetric.mix_hash(self._remote_ephemeral)
                elif step == "s":
                    sealed = KEY_BYTES if symmetric.cipher is None else KEY_BYTES + TAG_BYTES
                    self.remote_static = symmetric.decrypt_and_hash(take(sealed))
                else:
                    self._mix(step)
            payload = symmetric.decrypt_and_hash(message[at:])
            self._turn += 1
            return payload

    def split(self) -> tuple[CipherState, CipherState]:
        """(what we send with, what we receive with), once the handshake is finished. The private keys are let go."""
        if not self.finished or self._failed:
            raise ValueError("the handshake is not finished")
        first, second = self._symmetric.split()
        self._failed = True  # nothing more is written or read with these keys
        self._static = self._ephemeral = b""
        return (first, second) if self._initiator else (second, first)

    def _mix(self, step: str) -> None:
        """``es`` is: the initiator's ephemeral and the responder's static; and so on."""
        mine, theirs = (step[0], step[1]) if self._initiator else (step[1], step[0])
        private = self._ephemeral if mine == "e" else self._static
        public = self._remote_ephemeral if theirs == "e" else self.remote_static
        self._symmetric.mix_key(_exchange(private, public))

    def _fail(self) -> None:
        self._failed = True


class _Step:
    """A message that was half read or half written leaves a state that must not be used again."""

    __slots__ = ("_fail",)

    def __init__(self, handshake: Handshake) -> None:
        self._fail: Callable[[], None] = handshake._fail  # noqa: SLF001  the same module

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self._fail()
