"""The official Control UI, its files served by our gateway, in a real browser: a chat, and the page of devices."""

from __future__ import annotations

import json
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
