"""``openclaw config set --confirm`` as a person uses it: real processes, a real kill -9."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from openclaw_gateway.config.paths import pending_path
from openclaw_gateway.config.pending import read_pending
from tests.cli.program import Program, free_port

TOKEN = "token-of-the-confirm-tests-0123456789"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    made = Program(tmp_path / "state", {"HOME": str(tmp_path)})
    made.config(f'{{ gateway: {{ port: {free_port()}, auth: {{ type: "token", token: "{TOKEN}" }} }} }}\n')
    return made


def wait_for(ready: Callable[[], bool]) -> None:
    until = time.monotonic() + 15
    while not ready():
        assert time.monotonic() < until
        time.sleep(0.05)


def text(program: Program) -> str:
    return (program.state / "openclaw.json").read_text()


def test_without_a_gateway_nothing_is_put_on_probation(program: Program) -> None:
    before = text(program)
    done = program("config", "set", "gateway.bind", "lan", "--confirm", "60s")
    assert done.returncode == 1
    assert "no gateway runs here" in done.stderr
    assert "openclaw gateway start" in done.stderr
    assert text(program) == before
    assert program("config", "set", "gateway.bind", "lan", "--confirm", "1s").returncode == 2
    assert program("config", "set", "gateway.bind", "lan", "--confirm", "soon").returncode == 2


def test_a_confirmed_change_stays_and_an_unconfirmed_one_goes(program: Program) -> None:
    before = text(program)
    with program.foreground():
        done = program("config", "set", "gateway.bind", "127.0.0.1", "--confirm", "60s")
        assert done.returncode == 0, done.stderr
        assert "openclaw config confirm" in done.stdout
        waiting = program("status").stdout
        assert "gateway.bind goes back in" in waiting
        assert "fix: openclaw config confirm" in waiting
        second = program("config", "set", "gateway.trustedProxies", "[]", "--confirm", "60s")
        assert second.returncode == 1
        assert "waits for its confirmation" in second.stderr
        confirmed = program("config", "confirm", "--json")
        assert json.loads(confirmed.stdout)["keys"] == ["gateway.bind"], confirmed.stderr
        assert "127.0.0.1" in text(program)
        assert program("config", "confirm").returncode == 1
        kept = text(program)
        assert program("config", "set", "gateway.trustedProxies", '["10.0.0.1"]', "--confirm", "5s").returncode == 0
        wait_for(lambda: text(program) == kept)
        assert program("config", "set", "gateway.bind", "loopback", "--json", "--confirm", "60s").stdout.count("60000")
        undone = program("config", "rollback")
        assert "taken back: gateway.bind" in undone.stdout, undone.stderr
        assert text(program) == kept
    assert before != kept
    told = program("audit").stdout
    assert told.count("config.pending") == 3
    assert told.count("config.confirmed") == 1
    assert told.count("config.rolled-back") == 2


def test_kill_9_and_no_restart_in_time_the_next_start_undoes_it_before_it_listens(program: Program) -> None:
    before = text(program)
    with program.foreground() as process:
        done = program("config", "set", "gateway.bind", "0.0.0.0", "--confirm", "5s")
        assert done.returncode == 0, done.stderr
        os.kill(process.pid, signal.SIGKILL)
        process.wait(5)
    assert "0.0.0.0" in text(program)
    waiting = read_pending(program.state)
    assert waiting is not None
    wait_for(lambda: waiting.left_ms(time.time_ns() // 1_000_000) == 0)
    with program.foreground():
        assert text(program) == before
        wait_for(lambda: not pending_path(program.state).exists())
        wait_for(lambda: "config.rolled-back" in program("audit").stdout)
