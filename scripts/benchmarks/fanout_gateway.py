"""This gateway, embedded: each line on standard input publishes one event to every client. ``fanout_gateway.py
TOKEN PORT``.
"""

from __future__ import annotations

import os
import sys

import trio

from openclaw_gateway import GatewayConfig, open_gateway
from openclaw_gateway.config.schema import AuthConfig, TransportsConfig, WebSocketConfig

CONNECTIONS = 600


async def main(token: str, port: int) -> None:
    websocket = WebSocketConfig(concurrent_connections=CONNECTIONS, unauthenticated_per_address=CONNECTIONS)
    config = GatewayConfig(
        port=port, auth=AuthConfig(type="token", token=token), transports=TransportsConfig(websocket=websocket)
    )
    async with open_gateway(config) as gateway, trio.lowlevel.FdStream(os.dup(0)) as lines:
        async for chunk in lines:
            for _ in range(chunk.count(b"\n")):
                await gateway.events.publish("bench.event", {"n": 1, "text": "the quick brown fox"})


trio.run(main, sys.argv[1], int(sys.argv[2]))
