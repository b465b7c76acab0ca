"""The Trio client of a gateway: what the command line, the node host and other programs connect with.

    async with open_client("ws://127.0.0.1:18789", auth=Credentials(token=...)) as client:
        print(await client.call("health"))

It knows the wire only as a peer: nothing here imports the server.
"""

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.connection import ClientEvent, GatewayClient, open_client
from openclaw_gateway.client.errors import CallTimedOut, ClientClosed, ConnectFailed, Stage
from openclaw_gateway.client.handshake import Credentials, Hello
from openclaw_gateway.client.identity import DeviceIdentity, load_or_create_identity
from openclaw_gateway.errors import CallFailed

__all__ = [
    "CallFailed",
    "CallTimedOut",
    "ClientClosed",
    "ClientEvent",
    "ConnectFailed",
    "Credentials",
    "DeviceIdentity",
    "GatewayAddress",
    "GatewayClient",
    "Hello",
    "Stage",
    "load_or_create_identity",
    "open_client",
]
