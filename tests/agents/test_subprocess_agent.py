"""Somebody's own program as an agent: the protocol, its limits, its end, and what it never learns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway.agents import subprocess as program
from openclaw_gateway.agents.records import AgentFailed, Delta, Message, Outcome, RunRequest, Session, Turn, Usage
from openclaw_gateway.agents.subprocess import SubprocessAgent
from openclaw_gateway.config.schema import AgentEntry

HEAD = """import sys, json, os, time
say = lambda **x: print(json.dumps(x), flush=True)
turn = json.loads(sys.stdin.readline())
"""


def turn(text: str = "hello", **more: Any) -> Turn:
    request = RunRequest("r1", "mine", "agent:mine:main", text, "test", 5, **more)
    session = Session("agent:mine:main", "s1", "mine", 0, 0, 0, 0)
    return Turn(request, session, (Message("m1", "user", "before", 1), Message("m2", "assistant", "yes", 2)))


def agent(script: str, *, env: dict[str, str] | None = None, **entry: Any) -> SubprocessAgent:
    command = (sys.executable, "-c", HEAD + script)
    return SubprocessAgent(AgentEntry(id="mine", kind="subprocess", command=command, **entry), env=env)


async def ask(made: SubprocessAgent, given: Turn | None = None) -> tuple[list[Delta], Outcome]:
    said: list[Delta] = []
    with trio.fail_after(15):
        outcome = await made.run(given or turn(), said.append)
    return said, outcome


async def test_s012_a_program_answers() -> None:
    said, outcome = await ask(
        agent(
            "say(type='thinking', text='hm'); say(type='text', text='you said '); say(type='text', text=turn['text'])\n"
            "say(type='tool', text='', data={'name': 'look'}); say(type='later', of='another version')\n"
            "say(type='usage', input=3, output=4, cacheRead=-1); say(type='done', stop='length', model='mine/one')"
        )
    )
    assert [(one.kind, one.text) for one in said[:3]] == [("thinking", "hm"), ("text", "you said "), ("text", "hello")]
    assert said[3].data == {"name": "look"}
    assert (outcome.stop, outcome.model, outcome.usage) == ("length", "mine/one", Usage(input=3, output=4))


async def test_the_turn_that_a_program_gets() -> None:
    said, _ = await ask(
        agent("say(type='text', text=json.dumps(turn)); assert sys.stdin.read() == ''", system_prompt="be kind"),
        turn(system="today is Monday", model="a/b", sender="42", sender_name="Ann"),
    )
    got = json.loads(said[0].text)
    assert (got["type"], got["version"], got["text"], got["runId"]) == ("turn", 1, "hello", "r1")
    assert (got["system"], got["model"]) == ("be kind\n\ntoday is Monday", "a/b")
    assert got["sender"] == {"id": "42", "name": "Ann"}
    assert [(one["role"], one["text"]) for one in got["history"]] == [("user", "before"), ("assistant", "yes")]


async def test_v51_a_program_gets_no_secret_of_the_gateway() -> None:
    env = {
        **os.environ,
        "ANTHROPIC_API_KEY": "sk-gateway",
        "OPENCLAW_GATEWAY_TOKEN": "t",
        "AWS_SECRET": "x",
        "LC_ALL": "C",
    }
    said, _ = await ask(agent("say(type='text', text=json.dumps(dict(os.environ)))", env={**env, "MINE": "no"}))
    got = json.loads(said[0].text)
    assert not {"ANTHROPIC_API_KEY", "OPENCLAW_GATEWAY_TOKEN", "AWS_SECRET", "MINE"} & got.keys()
    assert got["LC_ALL"] == "C"
    assert got["OPENCLAW_AGENT_PROTOCOL"] == "1"
    script = HEAD + "say(type='text', text=os.environ['MINE'])"
    given = AgentEntry(id="mine", command=(sys.executable, "-c", script), env={"MINE": "yes"})
    assert (await ask(SubprocessAgent(given, env=env)))[0][0].text == "yes"


async def test_no_shell_reads_the_command() -> None:
    script = HEAD + "say(type='text', text=sys.argv[1])"
    entry = AgentEntry(id="mine", command=(sys.executable, "-c", script, "$(id) `id`;&|"))
    assert (await ask(SubprocessAgent(entry)))[0][0].text == "$(id) `id`;&|"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("print('hello')", "no JSON"),
        ("print('[1]')", "no JSON object"),
        ("say(type='text', text=5)", "no text"),
        ("sys.exit(3)", "status 3"),
        ("os.kill(os.getpid(), 9)", "status 137"),
        ("say(type='error', message='the dog ate it', kind='refusal')", "the dog ate it"),
        ("say(type='error', message=5, kind='nonsense')", "program failed"),
        ("sys.stdout.write('x' * (2 << 20)); sys.stdout.flush()", "line of more than"),
    ],
)
async def test_what_a_program_does_wrong_is_told(script: str, told: str) -> None:
    with pytest.raises(AgentFailed, match=told):
        await ask(agent(script))


async def test_cap_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "MAX_OUTPUT", 50_000)
    with pytest.raises(AgentFailed, match="more than 50000 bytes"):
        await ask(agent("while True: say(type='status', text='x' * 100)"))


async def test_what_is_no_program() -> None:
    with pytest.raises(AgentFailed, match="no program 'not-there-at-all'"):
        await ask(SubprocessAgent(AgentEntry(id="mine", command=("not-there-at-all",))))
    with pytest.raises(AgentFailed, match=r"agents\.list\[\]\.command"):
        await ask(SubprocessAgent(AgentEntry(id="mine")))


async def test_an_agents_own_fault_reaches_whoever_asked() -> None:
    def full(delta: Delta) -> None:
        raise AgentFailed("the answer is too long")

    with pytest.raises(AgentFailed, match="too long"), trio.fail_after(15):
        await agent("say(type='text', text='x'); time.sleep(60)").run(turn(), full)


async def test_standard_error_is_logged_and_bounded(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        await ask(agent("[print('line', n, 'y' * 9000, file=sys.stderr) for n in range(200)]; say(type='done')"))
    lines = [record for record in caplog.records if "agent program said" in record.getMessage()]
    assert 0 < len(lines) <= program.MAX_LOGGED


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(*pids: int) -> bool:
    with trio.move_on_after(5):
        while any(map(alive, pids)):  # noqa: ASYNC110 - other processes: there is nothing to wait on but time
            await trio.sleep(0.01)
        return True
    return False


STUBBORN = (
    "import subprocess, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen(['sleep', '100'])\nsay(type='status', text=f'{os.getpid()} {child.pid}')\n"
)


async def test_abort_kills_the_program_and_what_it_started() -> None:
    said: list[Delta] = []
    async with trio.open_nursery() as nursery:

        def emit(delta: Delta) -> None:
            said.append(delta)
            nursery.cancel_scope.cancel()

        nursery.start_soon(agent(STUBBORN + "time.sleep(100)").run, turn(), emit)
    assert await gone(*map(int, said[0].text.split()))


async def test_what_a_program_leaves_running_neither_holds_the_answer_nor_lives() -> None:
    began = time.monotonic()
    said, outcome = await ask(agent(STUBBORN + "say(type='text', text='done')"))
    assert outcome.stop == "stop"
    assert time.monotonic() - began < 10
    assert await gone(*map(int, said[0].text.split()))


async def test_a_killed_gateway_takes_the_program_with_it(tmp_path: Path) -> None:
    """kill -9: nobody is left to clean up but the guard."""
    script = tmp_path / "gateway.py"
    script.write_text(
        "import sys, trio\n"
        "from tests.agents.test_subprocess_agent import STUBBORN, agent, turn\n"
        "emit = lambda delta: print(delta.text, flush=True)\n"
        "trio.run(agent(STUBBORN + 'time.sleep(100)').run, turn(), emit)\n"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    process = await trio.lowlevel.open_process([sys.executable, str(script)], stdout=subprocess.PIPE, env=env)
    assert process.stdout is not None
    data = b""
    with trio.fail_after(20):
        while not data.endswith(b"\n"):
            data += await process.stdout.receive_some(1000)
    pids = [int(word) for word in data.split()]
    assert all(map(alive, pids))
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await process.stdout.aclose()
    assert await gone(*pids)
