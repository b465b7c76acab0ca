"""From an address to an open WebSocket, one stage after the other, each with its own error.

Owns name look-up, TCP, TLS with a pinned certificate and the upgrade. It must not know what is said afterwards.
Invariants: no redirect is followed (attack V56); with a pin, nothing is sent before the certificate matched; on
failure or cancellation nothing stays open."""

from __future__ import annotations

import hashlib
import socket
import ssl
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import trio

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.errors import CLIENT_CERTIFICATE, ConnectFailed
from openclaw_gateway.client.tls import ClientCertificate, dialling_context, is_pinned, parse_pins
from openclaw_gateway.ops.log import escape

if TYPE_CHECKING:
    from trio_websocket import WebSocketConnection

__all__ = ["certificate_refused", "dial_stream", "not_spoken", "tls_alert", "upgrade", "upgrade_rejected"]

_QUEUED_MESSAGES: Final = 64
_FLAG: Final = "--tls-fingerprint (or the configured tlsFingerprint)"
_WHERE: Final = "on the gateway's host, openclaw gateway status shows the right one in its row tls"


async def dial_stream(
    address: GatewayAddress,
    *,
    tls_fingerprint: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    client_certificate: ClientCertificate | None = None,
) -> trio.abc.Stream:
    """A TCP or TLS stream. Raises `ConnectFailed` at ``resolve``, ``tcp`` or ``tls``. Cancellation closes what was
    opened.

    ``tls_fingerprint`` holds the pins (`client.tls`) that take the place of the usual trust; one that cannot be read,
    or that an address without TLS could not keep, is refused before anything is dialled. ``client_certificate`` is
    shown where the gateway asks for one; with ``ssl_context`` both trust and certificate are the caller's.
    """
    pins = _read_pins(address, tls_fingerprint)
    tcp = await _dial_tcp(address)
    if not address.tls:
        return tcp
    context = await _trust(address, tcp, pins, ssl_context, client_certificate)
    stream = trio.SSLStream(tcp, context, server_hostname=address.host)
    try:
        await stream.do_handshake()
        if pins:
            _check_pin(address, pins, stream.getpeercert(binary_form=True))
    except (trio.BrokenResourceError, ssl.SSLError) as error:
        await trio.aclose_forcefully(stream)
        cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
        raise ConnectFailed(
            stage="tls",
            url=address.url,
            message=f"TLS failed: {cause}",
            fix=f"pin the gateway's own certificate ({_WHERE}): --tls-fingerprint <sha256>, or "
            "openclaw config set gateway.remote.tlsFingerprint <sha256>",
        ) from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def _dial_tcp(address: GatewayAddress) -> trio.SocketStream:
    # Loopback by number: no resolver may answer for localhost, and no thread is started for asking one.
    hosts = ("127.0.0.1", "::1") if address.host == "localhost" else (address.host,)
    error: OSError | None = None
    for host in hosts:
        try:
            return await trio.open_tcp_stream(host, address.port)
        except socket.gaierror as fault:
            raise ConnectFailed(
                stage="resolve",
                url=address.url,
                message=f"the name {address.host} has no address: {fault.strerror}",
                fix="check the host name, or give an address",
            ) from fault
        except OSError as fault:
            error = fault
    assert error is not None
    fix = "openclaw gateway start" if address.is_loopback else "check that it runs there, and any firewall in between"
    raise ConnectFailed(stage="tcp", url=address.url, message=_tcp_text(error), fix=fix) from error


def _tcp_text(error: OSError) -> str:
    inner = error.__cause__
    while inner is not None and not isinstance(inner, OSError) and inner.__cause__ is not None:
        inner = inner.__cause__
    if isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    found = inner if isinstance(inner, OSError) else error
    if isinstance(found, ConnectionRefusedError):
        return "nothing listens there (connection refused)"
    return found.strerror or str(found)


async def _trust(
    address: GatewayAddress,
    tcp: trio.SocketStream,
    pins: tuple[str, ...],
    given: ssl.SSLContext | None,
    certificate: ClientCertificate | None,
) -> ssl.SSLContext:
    try:
        return given if given is not None and not pins else dialling_context(pins, certificate)
    except (OSError, ValueError) as error:
        await trio.aclose_forcefully(tcp)
        where = certificate.cert_path if certificate is not None else ""
        message, fix = f"the client certificate {where} cannot be used: {error}", "openclaw devices cert --renew"
        raise ConnectFailed(stage="tls", url=address.url, message=message, fix=fix) from error


def _read_pins(address: GatewayAddress, pinned: str | None) -> tuple[str, ...]:
    if pinned is None:
        return ()
    try:
        pins = parse_pins(pinned)
        if not pins:
            raise ValueError("it is empty: expected 64 hexadecimal digits")
    except ValueError as error:
        message, fix = f"{_FLAG}: {error}", f"{_WHERE}; give its 64 digits, with or without colons"
        raise ConnectFailed(stage="address", url=address.url, message=message, fix=fix) from error
    if not address.tls:
        raise ConnectFailed(
            stage="address",
            url=address.url,
            message=f"{_FLAG} is given, but nothing is encrypted there: no certificate could be compared",
            fix=f"give a wss:// address instead of {address.url}, or leave the fingerprint out",
        )
    return pins


def _check_pin(address: GatewayAddress, pins: tuple[str, ...], certificate: bytes | None) -> None:
    if is_pinned(certificate, pins):
        return
    have = hashlib.sha256(certificate or b"").hexdigest()
    raise ConnectFailed(
        stage="tls",
        url=address.url,
        message=f"the certificate is not the pinned one: {_FLAG} expects sha256 {' or '.join(pins)}, "
        f"seen sha256 {have}; nothing was sent",
        fix=f"{_WHERE}. Only if it is {have} there: --tls-fingerprint {have}, or "
        f"openclaw config set gateway.remote.tlsFingerprint {have}",
    )


def tls_alert(error: BaseException) -> str | None:
    """What a TLS alert says that came after the handshake (TLS 1.3: a verdict on our certificate); None: no alert."""
    cause = error.__cause__
    reason = cause.reason if isinstance(cause, ssl.SSLError) else None
    if reason is None or "ALERT" not in reason:
        return None
    if reason.endswith("CERTIFICATE_REQUIRED"):
        return "the gateway asks for a client certificate"
    return f"the gateway does not accept the client certificate ({reason.replace('_', ' ').lower()})"


def certificate_refused(address: GatewayAddress, fault: str) -> ConnectFailed:
    return ConnectFailed(
        stage="tls", url=address.url, message=fault, code=CLIENT_CERTIFICATE, fix="openclaw devices cert"
    )


class _WatchedStream(trio.abc.Stream):
    """A stream that tells when the peer has nothing more to say: trio-websocket's opening handshake never notices."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self.on_end: Callable[[], object] | None = None
        self.fault: str | None = None  # what a TLS alert of the peer said

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._inner.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.fault = tls_alert(error)
            self._ended()
            raise
        if not data:
            self._ended()
        return data

    def _ended(self) -> None:
        if self.on_end is not None:
            self.on_end()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def upgrade(
    nursery: trio.Nursery, stream: trio.abc.Stream, address: GatewayAddress, *, max_message_bytes: int,
    subprotocol: str | None = None,
) -> WebSocketConnection:  # fmt: skip
    """The WebSocket opening handshake (RFC 6455 section 4). The reader that it starts lives in ``nursery``.

    Raises `ConnectFailed` at ``websocket`` where no answer came, or one without the ``subprotocol`` asked for. A
    refusal over HTTP crashes the reader, so it comes out of the nursery: give what came out to `upgrade_rejected`."""
    from trio_websocket import wrap_client_stream

    watched = _WatchedStream(stream)
    with trio.CancelScope() as waiting:
        watched.on_end = waiting.cancel
        websocket = await wrap_client_stream(
            nursery,
            watched,  # type: ignore[arg-type]
            address.host_header,
            address.resource,
            subprotocols=None if subprotocol is None else [subprotocol],
            message_queue_size=_QUEUED_MESSAGES,
            max_message_size=max_message_bytes,
            receive_buffer_size=65_536,
        )
        watched.on_end = None
        if websocket.subprotocol != subprotocol:
            raise not_spoken(address.url)
        return websocket
    if watched.fault is not None:
        raise certificate_refused(address, watched.fault)
    raise ConnectFailed(
        stage="websocket",
        url=address.url,
        message="the connection was closed before the WebSocket was open; something else may listen there",
        fix=f"openclaw gateway status   (names what listens on port {address.port})",
    )


def not_spoken(url: str) -> ConnectFailed:
    """The other side does not speak the subprotocol that was asked for: an older gateway, or OpenClaw's own."""
    return ConnectFailed(
        stage="websocket",
        url=url,
        message="this gateway does not speak Protocol Buffers (openclaw.v4.proto)",
        fix="leave out --protocol proto (and OPENCLAW_PROTOCOL): every gateway speaks JSON",
    )


def upgrade_rejected(address: GatewayAddress, error: BaseException) -> ConnectFailed | None:
    """`ConnectFailed` at ``http`` where ``error`` is trio-websocket's way to say that the answer was not 101, else
    None."""
    from trio_websocket import ConnectionRejected

    if not isinstance(error, ConnectionRejected):
        return None
    message = f"HTTP {error.status_code} instead of a WebSocket"
    where = dict(error.headers or ()).get(b"location")
    if where:
        message += f": it redirects to {escape(where.decode('latin-1'), 200)}, which is not followed"
    busy = error.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    return ConnectFailed(
        stage="http",
        url=address.url,
        message=message,
        http_status=error.status_code,
        retryable=busy,
        fix="the gateway starts or stops; retry shortly" if busy else "give the gateway's own URL with --url",
    )
