"""``openclaw tokens`` as a program: through a running gateway, and on the state directory while none runs."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.program import Program, free_port


@pytest.fixture
def openclaw(tmp_path: Path) -> Program:
    program = Program(tmp_path / "state")
    program.config("{ gateway: {} }")
    return program


def health(port: int, key: str) -> int:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/rpc",
        data=b'{"jsonrpc":"2.0","id":1,"method":"health"}',
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.deadline(90)
def test_a_key_made_while_stopped_works_when_started_and_one_made_running_too(openclaw: Program) -> None:
    made = openclaw("tokens", "create", "ci", "--expires", "30d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert re.fullmatch(r"ocg_[A-Za-z0-9_-]{43}", key)
    assert "no gateway runs" in made.stderr
    assert key not in made.stderr
    with openclaw.foreground("--port", str(port := free_port())):
        assert health(port, key) == 200
        second = openclaw("tokens", "create", "robot", "--scope", "write", "--scope", "operator.read", "--json")
        assert second.returncode == 0, second.stderr
        robot = json.loads(second.stdout)
        assert robot["scopes"] == ["operator.read", "operator.write"]
        assert health(port, robot["key"]) == 200
        listed = openclaw("tokens", "list")
        assert listed.returncode == 0
        assert re.search(r"^ci +live +operator\.read ", listed.stdout, re.MULTILINE)
        assert key not in listed.stdout
        assert "127.0.0.1" in listed.stdout
        gone = openclaw("tokens", "revoke", "ci")
        assert gone.stdout.startswith("Revoked: ci (")
        assert health(port, key) == 401
    again = openclaw("tokens", "revoke", robot["id"])
    assert again.returncode == 0
    states = {row["name"]: row["state"] for row in json.loads(openclaw("tokens", "list", "--json").stdout)["keys"]}
    assert states == {"ci": "revoked", "robot": "revoked"}


def test_auth2_what_cannot_be_done_says_why_and_what_to_do(openclaw: Program) -> None:
    unknown = openclaw("tokens", "revoke", "nobody")
    assert unknown.returncode == 1
    assert "no live API key of that name or id" in unknown.stderr
    assert "fix: openclaw tokens list" in unknown.stderr
    assert not (openclaw.state / "gateway.db").exists()  # looking made nothing
    assert "There are no API keys" in openclaw("tokens", "list").stdout
    bad = openclaw("tokens", "create", "a b")
    assert bad.returncode == 1
    assert "at /name" in bad.stderr
    usage = openclaw("tokens", "create", "ci", "--expires", "soon")
    assert usage.returncode == 2
    assert '"24h"' in usage.stderr


def test_v53_the_state_directory_stays_private(openclaw: Program) -> None:
    assert openclaw("tokens", "create", "ci").returncode == 0
    loose = [path for path in openclaw.state.rglob("*") if path.stat().st_mode & 0o077]
    assert loose == []
