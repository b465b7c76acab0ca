"""kill -9 at any moment of a message's path: nothing accepted is lost, no answer is written twice."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.queues import Effect, MessageQueue, NewMessage, QueuedMessage, open_queues
from openclaw_gateway.store import open_store

# Accepts messages and says so, and answers them in another queue; each answer is one effect of the question's end.
GATEWAY = """
import sys
from pathlib import Path
import trio
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.queues import NewMessage, open_queues
from openclaw_gateway.store import open_store

async def main():
    async with open_store(Path(sys.argv[1])) as store, open_queues(store, "in", "out", clock=now_ms) as queues:
        inbound, outbound = queues
        async def answer(question):
            await trio.sleep(0.001)
            return [outbound.put_effect(NewMessage(question.lane, "re:" + question.dedupe, "t", "t", question.payload))]

        async def accept(worker):
            for number in range(1_000_000):
                name = f"{sys.argv[2]}-{worker}-{number}"
                await inbound.put(NewMessage(f"lane{worker}", name, "t", "t", b'"%s"' % name.encode()))
                sys.stdout.write(name + "\\n")
                sys.stdout.flush()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: inbound.serve(answer, concurrency=4))
            for worker in range(3):
                nursery.start_soon(accept, worker)

trio.run(main)
"""


async def _drain(inbound: MessageQueue, outbound: MessageQueue) -> None:
    async def answer(question: QueuedMessage) -> list[Effect]:
        reply = NewMessage(question.lane, "re:" + question.dedupe, "t", "t", question.payload)
        return [outbound.put_effect(reply)]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(inbound.serve, answer, concurrency=8))
        while len(inbound):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.deadline(600)
@pytest.mark.parametrize("rounds", [6, pytest.param(100, marks=pytest.mark.soak)])
async def test_s029_kill_9_loses_no_accepted_message_and_answers_none_twice(rounds: int, tmp_path: Path) -> None:
    acknowledged: set[str] = set()
    for turn in range(rounds):
        argv = [sys.executable, "-c", GATEWAY, str(tmp_path), str(turn)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 - killed in a moment
            assert process.stdout is not None
            told = [process.stdout.readline() for _ in range(40 + turn % 11)]
            process.kill()
            told += list(process.stdout)
        names = {line.strip() for line in told if line.endswith("\n")}
        assert len(names) >= 40
        acknowledged |= names
    async with (
        open_store(tmp_path) as store,
        open_queues(store, "in", "out", clock=now_ms) as (inbound, outbound),
    ):
        await _drain(inbound, outbound)
        answered = [json.loads(await outbound.payload_of(one.id) or b"null") for one in outbound.messages()]
    assert len(answered) == len(set(answered))
    assert acknowledged <= set(answered)
