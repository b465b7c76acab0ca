"""One GET over a stream of our own: what the command line asks /health and /readyz with.

Owns reading a small HTTP/1.1 answer with h11. It must not know what the body means. httpx would do the same, but
importing it costs a quarter of a command's whole budget. Invariants: no credentials are ever sent, no redirect is
followed, a body over `MAX_BODY` is refused, and the whole exchange has a deadline."""

from __future__ import annotations

import ssl
from typing import Final

import attrs
import trio

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.dial import certificate_refused, dial_stream, tls_alert
from openclaw_gateway.client.errors import ConnectFailed
from openclaw_gateway.client.tls import ClientCertificate

__all__ = ["HttpAnswer", "exchange", "get"]

MAX_BODY: Final = 1024 * 1024


@attrs.frozen
class HttpAnswer:
    status: int
    headers: dict[str, str]
    body: bytes


async def get(
    address: GatewayAddress,
    path: str,
    *,
    timeout: float = 3.0,
    tls_fingerprint: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    client_certificate: ClientCertificate | None = None,
) -> HttpAnswer:
    """GET ``path``. Raises `ConnectFailed` at the stage that failed (``http`` for what is not HTTP, or silence)."""
    until = trio.current_time() + timeout
    stream: trio.abc.Stream | None = None
    with trio.move_on_at(until):
        stream = await dial_stream(
            address,
            tls_fingerprint=tls_fingerprint,
            ssl_context=ssl_context,
            client_certificate=client_certificate,
        )
    if stream is None:
        raise ConnectFailed(stage="tcp", url=address.url, message=f"no connection within {timeout:g} s", retryable=True)
    try:
        with trio.move_on_at(until):
            return await exchange(stream, address, path)
    finally:
        await trio.aclose_forcefully(stream)
    raise ConnectFailed(
        stage="http", url=address.url, message=f"no HTTP answer within {timeout:g} s", fix="openclaw logs"
    )


async def exchange(
    stream: trio.abc.Stream, address: GatewayAddress, path: str, *, max_body: int = MAX_BODY
) -> HttpAnswer:
    """GET ``path`` over an open stream; the caller sets the deadline. Raises `ConnectFailed` at stage ``http``."""
    import h11

    connection = h11.Connection(h11.CLIENT)
    headers = [("Host", address.host_header), ("Connection", "close"), ("Accept", "application/json")]
    try:
        await stream.send_all(connection.send(h11.Request(method="GET", target=path, headers=headers)) or b"")
        await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
        status, seen, body = 0, {}, bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some(65_536)))
            elif isinstance(event, h11.Response):
                status = event.status_code
                seen = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > max_body:
                    raise ConnectFailed(stage="http", url=address.url, message="too large an answer for a probe")
            elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)) or event is h11.PAUSED:
                return HttpAnswer(status, seen, bytes(body))
    except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
        fault = tls_alert(error)
        if fault is not None:
            raise certificate_refused(address, fault) from error
        raise ConnectFailed(
            stage="http",
            url=address.url,
            message="something listens there, but it does not speak HTTP",
            fix=f"openclaw gateway status   (names what listens on port {address.port})",
        ) from error
