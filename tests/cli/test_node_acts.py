"""``openclaw nodes describe|pending|approve|reject|rename|remove|invoke`` against a gateway that answers as told."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.cli.program import Program
from tests.scripted_gateway import ScriptedGateway, open_scripted_gateway

ONE, TWO = "a" * 64, "b" * 64
ROWS = [
    {"nodeId": ONE, "displayName": "Shed", "remoteIp": "10.0.0.1", "connected": True, "commands": ["system.which"]},
    {"nodeId": TWO, "displayName": "Barn\x1b[31m", "remoteIp": "10.0.0.1", "connected": False},
]
REQUEST = {
    "requestId": "request-1", "nodeId": ONE, "displayName": "Shed", "platform": "linux", "commands": ["system.run"],
    "requiredApproveScopes": ["operator.pairing", "operator.admin"], "ts": 1,
}  # fmt: skip
DENIED = {"code": "FORBIDDEN", "message": "missing scope: operator.admin", "details": {"code": "MISSING_SCOPE"}}


@pytest.fixture
def gateway() -> ScriptedGateway:
    return ScriptedGateway(
        answers={
            "node.list": {"nodes": ROWS},
            "node.describe": lambda params: next(row for row in ROWS if row["nodeId"] == params["nodeId"]),
            "node.pair.list": {"pending": [REQUEST], "paired": []},
            "node.pair.approve": {"requestId": "request-1", "node": {"nodeId": ONE, "commands": ["system.run"]}},
            "node.pair.reject": {"requestId": "request-1", "nodeId": ONE},
            "node.pair.remove": lambda params: params,
            "node.rename": lambda params: params,
            "node.invoke": {"ok": True, "nodeId": ONE, "command": "system.which", "payload": {"bins": {}}},
        }
    )


async def openclaw(gateway: ScriptedGateway, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``openclaw nodes ARGUMENTS`` at that gateway."""
    program = Program(tmp_path / "state")
    async with open_scripted_gateway(gateway):
        call = partial(program, "nodes", *arguments, "--url", gateway.url, "--token", "t" * 40)
        return await trio.to_thread.run_sync(call)


def last(gateway: ScriptedGateway) -> tuple[str, Any, list[str]]:
    """The last request, and the scopes that its connection asked for."""
    method, params = gateway.requests[-1]
    return method, params, gateway.connects[-1]["scopes"]


@pytest.mark.parametrize("which", [ONE, "shed", "SHED", "aaaa"])
async def test_describe_finds_the_node_by_id_name_or_beginning(
    gateway: ScriptedGateway, tmp_path: Path, which: str
) -> None:
    done = await openclaw(gateway, tmp_path, "describe", "--node", which)
    assert done.returncode == 0, done.stderr
    assert "system.which" in done.stdout
    assert last(gateway)[:2] == ("node.describe", {"nodeId": ONE})


@pytest.mark.parametrize(
    ("which", "reason"), [("10.0.0.1", "fits 2 nodes"), ("aaa", "no node is called"), ("x", "no node")]
)
async def test_a_doubtful_node_is_never_guessed(
    gateway: ScriptedGateway, tmp_path: Path, which: str, reason: str
) -> None:
    done = await openclaw(gateway, tmp_path, "remove", "--node", which)
    assert done.returncode == 1
    assert reason in done.stderr
    assert [method for method, _ in gateway.requests] == ["node.list"]


async def test_v52_what_a_node_calls_itself_is_escaped(gateway: ScriptedGateway, tmp_path: Path) -> None:
    done = await openclaw(gateway, tmp_path, "describe", "--node", TWO)
    assert "\x1b" not in done.stdout


async def test_pending_shows_what_is_asked(gateway: ScriptedGateway, tmp_path: Path) -> None:
    done = await openclaw(gateway, tmp_path, "pending")
    assert "request-1" in done.stdout
    assert "system.run" in done.stdout
    done = await openclaw(gateway, tmp_path, "pending", "--json")
    assert json.loads(done.stdout) == [REQUEST]


@pytest.mark.parametrize("request_id", ["request-1", "reques"])
async def test_v20_approve_asks_for_exactly_the_scopes_it_takes(
    gateway: ScriptedGateway, tmp_path: Path, request_id: str
) -> None:
    done = await openclaw(gateway, tmp_path, "approve", request_id)
    assert done.returncode == 0, done.stderr
    assert "system.run" in done.stdout
    method, params, scopes = last(gateway)
    assert (method, params) == ("node.pair.approve", {"requestId": "request-1"})
    assert scopes == ["operator.pairing", "operator.admin"]


async def test_an_unknown_request_is_not_approved(gateway: ScriptedGateway, tmp_path: Path) -> None:
    done = await openclaw(gateway, tmp_path, "approve", "other")
    assert done.returncode == 1
    assert "openclaw nodes pending" in done.stderr
    assert [method for method, _ in gateway.requests] == ["node.pair.list"]


@pytest.mark.parametrize(
    ("arguments", "method", "params"),
    [
        (["reject", "request-1"], "node.pair.reject", {"requestId": "request-1"}),
        (["rename", "--node", "shed", "--name", " New "], "node.rename", {"nodeId": ONE, "displayName": "New"}),
        (["remove", "--node", "shed"], "node.pair.remove", {"nodeId": ONE}),
    ],
)
async def test_acts_take_the_pairing_scope(
    gateway: ScriptedGateway, tmp_path: Path, arguments: list[str], method: str, params: dict[str, str]
) -> None:
    for more in ([], ["--json"]):
        done = await openclaw(gateway, tmp_path, *arguments, *more)
        assert done.returncode == 0, done.stderr
        assert last(gateway) == (method, params, ["operator.pairing"])
    assert isinstance(json.loads(done.stdout), dict)


async def test_invoke_sends_one_command_and_prints_the_payload(gateway: ScriptedGateway, tmp_path: Path) -> None:
    arguments = ["invoke", "--node", "shed", "--command", "system.which", "--params", '{"bins":["sh"]}']
    done = await openclaw(gateway, tmp_path, *arguments, "--invoke-timeout", "4000", "--idempotency-key", "k")
    assert json.loads(done.stdout) == {"bins": {}}
    assert last(gateway) == (
        "node.invoke",
        {
            "nodeId": ONE,
            "command": "system.which",
            "params": {"bins": ["sh"]},
            "idempotencyKey": "k",
            "timeoutMs": 4000,
        },
        ["operator.write"],
    )
    done = await openclaw(gateway, tmp_path, *arguments, "--json")
    assert json.loads(done.stdout)["ok"] is True


async def test_invoke_asks_for_more_only_where_the_gateway_says_so(gateway: ScriptedGateway, tmp_path: Path) -> None:
    gateway.answers["node.invoke"] = RuntimeError(DENIED)
    done = await openclaw(gateway, tmp_path, "invoke", "--node", "shed", "--command", "own.command")
    assert done.returncode == 1
    invokes = [connect["scopes"] for connect in gateway.connects[1:]]
    assert invokes == [["operator.write"], ["operator.write", "operator.admin"]]


async def test_what_is_known_to_take_admin_asks_for_it_at_once(gateway: ScriptedGateway, tmp_path: Path) -> None:
    done = await openclaw(gateway, tmp_path, "invoke", "--node", "shed", "--command", "fs.listDir")
    assert done.returncode == 0, done.stderr
    assert last(gateway)[2] == ["operator.write", "operator.admin"]


@pytest.mark.parametrize("params", ["{", "[]", "1"])
async def test_invoke_refuses_params_that_are_no_object(gateway: ScriptedGateway, tmp_path: Path, params: str) -> None:
    done = await openclaw(gateway, tmp_path, "invoke", "--node", "shed", "--command", "c", "--params", params)
    assert done.returncode == 2
    assert gateway.requests == []
