"""`gateway auth-token`: told where, shown only to a person."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

TOKEN = "a-token-for-the-terminal-0123456789abcdef"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "openclaw.json").write_text(json.dumps({"gateway": {"auth": {"type": "token", "token": TOKEN}}}))
    (tmp_path / "openclaw.json").chmod(0o600)
    root = str(Path(__file__).resolve().parents[2])
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OPENCLAW_STATE_DIR": str(tmp_path), "PYTHONPATH": root}


def _run(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "openclaw_gateway", "gateway", "auth-token", *arguments]
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=20, check=False)


def test_it_tells_source_and_fingerprint_and_not_the_token(env: dict[str, str]) -> None:
    for arguments in ((), ("--json",)):
        done = _run(env, *arguments)
        assert done.returncode == 0
        assert "config gateway.auth.token" in done.stdout
        assert TOKEN not in done.stdout + done.stderr


def test_a_pipe_never_gets_the_token(env: dict[str, str]) -> None:
    done = _run(env, "--show")
    assert done.returncode == 1
    assert TOKEN not in done.stdout + done.stderr
    assert "interactive terminal" in done.stderr


def test_a_person_at_a_terminal_is_shown_the_token(env: dict[str, str]) -> None:
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "openclaw_gateway", "gateway", "auth-token", "--show"]
    done = subprocess.run(argv, env=env, stdout=theirs, stderr=theirs, timeout=20, check=False)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert TOKEN in shown


def test_no_token_yet_makes_none(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "openclaw.json").unlink()
    done = _run(env)
    assert done.returncode == 0
    assert "not made yet" in done.stdout
    assert not (tmp_path / "credentials").exists()
