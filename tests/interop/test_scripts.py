"""scripts/run as a person would start it: set up already, it serves at once and says where the token is and what
to try.
"""

from __future__ import annotations

import os
import signal
import subprocess
import urllib.request
from pathlib import Path

from .conftest import ROOT
from .processes import free_port, wait_until


def test_scripts_run_serves_and_prints_what_to_do_next(tmp_path: Path) -> None:
    port = free_port()
    out = tmp_path / "out"
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    state = tmp_path / "state"
    with out.open("wb") as log:
        process = subprocess.Popen(
            [str(ROOT / "scripts" / "run"), "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**env, "HOME": str(tmp_path), "OPENCLAW_STATE_DIR": str(state)},
        )

    def answers() -> bool:
        assert process.poll() is None, out.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until("scripts/run answers /health", answers, seconds=90, also=out.read_text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, out.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    text = out.read_text()
    assert f"127.0.0.1:{port}" in text
    assert str(state) in text, "where the token is kept"
    assert text.count("openclaw ") >= 3, "three commands to try next"
    for path in (state, *state.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, f"{path} can be read by others"
