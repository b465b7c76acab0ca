"""kill -9 of the gateway at every step of a message's path: no message is lost, and none is answered twice.

What remains: Telegram cannot tell a repeated sendMessage from a new one. A process that dies after Telegram took an
answer and before that is on its own disk sends the answer again. Nothing else repeats one.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
import trio

from openclaw_gateway.testing.httpservice import Told
from openclaw_gateway.testing.telegram import FakeTelegram, open_fake_telegram
from tests.cli.program import Program, free_port

pytestmark = pytest.mark.deadline(120)

ANN = 111


class Victim:
    """The gateway process, and the one moment at which it dies. As a context: none is left behind."""

    def __init__(self, telegram: FakeTelegram, openclaw: Program) -> None:
        self.telegram = telegram
        self.openclaw = openclaw
        self.process: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        polls = self.telegram.calls.count("getUpdates")
        arguments = [*self.openclaw.argv, "gateway", "run", "--port", str(free_port())]
        self.process = await trio.to_thread.run_sync(
            partial(
                subprocess.Popen,
                arguments,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self.openclaw.environment,
            )
        )
        with trio.fail_after(20):
            await self.telegram.wait_called("getUpdates", polls + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)

    async def wait_dead(self) -> None:
        assert self.process is not None
        with trio.fail_after(20):
            await trio.to_thread.run_sync(self.process.wait)

    async def stop(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        await self.wait_dead()


class Steps:
    """Where the next process is killed."""

    def __init__(self, telegram: FakeTelegram, victim: Victim) -> None:
        self.telegram = telegram
        self.victim = victim
        self.step = ""
        telegram.before, telegram.after = self.before, self.after

    def _die(self) -> None:
        self.step = ""
        self.victim.kill()

    def before(self, method: str, params: Any) -> Told | None:
        if method == "sendMessage" and self.step == "answer on its way":
            self._die()
            return Told(status=500, cut=True, body=b"nothing was done")
        return None

    def after(self, method: str, params: Any) -> None:
        if method == "getUpdates" and self.telegram.unconfirmed and self.step == "update delivered":
            self._die()
        if method == "sendMessage" and self.step == "answer taken":
            self._die()


def open_openclaw(tmp_path: Path, telegram: FakeTelegram) -> Program:
    openclaw = Program(tmp_path / "state")
    settings = {"botToken": telegram.token, "apiRoot": telegram.url, "dm": {"policy": "open"}}
    openclaw.config(json.dumps({"channels": {"telegram": settings}}))
    return openclaw


async def test_kill_9_at_each_step_loses_nothing_and_answers_nothing_twice(tmp_path: Path) -> None:
    kills: list[str | float] = ["update delivered", "answer on its way", "answer taken"]
    kills += [random.Random(number).uniform(0, 0.04) for number in range(4)]
    async with AsyncExitStack() as stack:
        telegram = await stack.enter_async_context(open_fake_telegram())
        victim = stack.enter_context(Victim(telegram, open_openclaw(tmp_path, telegram)))
        steps = Steps(telegram, victim)
        texts: list[str] = []
        doubtful: Counter[str] = Counter()  # how often a process died that had brought Telegram this answer
        for number, step in enumerate(kills):
            before = len(telegram.sent)
            await victim.start()
            with trio.fail_after(20):  # a step is this message's alone: what came before is answered
                while not {one["text"] for one in telegram.sent}.issuperset(texts):
                    await telegram.wait_sent(len(telegram.sent) + 1)
            texts.append(f"message {number:02}")
            steps.step = step if isinstance(step, str) else ""
            telegram.write(ANN, texts[-1])
            if not isinstance(step, str):  # anywhere from the delivery over the run to after the answer
                await trio.sleep(step)
                victim.kill()
            await victim.wait_dead()
            await trio.testing.wait_all_tasks_blocked(0.05)  # what was still in the sockets is taken
            doubtful.update({one["text"] for one in telegram.sent[before:]})
        await victim.start()
        telegram.write(ANN, "the last one")
        with trio.fail_after(30):
            while not any("the last one" in one["text"] for one in telegram.sent):
                await telegram.wait_sent(len(telegram.sent) + 1)
            await telegram.wait_confirmed()
        await victim.stop()
        counts = Counter(one["text"] for one in telegram.sent)
        for text in texts:
            assert 1 <= counts[text] <= 1 + doubtful[text], (text, counts, doubtful)
        order = [one["text"] for one in telegram.sent if one["text"] in texts]
        assert list(dict.fromkeys(order)) == texts, "and in the order in which they were written"


async def test_a_code_that_was_sent_is_good_after_kill_9(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        telegram = await stack.enter_async_context(open_fake_telegram())
        openclaw = open_openclaw(tmp_path, telegram)
        settings = {"botToken": telegram.token, "apiRoot": telegram.url}
        openclaw.config(json.dumps({"channels": {"telegram": settings}}))
        victim = stack.enter_context(Victim(telegram, openclaw))
        await victim.start()
        began = time.monotonic()
        telegram.write(ANN, "let me in")
        with trio.fail_after(20):
            (challenge,) = await telegram.wait_sent(1)
        victim.kill()
        await victim.wait_dead()
        code = challenge["text"].split("Pairing code: ")[1].split("\n")[0]
        await victim.start()
        done = await trio.to_thread.run_sync(openclaw, "pairing", "approve", "telegram", code)
        assert done.returncode == 0, done.stdout + done.stderr
        telegram.write(ANN, "and now?")
        with trio.fail_after(20):
            await telegram.wait_sent(2)
        await victim.stop()
        assert "and now?" in telegram.sent[1]["text"], telegram.sent
        assert time.monotonic() - began < 60
