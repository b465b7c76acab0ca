"""trio-websocket: each line on standard input sends one message to every client, one send after another."""

from __future__ import annotations

import os
import sys

import trio
import trio_websocket

MESSAGE = '{"type":"event","event":"bench.event","payload":{"n":1,"text":"the quick brown fox"},"seq":1}'


async def main(port: int) -> None:
    connections: set[trio_websocket.WebSocketConnection] = set()

    async def hold(request: trio_websocket.WebSocketRequest) -> None:
        connection = await request.accept()
        connections.add(connection)
        try:
            while True:
                await connection.get_message()
        except trio_websocket.ConnectionClosed:
            connections.discard(connection)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: trio_websocket.serve_websocket(hold, "127.0.0.1", port, ssl_context=None))
        async with trio.lowlevel.FdStream(os.dup(0)) as lines:
            async for chunk in lines:
                for _ in range(chunk.count(b"\n")):
                    for connection in list(connections):
                        await connection.send_message(MESSAGE)


trio.run(main, int(sys.argv[1]))
