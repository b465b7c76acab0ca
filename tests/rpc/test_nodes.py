"""The methods of nodes, both sides scripted: surfaces, invokes, reports, waiting work (spec wire.md section 7)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from openclaw_gateway import CallFailed, Gateway, GatewayConfig
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig, NodeCommandsConfig, NodesConfig
from openclaw_gateway.testing import ScriptedPeer, connect_peer, open_memory_gateway
from tests.nodes.scripted import COMMANDS, answer, approve, approved_node, event, next_invoke, node_peer

TOKEN = "token-of-the-node-method-tests-0123456789"
CONFIG = GatewayConfig(port=0, auth=AuthConfig(type="token", token=TOKEN))
REQUEST = (
    "requestId nodeId clientId clientMode displayName platform version deviceFamily caps commands "
    "requiredApproveScopes silent ts remoteIp"
)
STATS = {"cpuCount": 8, "loadAverage": [1.25, 1, 0.9], "memoryTotalBytes": 100, "memoryFreeBytes": 40}


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_memory_gateway(CONFIG) as gateway:
        yield gateway


@pytest.fixture
async def operator(gateway: Gateway) -> AsyncIterator[ScriptedPeer]:
    async with connect_peer(gateway) as peer:
        yield peer


async def row_of(operator: ScriptedPeer, node_id: str) -> dict[str, Any]:
    rows = (await operator.request("node.list"))["nodes"]
    [row] = [row for row in rows if row["nodeId"] == node_id]
    found: dict[str, Any] = row
    return found


def invoke(node_id: str, command: str = "system.which", **more: Any) -> dict[str, Any]:
    return {"nodeId": node_id, "command": command, "idempotencyKey": "k", **more}


async def refusal(peer: ScriptedPeer, method: str, params: Any) -> CallFailed:
    with pytest.raises(CallFailed) as failed:
        await peer.request(method, params)
    return failed.value


# --- surfaces


async def test_s097_v33_a_surface_waits_and_counts_once_approved(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with node_peer(gateway, device, commands=(*COMMANDS, "file.read", "dir.list", "workspace.skills")) as node:
        requested = await operator.expect_event("node.pair.requested")
        assert set(requested) == set(REQUEST.split())
        assert requested["commands"] == sorted(COMMANDS)  # the policy drops dir.*, file.*, workspace.* on Linux
        assert requested["requiredApproveScopes"] == ["operator.pairing", "operator.admin"]
        row = await row_of(operator, device.device_id)
        assert (row["approvalState"], row["commands"], row["caps"]) == ("pending-approval", [], [])
        assert row["pendingRequestId"] == requested["requestId"]
        assert row["pendingDeclaredCommands"] == sorted(COMMANDS)
        listed = await operator.request("node.pair.list")
        assert listed["pending"] == [requested]
        refused = await refusal(operator, "node.invoke", invoke(device.device_id))
        assert (refused.code, refused.details, refused.retryable) == ("UNAVAILABLE", {"code": "PAIRING_CHANGED"}, True)

        approved = await operator.request("node.pair.approve", {"requestId": requested["requestId"]})
        assert approved["requestId"] == requested["requestId"]
        assert approved["node"]["commands"] == sorted(COMMANDS)
        assert {"nodeId", "clientId", "displayName", "platform", "createdAtMs", "approvedAtMs"} <= set(approved["node"])
        resolved = await operator.expect_event("node.pair.resolved")
        assert (resolved["requestId"], resolved["nodeId"], resolved["decision"]) == (
            requested["requestId"],
            device.device_id,
            "approved",
        )
        row = await row_of(operator, device.device_id)
        assert (row["approvalState"], row["commands"], row["caps"]) == ("approved", sorted(COMMANDS), ["system"])
        assert (row["kind"], row["connected"], row["paired"]) == ("cli", True, True)
        told = await node.expect_event("node.pair.resolved")
        assert told == resolved
        assert (await refusal(operator, "node.pair.approve", {"requestId": requested["requestId"]})).message == (
            "unknown requestId"
        )


async def test_a_node_is_told_at_each_connect_how_its_own_request_stands(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    for _ in range(2):  # the second time nothing changes, and it still wants to know
        async with node_peer(gateway, device, commands=("system.which",)) as node:
            waits = await node.expect_event("node.pair.requested")
            assert (waits["nodeId"], waits["commands"]) == (device.device_id, ["system.which"])
    async with node_peer(gateway, DeviceIdentity.generate(), commands=("system.which",)) as other:
        assert (await other.expect_event("node.pair.requested"))["nodeId"] != device.device_id
    await operator.request("node.pair.approve", {"requestId": waits["requestId"]})
    async with node_peer(gateway, device, commands=("system.which",)) as node:
        told = await node.expect_event("node.pair.resolved")
        assert (told["nodeId"], told["decision"], told["requestId"]) == (device.device_id, "approved", "")
        assert not [one for one in node.events if one["event"] == "node.pair.requested"]


async def test_v33_a_wider_surface_asks_again_and_the_old_one_stays(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with approved_node(gateway, operator, device, commands=("system.which",)):
        pass
    async with node_peer(gateway, device, commands=("system.which", "system.run")) as node:
        wider = await operator.expect_event("node.pair.requested")
        assert wider["commands"] == ["system.run", "system.which"]
        row = await row_of(operator, device.device_id)
        assert (row["approvalState"], row["commands"]) == ("pending-reapproval", ["system.which"])
        started = await operator.start("node.invoke", invoke(device.device_id))
        await answer(node, await next_invoke(node), {"bins": {}})
        assert (await operator.reply(started))["ok"]
        refused = await refusal(operator, "node.invoke", invoke(device.device_id, "system.run", idempotencyKey="r"))
        assert (refused.code, refused.details) == (
            "INVALID_REQUEST",
            {"reason": "command not allowlisted", "command": "system.run"},
        )
        assert await operator.request("node.pair.reject", {"requestId": wider["requestId"]}) == {
            "requestId": wider["requestId"],
            "nodeId": device.device_id,
        }
        assert (await row_of(operator, device.device_id))["approvalState"] == "approved"
        assert (await refusal(operator, "node.pair.reject", {"requestId": "nope"})).message == "unknown requestId"


async def test_pair3_the_same_or_a_narrower_surface_keeps_its_request(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with node_peer(gateway, device):
        first = await operator.expect_event("node.pair.requested")
    async with node_peer(gateway, device, commands=COMMANDS[:1]):
        while (await row_of(operator, device.device_id)).get("pendingRequestId") != first["requestId"]:
            await trio.lowlevel.checkpoint()
    async with node_peer(gateway, device, commands=(*COMMANDS, "computer.act")):
        wider = await operator.expect_event("node.pair.requested")
        gone = await operator.expect_event("node.pair.resolved")
        assert wider["requestId"] != first["requestId"]
        assert (gone["requestId"], gone["decision"]) == (first["requestId"], "superseded")
        await operator.request("node.pair.approve", {"requestId": wider["requestId"]})
    async with node_peer(gateway, device, commands=COMMANDS[:1]):
        row = await row_of(operator, device.device_id)
        assert (row["approvalState"], row["commands"]) == ("approved", ["system.which"])


async def test_configuration_allows_and_denies_live(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with node_peer(gateway, device, commands=("system.which", "system.run", "camera.snap")):
        await approve(operator, device.device_id)
        assert (await row_of(operator, device.device_id))["commands"] == ["system.run", "system.which"]
        commands = NodeCommandsConfig(allow=("camera.snap",), deny=("system.run",))
        gateway.apply(attrs.evolve(CONFIG, nodes=NodesConfig(commands=commands)), gateway.auth)
        asked = await operator.expect_event("node.pair.requested")
        assert asked["commands"] == ["camera.snap", "system.which"]
        assert (await row_of(operator, device.device_id))["commands"] == ["system.which"]
        await operator.request("node.pair.approve", {"requestId": asked["requestId"]})
        assert (await row_of(operator, device.device_id))["commands"] == ["camera.snap", "system.which"]


async def test_state_surfaces_requests_and_facts_survive_a_restart(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    known, waiting = DeviceIdentity.generate(), DeviceIdentity.generate()
    async with open_memory_gateway(CONFIG, state_dir=state) as gateway, connect_peer(gateway) as operator:
        async with approved_node(gateway, operator, known) as (_, node):
            await node.request("node.event", event("node.host.stats", STATS))
        async with node_peer(gateway, waiting, client={"displayName": "Two"}):
            request = await operator.expect_event("node.pair.requested")
    async with open_memory_gateway(CONFIG, state_dir=state) as gateway, connect_peer(gateway) as operator:
        assert [one["requestId"] for one in (await operator.request("node.pair.list"))["pending"]] == [
            request["requestId"]
        ]
        row = await row_of(operator, known.device_id)
        assert (row["connected"], row["approvalState"]) == (False, "approved")
        assert row["hostStats"]["cpuCount"] == 8
        assert (row["lastSeenReason"], row["version"]) == ("disconnect", "1.2.3")
        await operator.request("node.pair.approve", {"requestId": request["requestId"]})
        async with node_peer(gateway, known):
            assert (await row_of(operator, known.device_id))["commands"] == sorted(COMMANDS)


async def test_pair_remove_closes_4001_and_nothing_comes_back(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with approved_node(gateway, operator, device) as (node_id, node):
        assert await operator.request("node.pair.remove", {"nodeId": node_id}) == {"nodeId": node_id}
        closed = await node.wait_closed()
        assert (closed.code, closed.reason) == (4001, "device removed")
        removed = [one["payload"] for one in operator.events if one["event"] == "node.pair.resolved"][-1]
        assert (removed["requestId"], removed["nodeId"], removed["decision"]) == ("", node_id, "removed")
    with pytest.raises(CallFailed) as failed:
        async with node_peer(gateway, device):
            pass
    assert failed.value.code == "NOT_PAIRED"
    assert (await operator.request("node.list"))["nodes"] == []
    assert (await refusal(operator, "node.pair.remove", {"nodeId": node_id})).message.startswith("unknown node")


async def test_rename_is_for_operators_eyes_and_stays(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with approved_node(gateway, operator, device) as (node_id, _):
        named = await operator.request("node.rename", {"nodeId": node_id, "displayName": " Living room "})
        assert named == {"nodeId": node_id, "displayName": "Living room"}
        assert (await row_of(operator, node_id))["displayName"] == "Living room"
        for bad in ("", "a\x1b[31m", "x" * 129):
            assert (
                "at /displayName"
                in (await refusal(operator, "node.rename", {"nodeId": node_id, "displayName": bad})).message
            )


# --- invokes


async def test_invoke_reaches_the_node_and_its_answer_the_caller(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, node):
        started = await operator.start("node.invoke", invoke(node_id, params={"bins": ["sh"]}, timeoutMs=7000))
        asked = await next_invoke(node)
        assert set(asked) - {"params"} == {"id", "nodeId", "command", "paramsJSON", "timeoutMs", "idempotencyKey"}
        assert (asked["command"], asked["params"], asked["idempotencyKey"]) == ("system.which", {"bins": ["sh"]}, "k")
        assert 6500 < asked["timeoutMs"] <= 7000
        assert await answer(node, asked, {"bins": {"sh": "/bin/sh"}}) == {"ok": True}
        reply = await operator.reply(started)
        assert reply["payload"] == {
            "ok": True,
            "nodeId": node_id,
            "command": "system.which",
            "payload": {"bins": {"sh": "/bin/sh"}},
            "payloadJSON": '{"bins":{"sh":"/bin/sh"}}',
        }
        assert all("seq" not in one for one in node.events if one["event"].startswith("node."))


async def test_idempotency_one_key_is_one_run(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, node):
        first = await operator.start("node.invoke", invoke(node_id))
        asked = await next_invoke(node)
        second = await operator.start("node.invoke", invoke(node_id))
        await answer(node, asked, {"n": 1})
        replies = [await operator.reply(first), await operator.reply(second)]
        assert [one["payload"]["payload"] for one in replies] == [{"n": 1}, {"n": 1}]
        conflict = await refusal(operator, "node.invoke", invoke(node_id, params={"other": 1}))
        assert (conflict.details or {})["code"] == "IDEMPOTENCY_CONFLICT"
        assert not node.events or all(one["event"] != "node.invoke.request" for one in node.events)


async def test_node1_default_deadline_cancel_and_a_late_result_for_a_poller(
    mock_clock: trio.testing.MockClock, gateway: Gateway, operator: ScriptedPeer
) -> None:
    gateway.apply(attrs.evolve(CONFIG, nodes=NodesConfig(invoke_timeout_ms=150)), gateway.auth)
    async with approved_node(gateway, operator) as (node_id, node):
        started = await operator.start("node.invoke", invoke(node_id))
        asked = await next_invoke(node)
        assert asked["timeoutMs"] <= 150
        mock_clock.jump(0.2)
        error = (await operator.reply(started))["error"]
        assert (error["code"], error["message"]) == ("UNAVAILABLE", "TIMEOUT: node invoke timed out")
        assert error["details"] == {
            "nodeError": {"code": "TIMEOUT", "message": "node invoke timed out"},
            "nodeCommandDispatched": True,
        }
        assert await node.expect_event("node.invoke.cancel") == {"invokeId": asked["id"], "nodeId": node_id}
        poll = await operator.start("node.invoke", invoke(node_id))  # waits: the node is still at it
        assert await answer(node, asked, {"late": True}) == {"ok": True}
        assert (await operator.reply(poll))["payload"]["payload"] == {"late": True}
        assert gateway.nodes.registry.drops["late"] == 1
        assert await answer(node, asked, {"twice": True}) == {"ok": True, "ignored": True}
        conflict = await refusal(operator, "node.invoke", invoke(node_id, params={"x": 1}))
        assert (conflict.details or {})["code"] == "IDEMPOTENCY_CONFLICT"


async def test_a_caller_that_leaves_cancels_and_may_come_back_for_the_result(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    async with approved_node(gateway, operator) as (node_id, node):
        async with connect_peer(gateway) as caller:
            await caller.start("node.invoke", invoke(node_id))
            asked = await next_invoke(node)
        assert (await node.expect_event("node.invoke.cancel"))["invokeId"] == asked["id"]
        await answer(node, asked, {"kept": 1})
        assert (await operator.request("node.invoke", invoke(node_id)))["payload"] == {"kept": 1}
        assert gateway.nodes.broker.open_count == 0


async def test_a_node_that_fails_says_why(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, node):
        cases: list[tuple[dict[str, Any], str, str]] = [
            ({"ok": False, "error": {"code": "DENIED", "message": "ask {me}"}}, "DENIED", "ask {me}"),
            ({"ok": False}, "UNAVAILABLE", "node invoke failed"),
            ({"ok": True, "payloadJSON": "{oops"}, "INVALID_RESULT", "the node's payload is not JSON"),
        ]
        for index, (sent, code, message) in enumerate(cases):
            started = await operator.start("node.invoke", invoke(node_id, idempotencyKey=str(index)))
            await answer(node, await next_invoke(node), **sent)
            error = (await operator.reply(started))["error"]
            assert (error["code"], error["message"]) == ("UNAVAILABLE", f"{code}: {message}")
            assert error["details"] == {"nodeError": {"code": code, "message": message}, "nodeCommandDispatched": True}


async def test_a_node_that_is_not_ready_is_asked_again_inside_the_deadline(
    mock_clock: trio.testing.MockClock, gateway: Gateway, operator: ScriptedPeer
) -> None:
    async def retry_is_due() -> None:
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.26)

    not_ready = {"ok": False, "error": {"code": "NODE_NOT_READY", "message": "waking up"}}
    async with approved_node(gateway, operator) as (node_id, node):
        started = await operator.start("node.invoke", invoke(node_id, timeoutMs=10_000))
        first = await next_invoke(node)
        await answer(node, first, **not_ready)
        await retry_is_due()
        second = await next_invoke(node)
        assert second["id"] != first["id"]
        assert second["timeoutMs"] <= first["timeoutMs"] - 200  # the same deadline, not a new one
        await answer(node, second, {"ready": True})
        assert (await operator.reply(started))["payload"]["payload"] == {"ready": True}
        started = await operator.start("node.invoke", invoke(node_id, timeoutMs=300, idempotencyKey="short"))
        await answer(node, await next_invoke(node), **not_ready)
        await retry_is_due()
        await answer(node, await next_invoke(node), **not_ready)
        assert (await operator.reply(started))["error"]["details"]["nodeError"]["code"] == "NODE_NOT_READY"


async def test_a_node_lost_mid_invoke_is_an_error_within_a_second(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, node):
        started = await operator.start("node.invoke", invoke(node_id, timeoutMs=60_000))
        await next_invoke(node)
        await trio.aclose_forcefully(node.stream)
        with trio.fail_after(10):
            error = (await operator.reply(started))["error"]
        assert error["details"]["nodeError"]["code"] == "DISCONNECTED"
        assert error["details"]["nodeCommandDispatched"] is True
    gone = await refusal(operator, "node.invoke", invoke(node_id, idempotencyKey="next"))
    assert (gone.code, gone.message) == ("UNAVAILABLE", "node not connected")
    assert gone.details == {
        "code": "NOT_CONNECTED",
        "nodeError": {"code": "NOT_CONNECTED", "message": "node not connected"},
        "nodeCommandDispatched": False,
    }
    unknown = await refusal(operator, "node.invoke", invoke("nobody", idempotencyKey="u"))
    assert (unknown.details, unknown.retryable) == ({"code": "PAIRING_CHANGED"}, True)


async def test_progress_and_exec_events_go_to_the_caller_alone(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, node), connect_peer(gateway) as bystander:
        started = await operator.start("node.invoke", invoke(node_id, "system.run", params={"command": ["ls"]}))
        asked = await next_invoke(node)
        run_id = asked["params"]["runId"]
        assert asked["params"]["command"] == ["ls"]
        piece = {"invokeId": asked["id"], "nodeId": node_id, "seq": 0, "chunk": "out"}
        assert await node.request("node.invoke.progress", piece) == {"ok": True}
        assert await node.request("node.invoke.progress", piece) == {"ok": True, "ignored": True}  # seq must grow
        finished = {"runId": run_id, "host": "node", "exitCode": 0, "success": True, "output": "secret"}
        told = await node.request("node.event", event("exec.finished", finished))
        assert told == {"ok": True, "event": "exec.finished", "handled": True, "reason": "matched"}
        await answer(node, asked, {"exitCode": 0})
        assert (await operator.reply(started))["ok"]
        assert await operator.expect_event("node.invoke.progress") == {**piece, "idempotencyKey": "k"}
        heard = await operator.expect_event("node.exec")
        assert (heard["event"], heard["exitCode"], heard["invokeId"]) == ("exec.finished", 0, asked["id"])
        assert "output" not in heard
        await bystander.request("node.list")
        assert not any(one["event"] in {"node.exec", "node.invoke.progress"} for one in bystander.events)


@pytest.mark.parametrize("timeout", [-1, 3_600_001])
async def test_invoke_checks_its_numbers(operator: ScriptedPeer, timeout: int) -> None:
    assert "at /timeoutMs" in (await refusal(operator, "node.invoke", invoke("n", timeoutMs=timeout))).message


async def test_invoke_over_http_works_too(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, node), connect_peer(gateway, connect=False) as bare:
        call = {"jsonrpc": "2.0", "id": 1, "method": "connect", "params": {"token": TOKEN}}
        await bare.send(call)
        await bare.receive()
        await bare.send({"jsonrpc": "2.0", "id": 2, "method": "node.invoke", "params": invoke(node_id)})
        await answer(node, await next_invoke(node), [1])
        while True:
            message = await bare.receive()
            if message.get("id") == 2:
                break
        assert message["result"]["payload"] == [1]


# --- reports


async def test_host_stats_are_stamped_told_and_bounded(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, node):
        told = await node.request("node.event", event("node.host.stats", STATS))
        assert told == {"ok": True, "event": "node.host.stats", "handled": True, "reason": "updated"}
        payload = await operator.expect_event("node.hostStats")
        assert payload["nodeId"] == node_id
        assert payload["hostStats"].pop("updatedAtMs") > 1_700_000_000_000
        assert payload["hostStats"] == STATS
        assert (await row_of(operator, node_id))["hostStats"]["cpuCount"] == 8
        again = await node.request("node.event", event("node.host.stats", STATS))
        assert (again["handled"], again["reason"]) == (False, "too_frequent")
        wrong: tuple[object, ...] = ({}, {"cpuCount": 0}, {**STATS, "memoryFreeBytes": 101}, [], "x")
        for bad in wrong:
            reply = await node.request("node.event", event("node.host.stats", bad))
            assert (reply["handled"], reply["reason"]) == (False, "invalid_payload")
        reply = await node.request("node.event", {"event": "node.host.stats", "payloadJSON": "{" * 5000})
        assert reply["reason"] == "invalid_payload"


async def test_background_alive_is_kept_without_being_connected(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, node):
        told = await node.request("node.event", event("node.presence.alive", {"trigger": "silent_push"}))
        assert (told["handled"], told["reason"]) == (True, "persisted")
        assert gateway.nodes.facts.of(node_id).last_seen_reason == "silent_push"


async def test_s086_activity_counts_for_a_mac_by_its_pinned_kind(gateway: Gateway, operator: ScriptedPeer) -> None:
    mac = {"platform": "macOS 15.1", "deviceFamily": "Mac", "modelIdentifier": "Mac15,3"}
    facts: dict[str, Any] = {"client": mac, "client_id": "openclaw-macos", "commands": ("system.run", "canvas.present")}
    async with approved_node(gateway, operator, **facts) as (node_id, node):
        told = await node.request("node.event", event("node.presence.activity", {"idleSeconds": 3}))
        assert told["handled"]
        row = await row_of(operator, node_id)
        assert (row["kind"], row["active"], row["modelIdentifier"]) == ("macos", True, "Mac15,3")
        assert row["commands"] == ["canvas.present", "system.run"]
        await node.request("node.event", event("node.presence.activity", {"action": "clear"}))
        assert "active" not in await row_of(operator, node_id)
    async with approved_node(gateway, operator) as (_, linux):
        told = await linux.request("node.event", event("node.presence.activity", {"idleSeconds": 3}))
        assert told["handled"] is False


@pytest.mark.parametrize(
    ("client_id", "platform", "family", "kind", "kept"),
    [
        ("openclaw-ios", "iOS 18.4", "iPhone", "ios", ["location.get"]),
        ("openclaw-android", "android", "Android", "android", ["device.apps", "location.get"]),
        ("node-host", "linux", "Linux", "cli", ["system.run"]),
    ],
)
async def test_s010_s072_s087_s089_each_kind_has_its_ceiling(
    gateway: Gateway, operator: ScriptedPeer, client_id: str, platform: str, family: str, kind: str, kept: list[str]
) -> None:
    device = DeviceIdentity.generate()
    client = {"platform": platform, "deviceFamily": family}
    declared = ("system.run", "location.get", "device.apps", "camera.snap")
    async with node_peer(gateway, device, client=client, client_id=client_id, commands=declared):
        requested = await operator.expect_event("node.pair.requested")
        assert requested["commands"] == kept
        assert (await row_of(operator, device.device_id))["kind"] == kind


async def test_catalogs_are_accepted_bounded_and_shown_where_lent(gateway: Gateway, operator: ScriptedPeer) -> None:
    tool = {"pluginId": "p", "name": "Tool", "description": "d", "command": "system.which"}
    other = {**tool, "name": "Other", "command": "mcp.tools.call.v1"}
    skill = {"name": "a-skill", "description": "d", "content": "text"}
    async with approved_node(gateway, operator) as (node_id, node):
        assert await node.request("node.skills.update", {"skills": [skill]}) == {
            "nodeId": node_id,
            "skills": [{"name": "a-skill"}],
        }
        assert (await node.request("node.pluginTools.update", {"tools": [tool, other]}))["tools"] == [tool]
        features = {"protocolFeatures": ["a"], "workerHost": {"enabled": True}}
        assert await node.request("node.runnerInventory.update", features) == {"nodeId": node_id}
        assert (await operator.expect_event("node.runnerInventory.changed")) == {"nodeId": node_id}
        described = await operator.request("node.describe", {"nodeId": node_id})
        assert (described["nodePluginTools"], described["sessionHost"]) == ([tool], True)
        for method, params in (
            ("node.skills.update", {"skills": [skill] * 65}),
            ("node.skills.update", {"skills": [{**skill, "content": "x" * 65_537}]}),
            ("node.skills.update", {"skills": [{**skill, "content": "x" * 60_000}] * 20}),
            ("node.skills.update", {"skills": [{**skill, "name": "../up"}]}),
            ("node.pluginTools.update", {"tools": [tool] * 129}),
            ("node.pluginTools.update", {"tools": [{**tool, "parameters": {"x": "y" * 300_000}}]}),
            ("node.pluginTools.update", {"tools": [1]}),
            ("node.runnerInventory.update", {"workerHost": {"x": "y" * 70_000}}),
        ):
            assert (await refusal(node, method, params)).code == "INVALID_REQUEST"


# --- waiting work


async def test_pending_work_waits_for_an_offline_node_and_is_handed_out_once(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    phone: dict[str, Any] = {
        "client": {"platform": "ios", "deviceFamily": "iPhone"},
        "client_id": "openclaw-ios",
        "commands": ("location.get",),
    }
    async with approved_node(gateway, operator, device, **phone) as (node_id, _):
        pass
    status = await operator.request("node.pending.enqueue", {"nodeId": node_id, "type": "status.request"})
    urgent = {"nodeId": node_id, "type": "location.request", "priority": "high", "expiresInMs": 60_000}
    location = await operator.request("node.pending.enqueue", urgent)
    assert set(status) == {"nodeId", "revision", "queued", "wakeTriggered"}
    assert location["revision"] == status["revision"] + 1
    again = await operator.request("node.pending.enqueue", urgent)
    assert again["queued"] == location["queued"]  # the same work does not pile up
    async with node_peer(gateway, device, **phone) as node:
        pulled = (await node.request("node.pending.pull"))["actions"]
        assert [one["type"] for one in pulled] == ["location.request", "status.request"]
        first = await node.request("node.pending.drain", {"maxItems": 1})
        assert ([one["id"] for one in first["items"]], first["hasMore"]) == ([location["queued"]["id"]], True)
        acked = await node.request("node.pending.ack", {"ids": [status["queued"]["id"], "nope"]})
        assert acked == {"nodeId": node_id, "ackedIds": [status["queued"]["id"]], "remainingCount": 0}
        assert (await node.request("node.pending.drain"))["items"] == []
    status_of: dict[str, Any] = {"type": "status.request"}
    for bad in ({"type": "system.run"}, {**status_of, "expiresInMs": 1}, {**status_of, "priority": "x"}):
        assert (await refusal(operator, "node.pending.enqueue", {"nodeId": node_id, **bad})).code == "INVALID_REQUEST"


async def test_v34_work_queued_before_approval_is_dropped_and_checked_when_taken(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    async with node_peer(gateway, device):
        early = await refusal(operator, "node.pending.enqueue", {"nodeId": device.device_id, "type": "status.request"})
        assert early.details == {"code": "PAIRING_CHANGED"}
        await approve(operator, device.device_id)
    await operator.request("node.pending.enqueue", {"nodeId": device.device_id, "type": "location.request"})
    async with node_peer(gateway, device) as node:  # lends no location.get
        assert (await node.request("node.pending.drain"))["items"] == []
        assert len(gateway.nodes.queue) == 0
