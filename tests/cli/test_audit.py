"""``openclaw audit`` through the real program: with a gateway, without one, and after somebody changed a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from openclaw_gateway.cli.audit import audit, render
from openclaw_gateway.ops.audit import Action, audit_folder, open_audit
from openclaw_gateway.store import open_store
from tests.cli.program import Program


async def record(state: Path, count: int = 6) -> None:
    async with open_store(state) as store, open_audit(store) as trail:
        for number in range(count):
            action = Action.PAIRING_APPROVED if number % 2 else Action.CONNECT
            await trail.commit(action, actor=f"device:{number}", address="10.0.0.1", reason="a\x1b[31mb")


def run(state: Path, *arguments: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setenv("OPENCLAW_STATE_DIR", str(state))
    done = CliRunner().invoke(audit, list(arguments))
    return done.exit_code, done.output


async def test_the_trail_is_read_without_a_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(tmp_path)
    code, text = run(tmp_path, monkeypatch=monkeypatch)
    assert code == 0
    assert len(text.splitlines()) == 6
    assert "\x1b" not in text  # V52
    code, text = run(tmp_path, "--action", "pairing", "--json", "-n", "2", monkeypatch=monkeypatch)
    rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    assert [(row["seq"], row["action"]) for row in rows] == [(4, "pairing.approved"), (6, "pairing.approved")]


async def test_since_takes_lengths_of_time_and_dates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(tmp_path)
    assert len(run(tmp_path, "--since", "2h", monkeypatch=monkeypatch)[1].splitlines()) == 6
    assert len(run(tmp_path, "--since", "2020-01-01", monkeypatch=monkeypatch)[1].splitlines()) == 6
    assert run(tmp_path, "--since", "2999-01-01T00:00:00Z", monkeypatch=monkeypatch) == (0, "")
    for wrong in ("soon", "5x", "2026-13-01"):
        code, text = run(tmp_path, "--since", wrong, monkeypatch=monkeypatch)
        assert code == 2
        assert "2h, 30m, 7d" in text


def test_an_action_that_does_not_exist_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run(tmp_path, "--action", "pairing.aproved", monkeypatch=monkeypatch)
    assert code == 2
    assert "pairing.approved" in text


def test_nothing_recorded_yet_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, monkeypatch=monkeypatch) == (0, "")
    assert run(tmp_path, "--verify", monkeypatch=monkeypatch)[0] == 0


async def test_audit1_verify_names_the_first_bad_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await record(tmp_path)
    code, text = run(tmp_path, "--verify", monkeypatch=monkeypatch)
    assert (code, "6 rows, 1 to 6" in text) == (0, True)
    path = audit_folder(tmp_path) / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"device:3", b"device:8"))
    code, text = run(tmp_path, "--verify", monkeypatch=monkeypatch)
    assert code == 1
    assert "audit.jsonl:4: expected row 4, found row 4 with other content" in text
    code, text = run(tmp_path, "--verify", "--json", monkeypatch=monkeypatch)
    answer = json.loads(text)
    assert (code, answer["ok"], answer["fault"]["line"]) == (1, False, 4)


def test_a_row_that_is_nonsense_is_still_one_line() -> None:
    text = render({"time": "yesterday\n", "action": "\x07", "outcome": None, "actor": ["\n"], "x\n": {"a": "\r"}})
    assert "\n" not in text
    assert "\r" not in text


@pytest.mark.deadline(60)
def test_a_real_gateway_leaves_a_trail_that_verifies_and_is_followed(tmp_path: Path) -> None:
    import subprocess

    program = Program(tmp_path / "state")
    with program.started() as port:
        assert program("gateway", "call", "health", "--port", str(port)).returncode == 0
        follower = subprocess.Popen(
            [*program.argv, "audit", "--follow", "--json", "-n", "1"],
            stdout=subprocess.PIPE, text=True, env=program.environment,
        )  # fmt: skip
        try:
            assert follower.stdout is not None
            first = json.loads(follower.stdout.readline())
            assert program("gateway", "call", "health", "--port", str(port)).returncode == 0
            second = json.loads(follower.stdout.readline())
            assert second["seq"] > first["seq"]
        finally:
            follower.kill()
            follower.communicate()
        verified = program("audit", "--verify")
        assert verified.returncode == 0, verified.stdout
    rows = [json.loads(line) for line in program("audit", "--json").stdout.splitlines()]
    actions = [row["action"] for row in rows]
    assert actions[0] == "gateway.started"
    assert actions[-1] == "gateway.stopped"
    assert {"connect", "disconnect"} <= set(actions)
    assert program.secret not in json.dumps(rows)
    assert program("audit", "--verify").returncode == 0
