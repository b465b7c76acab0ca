"""hello-ok: a golden reply for each set of scopes (V50)."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest

from openclaw_gateway.protocol.hello import DeviceTokenGrant, HelloLimits, HelloSnapshot, hello_ok

SNAPSHOT = HelloSnapshot(
    presence=[{"host": "gw", "mode": "gateway"}],
    health={"ok": True},
    presence_version=3,
    health_version=4,
    uptime_ms=70_514,
    config_path="/srv/claw/openclaw.json",
    state_dir="/srv/claw",
    auth_mode="token",
    applied_config_hash="abc",
)
BARE = {"presence": [], "health": {}, "stateVersion": {"presence": 3, "health": 4}, "uptimeMs": 70_514}
READING = BARE | {"presence": [{"host": "gw", "mode": "gateway"}], "health": {"ok": True}}
FULL = READING | {
    "configPath": "/srv/claw/openclaw.json",
    "stateDir": "/srv/claw",
    "authMode": "token",
    "appliedConfigHash": "abc",
}


def hello(role: str = "operator", scopes: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    built = hello_ok(
        protocol=4,
        server_version="0.1.0",
        conn_id="c",
        boot_id="b",
        methods=["health"],
        events=["tick"],
        capabilities=["published-model-catalog"],
        snapshot=more.pop("snapshot", SNAPSHOT),
        limits=HelloLimits(max_payload=104_857_600, max_buffered_bytes=52_428_800, tick_interval_ms=30_000),
        role=role,
        scopes=scopes,
        method="token",
        **more,
    )
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(built))
    return decoded


def test_the_whole_reply_is_golden() -> None:
    assert hello(scopes=("operator.admin",)) == {
        "type": "hello-ok",
        "protocol": 4,
        "server": {"version": "0.1.0", "controlUiBuildSource": "configured", "bootId": "b", "connId": "c"},
        "features": {"methods": ["health"], "events": ["tick"], "capabilities": ["published-model-catalog"]},
        "snapshot": FULL,
        "auth": {"method": "token", "role": "operator", "scopes": ["operator.admin"]},
        "policy": {"maxPayload": 104_857_600, "maxBufferedBytes": 52_428_800, "tickIntervalMs": 30_000},
    }


@pytest.mark.parametrize(
    ("role", "scopes", "snapshot"),
    [
        ("operator", (), BARE),
        ("operator", ("operator.pairing",), BARE),
        ("operator", ("operator.approvals", "operator.questions", "operator.talk.secrets"), BARE),
        ("operator", ("operator.read",), READING),
        ("operator", ("operator.write",), READING),
        ("operator", ("operator.read", "operator.write", "operator.pairing"), READING),
        ("operator", ("operator.admin",), FULL),
        ("node", (), BARE),
        ("node", ("operator.admin",), BARE),
        ("operator", ("operator.everything",), BARE),
    ],
)
def test_v50_snapshot_by_scope(role: str, scopes: tuple[str, ...], snapshot: dict[str, Any]) -> None:
    assert hello(role, scopes)["snapshot"] == snapshot


def test_an_admin_is_not_told_what_is_not_known() -> None:
    snapshot = attrs.evolve(SNAPSHOT, config_path=None, state_dir=None, auth_mode=None, applied_config_hash=None)
    assert hello(scopes=("operator.admin",), snapshot=snapshot)["snapshot"] == READING


def test_a_device_token_goes_only_where_it_is_given() -> None:
    assert "deviceToken" not in hello()["auth"]
    grant = DeviceTokenGrant(token="T0KEN", issued_at_ms=5)
    assert "T0KEN" not in repr(grant)
    auth = hello(device_token=grant)["auth"]
    assert (auth["deviceToken"], auth["issuedAtMs"]) == ("T0KEN", 5)


def test_parts_may_be_encoded_before() -> None:
    snapshot = attrs.evolve(SNAPSHOT, health=msgspec.Raw(b'{"ok":true}'))
    assert hello(scopes=("operator.read",), snapshot=snapshot)["snapshot"] == READING
