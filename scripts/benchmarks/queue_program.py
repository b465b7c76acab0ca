"""The durable queue by itself, on a disk: accepts ``RATE`` messages a second for some seconds and prints how long each
took from "accepted" to its handler, in seconds, one a line. ``queue_program.py FOLDER SECONDS``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter

import trio

from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.queues import NewMessage, QueuedMessage, open_queues
from openclaw_gateway.store import open_store

RATE = 200
LANES = 50


async def main(folder: Path, seconds: float) -> None:
    accepted: dict[str, float] = {}
    begun: dict[str, float] = {}
    done = trio.Event()

    async def handle(message: QueuedMessage) -> None:
        nonlocal done
        begun[message.dedupe] = perf_counter()
        done.set()
        done = trio.Event()
        await trio.lowlevel.checkpoint()

    async with open_store(folder) as store, open_queues(store, "inbound", clock=now_ms) as (queue,):

        async def accept(number: int) -> None:
            name = str(number)
            await queue.put(NewMessage(f"lane{number % LANES}", name, "bench", "bench", b"x" * 500))
            accepted[name] = perf_counter()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: queue.serve(handle, concurrency=32))
            count = int(RATE * seconds)
            start = trio.current_time()
            async with trio.open_nursery() as senders:
                for number in range(count):
                    await trio.sleep_until(start + number / RATE)
                    senders.start_soon(accept, number)
            while len(begun) < count:
                await done.wait()
            nursery.cancel_scope.cancel()
    for name, moment in accepted.items():
        sys.stdout.write(f"{max(0.0, begun[name] - moment):.6f}\n")


trio.run(main, Path(sys.argv[1]), float(sys.argv[2]))
