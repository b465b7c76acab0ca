"""OpenClaw's own node redeems our setup codes: ``node run --pair``, its restart, ``connect <join URL>``; and OpenClaw's
own ``devices join-code`` makes one here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .processes import REFERENCE, TOKEN, GatewayProcess, Official, wait_until

pytestmark = pytest.mark.skipif(REFERENCE, reason="our own command line makes the codes, at our own gateway")


@pytest.fixture
def joinable(tmp_path: Path, official: Official) -> Iterator[GatewayProcess]:
    """Our gateway, which says of itself where it is reached, and pairs nothing by itself."""
    gateway = GatewayProcess(tmp_path / "gateway", official)
    path = gateway.folder / "openclaw.json"
    config = json.loads(path.read_text())
    config["gateway"]["publicUrl"] = f"http://127.0.0.1:{gateway.port}"
    config["gateway"]["pairing"] = {"autoApprove": {"loopback": False}}
    path.write_text(json.dumps(config))
    gateway.start()
    yield gateway
    assert gateway.stop() == 0, gateway.output()


def ours(gateway: GatewayProcess, *arguments: str) -> str:
    """Our command line, on the gateway's host."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")} | {
        "OPENCLAW_STATE_DIR": str(gateway.folder / "state"),
        "OPENCLAW_CONFIG_PATH": str(gateway.folder / "openclaw.json"),
    }
    command = [sys.executable, "-m", "openclaw_gateway", *arguments, "--port", str(gateway.port)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def running(official: Official, home: str, *arguments: str) -> Iterator[list[str]]:
    """OpenClaw's program as a node without any secret, in a home of its own that stays; its lines as they come."""
    process = official.start_without_secret(home, *arguments)
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        lines.extend(process.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield lines
        assert process.poll() is None, "".join(lines)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(10)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def nodes(gateway: GatewayProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(ours(gateway, "nodes", "status", "--json"))["nodes"]
    return found


def here(gateway: GatewayProcess, name: str) -> bool:
    return any(node["connected"] and node["displayName"] == name for node in nodes(gateway))


def wait_here(gateway: GatewayProcess, name: str, lines: list[str]) -> None:
    def also() -> str:
        return "".join(lines[-40:]) + gateway.output()[-3000:]

    wait_until(f"{name} is connected", lambda: here(gateway, name), seconds=60, also=also)


@pytest.mark.deadline(150)
def test_v24_node_run_pair_redeems_our_code_once_and_restarts_with_its_token(
    official: Official, joinable: GatewayProcess
) -> None:
    code = ours(joinable, "qr", "--node", "--setup-code-only").strip()
    with running(official, "shed", "node", "run", "--pair", code, "--display-name", "Shed") as lines:
        wait_here(joinable, "Shed", lines)
        paired = json.loads(ours(joinable, "devices", "list", "--json"))["paired"]
        assert [device["roles"] for device in paired] == [["node"]]
        assert paired[0]["approvedVia"].startswith("setup-code:")
    wait_until("it is gone", lambda: not here(joinable, "Shed"), seconds=30)
    with running(official, "shed", "node", "run", "--display-name", "Shed") as lines:
        wait_here(joinable, "Shed", lines)
    assert "auth=device-token" in joinable.output() or '"auth":"device-token"' in _log(joinable)


def _log(gateway: GatewayProcess) -> str:
    return "".join(path.read_text() for path in (gateway.folder / "state" / "logs").glob("*.log*"))


@pytest.mark.deadline(150)
def test_c23_connect_takes_our_join_url_once(official: Official, joinable: GatewayProcess) -> None:
    answer = json.loads(ours(joinable, "devices", "join-code", "--json"))
    with running(official, "barn", "connect", answer["joinUrl"], "--display-name", "Barn") as lines:
        wait_here(joinable, "Barn", lines)
    again = official.cli("connect", answer["joinUrl"], "--display-name", "Thief", seconds=60)
    assert again.code != 0
    assert not any(node["displayName"] == "Thief" for node in nodes(joinable))


@pytest.mark.deadline(120)
def test_openclaws_own_join_code_command_works_here(official: Official, joinable: GatewayProcess) -> None:
    done = official.cli("devices", "join-code", "--json", "--url", joinable.url, "--token", TOKEN)
    assert done.code == 0, done.text
    assert done.json["joinUrl"].startswith(f"http://127.0.0.1:{joinable.port}/j/")
    plain = official.cli("devices", "join-code", "--url", joinable.url, "--token", TOKEN)
    assert f"http://127.0.0.1:{joinable.port}/j/" in plain.out, plain.text
