"""``openclaw gateway explain`` through the real program, with a gateway and without one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import Program, free_port


def explained(program: Program, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = program("gateway", "explain", *arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.deadline(90)
def test_the_running_gateway_and_the_files_give_the_same_answers(tmp_path: Path) -> None:
    program = Program(tmp_path / "state")
    questions = [
        ("--ip", "203.0.113.9", "--device", "new"),
        ("--ip", "127.0.0.1"),
        ("--ip", "127.0.0.1", "--origin", "https://some.page"),
    ]
    with program.started() as port:
        program.config(f"{{gateway: {{port: {port}}}}}")
        live = [explained(program, *question) for question in questions]
        assert [answer["verdict"] for answer in live] == ["pairing-needed", "admitted", "refused"]
        rows: list[dict[str, Any]] = []
        while not rows:  # connects are written within a second; the test's deadline bounds this
            rows = [json.loads(line) for line in program("audit", "--json", "--action", "connect").stdout.splitlines()]
        seen = explained(program, "--conn", rows[0]["conn_id"])
        assert seen["verdict"] == "admitted"
        unknown = program("gateway", "explain", "--conn", "nobody")
        assert unknown.returncode == 1
        assert "unknown connection" in unknown.stderr
        shown = program("gateway", "explain", *questions[0]).stdout
        assert "rule:     pairing needed: not-paired" in shown
        assert "change:   openclaw devices approve" in shown
        assert "allowedOrigins" in live[2]["fix"]
    program.config(f"{{gateway: {{port: {free_port()}}}}}")
    offline = program("gateway", "explain", *questions[0], "--json")
    assert "no gateway runs here" in offline.stderr
    assert [explained(program, *question) for question in questions] == live


def test_without_a_gateway_the_configuration_decides_and_nothing_is_written(tmp_path: Path) -> None:
    program = Program(tmp_path / "state")
    program.config(
        f"{{gateway: {{port: {free_port()}, pairing: {{autoApprove: {{lan: ['192.168.1.0/24'], loopback: false}}}}}}}}"
    )
    before = sorted(program.state.rglob("*"))
    node = explained(program, "--ip", "192.168.1.7", "--role", "node", "--device", "new")
    assert (node["verdict"], node["fix"]) == (
        "admitted", "openclaw config set gateway.pairing.autoApprove.lan '[]'",
    )  # fmt: skip
    assert explained(program, "--ip", "127.0.0.1", "--device", "new")["verdict"] == "pairing-needed"
    assert sorted(program.state.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [(), ("--ip", "::1", "--conn", "c"), ("--ip", "::1", "--auth", "device"), ("--ip", "::1", "--role", "x")],
)
def test_questions_that_make_no_sense_are_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert Program(tmp_path / "state")("gateway", "explain", *arguments).returncode == 2
