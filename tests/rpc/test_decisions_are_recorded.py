"""AUDIT-1: what a person decides is in the trail, on the disk, when the decision is answered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openclaw_gateway import GatewayConfig
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig, ChannelConfig
from openclaw_gateway.testing import connect_peer, open_memory_gateway

from .test_pairing_methods import ask, refusal

TOKEN = "token-of-the-recorded-tests-0123456789"


def _config(state: Path) -> GatewayConfig:
    return GatewayConfig(
        port=0, state_dir=state, auth=AuthConfig(type="token", token=TOKEN), channels={"telegram": ChannelConfig()}
    )


def _rows(state: Path, *actions: str) -> list[dict[str, Any]]:
    """Read from the disk, while the gateway runs."""
    text = (state / "audit" / "audit.jsonl").read_text()
    return [row for row in map(json.loads, text.splitlines()) if row["action"] in actions]


async def test_audit1_every_decision_about_a_device_is_on_the_disk_when_it_is_answered(tmp_path: Path) -> None:
    state = tmp_path / "state"
    device, other = DeviceIdentity.generate(), DeviceIdentity.generate()
    async with open_memory_gateway(_config(state)) as gateway, connect_peer(gateway) as admin:
        where = {"deviceId": device.device_id}
        steps: list[tuple[str, dict[str, Any], str]] = [
            ("device.pair.approve", {"requestId": await ask(gateway, device, "operator.read")}, "pairing.approved"),
            ("device.pair.reject", {"requestId": await ask(gateway, other, "operator.read")}, "pairing.rejected"),
            ("device.pair.rename", {**where, "label": "kitchen"}, "pairing.renamed"),
            ("device.token.rotate", {**where, "role": "operator"}, "token.rotated"),
            ("device.token.revoke", {**where, "role": "operator"}, "token.revoked"),
            ("device.pair.remove", where, "pairing.removed"),
        ]
        for method, params, action in steps:
            assert _rows(state, action) == []
            await admin.request(method, params)
            (row,) = _rows(state, action)
            assert row["actor"] == "token:operator"
            assert row["device"] == (other if action == "pairing.rejected" else device).device_id
            assert row["outcome"] == "ok"
        text = (state / "audit" / "audit.jsonl").read_text()
        assert TOKEN not in text


async def test_audit1_a_refused_decision_leaves_no_row_of_a_decision(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with open_memory_gateway(_config(state)) as gateway:
        wanted = await ask(gateway, DeviceIdentity.generate(), "operator.admin")
        async with connect_peer(gateway, scopes=["operator.pairing"]) as helper:
            error = await refusal(helper, "device.pair.approve", {"requestId": wanted})
            assert "denied" in error.message
        assert _rows(state, "pairing.approved") == []


async def test_audit1_what_is_decided_about_a_sender_is_recorded(tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with open_memory_gateway(_config(state)) as gateway, connect_peer(gateway) as admin:
        await admin.request("channels.pairing.policy", {"channel": "telegram", "senderId": "4711", "policy": "allow"})
        (row,) = _rows(state, "pairing.approved")
        assert (row["channel"], row["sender"]) == ("telegram", "4711")
