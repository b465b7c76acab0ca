"""V20, V30-V34: nodes that want to lend more than was approved, callers and nodes that pretend."""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
import pytest
import trio

from openclaw_gateway import CallFailed, Gateway, GatewayConfig
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.testing import ScriptedPeer, connect_peer, open_memory_gateway
from tests.nodes.scripted import COMMANDS, answer, approved_node, event, next_invoke, node_peer

CONFIG = GatewayConfig(port=0, auth=AuthConfig(type="token", token="token-of-the-node-attacks-0123456789"))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_memory_gateway(CONFIG) as gateway:
        yield gateway


@pytest.fixture
async def operator(gateway: Gateway) -> AsyncIterator[ScriptedPeer]:
    async with connect_peer(gateway) as peer:
        yield peer


async def test_v20_approving_takes_the_scopes_of_what_is_approved(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with node_peer(gateway, device):
        requested = await operator.expect_event("node.pair.requested")
        ask = {"requestId": requested["requestId"]}
        for scopes, missing in (
            (["operator.write"], "operator.pairing"),
            (["operator.read", "operator.write", "operator.pairing"], "operator.admin"),
        ):
            async with connect_peer(gateway, scopes=scopes) as lesser:
                with pytest.raises(CallFailed) as failed:
                    await lesser.request("node.pair.approve", ask)
                assert failed.value.code == "FORBIDDEN"
                assert (failed.value.details or {})["missingScope"] == missing
        assert gateway.nodes.registry.get(device.device_id) is not None
        assert (await operator.request("node.describe", {"nodeId": device.device_id}))["commands"] == []


async def test_v20_what_runs_nothing_takes_pairing_and_write(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with node_peer(gateway, device, commands=("system.notify",)):
        requested = await operator.expect_event("node.pair.requested")
        async with connect_peer(gateway, scopes=["operator.pairing"]) as lesser:
            with pytest.raises(CallFailed, match=r"missing scope: operator\.write"):
                await lesser.request("node.pair.approve", {"requestId": requested["requestId"]})
        async with connect_peer(gateway, scopes=["operator.pairing", "operator.write"]) as enough:
            await enough.request("node.pair.approve", {"requestId": requested["requestId"]})


async def test_v20_a_node_approves_nothing_and_calls_nobody(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with node_peer(gateway, DeviceIdentity.generate()) as node:
        requested = await operator.expect_event("node.pair.requested")
        for method, params in (
            ("node.pair.approve", {"requestId": requested["requestId"]}),
            ("node.invoke", {"nodeId": requested["nodeId"], "command": "system.run"}),
            ("node.list", None),
        ):
            with pytest.raises(CallFailed, match="unauthorized role: node"):
                await node.request(method, params)
        with pytest.raises(CallFailed, match="unauthorized role: operator"):
            await operator.request("node.invoke.result", {"id": "x", "nodeId": "y", "ok": True})


@pytest.mark.parametrize(
    "params",
    [
        {"command": ["id"], "approved": True},
        {"command": ["id"], "approvalDecision": "allow-always"},
        {"command": ["id"], "env": {"nested": [{"approved": True}]}},
        {"command": ["id"], "systemRunPlan": {"argv": ["id"]}},
        {"command": ["id"], "extra": {"runId": "forged"}},
    ],
)
async def test_v30_a_callers_approval_is_refused_and_nothing_is_sent(
    gateway: Gateway, operator: ScriptedPeer, params: object
) -> None:
    async with approved_node(gateway, operator) as (node_id, node):
        with pytest.raises(CallFailed) as failed:
            await operator.request("node.invoke", {"nodeId": node_id, "command": "system.run", "params": params})
        assert (failed.value.details or {})["code"] == "RESERVED_FIELD"
        assert gateway.nodes.broker.open_count == 0
        await node.request("node.event", event("node.host.stats", {"cpuCount": 1}))
        assert not any(one["event"] == "node.invoke.request" for one in node.events)


async def test_v30_the_run_id_is_the_gateways_own(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, node):
        params = {"command": ["id"], "runId": "forged"}
        started = await operator.start("node.invoke", {"nodeId": node_id, "command": "system.run", "params": params})
        asked = await next_invoke(node)
        assert asked["params"]["runId"] != "forged"
        forged = await node.request("node.event", event("exec.finished", {"runId": "forged"}))
        assert (forged["handled"], forged["reason"]) == (False, "no_open_invoke")
        await answer(node, asked, {})
        await operator.reply(started)


async def test_v31_a_platform_claimed_later_widens_nothing(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    phone = {"platform": "ios", "deviceFamily": "iPhone"}
    async with approved_node(gateway, operator, device, client=phone, commands=("location.get",)):
        pass
    async with node_peer(gateway, device, client={"platform": "linux"}, commands=("location.get", "system.run")):
        row = await operator.request("node.describe", {"nodeId": device.device_id})
        assert (row["platform"], row["kind"], row["commands"]) == ("ios", "ios", ["location.get"])
        assert "system.run" not in row.get("pendingDeclaredCommands", [])


async def test_v32_events_are_a_closed_list_and_exec_needs_its_open_invoke(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    async with (
        approved_node(gateway, operator) as (node_id, node),
        approved_node(gateway, operator) as (_, other),
    ):
        for name in ("agent.request", "voice.transcript", "chat.subscribe", "exec.approval.resolved", "", "x" * 9999):
            told = await node.request("node.event", event(name, {"message": "run this", "runId": "r"}))
            assert (told["handled"], told["reason"]) == (False, "unsupported_event")
        started = await operator.start("node.invoke", {"nodeId": node_id, "command": "system.run", "params": {}})
        asked = await next_invoke(node)
        run = {"runId": asked["params"]["runId"], "sessionKey": "agent:main:main", "success": True}
        assert not (await other.request("node.event", event("exec.finished", run)))["handled"]  # another's run
        assert not (await node.request("node.event", event("exec.finished", {"runId": "guess"})))["handled"]
        assert (await node.request("node.event", event("exec.finished", run)))["handled"]
        await answer(node, asked, {})
        await operator.reply(started)
        assert not (await node.request("node.event", event("exec.finished", run)))["handled"]  # it is over
        assert gateway.nodes.registry.drops["unmatched-exec"] == 3


async def test_v33_device_approval_alone_gives_nothing(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with node_peer(gateway, device) as node:
        await operator.expect_event("node.pair.requested")
        for command in COMMANDS:
            with pytest.raises(CallFailed) as failed:
                await operator.request("node.invoke", {"nodeId": device.device_id, "command": command})
            assert (failed.value.details or {})["code"] == "PAIRING_CHANGED"
        await node.request("node.event", event("node.host.stats", {"cpuCount": 1}))
        assert not any(one["event"] == "node.invoke.request" for one in node.events)


async def test_live1_v34_only_the_invokes_own_session_answers_it(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with (
        approved_node(gateway, operator, device) as (node_id, old),
        approved_node(gateway, operator) as (_, other),
    ):
        drops = gateway.nodes.registry.drops
        ignored = {"ok": True, "ignored": True}
        started = await operator.start("node.invoke", {"nodeId": node_id, "command": "system.which"})
        asked = await next_invoke(old)
        assert await answer(other, asked, {"forged": 1}) == ignored
        assert await answer(other, {**asked, "nodeId": "x"}, {"forged": 2}) == ignored
        assert await answer(old, {**asked, "id": "guess"}, {"forged": 3}) == ignored
        assert await answer(old, {**asked, "nodeId": "x"}, {"forged": 4}) == ignored
        assert (drops["foreign"], drops["unknown"]) == (3, 1)
        # The same node again: the old session ends at once, and so does what waited for it.
        async with node_peer(gateway, device) as new:
            error = (await operator.reply(started))["error"]
            assert error["details"]["nodeError"]["code"] == "DISCONNECTED"
            closed = await old.wait_closed()
            assert (closed.code, closed.reason) == (1008, "superseded by a newer connection of this node")
            assert await answer(new, asked, {"late": 1}) == ignored
            assert drops["unknown"] == 2
            again = {"nodeId": node_id, "command": "system.which"}
            second = await operator.start("node.invoke", again)
            await answer(new, await next_invoke(new), {"new": 1})
            assert (await operator.reply(second))["payload"]["payload"] == {"new": 1}


async def test_v34_what_was_approved_is_looked_at_anew_for_each_dispatch(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    """While an invoke waits to be sent again, the command is denied: the second dispatch does not happen."""
    async with approved_node(gateway, operator) as (node_id, node):
        started = await operator.start("node.invoke", {"nodeId": node_id, "command": "system.which"})
        first = await next_invoke(node)
        nodes = attrs.evolve(CONFIG.nodes, commands=attrs.evolve(CONFIG.nodes.commands, deny=("system.which",)))
        gateway.apply(attrs.evolve(CONFIG, nodes=nodes), gateway.auth)
        await answer(node, first, ok=False, error={"code": "NODE_NOT_READY", "message": "later"})
        error = (await operator.reply(started))["error"]
        assert error["details"] == {"reason": "command not allowlisted", "command": "system.which"}
        assert not any(one["event"] == "node.invoke.request" for one in node.events)


async def test_v34_a_surface_of_an_earlier_pairing_is_worth_nothing(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, _):
        hub = gateway.nodes
        record = hub.record(node_id)
        assert record is not None
        assert hub.surfaces.surface(node_id, record.approved_at_ms) is not None
        assert hub.surfaces.surface(node_id, record.approved_at_ms + 1) is None


async def test_a_flood_of_results_and_events_ends_nothing(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with approved_node(gateway, operator) as (node_id, node):
        for index in range(200):
            await node.start("node.invoke.result", {"id": f"guess-{index}", "nodeId": node_id, "ok": True})
            await node.start("node.event", {"event": "exec.finished", "payloadJSON": "]" * 50})
        short = {"id": "a", "nodeId": node_id}
        malformed: tuple[object, ...] = ({"id": 5}, {**short, "ok": "yes"}, short, [], "x")
        for bad in malformed:
            with pytest.raises(CallFailed, match=r"invalid node\.invoke\.result params"):
                await node.request("node.invoke.result", bad)
        with trio.fail_after(5):
            started = await operator.start("node.invoke", {"nodeId": node_id, "command": "system.which"})
            await answer(node, await next_invoke(node), {"alive": 1})
            assert (await operator.reply(started))["ok"]
        assert gateway.nodes.registry.drops["unknown"] == 200
        assert gateway.nodes.registry.drops["unmatched-exec"] == 200


async def test_v20_relaying_what_reads_disks_takes_an_administrator(gateway: Gateway, operator: ScriptedPeer) -> None:
    async with (
        approved_node(gateway, operator, commands=("fs.listDir", "system.which")) as (node_id, node),
        connect_peer(gateway, scopes=["operator.write"]) as writer,
    ):
        with pytest.raises(CallFailed) as failed:
            await writer.request("node.invoke", {"nodeId": node_id, "command": "fs.listDir", "params": {"path": "/"}})
        assert (failed.value.details or {})["missingScope"] == "operator.admin"
        started = await writer.start("node.invoke", {"nodeId": node_id, "command": "system.which"})
        asked = await next_invoke(node)
        assert asked["command"] == "system.which"  # the refused one was never sent
        await answer(node, asked, {})
        assert (await writer.reply(started))["ok"]


async def test_v20_an_operators_device_is_not_cut_by_the_way_of_its_node(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    async with approved_node(gateway, operator, device) as (node_id, _):
        async with connect_peer(gateway, device=device, scopes=["operator.pairing"]) as itself:
            with pytest.raises(CallFailed, match=r"missing scope: operator\.admin"):
                await itself.request("node.pair.remove", {"nodeId": node_id})
        async with connect_peer(gateway, scopes=["operator.pairing"]) as lesser:
            with pytest.raises(CallFailed, match=r"missing scope: operator\.admin"):
                await lesser.request("node.pair.remove", {"nodeId": node_id})
        assert gateway.nodes.registry.get(node_id) is not None


# --- V21


OF_PAIRING = {"pendingRequestId", "pendingDeclaredCommands", "pendingDeclaredCaps", "remoteIp"}


async def rows_for(peer: ScriptedPeer, node_id: str) -> tuple[set[str], set[str]]:
    """The members that `node.list` and `node.describe` show of one node."""
    rows = (await peer.request("node.list"))["nodes"]
    described = await peer.request("node.describe", {"nodeId": node_id})
    return set(next(row for row in rows if row["nodeId"] == node_id)), set(described)


async def test_v21_what_waits_for_a_node_is_seen_by_those_who_may_see_its_pairing(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    node = DeviceIdentity.generate()
    async with node_peer(gateway, node):
        await operator.expect_event("node.pair.requested")
        for scopes, sees in (
            (["operator.read"], set()),
            (["operator.read", "operator.write", "operator.approvals"], set()),
            (["operator.read", "operator.pairing"], OF_PAIRING),
            (["operator.admin"], OF_PAIRING),
        ):
            async with connect_peer(gateway, scopes=scopes) as peer:
                for members in await rows_for(peer, node.device_id):
                    assert members & OF_PAIRING == sees, scopes
                    assert {"nodeId", "displayName", "platform", "connected", "approvalState"} <= members


async def test_v21_a_device_token_session_sees_what_waits_for_its_own_device_alone(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    nosy, other = DeviceIdentity.generate(), DeviceIdentity.generate()
    scopes = ["operator.read", "operator.pairing"]
    async with node_peer(gateway, nosy), node_peer(gateway, other):
        await operator.expect_event("node.pair.requested")
        async with connect_peer(gateway, device=nosy, scopes=scopes) as first:
            hello = first.hello
        token = hello["auth"]["deviceToken"]
        async with connect_peer(gateway, device=nosy, scopes=scopes, auth={"deviceToken": token}) as peer:
            assert peer.hello["auth"]["method"] == "device-token"
            for members in await rows_for(peer, other.device_id):
                assert not members & OF_PAIRING
            for members in await rows_for(peer, nosy.device_id):
                assert members >= OF_PAIRING
        async with connect_peer(gateway, device=nosy, scopes=["operator.read"], auth={"deviceToken": token}) as peer:
            for members in await rows_for(peer, nosy.device_id):
                assert members >= OF_PAIRING, "what waits for it is its own affair"


async def test_v21_neither_a_node_nor_who_may_not_read_sees_any_row(gateway: Gateway) -> None:
    device = DeviceIdentity.generate()
    asks = [("node.list", {}), ("node.describe", {"nodeId": device.device_id})]
    async with node_peer(gateway, device) as node, connect_peer(gateway, scopes=["operator.pairing"]) as pairs:
        for peer in (node, pairs):
            for method, params in asks:
                with pytest.raises(CallFailed) as failed:
                    await peer.request(method, params)
                assert failed.value.code in {"FORBIDDEN", "INVALID_REQUEST"}
                assert device.device_id not in str(failed.value.details)
        assert (await pairs.request("node.pair.list"))["paired"]
