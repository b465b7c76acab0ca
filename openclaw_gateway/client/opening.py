"""Opening a connection: dial, upgrade, be let in; then a client that lives until the block ends.

Owns the order of these stages, their one deadline, and what each failure is called; and that the stream is closed,
whatever happened. It must not know what a stage does. Invariants: a secret goes to the address that was given and
nowhere else; what the block raises comes out as itself.
"""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from openclaw_gateway._version import __version__
from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.admission import shake_hands
from openclaw_gateway.client.connection import GatewayClient
from openclaw_gateway.client.dial import dial_stream, upgrade, upgrade_rejected
from openclaw_gateway.client.errors import ClientClosed, ConnectFailed, Stage
from openclaw_gateway.client.handshake import Credentials, Introduction
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.client.link import GOODBYE_SECONDS, FrameLink
from openclaw_gateway.client.speech import Form, preferred_form, speech_of
from openclaw_gateway.client.tls import ClientCertificate
from openclaw_gateway.errors import LocalProtocolError
from openclaw_gateway.protocol.close import CloseCode

if TYPE_CHECKING:
    from openclaw_gateway.client.secure import SecureChannelWish

__all__ = ["open_client"]

LAST_WORD_SECONDS: Final = 0.05


@asynccontextmanager
async def open_client(
    url: str,
    *,
    auth: Credentials | None = None,
    identity: DeviceIdentity | None = None,
    role: str = "operator",
    scopes: Sequence[str] = ("operator.read",),
    client_id: str = "gateway-client",
    mode: str = "backend",
    version: str = __version__,
    display_name: str | None = None,
    instance_id: str | None = None,
    caps: Sequence[str] = (),
    commands: Sequence[str] = (),
    tls_fingerprint: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    client_certificate: ClientCertificate | None = None,
    allow_insecure: bool = False,
    timeout: float = 15.0,
    max_message_bytes: int = 100 * 1024 * 1024,
    secure: SecureChannelWish | None = None,
    protocol: Form | None = None,
) -> AsyncIterator[GatewayClient]:
    """Connect, authenticate, and hand out a `GatewayClient` that lives until the block ends.

    ``timeout``: seconds for everything up to hello. ``allow_insecure``: permit ws:// to any host (the secret then
    travels readable; see `GatewayAddress`). ``secure``: use end-to-end encryption inside the WebSocket; it takes an
    ``identity`` (else `LocalProtocolError`) and speaks JSON. ``protocol``: "json" or "proto" (Protocol Buffers; the
    values are the same); None takes what `speech.preferred_form` says, JSON by default. Raises `ConnectFailed` with the
    stage that was reached. What the block raises comes out as itself. Leaving sends a Close frame and waits at most
    `GOODBYE_SECONDS` for its echo, under cancellation too."""
    if secure is not None and identity is None:
        raise LocalProtocolError("a secure channel takes an identity; without one everything would go in the clear")
    if secure is not None and protocol == "proto":
        raise LocalProtocolError("a secure channel carries JSON: leave out protocol, or say json")
    address = GatewayAddress.parse(url, allow_insecure=allow_insecure)
    speech = speech_of("json" if secure is not None else protocol or preferred_form.get())
    who = Introduction(
        auth=auth or Credentials(), identity=identity, role=role, scopes=tuple(scopes), client_id=client_id, mode=mode,
        version=version, display_name=display_name, caps=tuple(caps), commands=tuple(commands), instance_id=instance_id,
    )  # fmt: skip
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
        raise _too_slow("tcp", address, timeout)
    try:
        async with trio.open_nursery() as nursery:
            client: GatewayClient | None = None
            with trio.move_on_at(until):
                websocket = await upgrade(
                    nursery, stream, address, max_message_bytes=_on_the_wire(max_message_bytes, secure),
                    subprotocol=speech.subprotocol,
                )
                link = FrameLink(websocket, address.url, speech)
                try:
                    hello = await shake_hands(link, who, secure, max_message_bytes)
                except BaseException:
                    await _goodbye(link)
                    raise
                client = GatewayClient(link, hello)
            if client is None:
                raise _too_slow("websocket", address, timeout)
            client.attend(nursery)
            try:
                yield client
            finally:
                link.end(ClientClosed(CloseCode.NORMAL, "", by_us=True))
                await _goodbye(link)
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The nursery is ours; that it wraps what the block raised is not the caller's business.
        if len(group.exceptions) != 1:
            raise
        rejected = upgrade_rejected(address, group.exceptions[0])
        if rejected is not None:
            raise rejected from group.exceptions[0]
        raise group.exceptions[0] from group.exceptions[0].__cause__
    finally:
        # trio-websocket leaves the stream open where the peer closed first or refused the upgrade.
        await trio.aclose_forcefully(stream)


def _on_the_wire(size: int, secure: SecureChannelWish | None) -> int:
    if secure is None:
        return size
    from openclaw_gateway.protocol.noisechannel import sealed_size

    return sealed_size(size)


def _too_slow(stage: Stage, address: GatewayAddress, timeout: float) -> ConnectFailed:
    return ConnectFailed(
        stage=stage,
        url=address.url,
        message=f"no answer within {timeout:g} s",
        retryable=True,
        fix="openclaw gateway status" if address.is_loopback else "check the network in between",
    )


async def _goodbye(link: FrameLink) -> None:
    # Under cancellation the reader is gone already and no echo can arrive: only the sending is worth time.
    patience = LAST_WORD_SECONDS if trio.current_effective_deadline() == -math.inf else GOODBYE_SECONDS
    with trio.CancelScope(shield=True, deadline=trio.current_time() + patience):
        await link.close(CloseCode.NORMAL)
