"""Node surfaces among the other pairings: the common table, whose device it is, setup codes, the audit trail."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway import CallFailed, Gateway, GatewayConfig
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.pairing.offline import open_offline
from openclaw_gateway.testing import ScriptedPeer, connect_peer, open_memory_gateway
from tests.nodes.scripted import COMMANDS, approved_node, node_peer

CONFIG = GatewayConfig(port=0, auth=AuthConfig(type="token", token="token-of-the-node-pairing-tests-012345678"))
OPERATOR = ["operator.pairing", "operator.read", "operator.write"]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_memory_gateway(CONFIG) as gateway:
        yield gateway


@pytest.fixture
async def operator(gateway: Gateway) -> AsyncIterator[ScriptedPeer]:
    async with connect_peer(gateway) as peer:
        yield peer


async def node_rows(operator: ScriptedPeer) -> list[dict[str, Any]]:
    rows = (await operator.request("pairing.list"))["rows"]
    return [row for row in rows if row["kind"] == "node"]


async def own_token(gateway: Gateway, device: DeviceIdentity) -> str:
    async with connect_peer(gateway, device=device, scopes=OPERATOR) as peer:
        token: str = peer.hello["auth"]["deviceToken"]
        return token


async def test_pair8_a_surface_stands_in_the_common_table_with_the_call_that_approves_it(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    async with node_peer(gateway, device):
        requested = await operator.expect_event("node.pair.requested")
        (row,) = await node_rows(operator)
        assert (row["state"], row["id"], row["subject"]) == ("pending", requested["requestId"], device.device_id)
        assert set(COMMANDS) < set(row["asks"])
        assert row["grants"] == f"commands: {', '.join(sorted(COMMANDS))}"
        assert row["reject"] == {"method": "node.pair.reject", "params": {"requestId": row["id"]}}
        await operator.request(row["approve"]["method"], row["approve"]["params"])
        (row,) = await node_rows(operator)
        assert (row["state"], row["id"]) == ("paired", device.device_id)
        assert "approve" not in row


async def test_pair8_a_surface_is_approved_without_a_gateway(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir(mode=0o700)
    device = DeviceIdentity.generate()
    config = GatewayConfig(port=0, auth=CONFIG.auth, state_dir=state_dir)
    async with open_memory_gateway(config) as gateway, connect_peer(gateway) as operator, node_peer(gateway, device):
        await operator.expect_event("node.pair.requested")
    async with open_offline(state_dir, config) as offline:
        (row,) = [row for row in (await offline.call("pairing.list"))["rows"] if row["state"] == "pending"]
        assert row["kind"] == "node"
        await offline.call(row["approve"]["method"], row["approve"]["params"])
    async with open_memory_gateway(config) as gateway, connect_peer(gateway) as operator, node_peer(gateway, device):
        (listed,) = (await operator.request("node.pair.list"))["paired"]
        assert listed["commands"] == sorted(COMMANDS)


async def test_v21_a_device_token_sees_and_handles_its_own_node_alone(gateway: Gateway, operator: ScriptedPeer) -> None:
    mine, other = DeviceIdentity.generate(), DeviceIdentity.generate()
    token = await own_token(gateway, mine)
    async with connect_peer(gateway, device=mine, device_token=token, scopes=OPERATOR) as nosy:
        assert nosy.hello["auth"]["method"] == "device-token"
        async with node_peer(gateway, other):
            foreign = await operator.expect_event("node.pair.requested")
            assert await nosy.request("node.pair.list") == {"pending": [], "paired": []}
            assert await node_rows(nosy) == []
            for method in ("node.pair.approve", "node.pair.reject"):
                with pytest.raises(CallFailed, match="unknown requestId"):
                    await nosy.request(method, {"requestId": foreign["requestId"]})
            with pytest.raises(CallFailed, match="unknown node"):
                await nosy.request("node.pair.remove", {"nodeId": other.device_id})
            with pytest.raises(CallFailed, match="unknown node"):
                await nosy.request("node.rename", {"nodeId": other.device_id, "displayName": "mine"})
            await operator.request("node.pair.reject", {"requestId": foreign["requestId"]})
            await operator.request("node.pair.remove", {"nodeId": other.device_id})
        async with node_peer(gateway, mine):
            heard = await nosy.expect_event("node.pair.requested")
            assert heard["nodeId"] == mine.device_id  # the first that it heard of at all
            assert not [one for one in nosy.events if one["event"] == "node.pair.resolved"]
            listed = await nosy.request("node.pair.list")
            assert [row["nodeId"] for row in listed["pending"]] == [mine.device_id]
            assert [row["subject"] for row in await node_rows(nosy)] == [mine.device_id]


async def test_v26_a_removed_node_that_is_nothing_else_is_no_device_any_more(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    async with approved_node(gateway, operator, device) as (node_id, node):
        await operator.request("node.pair.remove", {"nodeId": node_id})
        assert (await node.wait_closed()).code == 4001
    paired = (await operator.request("device.pair.list"))["paired"]
    assert node_id not in [row["deviceId"] for row in paired]
    assert await node_rows(operator) == []


async def test_v26_of_a_mixed_device_the_role_node_goes_and_the_operator_stays(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    await own_token(gateway, device)
    async with node_peer(gateway, device):
        await operator.request("node.pair.remove", {"nodeId": device.device_id})
    assert gateway.nodes.book.lookup(device.device_id, "node") is None
    assert gateway.nodes.book.lookup(device.device_id, "operator") is not None


async def test_v24_an_administrators_code_approves_the_first_surface_and_no_wider_one(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    params = {"publicUrl": "wss://gw.example", "bootstrapProfile": "node", "includeQr": False}
    async with connect_peer(gateway, scopes=OPERATOR) as lesser:
        with pytest.raises(CallFailed) as refused:
            await lesser.request("device.pair.setupCode", params)
        assert (refused.value.details or {})["missingScope"] == "operator.admin"
    code = (await operator.request("device.pair.setupCode", params))["setupCode"]
    token = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))["bootstrapToken"]
    device = DeviceIdentity.generate()
    async with node_peer(gateway, device, commands=("system.which",), bootstrap_token=token) as node:
        assert node.hello["auth"]["method"] == "bootstrap-token"
        own = node.hello["auth"]["deviceToken"]
        listed: dict[str, Any] = {"paired": []}
        while [row["commands"] for row in listed["paired"]] != [["system.which"]]:
            listed = await operator.request("node.pair.list")
        assert listed["pending"] == []
    async with node_peer(gateway, device, commands=("system.which", "system.run"), device_token=own):
        wider = await operator.expect_event("node.pair.requested")
        assert wider["commands"] == ["system.run", "system.which"]
        (row,) = (await operator.request("node.pair.list"))["paired"]
        assert row["commands"] == ["system.which"]


async def test_audit1_decisions_about_surfaces_are_in_the_trail(gateway: Gateway, operator: ScriptedPeer) -> None:
    device = DeviceIdentity.generate()
    async with approved_node(gateway, operator, device, commands=("system.which",)) as (node_id, _):
        await operator.request("node.rename", {"nodeId": node_id, "displayName": "Attic"})
    async with node_peer(gateway, device, commands=("system.which", "system.run")):
        wider = await operator.expect_event("node.pair.requested")
        await operator.request("node.pair.reject", {"requestId": wider["requestId"]})
        await operator.request("node.pair.remove", {"nodeId": node_id})
    rows = [row for row in await gateway.audit.recent(100) if row.get("device") == node_id]
    told = {row["action"]: row for row in rows if row["action"].startswith("pairing.")}
    assert {row["role"] for row in told.values()} == {"node"}
    assert told["pairing.approved"]["commands"] == ["system.which"]
    assert told["pairing.rejected"]["commands"] == ["system.run", "system.which"]
    assert told["pairing.rejected"]["request_id"] == wider["requestId"]
    assert told["pairing.renamed"]["label"] == "Attic"
    assert "pairing.removed" in told


async def test_v26_a_removed_device_leaves_nothing_of_its_node_in_memory(
    gateway: Gateway, operator: ScriptedPeer
) -> None:
    device = DeviceIdentity.generate()
    async with approved_node(gateway, operator, device) as (node_id, _):
        pass
    await operator.request("node.pending.enqueue", {"nodeId": node_id, "type": "status.request"})
    record = gateway.nodes.record(node_id)
    assert record is not None
    assert gateway.nodes.surfaces.surface(node_id, record.approved_at_ms) is not None
    assert len(gateway.nodes.queue) == 1
    await operator.request("device.pair.remove", {"deviceId": node_id})
    assert gateway.nodes.surfaces.surface(node_id, record.approved_at_ms) is None
    assert len(gateway.nodes.queue) == 0
    assert gateway.nodes.queue.revision(node_id) == 0
