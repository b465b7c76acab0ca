"""The records of a secure channel: whole frames in, one binary message each out, and back.

Owns what travels after the handshake (`protocol.noisegreeting`): ``0x10``, then pieces. A piece is one byte of flags
and a Noise transport message of at most 65535 bytes; every piece but the last is exactly that long. Flags: bit 0, more
pieces follow; bit 1, the sender goes on with the next key (`CipherState.rekey`). The kind and the flags are the
associated data of the piece; its place in the stream is the cipher's own counter, so a piece that is repeated, left
out, moved or cut off cannot be read. It must not know WebSocket or JSON. No clock is read: ``now`` is given, in
seconds of any steady clock.

Invariants: any bytes give a frame or `NoiseFault`; after a fault the channel reads nothing any more; no key is used for
more than `REKEY_AFTER` pieces, whoever sends; a frame over the reader's limit is refused before it is put together.
"""

from __future__ import annotations

from typing import Final

from openclaw_gateway.protocol.noise import MAX_MESSAGE, TAG_BYTES, CipherState, NoiseFault

__all__ = ["REKEY_AFTER", "REKEY_SECONDS", "SEALED", "FrameTooBig", "SecureChannel", "sealed_size"]

SEALED: Final = 0x10  # the first byte of every message of the channel; no JSON text starts with it
REKEY_AFTER: Final = 2**16  # pieces
REKEY_SECONDS: Final = 3600.0
PIECE: Final = MAX_MESSAGE - TAG_BYTES  # bytes of a frame in one piece

_MORE: Final = 1
_REKEY: Final = 2
_KIND: Final = bytes([SEALED])
_HEADS: Final = tuple(bytes([SEALED, flags]) for flags in range(4))  # also the associated data


def sealed_size(size: int) -> int:
    """How many bytes a frame of ``size`` bytes has on the wire."""
    pieces = max(1, -(-size // PIECE))
    return 1 + size + pieces * (1 + TAG_BYTES)


class SecureChannel:
    """Both directions of one channel. ``name`` is the handshake's hash, the same on both sides and on no other."""

    __slots__ = ("_broken", "_opened", "_receive", "_rekeyed_at", "_sealed", "_send", "name")

    def __init__(self, send: CipherState, receive: CipherState, *, name: bytes, now: float) -> None:
        self._send = send
        self._receive = receive
        self._rekeyed_at = now
        self._sealed = 0  # pieces with the present key, each way
        self._opened = 0
        self._broken = False
        self.name = name

    def __repr__(self) -> str:
        return f"SecureChannel({self.name.hex()[:8]}…)"

    def seal(self, frame: bytes, now: float) -> bytes:
        """One binary message that holds ``frame``. Messages must be sent in the order in which they were sealed."""
        if len(frame) <= PIECE:
            return _KIND + self._piece(frame, 0, now)
        view, size = memoryview(frame), len(frame)
        starts = range(0, size, PIECE)
        pieces = (self._piece(view[at : at + PIECE], _MORE if at + PIECE < size else 0, now) for at in starts)
        return b"".join((_KIND, *pieces))

    def _piece(self, part: bytes | memoryview, flags: int, now: float) -> bytes:
        self._sealed += 1
        if self._sealed >= REKEY_AFTER or now - self._rekeyed_at >= REKEY_SECONDS:
            flags |= _REKEY
        head = _HEADS[flags]
        out = head[1:] + self._send.encrypt(head, part)
        if flags & _REKEY:
            self._send.rekey()
            self._sealed, self._rekeyed_at = 0, now
        return out

    def open(self, message: bytes, *, limit: int) -> bytes:
        """The frame in one binary message. Raises `NoiseFault`; `FrameTooBig` where the frame would be over ``limit``
        bytes, which is known before anything is deciphered."""
        if self._broken:
            raise NoiseFault("the channel is broken")
        try:
            return self._open(message, limit)
        except NoiseFault:
            self._broken = True
            raise

    def _open(self, message: bytes, limit: int) -> bytes:
        if message[:1] != _KIND:
            raise NoiseFault("a message outside the secure channel")
        if len(message) > sealed_size(limit):
            raise FrameTooBig("the frame is over the limit")
        if len(message) <= 2 + MAX_MESSAGE and len(message) > 1 and not message[1] & _MORE:
            return self._unpiece(message[1], message[2:])
        view, at, parts = memoryview(message), 1, []
        while True:
            if at >= len(message):
                raise NoiseFault("the message is cut")
            flags = message[at]
            end = at + 1 + MAX_MESSAGE if flags & _MORE else len(message)
            piece = view[at + 1 : end]
            if end > len(message) or len(piece) > MAX_MESSAGE:
                raise NoiseFault("the message is cut")
            parts.append(self._unpiece(flags, piece))
            if not flags & _MORE:
                return b"".join(parts)
            at = end

    def _unpiece(self, flags: int, piece: bytes | memoryview) -> bytes:
        if flags >= len(_HEADS):
            raise NoiseFault("unknown flags")
        plain = self._receive.decrypt(_HEADS[flags], piece)
        self._opened += 1
        if flags & _REKEY:
            self._receive.rekey()
            self._opened = 0
        elif self._opened >= REKEY_AFTER:
            raise NoiseFault("the peer uses one key for too long")
        return plain


class FrameTooBig(NoiseFault):
    """More than the reader takes; the sender may be honest."""
