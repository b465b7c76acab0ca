"""A gateway process with a scripted Telegram: a test writes one JSON line per message of a person and reads one back.

Run as ``python -m tests.cli.channel_gateway`` with ``OPENCLAW_STATE_DIR`` set. Lines in: keyword arguments of
`ScriptedChannel.write`, or ``{"sent": n}`` to wait until n messages were sent in all. The first line out says that it
is up. Ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import trio

from openclaw_gateway import open_gateway
from openclaw_gateway.config.load import load_config
from openclaw_gateway.config.paths import state_dir
from openclaw_gateway.ops.instance import InstanceLock
from openclaw_gateway.ops.log import open_log
from openclaw_gateway.testing import ScriptedChannel, open_scripted_channel


async def obey(channel: ScriptedChannel, line: dict[str, Any]) -> dict[str, Any]:
    if "sent" in line:
        message = await channel.wait_sent(line["sent"])
        return {"to": message.sender_id, "text": message.text}
    verdict = await channel.write(**line)
    return {"kind": verdict.kind, "text": verdict.text, "trail": verdict.trail}


async def main() -> None:
    loaded = load_config(env=os.environ)
    with (
        InstanceLock.acquire(state_dir(os.environ)) as lock,
        open_log(loaded.config.logging, loaded.config.state_dir),
    ):
        async with open_gateway(loaded.config, loaded=loaded) as gateway:
            lock.update(port=gateway.port, url=gateway.urls[0])
            async with (
                open_scripted_channel(gateway.senders) as channel,
                trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())) as lines,
            ):
                print(json.dumps({"port": gateway.port}), flush=True)
                rest = b""
                async for chunk in lines:
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        print(json.dumps(await obey(channel, json.loads(line))), flush=True)


if __name__ == "__main__":
    trio.run(main)
