"""Python's `websockets` (its asyncio client) as a raw client: python websocket_client.py URL TOKEN. Prints one
JSON line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from websockets.asyncio.client import connect


def call(id_: str, method: str, params: dict[str, Any] | None = None) -> str:
    return json.dumps({"type": "req", "id": id_, "method": method, **({} if params is None else {"params": params})})


async def main(url: str, token: str) -> None:
    facts: dict[str, Any] = {"replies": []}
    async with asyncio.timeout(20), connect(url) as socket:
        facts["extensions"] = [extension.name for extension in socket.protocol.extensions]
        assert json.loads(await socket.recv())["event"] == "connect.challenge"
        client = {"id": "gateway-client", "version": "0.0.0", "platform": "linux", "mode": "backend"}
        connect_params = {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": client,
            "role": "operator",
            "scopes": ["operator.read"],
            "caps": [],
            "auth": {"token": token},
        }
        await socket.send(call("connect", "connect", connect_params))
        await (await socket.ping(b"are you there"))
        text = call("ünïcode", "health")
        await socket.send([text[at : at + 7] for at in range(0, len(text), 7)])
        await socket.send(call("binary", "health").encode())
        await socket.send(call("denied", "config.set", {"raw": "{}"}))
        while len(facts["replies"]) < 4:
            message = json.loads(await socket.recv())
            if message["type"] == "res":
                facts["replies"].append([message["id"], message["ok"]])
        await socket.close(1000, "done")
        facts["close"] = [socket.close_code, socket.close_reason]
    print(json.dumps(facts))


asyncio.run(main(*sys.argv[1:]))
