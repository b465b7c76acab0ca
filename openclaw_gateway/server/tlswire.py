"""TLS on one connection: an OpenSSL object between two buffers, driven by hand over a `SocketWire`.

Owns the handshake and the two directions of the encrypted stream. It must not know certificates, files or HTTP. Not
`trio.SSLStream`, because a session sends without waiting and judges its peer by TCP's own accounting: here both go
through to the socket below.

Invariants: nothing is spent on a connection before its first byte came (the OpenSSL object is made then); bytes that do
not begin a TLS record are never answered but for one plain sentence to a plain HTTP request; `try_send` keeps its
promise (the bytes it counts have left), so a record that the kernel takes only in part is counted when the rest has
left (`_owed`), and whoever sends goes on with the same bytes, as `server.writer` does; a torn send breaks the stream;
key updates, which cost us more than the peer, are bounded (`MAX_ANSWER_BYTES`, `MAX_BARREN_BYTES`); what waits in
OpenSSL's buffer is one piece at a time, because the buffer keeps the size that it once had.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Mapping
from typing import Any, Final, Protocol

import attrs
import trio

from openclaw_gateway.policy.network import Arrival
from openclaw_gateway.server.wire import SocketWire, Wire

__all__ = ["TlsFacts", "TlsWire", "handshake_fault"]

_PART_BYTES: Final = 64 * 1024
_RECORD_BYTES: Final = 16 * 1024  # RFC 8446 section 5.1: the most that one record holds
_PIECE_BYTES: Final = 1024  # of what is small: a hello, an event
_SMALL_BYTES: Final = 8 * 1024
MAX_ANSWER_BYTES: Final = 32 * 1024  # KeyUpdates that the peer asked for, in all: a thousand, for over 2^34 records
MAX_BARREN_BYTES: Final = 40 * 1024  # received in a row without a byte of content: two whole records and some more
_HANDSHAKE: Final = 0x16  # RFC 8446 section 5.1: the content type of a ClientHello's record
_PLAIN: Final = b"This port speaks TLS 1.3: use https:// or wss://\n"
_PLAIN_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_PLAIN), _PLAIN)
)
_WORDS: Final = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no client certificate",
    "CERTIFICATE_VERIFY_FAILED": "client certificate not accepted",
    "UNSUPPORTED_PROTOCOL": "only TLS 1.3 is spoken here",
    "NO_SHARED_CIPHER": "no cipher in common",
    "TLSV1_ALERT_UNKNOWN_CA": "the client does not trust this gateway's certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "the client does not accept this gateway's certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "the client does not accept this gateway's certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "the client says that this gateway's certificate has expired",
}


class TlsFacts(Protocol):
    """What a wire asks of the layer it came from."""

    @property
    def context(self) -> ssl.SSLContext: ...
    def identify(self, described: Mapping[str, Any], der: bytes) -> str | None:
        """The device that a verified client certificate belongs to. Raises `ValueError` where it does not count."""
        ...


def handshake_fault(error: ssl.SSLError) -> str:
    """Why a handshake failed, in a few words."""
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"client certificate not accepted: {error.verify_message}"
    return _WORDS.get(reason, reason.replace("_", " ").lower() or type(error).__name__)


class TlsWire(Wire):
    __slots__ = (
        "_answers",
        "_barren",
        "_ended",
        "_facts",
        "_incoming",
        "_inner",
        "_left",
        "_outgoing",
        "_owed",
        "_sending",
        "_tls",
        "_torn",
        "arrival",
        "context",
    )

    opens = True

    def __init__(self, inner: SocketWire, facts: TlsFacts) -> None:
        self._inner = inner
        self._facts = facts
        self._tls: ssl.SSLObject | None = None
        self._left: bytes = b""  # records that the kernel has not taken yet
        self._owed = 0  # bytes of the caller that are in `_left` and were not counted yet
        self._sending = False
        self._torn = False
        self._ended = False
        self._answers = self._barren = 0
        self.arrival: Arrival = inner.arrival

    @property
    def socket(self):  # type: ignore[no-untyped-def,override]
        return self._inner.socket

    @property
    def peer(self) -> tuple[str, int]:  # type: ignore[override]
        return self._inner.peer

    # --- opening

    async def announce(self) -> None:
        if self._inner.opens:
            await self._inner.announce()
            self.arrival = attrs.evolve(self._inner.arrival, encrypted=True)

    async def open(self) -> None:
        """The handshake. Raises `trio.BrokenResourceError` with the reason; the caller sets the deadline."""
        first = await self._inner.receive_some()
        if not first:
            raise trio.BrokenResourceError("closed before a handshake")
        if first[0] != _HANDSHAKE:
            if first[:1].isalpha():
                self._inner.try_send(_PLAIN_ANSWER)
                await self._inner.send_eof()
            raise trio.BrokenResourceError("not TLS: a plain connection to a TLS port")
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = self._facts.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(first)
        await self._shake_hands(self._tls)
        described, der = self._tls.getpeercert(), self._tls.getpeercert(binary_form=True)
        if not described or der is None:
            return
        try:
            device = self._facts.identify(described, der)
        except ValueError as exc:
            raise trio.BrokenResourceError(f"client certificate not accepted: {exc}") from exc
        if device is not None:
            self.arrival = attrs.evolve(self.arrival, certificate=device)

    async def _shake_hands(self, tls: ssl.SSLObject) -> None:
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._push()
                data = await self._inner.receive_some()
                if not data:
                    raise trio.BrokenResourceError("closed during the handshake") from None
                self._incoming.write(data)
            except ssl.SSLError as exc:
                with contextlib.suppress(trio.BrokenResourceError):
                    self._flush_now()  # the alert
                raise trio.BrokenResourceError(handshake_fault(exc)) from exc
            else:
                await self._push()
                return

    # --- receiving

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Bytes as they come, ``b""`` at the end of the stream. Always a checkpoint; cancellation loses nothing."""
        tls = self._tls
        if tls is None:
            raise trio.BrokenResourceError("not open yet")
        size = max_bytes or _PART_BYTES
        fresh = not (tls.pending() or self._incoming.pending)
        if not fresh:
            await trio.lowlevel.checkpoint()
        while True:
            if fresh:
                data = await self._inner.receive_some()
                if data:
                    self._incoming.write(data)
                    self._barren += len(data)
                else:
                    self._incoming.write_eof()
            fresh = True
            waiting = self._outgoing.pending
            got = self._decrypt(tls, size)
            self._answers += self._outgoing.pending - waiting
            self._answer_peer()
            if got is not None:
                self._barren = 0
                if self._answers <= MAX_ANSWER_BYTES:
                    return got
            if self._answers > MAX_ANSWER_BYTES or self._barren > MAX_BARREN_BYTES:
                raise trio.BrokenResourceError("too many key updates")

    def _decrypt(self, tls: ssl.SSLObject, size: int) -> bytes | None:
        """What is there in clear, ``b""`` at the end; None: more has to come in first."""
        parts: list[bytes] = []
        taken = 0
        try:
            while taken < size:
                part = tls.read(min(size - taken, 16_384))
                if not part:
                    break
                parts.append(part)
                taken += len(part)
                if not (tls.pending() or self._incoming.pending):
                    break
            else:
                return b"".join(parts)
        except ssl.SSLWantReadError:
            if not parts:
                return None
        except ssl.SSLZeroReturnError:
            pass  # close_notify: the end, in order
        except ssl.SSLError as exc:
            if not parts and not self._ended:
                raise trio.BrokenResourceError(handshake_fault(exc)) from exc
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _answer_peer(self) -> None:
        """A KeyUpdate of the peer asks for one of ours; it leaves with whatever is sent next, or now."""
        if self._outgoing.pending and not self._sending and not self._owed:
            self._flush_now()

    # --- sending

    def _flush_now(self) -> bool:
        """Give the kernel what is encrypted; True where nothing is left."""
        if self._outgoing.pending:
            self._left += self._outgoing.read()
        if self._left:
            self._left = self._left[self._inner.try_send(self._left) :]
        return not self._left

    async def _push(self) -> None:
        """Wait until everything that is encrypted has left. Cancelling loses nothing."""
        while not self._flush_now():
            await self._inner.wait_send_all_might_not_block()

    def try_send(self, data: bytes | bytearray | memoryview) -> int:
        if self._sending or self._owed or self._torn or self._tls is None or not self._flush_now():
            return 0
        count = self._encrypt(self._tls, data)
        if self._flush_now():
            return count
        self._owed = count
        return 0

    def _encrypt(self, tls: ssl.SSLObject, data: bytes | bytearray | memoryview) -> int:
        """Encrypt the beginning of ``data``; how much of it. OpenSSL's buffer stays as big as it has ever been, on each
        connection, so what is bigger than a piece is taken out of it piece by piece.
        """
        piece = _PIECE_BYTES if len(data) <= _SMALL_BYTES else _RECORD_BYTES
        records, count = [self._left], 0
        try:
            if len(data) <= piece:
                return tls.write(data)
            with memoryview(data)[:_PART_BYTES] as view:
                while count < len(view):
                    count += tls.write(view[count : count + piece])
                    records.append(self._outgoing.read())
        except ssl.SSLError as exc:
            raise trio.BrokenResourceError(handshake_fault(exc)) from exc
        self._left = b"".join(records)
        return count

    async def send_part(self, view: memoryview) -> int:
        if self._torn:
            raise trio.BrokenResourceError("an earlier send was cut off")
        while True:
            if self._owed:
                await self._push()
                count, self._owed = self._owed, 0
                return count
            count = self.try_send(view)
            if count:
                return count
            if not self._owed:
                await self._push()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything or raise. A send that was cancelled or failed leaves the stream unusable: close it."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this connection")
        if self._tls is None or self._torn:
            raise trio.BrokenResourceError("the stream is not open, or an earlier send was cut off")
        self._sending = self._torn = True
        try:
            with memoryview(data) as view:
                start = 0
                while start < len(view):
                    start += self._encrypt(self._tls, view[start:])
                    records, self._left = self._left + self._outgoing.read(), b""
                    await self._inner.send_all(records)
            self._torn = False
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Half-close: close_notify (RFC 8446 section 6.1), then the end of the TCP stream."""
        if self._tls is not None and not self._ended and not self._torn:
            self._ended = True
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            with contextlib.suppress(trio.BrokenResourceError):
                self._flush_now()
        await self._inner.send_eof()

    # --- the rest is the socket's

    def abort(self) -> None:
        self._inner.abort()

    async def aclose(self) -> None:
        self.abort()
        await trio.lowlevel.checkpoint()

    def leave_to_watchdog(self) -> None:
        self._inner.leave_to_watchdog()

    @property
    def unacknowledged(self) -> int:
        return self._inner.unacknowledged

    @property
    def unsent(self) -> int:
        return self._inner.unsent
