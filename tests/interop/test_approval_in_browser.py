"""The link that our node prints, opened in a real browser with scripts off: approved by form, the node comes online."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .processes import REFERENCE, TOKEN, GatewayProcess, Official, wait_until

ROOT = Path(__file__).parents[2]
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def asking_gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    """A gateway that asks a person about devices of its own host, too."""
    gateway = GatewayProcess(tmp_path / "gateway", None)
    path = tmp_path / "gateway" / "openclaw.json"
    config = json.loads(path.read_text())
    config["gateway"]["pairing"] = {"autoApprove": {"loopback": False}}
    path.write_text(json.dumps(config))
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


@pytest.mark.skipif(REFERENCE, reason="OpenClaw's own gateway has no such page")
@pytest.mark.deadline(180)
def test_s091_a_node_is_approved_by_its_link_in_a_browser(
    tmp_path: Path, official: Official, asking_gateway: GatewayProcess
) -> None:
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")  # a failure on CI
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    env = {
        **kept, "OPENCLAW_STATE_DIR": str(tmp_path / "node"), "OPENCLAW_GATEWAY_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)
    }  # fmt: skip
    run = ["node", "run", "--host", "127.0.0.1", "--port", str(asking_gateway.port), "--display-name", "Shed", "--json"]
    output = tmp_path / "node.out"
    with output.open("wb") as log:
        node = subprocess.Popen([sys.executable, "-m", "openclaw_gateway", *run], env=env, stdout=log, stderr=log)

    def told() -> list[dict[str, Any]]:
        assert node.poll() is None, output.read_text()
        whole = output.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines() if line.startswith("{")]

    try:
        wait_until("the node asks", lambda: any("link" in state for state in told()), seconds=60, also=output.read_text)
        link = next(state["link"] for state in told() if "link" in state)
        assert link.startswith(f"http://127.0.0.1:{asking_gateway.port}/nodes/approve?request=")
        got = official.script("approval_page.cjs", browser, link, TOKEN, str(tmp_path), seconds=120)
        assert got.code == 0, got.text
        seen = json.loads(got.out)
        assert seen["errors"] == []
        assert seen["requests"] == ["GET /nodes/approve", "POST /nodes/approve"]  # no script, no style, no icon
        assert (seen["foreign"], seen["framed"]) == (403, False)
        assert seen["headings"] == [
            "Approve a device", "“Shed” wants to join as a node", "Approved", "“Shed” offers commands", "Approved",
        ]  # fmt: skip
        online = ("connected", "approved")
        wait_until(
            "the node is online and lends its commands",
            lambda: (told()[-1]["state"], told()[-1].get("surface")) == online,
            seconds=30,
            also=output.read_text,
        )
    finally:
        node.send_signal(signal.SIGTERM)
        assert node.wait(10) == 0, output.read_text()
