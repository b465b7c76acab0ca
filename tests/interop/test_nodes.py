"""OpenClaw's headless node host and command line against this gateway: approve, invoke, kill -9 and return, remove."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .processes import TOKEN, GatewayProcess, Official, wait_until

Json = dict[str, Any]


class NodeHost:
    """The official node host in a process, its output collected by a thread."""

    def __init__(self, official: Official, port: int) -> None:
        self._official, self._port = official, port
        self.lines: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        process = self._official.start_node_host(self._port, "--display-name", "Interop Node")
        self._process = process

        def read() -> None:
            assert process.stdout is not None
            self.lines.extend(process.stdout)

        self._reader = threading.Thread(target=read)
        self._reader.start()

    def kill(self) -> None:
        """kill -9, and wait until nothing of it is left."""
        if self._process is None or self._reader is None:
            return
        self._process.kill()
        self._process.wait()
        self._reader.join(10)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None


@pytest.fixture
def node_host(official: Official, gateway_process: GatewayProcess) -> Iterator[NodeHost]:
    host = NodeHost(official, gateway_process.port)
    host.start()
    try:
        yield host
    finally:
        host.kill()


@pytest.mark.deadline(240)
def test_s097_s086_the_official_node_host_from_approval_to_removal(
    official: Official, gateway_process: GatewayProcess, node_host: NodeHost
) -> None:
    to = ("--url", gateway_process.url, "--token", TOKEN)

    def nodes() -> list[Json]:
        found: list[Json] = official.cli("nodes", "status", "--json", *to).json["nodes"]
        return found

    def wait_for(what: str, ready: Callable[[Json], bool]) -> Json:
        seen: list[Json] = []

        def check() -> bool:
            seen[:] = [node for node in nodes() if ready(node)]
            return bool(seen)

        def told() -> str:
            return gateway_process.output()[-2000:] + "".join(node_host.lines)

        wait_until(what, check, seconds=60, also=told)
        return seen[0]

    def call(command: str, params: Json, key: str) -> Any:
        body = {"nodeId": node_id, "command": command, "params": params, "idempotencyKey": key, "timeoutMs": 20_000}
        return official.cli("gateway", "call", "node.invoke", "--json", "--params", json.dumps(body), *to)

    waiting = wait_for("the node's surface waits", lambda node: bool(node.get("pendingRequestId")))
    node_id = waiting["nodeId"]
    assert (waiting["approvalState"], waiting["commands"], waiting["caps"]) == ("pending-approval", [], [])
    declared = waiting["pendingDeclaredCommands"]
    assert {"system.run", "system.which"} <= set(declared)
    assert not any(command.startswith(("dir.", "file.", "workspace.")) for command in declared)
    early = call("system.which", {"bins": ["sh"]}, "early")
    assert early.code != 0, early.text  # V33: paired by locality, and yet nothing is lent

    assert waiting["pendingRequestId"] in official.cli("nodes", "pending", "--json", *to).out
    approved = official.cli("nodes", "approve", waiting["pendingRequestId"], *to)
    assert approved.code == 0, approved.text
    assert approved.json["node"]["nodeId"] == node_id
    row = wait_for("the approval counts", lambda node: node["approvalState"] == "approved")
    assert row["commands"] == declared
    assert row["hostStats"]["cpuCount"] >= 1

    which = official.cli(
        "nodes", "invoke", "--node", node_id, "--command", "system.which", "--params", '{"bins":["sh"]}', *to
    )
    assert which.code == 0, which.text
    assert which.json["payload"]["bins"]["sh"].endswith("/sh")
    run = call("system.run", {"command": ["/bin/sh", "-c", "echo out; echo err >&2; exit 3"]}, "run").json
    assert (run["ok"], run["payload"]["exitCode"], run["payload"]["success"]) == (True, 3, False)
    assert (run["payload"]["stdout"], run["payload"]["stderr"]) == ("out\n", "err\n")
    forged = call("system.run", {"command": ["/bin/true"], "approved": True}, "forged")
    assert forged.code != 0, forged.text
    assert "only the gateway may set" in forged.text

    node_host.kill()
    wait_for("the killed node is gone", lambda node: not node["connected"])
    gone = call("system.which", {"bins": ["sh"]}, "gone")
    assert gone.code != 0, gone.text
    assert "node not connected" in gone.text
    node_host.start()
    back = wait_for("the node is back", lambda node: bool(node["connected"]))
    assert (back["approvalState"], back["commands"]) == ("approved", declared)  # no new question
    again = call("system.which", {"bins": ["sh"]}, "again")
    assert again.json["ok"], again.text

    named = official.cli("nodes", "rename", "--node", node_id, "--name", "Renamed", *to)
    assert named.code == 0, named.text
    described = official.cli("nodes", "describe", "--node", "Renamed", *to)
    assert node_id in described.out.replace("\n", ""), described.text

    removed = official.cli("nodes", "remove", "--node", node_id, *to)
    assert removed.code == 0, removed.text
    wait_until("the node was told", lambda: any("4001" in line for line in node_host.lines), seconds=30)
    assert nodes() == []
    wait_until("the node is refused", lambda: any("pairing required" in line for line in node_host.lines), seconds=30)
