"""The official Control UI, its files served by our gateway, in a real browser: a chat, and the page of devices."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import REFERENCE, TOKEN, GatewayProcess, Official
from .test_chromium import browser

__all__ = ["browser"]


@pytest.fixture
def dashboard(tmp_path: Path, official: Official) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(tmp_path / "gateway", official)
    path = gateway.folder / "openclaw.json"
    config = json.loads(path.read_text())
    config["gateway"]["controlUi"] = {"root": str(official.modules / "openclaw" / "dist" / "control-ui")}
    path.write_text(json.dumps(config))
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


@pytest.mark.skipif(REFERENCE, reason="the reference has another agent")
def test_s008_s009_the_official_page_chats_with_the_echo_agent_and_shows_devices(
    official: Official, browser: str, dashboard: GatewayProcess, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{dashboard.port}"
    got = official.script("control_ui.cjs", browser, url, TOKEN, str(tmp_path), seconds=110)
    assert got.code == 0, got.text
    seen = got.json
    assert seen["chat"].count("say it again, echo") >= 2
    assert "token" not in seen["address"]  # the page took the secret out of its address
    assert "openclaw-control-ui" in seen["devices"]
    assert "unknown method" not in seen["devices"]
    assert seen["http"] == []


@pytest.mark.skipif(REFERENCE, reason="the reference has another agent")
def test_s009_a_new_conversation_of_the_official_page_is_found_again_by_its_address(
    official: Official, browser: str, dashboard: GatewayProcess
) -> None:
    got = official.script("control_ui_new.cjs", browser, f"http://127.0.0.1:{dashboard.port}", TOKEN, seconds=110)
    assert got.code == 0, got.text
    seen = got.json
    assert seen["created"].startswith("agent:main:dashboard:")
    short = seen["created"].rpartition(":")[2].replace("-", "")
    assert short[:8] in seen["address"], "the page's own short form of the key"
    assert seen["again"].count("a fresh plan, echo") >= 2
    assert seen["refused"] == []


AGENT = """import json
print(json.dumps({"type": "text", "text": "as much as this"}))
print(json.dumps({"type": "usage", "input": 40_000, "output": 2_000, "cacheRead": 300, "cacheWrite": 45}))
print(json.dumps({"type": "done", "model": "acme/large"}))
"""


@pytest.mark.skipif(REFERENCE, reason="the reference has another agent")
def test_the_official_usage_page_shows_what_runs_used(
    official: Official, browser: str, dashboard: GatewayProcess, tmp_path: Path
) -> None:
    program = tmp_path / "agent.py"
    program.write_text(AGENT)
    path = dashboard.folder / "openclaw.json"
    config = json.loads(path.read_text())
    command = [sys.executable, str(program)]
    config["agents"] = {"list": [{"id": "main", "kind": "subprocess", "command": command}]}
    path.write_text(json.dumps(config))
    dashboard.restart()
    got = official.script("control_ui_usage.cjs", browser, f"http://127.0.0.1:{dashboard.port}", TOKEN, str(tmp_path),
                          seconds=110)  # fmt: skip
    assert got.code == 0, got.text
    seen = got.json
    assert {"sessions.usage", "usage.status", "sessions.usage.timeseries", "sessions.usage.logs"} <= set(seen["asked"])
    assert seen["refused"] == []
    assert seen["errors"] == []
    assert "42.3K" in seen["page"]
    assert "Unattributed" in seen["page"]
    assert "model:large" in seen["page"]
    for fault in ("unknown method", "unavailable", "No usage for these dates", "may be incomplete", "NaN", "undefined"):
        assert fault not in seen["page"] + seen["detail"]
