"""This gateway, embedded, with an agent that speaks a word every 50 ms for ten seconds. ``stream_gateway.py TOKEN
PORT``.
"""

from __future__ import annotations

import os
import sys

import trio

from openclaw_gateway import GatewayConfig, open_gateway
from openclaw_gateway.agents.agent import Emit
from openclaw_gateway.agents.records import Delta, Outcome, Turn
from openclaw_gateway.config.schema import AuthConfig

WORDS = 200


class Slow:
    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        for number in range(WORDS):
            emit(Delta("text", f"word{number} "))
            await trio.sleep(0.05)
        return Outcome(model="slow")


async def main(token: str, port: int) -> None:
    config = GatewayConfig(port=port, auth=AuthConfig(type="token", token=token))
    async with open_gateway(config) as gateway, trio.lowlevel.FdStream(os.dup(0)) as lines:
        gateway.agents.register("main", Slow())
        async for _ in lines:
            pass


trio.run(main, sys.argv[1], int(sys.argv[2]))
