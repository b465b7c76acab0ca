"""Connecting to a chosen gateway as a command does: its address, its secret, and a device where one is due.

Owns when a command shows a device identity. On the gateway's own host and behind ``ssh -L`` the secret is enough, and
no device is left behind there; anywhere else the gateway wants to know the device (NET-1), so the command has a key of
its own: ``<state>/identity/device.json``, made when it is first needed. It must not choose addresses or secrets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from openclaw_gateway.client.connection import GatewayClient
from openclaw_gateway.client.errors import ConnectFailed
from openclaw_gateway.client.identity import DeviceIdentity, load_or_create_identity
from openclaw_gateway.client.opening import open_client

if TYPE_CHECKING:
    from openclaw_gateway.client.resolve import Target

__all__ = ["open_reached"]


@asynccontextmanager
async def open_reached(
    target: Target,
    *,
    url: str | None = None,
    scopes: Sequence[str] = ("operator.read",),
    mode: str = "cli",
    timeout: float = 15.0,
) -> AsyncIterator[GatewayClient]:
    """`open_client` for a target that has an address. ``url``: with its query, where that matters.

    A gateway that sees us come from elsewhere although we dial loopback (a published tunnel) asks for the device; then
    it is shown. Raises what `open_client` raises, `IdentityUnreadable` or OSError.
    """
    identity: DeviceIdentity | None = None
    if not target.local and not target.address.is_loopback:
        identity = _identity(target)
    async with AsyncExitStack() as stack:
        while True:
            dialled = open_client(
                url or target.url, auth=target.credentials, identity=identity, scopes=scopes, client_id="cli",
                mode=mode, tls_fingerprint=target.tls_fingerprint, client_certificate=target.client_certificate,
                allow_insecure=target.local, timeout=timeout,
            )  # fmt: skip
            try:
                client = await stack.enter_async_context(dialled)
                break
            except ConnectFailed as error:
                asked = (error.details or {}).get("code") == "DEVICE_IDENTITY_REQUIRED"
                if not asked or identity is not None or target.local:
                    raise
                identity = _identity(target)
                if identity is None:
                    raise
        yield client


def _identity(target: Target) -> DeviceIdentity | None:
    return load_or_create_identity(target.state / "identity" / "device.json") if target.state is not None else None
