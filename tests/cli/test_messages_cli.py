"""``openclaw message send``, ``sessions list|abort`` and ``gateway usage-cost`` against a real gateway process."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from openclaw_gateway.testing.telegram import open_fake_telegram
from tests.cli.program import Program

pytestmark = pytest.mark.deadline(120)

# Says that it works and goes on until it is ended; any other question is answered with what it took.
AGENT = """import json, sys, time
asked = json.loads(sys.stdin.readline())["text"]
print(json.dumps({"type": "usage", "input": 1200, "output": 34}), flush=True)
print(json.dumps({"type": "text", "text": "well"}), flush=True)
if asked == "wait":
    time.sleep(60)
print(json.dumps({"type": "done", "model": "acme/large"}), flush=True)
"""


async def test_send_abort_and_usage(tmp_path: Path) -> None:
    program = tmp_path / "agent.py"
    program.write_text(AGENT)
    openclaw = Program(tmp_path / "state")

    async def run(*arguments: str) -> tuple[int, str]:
        done = await trio.to_thread.run_sync(partial(openclaw, *arguments))
        return done.returncode, done.stdout + done.stderr

    async def ask(text: str, run_id: str) -> None:
        params = {"message": text, "idempotencyKey": run_id}
        code, told = await run("gateway", "call", "agent", "--params", json.dumps(params))
        assert code == 0, told

    async with open_fake_telegram() as telegram:
        account = {"apiRoot": telegram.url, "botToken": telegram.token}
        agent = {"id": "main", "kind": "subprocess", "command": [sys.executable, str(program)]}
        openclaw.config(json.dumps({"channels": {"telegram": account}, "agents": {"list": [agent]}}))
        gateway = openclaw.started()
        await trio.to_thread.run_sync(gateway.__enter__)
        try:
            code, text = await run("message", "send", "-t", "111", "-m", "hello", "--dry-run")
            assert (code, text) == (0, "telegram/default: would be sent to 111\n")
            code, text = await run("message", "send", "--target", "111", "--message", "hello", "--json")
            assert code == 0, text
            told = json.loads(text)
            assert (told["action"], told["channel"], told["payload"]["status"]) == ("send", "telegram", "queued")
            with trio.fail_after(20):
                await telegram.wait_sent(1)
            code, text = await run("message", "send", "--channel", "signal", "-t", "111", "-m", "hello")
            assert code == 1
            assert "signal" in text

            await ask("hello", "one")
            assert (await run("gateway", "call", "agent.wait", "--params", '{"runId": "one"}'))[0] == 0
            await ask("wait", "two")
            code, text = await run("sessions", "abort", "main", "--run", "other")
            assert (code, text) == (0, "nothing was running\n")
            code, text = await run("sessions", "--active", "5")
            assert code == 0, text
            assert "agent:main:main" in text
            assert "running" in text
            assert "1234" in text
            code, text = await run("sessions", "abort", "main")
            assert (code, text) == (0, "ended: two\n")
            code, text = await run("sessions", "abort", "main", "--json")
            assert json.loads(text)["aborted"] is False

            code, text = await run("gateway", "usage-cost")
            assert code == 0, text
            assert "Total: $0.00 · 1,234 tokens\nMissing cost: 1 (acme/large 1)\nLatest day: " in text
            code, text = await run("gateway", "usage-cost", "--all-agents", "--days", "7", "--json")
            assert json.loads(text)["days"] == 7
            assert "$0.00 · 0 tokens" in (await run("gateway", "usage-cost", "--agent", "nobody"))[1]
        finally:
            await trio.to_thread.run_sync(gateway.__exit__, None, None, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("message", "send", "-t", "1", "-m", "x", "--media", "photo.jpg"),
        ("message", "send", "-t", "1", "-m", "x", "--silent"),
        ("message", "send", "-m", "x"),
        ("gateway", "usage-cost", "--agent", "main", "--all-agents"),
    ],
)
def test_what_cannot_be_carried_is_refused_before_anything_is_asked(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = Program(tmp_path / "state")(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
