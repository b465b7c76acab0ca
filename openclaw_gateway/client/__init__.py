"""The Trio client of a gateway: what the command line, the node host and other programs connect with.

    async with open_client("ws://127.0.0.1:18789", auth=Credentials(token=...)) as client:
        print(await client.call("health"))

It knows the wire only as a peer: nothing here imports the server. `discover` finds gateways:

    async with discover() as found:
        async for change in found: ...
"""

from typing import TYPE_CHECKING, Any

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.connection import ClientEvent, GatewayClient
from openclaw_gateway.client.errors import CallTimedOut, ClientClosed, ConnectFailed, Stage
from openclaw_gateway.client.handshake import Credentials, Hello
from openclaw_gateway.client.identity import DeviceIdentity, load_or_create_identity
from openclaw_gateway.client.opening import open_client
from openclaw_gateway.errors import CallFailed

if TYPE_CHECKING:
    from openclaw_gateway.client.discovery import Discovery, discover

__all__ = [
    "CallFailed",
    "CallTimedOut",
    "ClientClosed",
    "ClientEvent",
    "ConnectFailed",
    "Credentials",
    "DeviceIdentity",
    "Discovery",
    "GatewayAddress",
    "GatewayClient",
    "Hello",
    "Stage",
    "discover",
    "load_or_create_identity",
    "open_client",
]


def __getattr__(name: str) -> Any:
    """Discovery is loaded when it is first used: most commands look for nobody."""
    if name in {"Discovery", "discover"}:
        import importlib

        value = getattr(importlib.import_module("openclaw_gateway.client.discovery"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
