"""Every method of the gateway: scope, parameters, and a result whose keys official clients know (method-shapes)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway import CallFailed, Gateway, GatewayConfig
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.events.presence import MAX_ENTRIES
from openclaw_gateway.testing import connect_peer, open_memory_gateway

TOKEN = "token-of-the-method-tests-0123456789"
CONFIG = GatewayConfig(port=0, auth=AuthConfig(type="token", token=TOKEN))

# Keys that OpenClaw's own gateway answered with (method-shapes.md). What we add of our own stands behind "+".
SHAPES: dict[str, tuple[str, str]] = {
    "health": (
        (
            "ok ts durationMs plugins configReload channels channelOrder channelLabels heartbeatSeconds defaultAgentId "
            "agents sessions modelRuntime eventLoop"
        ),
        "",
    ),
    "status": (
        (
            "runtimeVersion hostDesktop heartbeat channelSummary queuedSystemEvents degradedSecretOwners "
            "degradedPlugins tasks taskAudit sessions modelRuntime eventLoop processMemory workerPools pid "
            "shutdownBudget"
        ),
        "uptimeMs connections parts configIssues appliedConfigHash discovery tls tailscale tunnels",
    ),
    "channels.status": (
        (
            "ts channelOrder channelLabels channelDetailLabels channelSystemImages channelMeta eventLoop channels "
            "channelAccounts channelDefaultAccountId statusIssues"
        ),
        "",
    ),
    "diagnostics.stability": ("generatedAt capacity count dropped firstSeq lastSeq events summary", ""),
    "logs.tail": ("file cursor size lines truncated reset", ""),
    "node.list": ("ts nodes", ""),
    "node.pair.list": ("pending paired", ""),
    "device.pair.list": ("pending paired", ""),
}
NODE_ROW = (
    "nodeId displayName platform version clientId clientMode deviceFamily remoteIp caps commands sessionHost "
    "nodePluginTools pathEnv approvalState connectedAtMs lastConnectedAtMs lastSeenAtMs lastSeenReason approvedAtMs "
    "paired connected pendingRequestId pendingDeclaredCommands pendingDeclaredCaps kind"
)
PRESENCE_ROW = (
    "host ip version platform deviceFamily mode reason instanceId text ts clientId deviceId roles scopes tags "
    "modelIdentifier lastInputSeconds"
)
SCOPES = {
    "health": None,
    "status": "operator.read",
    "system-presence": "operator.read",
    "system-event": "operator.admin",
    "last-heartbeat": "operator.read",
    "set-heartbeats": "operator.admin",
    "gateway.identity.get": "operator.read",
    "diagnostics.stability": "operator.read",
    "channels.status": "operator.read",
    "logs.tail": "operator.read",
    "device.pair.list": "operator.pairing",
    "node.list": "operator.read",
    "node.pair.list": "operator.pairing",
    "node.describe": "operator.read",
    "node.pair.approve": "operator.pairing",
    "node.pair.reject": "operator.pairing",
    "node.pair.remove": "operator.pairing",
    "node.rename": "operator.pairing",
    "node.invoke": "operator.write",
    "node.pending.enqueue": "operator.write",
    "config.get": "operator.read",
    "config.set": "operator.admin",
    "config.patch": "operator.admin",
    "config.schema": "operator.read",
    "config.schema.lookup": "operator.read",
    "agent.send": "operator.write",
    "chat.send": "operator.write",
    "chat.history": "operator.read",
    "chat.inject": "operator.admin",
    "sessions.list": "operator.read",
    "sessions.patch": "operator.write",
    "sessions.delete": "operator.admin",
    "sessions.patchMany": "operator.write",
    "sessions.search": "operator.read",
    "sessions.usage": "operator.read",
    "sessions.usage.logs": "operator.read",
    "sessions.usage.timeseries": "operator.read",
    "usage.cost": "operator.read",
    "usage.status": "operator.read",
    "agents.list": "operator.read",
    "queue.list": "operator.admin",
}
LENIENT = {
    "agent.send",
    "chat.send",
    "chat.history",
    "sessions.list",
    "sessions.patch",
    "sessions.delete",
    "sessions.patchMany",
    "sessions.search",
    "sessions.usage",
    "sessions.usage.logs",
    "sessions.usage.timeseries",
    "usage.cost",
    "usage.status",
    "agents.list",
}


@pytest.fixture
async def gateway() -> Any:
    async with open_memory_gateway(CONFIG) as gateway:
        yield gateway


async def test_hello_advertises_exactly_the_methods_there_are(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        assert SCOPES.keys() <= set(peer.hello["features"]["methods"])
        assert set(peer.hello["features"]["methods"]) == {"connect", *gateway.rpc.names}
        assert set(peer.hello["features"]["events"]) == set(gateway.events.names)


@pytest.mark.parametrize("method", SCOPES)
async def test_v41_every_method_asks_for_its_scope(gateway: Gateway, method: str) -> None:
    scope = SCOPES[method]
    others = {"operator.read", "operator.write", "operator.pairing", "operator.approvals"} - {scope}
    if scope == "operator.read":
        others -= {"operator.write"}  # whoever may write may read
    async with connect_peer(gateway, scopes=sorted(others)) as peer:
        if scope is None:
            assert (await peer.request(method))["ok"]
            return
        with pytest.raises(CallFailed) as failed:
            await peer.request(method)
        assert failed.value.code == "FORBIDDEN"
        assert failed.value.details == {"code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope]}


@pytest.mark.parametrize("method", sorted(set(SCOPES) - LENIENT))
async def test_every_method_refuses_members_it_does_not_know(gateway: Gateway, method: str) -> None:
    async with connect_peer(gateway) as peer:
        with pytest.raises(CallFailed) as failed:
            await peer.request(method, {"zzz": 1})
        assert failed.value.message == f"invalid {method} params: at root: unexpected property 'zzz'"


@pytest.mark.parametrize("method", SHAPES)
async def test_results_have_the_keys_that_clients_know(gateway: Gateway, method: str) -> None:
    theirs, ours = SHAPES[method]
    async with connect_peer(gateway) as peer:
        for params in (None, dict[str, Any]()):
            result = await peer.request(method, params)
            assert set(result) <= set(theirs.split()) | set(ours.split())
    if not ours:
        assert set(result) == set(theirs.split())


async def test_cli_needs_of_wire_section_6(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        status = await peer.request("status", {"includeChannelSummary": False})
        assert (status["channelSummary"], status["sessions"]["byAgent"]) == ([], [])
        assert status["connections"] == {"total": 1, "operators": 1, "nodes": 0, "unauthenticated": 0, "limit": 100}
        took = (await peer.request("health", {"probe": True}))["durationMs"]
        assert isinstance(took, int), "OpenClaw's schema has whole milliseconds"
        assert await peer.request("last-heartbeat") is None
        assert await peer.request("set-heartbeats", {"enabled": False}) == {"ok": True, "enabled": False}
        assert (await peer.request("channels.status", {"probe": False, "timeoutMs": 1000}))["channels"] == {}
        stability = await peer.request("diagnostics.stability", {"limit": 1000, "type": "connect"})
        assert [event["type"] for event in stability["events"]] == ["connect"]
        assert (await peer.request("logs.tail", {"limit": 5, "maxBytes": 250_000}))["lines"] == []


async def test_v50_members_that_name_this_machine_are_for_admins(gateway: Gateway) -> None:
    async with connect_peer(gateway) as admin, connect_peer(gateway, scopes=["operator.read"]) as reader:
        assert "pid" in await admin.request("status")
        assert "pid" not in await reader.request("status")
        assert "authMode" in admin.hello["snapshot"]
        assert "authMode" not in reader.hello["snapshot"]


async def test_a_health_probe_is_followed_by_a_health_event(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        await peer.request("health", {"probe": True})
        payload = await peer.expect_event("health")
        assert payload["ok"]


async def test_gateway_identity_is_stable(gateway: Gateway, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    seen = []
    for _ in range(2):
        async with open_memory_gateway(CONFIG, state_dir=state) as kept, connect_peer(kept) as peer:
            seen.append(await peer.request("gateway.identity.get"))
    assert seen[0] == seen[1]
    assert set(seen[0]) == {"deviceId", "publicKey", "keyStatement", "keyFingerprint"}


async def test_logs_tail_checks_its_numbers(gateway: Gateway, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "logs").mkdir(parents=True, mode=0o700)
    state.chmod(0o700)
    (state / "logs" / "gateway.log").write_text("".join(f"line {index}\n" for index in range(10)))
    async with open_memory_gateway(CONFIG, state_dir=state) as kept, connect_peer(kept) as peer:
        page = await peer.request("logs.tail", {"limit": 3})
        assert page["lines"] == ["line 7", "line 8", "line 9"]
        again = await peer.request("logs.tail", {"cursor": page["cursor"]})
        assert (again["lines"], again["reset"]) == ([], False)
        for name in ("limit", "maxBytes"):
            with pytest.raises(CallFailed, match=f"at /{name}: must be >= 1"):
                await peer.request("logs.tail", {name: 0})
        with pytest.raises(CallFailed, match="at /cursor: must be >= 0"):
            await peer.request("logs.tail", {"cursor": -1})


async def test_live5_nodes_are_those_paired_and_those_connected(gateway: Gateway) -> None:
    device = DeviceIdentity.generate()
    who: dict[str, Any] = {
        "role": "node",
        "mode": "node",
        "scopes": [],
        "client_id": "node-host",
        "client": {"displayName": "Node One", "deviceFamily": "Linux"},
        "device": device,
        "commands": ["system.run"],
    }
    async with connect_peer(gateway) as operator:
        async with connect_peer(gateway, **who):
            [row] = (await operator.request("node.list"))["nodes"]
            assert set(row) <= {*NODE_ROW.split(), "secureChannel"}  # the last is ours
            assert row["secureChannel"] is False
            assert (row["nodeId"], row["displayName"], row["connected"], row["paired"]) == (
                device.device_id,
                "Node One",
                True,
                True,
            )
            assert (row["approvalState"], row["commands"], row["pendingDeclaredCommands"]) == (
                "pending-approval",
                [],
                ["system.run"],
            )
            described = await operator.request("node.describe", {"nodeId": device.device_id})
            assert described.pop("ts") > 0
            assert described.keys() == row.keys()
            presence = await operator.request("system-presence")
            assert [entry["mode"] for entry in presence] == ["gateway", "node"]
        [row] = (await operator.request("node.list"))["nodes"]
        assert (row["connected"], row["paired"]) == (False, True)
        assert (await operator.request("node.pair.list"))["paired"][0]["nodeId"] == device.device_id
        [paired] = (await operator.request("device.pair.list"))["paired"]
        assert paired["deviceId"] == device.device_id
        assert "token" not in str(paired).lower().replace("tokens", "").replace("issuedat", "")
        with pytest.raises(CallFailed, match="unknown node: nope"):
            await operator.request("node.describe", {"nodeId": "nope"})
        events = [event["event"] for event in operator.events]
        assert "presence" in events
        assert "device.pair.resolved" in events


async def test_presence_names_nodes_and_user_interfaces_only(gateway: Gateway) -> None:
    async with connect_peer(gateway, scopes=["operator.read"], client_id="cli", mode="cli") as cli:
        assert [entry["reason"] for entry in await cli.request("system-presence")] == ["self"]
        async with connect_peer(gateway, client_id="webchat", mode="webchat"):
            entries = await cli.request("system-presence")
            assert [entry["mode"] for entry in entries] == ["gateway", "webchat"]
            for entry in entries:
                assert set(entry) <= set(PRESENCE_ROW.split())
        first, second = await cli.expect_event("presence"), await cli.expect_event("presence")
        assert [entry["reason"] for entry in first["presence"]] == ["self", "connect"]
        assert [entry["reason"] for entry in second["presence"]] == ["self", "disconnect"]
        assert len(await cli.request("system-presence")) == 1


async def test_system_event_makes_a_presence_entry_and_they_are_capped(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        assert await peer.request("system-event", {"text": "x" * 5000, "host": "h", "mode": "ui"}) == {"ok": True}
        entry = (await peer.request("system-presence"))[1]
        assert (len(entry["text"]), entry["host"], entry["reason"]) == (2000, "h", "system-event")
        for index in range(MAX_ENTRIES + 10):
            await peer.request("system-event", {"text": "t", "instanceId": f"i{index}"})
        assert len(await peer.request("system-presence")) == MAX_ENTRIES + 1


async def test_s096_embedding_methods_without_a_file_say_so(gateway: Gateway) -> None:
    async with connect_peer(gateway) as peer:
        for method, params in (("config.get", None), ("config.set", {"raw": "{}"}), ("config.patch", {"raw": "{}"})):
            with pytest.raises(CallFailed) as failed:
                await peer.request(method, params)
            assert (failed.value.details or {})["code"] == "NO_CONFIG_FILE"
        schema = await peer.request("config.schema")
        assert schema["schema"]["type"] == "object"
        assert set(schema) <= {"schema", "uiHints", "version", "generatedAt"}
