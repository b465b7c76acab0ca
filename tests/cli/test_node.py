"""``openclaw node``: the real program, its files, its signals, and what it starts."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import segno
import trio
from trio_websocket import WebSocketConnection

from openclaw_gateway.cli.node import _qr
from tests.cli.program import Program, free_port
from tests.scripted_gateway import ScriptedGateway, open_scripted_gateway, send


@pytest.fixture
def node(tmp_path: Path) -> Program:
    return Program(tmp_path / "node-state", {"NO_COLOR": "1"})


def wait_for(ready: Callable[[], bool], what: str, seconds: float = 15) -> None:
    """The condition is another process, so there is nothing to wait on but time."""
    until = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.05)


def status(node: Program) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(node("node", "status", "--json").stdout)
    return found


@contextmanager
def running(node: Program, *arguments: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*node.argv, "node", "run", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**node.environment, **(env or {})},
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


def test_identity_is_made_once_and_printed(node: Program) -> None:
    first = json.loads(node("node", "identity", "--json").stdout)
    assert len(first["deviceId"]) == 64
    assert first["fingerprint"].replace(":", "").lower() == first["deviceId"][:32]
    assert json.loads(node("node", "identity", "--json").stdout) == first
    text = node("node", "identity").stdout
    assert first["deviceId"] in text
    assert first["publicKey"] in text
    assert Path(first["file"]).stat().st_mode & 0o777 == 0o600


def test_allow_disallow_and_policy(node: Program, tmp_path: Path) -> None:
    assert json.loads(node("node", "policy", "--json").stdout)["programs"] == []
    done = node("node", "allow", "uname", "--root", str(tmp_path), "--env", "MINE", "--json")
    found = json.loads(done.stdout)
    assert [Path(program).name for program in found["programs"]] == ["uname"]
    assert (found["roots"], found["env"], found["mode"]) == ([str(tmp_path.resolve())], ["MINE"], "allowlist")
    assert json.loads(node("node", "policy", "--json").stdout) == found
    assert "uname" in node("node", "policy").stdout
    assert json.loads(node("node", "disallow", "uname", "--json").stdout)["programs"] == []
    assert node("node", "disallow", "uname").returncode == 1
    assert json.loads(node("node", "disallow", "--all", "--json").stdout)["mode"] == "deny"


@pytest.mark.parametrize(
    "arguments",
    [["bash"], ["--mode", "allow"], ["no-such-program"], ["--env", "LD_PRELOAD"], [], ["--root", "/no/such"]],
)
def test_what_would_allow_everything_or_nothing_is_not_allowed_by_the_way(node: Program, arguments: list[str]) -> None:
    done = node("node", "allow", *arguments)
    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr
    assert not (node.state / "node" / "exec-policy.json5").exists()


def test_a_launcher_is_allowed_by_force(node: Program) -> None:
    assert "--force" in node("node", "allow", "bash").stderr
    assert node("node", "allow", "--force", "bash").returncode == 0


def test_status_of_a_node_that_never_ran(node: Program) -> None:
    done = node("node", "status")
    assert done.returncode == 1
    assert "not running" in done.stdout
    assert "openclaw node run" in done.stdout


def test_a_wrong_secret_ends_it_with_78_and_the_fix(node: Program, tmp_path: Path) -> None:
    gateway = Program(tmp_path / "gateway")
    with gateway.started() as port:
        done = node(
            "node", "run", "--host", "127.0.0.1", "--port", str(port), "--token", "wrong-token-0123456789abcdef"
        )
    assert done.returncode == 78, done.stdout + done.stderr
    assert "fix:" in done.stderr
    assert "wrong-token" not in done.stdout + done.stderr
    assert status(node)["state"] == "refused"


@pytest.mark.parametrize("arguments", [["--pair", "nonsense"], ["--commands", "system.reboot"], ["--url", "ftp://x"]])
def test_wrong_flags_are_told_before_anything_is_dialled(node: Program, arguments: list[str]) -> None:
    done = node("node", "run", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("openclaw: ")


@pytest.mark.deadline(60)
def test_s089_it_connects_survives_a_restart_and_leaves_with_sigterm(node: Program, tmp_path: Path) -> None:
    gateway = Program(tmp_path / "gateway")
    notified = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, gateway.started() as port:
        systemd.bind(str(notified))
        systemd.settimeout(10)
        env = {"OPENCLAW_GATEWAY_TOKEN": gateway.secret, "NOTIFY_SOCKET": str(notified)}
        flags = ("--host", "127.0.0.1", "--port", str(port), "--display-name", "Shed", "--json")
        with running(node, *flags, env=env) as process:
            assert systemd.recv(500) == b"READY=1"
            wait_for(lambda: status(node)["state"] == "connected", "connected")
            found = status(node)
            assert (found["running"], found["pid"]) == (True, process.pid)
            assert node("node", "run").returncode == 1  # one node for each state directory
            done = gateway("nodes", "status", "--json", "--port", str(port))
            (row,) = json.loads(done.stdout)["nodes"]
            assert (row["displayName"], row["connected"]) == ("Shed", True)
            os.kill(gateway.pid or 0, signal.SIGUSR1)  # restarts in place
            assert process.stdout is not None
            states: list[str] = []
            while states.count("connected") < 2:
                state = json.loads(process.stdout.readline())["state"]
                states += [state] if states[-1:] != [state] else []  # connected, then that its commands wait
            assert states[:3] == ["connecting", "connected", "connecting"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
            said = [systemd.recv(500)]
            while said[-1] != b"STOPPING=1":
                said.append(systemd.recv(500))
            assert any(line.startswith(b"STATUS=connected") for line in said)
    assert status(node) == {**status(node), "running": False, "state": "stopped"}
    tokens = json.loads((node.state / "node" / "gateways.json").read_text())["gateways"]
    assert [row["url"] for row in tokens] == [f"ws://127.0.0.1:{port}"]


def test_it_keeps_trying_where_no_gateway_is(node: Program) -> None:
    port = free_port()
    with running(node, "--host", "127.0.0.1", "--port", str(port), "--token", "t" * 40) as process:
        assert process.stdout is not None
        assert "connecting" in process.stdout.readline()
        line = process.stdout.readline()
        assert "nothing listens there" in line
        assert "trying again in" in line
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0


def test_c23_a_terminal_gets_the_link_as_a_qr_code_too(monkeypatch: pytest.MonkeyPatch) -> None:
    link = "http://127.0.0.1:1/nodes/approve?request=r"
    assert _qr(link) == []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    drawn = io.StringIO()
    segno.make(link, error="l", micro=False).terminal(out=drawn, border=2, compact=True)
    assert _qr(link) == drawn.getvalue().splitlines()
    assert len(_qr(link)) > 10


async def test_each_thing_about_a_connection_is_said_once(node: Program) -> None:
    async def say(websocket: WebSocketConnection) -> None:
        for event, payload in (("requested", {}), ("resolved", {"decision": "approved"})):
            await send(websocket, type="event", event=f"node.pair.{event}", payload={"requestId": "r", **payload})

    gateway = ScriptedGateway(after_hello=say)

    def run(port: int) -> list[str]:
        with running(node, "--host", "127.0.0.1", "--port", str(port), "--token", "t" * 40) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline().rstrip() for _ in range(5)]
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
            return lines

    async with open_scripted_gateway(gateway):
        lines = await trio.to_thread.run_sync(run, gateway.port)
    assert lines[1:] == [
        f"node: connected to ws://127.0.0.1:{gateway.port}",
        "node: its commands wait for approval; on the gateway's host:",
        "  openclaw nodes pending",
        "node: its commands are approved",
    ]


async def test_s091_first_contact_prints_the_request_the_command_and_the_link(node: Program) -> None:
    details = {"code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "request-1"}
    gateway = ScriptedGateway(refusal={"code": "NOT_PAIRED", "message": "pairing required", "details": details})

    def run(port: int) -> list[str]:
        with running(node, "--host", "127.0.0.1", "--port", str(port), "--token", "t" * 40) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline().rstrip() for _ in range(6)]
            assert status(node)["requestId"] == "request-1"
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
            return lines

    async with open_scripted_gateway(gateway):
        lines = await trio.to_thread.run_sync(run, gateway.port)
    assert "wants this node approved first" in lines[1]
    assert lines[2:] == [
        "  request: request-1",
        f"  device:  {gateway.connects[0]['device']['id']}",
        "  on the gateway's host: openclaw devices approve request-1",
        f"  or open: http://127.0.0.1:{gateway.port}/nodes/approve?request=request-1",
    ]


@pytest.mark.deadline(90)
def test_s097_approved_asked_answered_renamed_and_removed_with_our_own_gateway(node: Program, tmp_path: Path) -> None:
    gateway = Program(tmp_path / "gateway")
    (tmp_path / "data" / "inner").mkdir(parents=True)
    assert node("node", "allow", "uname", "sleep", "--root", str(tmp_path / "data")).returncode == 0
    with gateway.started() as port:

        def nodes(*arguments: str) -> Any:
            done = gateway("nodes", *arguments, "--json", "--port", str(port))
            assert done.returncode == 0, done.stdout + done.stderr
            return json.loads(done.stdout)

        def invoke(command: str, params: object, *more: str) -> Any:
            text = json.dumps(params)
            return nodes("invoke", "--node", "shed", "--command", command, "--params", text, *more)["payload"]

        env = {"OPENCLAW_GATEWAY_TOKEN": gateway.secret}
        with running(node, "--host", "127.0.0.1", "--port", str(port), "--display-name", "Shed", env=env) as process:
            wait_for(lambda: bool(nodes("pending")), "its request")
            (request,) = nodes("pending")
            refused = gateway("nodes", "invoke", "--node", "shed", "--command", "system.which", "--port", str(port))
            assert refused.returncode == 1  # V33: nothing before its surface is approved
            nodes("approve", request["requestId"])
            assert set(invoke("system.which", {"bins": ["uname"]})["bins"]) == {"uname"}
            assert invoke("system.run", {"command": ["uname"]})["stdout"] == "Linux\n"
            listing = invoke("fs.listDir", {})
            assert [entry["name"] for entry in listing["entries"]] == ["inner"]
            over = invoke("system.run", {"command": ["sleep", "100000"]}, "--invoke-timeout", "1000")
            assert (over["timedOut"], over["exitCode"]) == (True, None)
            nodes("rename", "--node", "shed", "--name", "Barn")
            assert nodes("describe", "--node", "barn")["commands"] == sorted(request["commands"])
            nodes("remove", "--node", "barn")
            wait_for(lambda: status(node)["state"] != "connected", "away")
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0


def test_s096_status_shows_the_channel_and_forget_starts_afresh(node: Program, tmp_path: Path) -> None:
    secret = {"OPENCLAW_GATEWAY_TOKEN": "token-0123456789-abcdef"}
    gateway = Program(tmp_path / "gateway-state", {"NO_COLOR": "1", **secret})
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    with subprocess.Popen(
        [*gateway.argv, "gateway", "run", "--port", str(port)], env=gateway.environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as served:  # fmt: skip
        try:
            with running(node, "--url", url, env=secret) as process:
                wait_for(lambda: status(node)["state"] == "connected", "connected")
                assert status(node)["secureChannel"] is True
                known = status(node)["gatewayKeyFingerprint"]
                assert f"Channel:  end-to-end encrypted (the gateway's key: {known})" in node("node", "status").stdout
                process.terminate()
                output, _ = process.communicate(timeout=15)
                assert f"connected to {url}, end-to-end encrypted" in output
            asked = gateway("gateway", "call", "gateway.identity.get", "--port", str(port), "--json")
            told = json.loads(asked.stdout)
            assert told["keyFingerprint"] == known
        finally:
            served.terminate()
            served.wait(15)
    kept = tmp_path / "node-state" / "node" / "gateways.json"
    assert json.loads(kept.read_text())["gateways"][0]["gatewayId"] == told["deviceId"]
    wrong = node("node", "forget", "ws://127.0.0.1:1")
    assert wrong.returncode != 0
    assert url in wrong.stderr
    assert json.loads(node("node", "forget", url, "--json").stdout) == {"forgotten": url}
    assert json.loads(kept.read_text())["gateways"] == []


def test_s096_a_gateway_id_that_is_none_is_wrong_usage(node: Program) -> None:
    refused = node("node", "run", "--url", "ws://127.0.0.1:1", "--gateway-id", "abc")
    assert refused.returncode == 2
    assert "64 hex digits" in refused.stderr
