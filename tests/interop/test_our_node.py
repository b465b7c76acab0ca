"""Our node at OpenClaw's own gateway: approved, asked and answered through OpenClaw's own command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import processes
from .processes import TOKEN, GatewayProcess, Official, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def official_gateway(tmp_path: Path, official: Official, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatewayProcess]:
    """OpenClaw's own gateway in a process of its own."""
    monkeypatch.setattr(processes, "REFERENCE", True)
    monkeypatch.setattr(processes, "START_SECONDS", 60.0)
    monkeypatch.setattr(processes, "STOP_SECONDS", 40.0)
    gateway = GatewayProcess(tmp_path / "official-gateway", official)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


def ours(state: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    env = {**kept, "OPENCLAW_STATE_DIR": str(state), "OPENCLAW_GATEWAY_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    return [sys.executable, "-m", "openclaw_gateway", *arguments], env


@pytest.mark.deadline(240)
def test_s089_our_node_serves_openclaws_own_gateway(
    tmp_path: Path, official: Official, official_gateway: GatewayProcess
) -> None:
    reach = ("--url", official_gateway.url, "--token", TOKEN)
    allow, env = ours(tmp_path / "node", "node", "allow", "uname")
    subprocess.run(allow, env=env, check=True, capture_output=True)
    command, env = ours(
        tmp_path / "node", "node", "run", "--host", "127.0.0.1", "--port", str(official_gateway.port),
        "--display-name", "Our Node", "--json",
    )  # fmt: skip
    output = tmp_path / "node.out"
    with output.open("wb") as log:
        node = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        rows: list[dict[str, Any]] = []

        def listed() -> bool:
            assert node.poll() is None, output.read_text()
            rows[:] = official.cli("nodes", "status", "--json", *reach).json["nodes"]
            return any(row["connected"] for row in rows)

        wait_until("our node is connected", listed, seconds=60, also=output.read_text)
        (row,) = rows
        assert row["displayName"] == "Our Node"
        pending = official.cli("nodes", "pending", "--json", *reach).json
        requests = pending["pending"] if isinstance(pending, dict) else pending
        (request,) = requests
        assert set(request["commands"]) == {"system.which", "system.run", "system.notify", "fs.listDir"}
        approved = official.cli("nodes", "approve", request["requestId"], *reach)
        assert approved.code == 0, approved.text

        which = official.cli(
            "nodes", "invoke", "--node", "Our Node", "--command", "system.which", "--params", '{"bins":["uname"]}',
            "--json", *reach,
        )  # fmt: skip
        assert which.code == 0, which.text
        assert which.json["payload"]["bins"]["uname"].endswith("/uname")

        params = {
            "nodeId": row["nodeId"], "command": "system.run", "params": {"command": ["uname", "-s"]},
            "idempotencyKey": "interop-1", "timeoutMs": 15_000,
        }  # fmt: skip
        ran = official.cli("gateway", "call", "node.invoke", "--params", json.dumps(params), "--json", *reach)
        assert ran.code == 0, ran.text
        payload = ran.json["payload"]
        assert (payload["exitCode"], payload["success"], payload["stdout"].strip()) == (0, True, "Linux")

        denied = {**params, "params": {"command": ["/bin/sh", "-c", "echo no"]}, "idempotencyKey": "interop-2"}
        refused = official.cli("gateway", "call", "node.invoke", "--params", json.dumps(denied), "--json", *reach)
        assert refused.code != 0
        assert "openclaw node allow" in refused.text
    finally:
        node.send_signal(signal.SIGTERM)
        assert node.wait(10) == 0, output.read_text()
