"""A bare trio-websocket echo server, the yardstick of the issue: ``python echo_trio.py PORT``."""

from __future__ import annotations

import sys

import trio
import trio_websocket


async def echo(request: trio_websocket.WebSocketRequest) -> None:
    connection = await request.accept()
    try:
        while True:
            await connection.send_message(await connection.get_message())
    except trio_websocket.ConnectionClosed:
        pass


trio.run(lambda: trio_websocket.serve_websocket(echo, "127.0.0.1", int(sys.argv[1]), ssl_context=None))
