"""kill -9 of the gateway at every step from an accepted question to the word of its answer at a webhook's target.

Accepted is what `chat.send` acknowledged: its end is told, under one id however often. What remains: a target that took
a message whose sender died in that moment gets it once more, under the same ``webhook-id``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from openclaw_gateway.client import ClientClosed, Credentials, open_client
from tests.cli.program import Program, free_port
from tests.hooks.sink import Answer, Heard, Sink, open_sink

pytestmark = pytest.mark.deadline(240)

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STEPS: list[str | float] = ["at the target", "taken"]
STEPS += [random.Random(number).uniform(0, 0.03) for number in range(3)]


@contextmanager
def running(openclaw: Program, port: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*openclaw.argv, "gateway", "run", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=openclaw.environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def told_of(sink: Sink) -> dict[str, set[str]]:
    """Run ids with the ids under which their end was told."""
    found: dict[str, set[str]] = defaultdict(set)
    for heard in sink.heard:
        data = json.loads(heard.body)["data"]
        if data["state"] == "final":
            found[data["runId"]].add(heard.headers["webhook-id"])
    return found


async def test_s029_kill_9_at_each_step_loses_no_word_of_an_acknowledged_question(tmp_path: Path) -> None:
    openclaw = Program(tmp_path / "state")
    async with open_sink() as sink:
        hook = {
            "name": "ops", "url": f"http://127.0.0.1:{sink.port}/", "secret": SECRET, "events": ["chat"],
            "allowPrivate": True,
        }  # fmt: skip
        agents = {"list": [{"id": "main", "kind": "echo"}]}
        openclaw.config(json.dumps({"hooks": {"outbound": [hook]}, "agents": agents}))
        acknowledged: list[str] = []
        for number, step in enumerate(STEPS):
            port = free_port()
            with running(openclaw, port) as process:
                assert process.stdout is not None
                await trio.to_thread.run_sync(process.stdout.readline)
                if step == "at the target":
                    sink.respond = partial(_die, process, status=503)
                elif step == "taken":
                    sink.respond = partial(_die, process, status=204)
                run = f"run-{number}"
                with suppress(ClientClosed):  # the gateway may die before the goodbye
                    async with open_client(
                        f"ws://127.0.0.1:{port}", auth=Credentials(token=openclaw.secret), scopes=["operator.write"]
                    ) as client:
                        await client.call("chat.send", {"sessionKey": "main", "message": run, "idempotencyKey": run})
                        acknowledged.append(run)
                        if isinstance(step, float):
                            await trio.sleep(step)
                            process.kill()
                with trio.fail_after(20):
                    await trio.to_thread.run_sync(process.wait)
            assert acknowledged[-1] == run
            sink.respond = None
        with running(openclaw, free_port()):
            with trio.fail_after(30):
                while not set(told_of(sink)).issuperset(acknowledged):
                    await sink.wait(len(sink.heard) + 1)
        told = told_of(sink)
        assert {run: len(told[run]) for run in acknowledged} == dict.fromkeys(acknowledged, 1)


def _die(process: subprocess.Popen[str], heard: Heard, *, status: int) -> Answer:
    os.kill(process.pid, signal.SIGKILL)
    return (status, [], b"")
