"""`audit.activity.list` and `gateway.explain` over a real gateway, and what its connections leave in the trail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.ops.audit import Action, audit_folder
from openclaw_gateway.ops.auditfile import tail_lines
from openclaw_gateway.ops.doctor_audit import examine_trail
from openclaw_gateway.testing import connect_peer

TOKEN = "token-of-the-audit-tests-0123456789"
ADMIN = ("operator.admin",)
SHAPES = [
    "sk-live-0123456789abcdef0123456789abcdef",
    "ghp_0123456789abcdef0123456789abcdef0123",
    "xoxb-123456789012-abcdefghijklmnop",
    "AKIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "123456789:AAF0123456789abcdefghijklmnopqrstuv",
]


def config(state: Path | None) -> GatewayConfig:
    return GatewayConfig(port=0, state_dir=state, auth=AuthConfig(type="token", token=TOKEN))


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with open_gateway(config(tmp_path), env={}, listen=False) as gateway:
        yield gateway


async def refused(gateway: Gateway, **who: Any) -> CallFailed:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - a group of one, or the error itself
        async with connect_peer(gateway, **who):
            pass
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, CallFailed)
    return error


def told_to(error: CallFailed, key: str) -> str:
    assert error.details is not None
    return str(error.details[key])


async def test_audit1_s070_connects_refusals_and_ends_are_in_the_trail(gateway: Gateway, tmp_path: Path) -> None:
    async with connect_peer(gateway, scopes=ADMIN):
        pass
    await refused(gateway, token="wrong-token-0123456789abcdef")
    await gateway.audit.flush()
    rows = tail_lines(audit_folder(tmp_path), 10)
    assert [(row["action"], row["outcome"]) for row in rows] == [
        ("gateway.started", "ok"),
        ("connect", "ok"),
        ("disconnect", "ok"),
        ("connect", "refused"),
    ]
    assert rows[1]["conn_id"] == rows[2]["conn_id"]
    assert (rows[1]["auth"], rows[1]["address"]) == ("token", "127.0.0.1")
    assert (rows[3]["code"], rows[3]["trail"][-1]) == ("AUTH_TOKEN_MISMATCH", "refused: auth-token-mismatch")
    report = examine_trail(tmp_path)
    assert report is not None
    assert report.fault is None


async def test_audit1_a_pairing_request_and_a_silent_pairing_are_on_the_disk_before_the_answer(
    gateway: Gateway, tmp_path: Path
) -> None:
    identity = DeviceIdentity.generate()
    error = await refused(gateway, address="203.0.113.9", device=identity, token=TOKEN)
    rows = {row["action"]: row for row in tail_lines(audit_folder(tmp_path), 10)}
    requested = rows["pairing.requested"]
    assert requested["request_id"] == told_to(error, "requestId")
    assert (requested["device"], requested["address"]) == (identity.device_id, "203.0.113.9")
    async with connect_peer(gateway, device=DeviceIdentity.generate(), token=TOKEN):
        rows = {row["action"]: row for row in tail_lines(audit_folder(tmp_path), 10)}
        assert rows["pairing.approved"]["actor"] == "gateway"
        assert rows["pairing.approved"]["reason"] == "admitted: paired by itself: on this host"


async def test_activity_list_has_the_published_shape_newest_first_and_pages(gateway: Gateway) -> None:
    for number in range(5):
        await gateway.audit.commit(Action.TOKEN_MINTED, actor=f"device:{number}:operator", device=str(number))
    async with connect_peer(gateway, scopes=ADMIN) as peer:
        first = await peer.request("audit.activity.list", {"limit": 3, "status": "succeeded"})
        assert [event["sequence"] for event in first["events"]] == [7, 6, 5]
        required = {"eventType", "schemaVersion", "eventId", "sequence", "sourceSequence", "occurredAt", "redaction"}
        for event in first["events"]:
            assert required | {"actor", "kind", "action", "status"} <= set(event)
            assert event["redaction"] == "metadata_only"
        assert first["events"][1]["gateway"]["device"] == "4"
        rest = await peer.request("audit.activity.list", {"cursor": first["nextCursor"], "limit": 500})
        assert [event["sequence"] for event in rest["events"]] == [4, 3, 2, 1]
        assert "nextCursor" not in rest
        assert (await peer.request("audit.activity.list", {"kind": "agent_run"})) == {"events": []}
        late = {"after": first["events"][0]["occurredAt"] + 3_600_000}
        assert (await peer.request("audit.activity.list", late)) == {"events": []}


async def test_v50_v51_read_scope_sees_what_happened_and_not_to_whom(gateway: Gateway) -> None:
    await gateway.audit.commit(
        Action.PAIRING_APPROVED, actor="device:aaaa:operator", device="bbbb", address="203.0.113.9", request_id="r-1"
    )
    async with connect_peer(gateway, scopes=("operator.read",)) as peer:
        text = json.dumps(await peer.request("audit.activity.list", {"limit": 10}))
        assert "pairing.approved" in text
        for hidden in ("aaaa", "bbbb", "203.0.113.9", "127.0.0.1", "r-1"):
            assert hidden not in text
        with pytest.raises(CallFailed, match="missing scope"):
            await peer.request("gateway.explain", {"ip": "127.0.0.1"})


@pytest.mark.parametrize(
    "params",
    [{"limit": 0}, {"limit": 501}, {"cursor": "-1"}, {"cursor": "x"}, {"cursor": "9" * 40}, {"after": 2, "before": 1}],
)
async def test_activity_list_refuses_what_the_schema_refuses(gateway: Gateway, params: dict[str, Any]) -> None:
    async with connect_peer(gateway, scopes=ADMIN) as peer:
        with pytest.raises(CallFailed, match=r"invalid audit\.activity\.list params"):
            await peer.request("audit.activity.list", params)


async def test_a_gateway_without_a_state_directory_remembers_and_writes_nothing() -> None:
    async with open_gateway(config(None), env={}, listen=False) as gateway, connect_peer(gateway, scopes=ADMIN) as peer:
        listed = await peer.request("audit.activity.list", {"limit": 2})
        assert [event["action"] for event in listed["events"]] == ["connect", "gateway.started"]


async def test_log3_no_secret_of_any_shape_reaches_the_trail(gateway: Gateway, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        for number, (shape, kind) in enumerate(product(SHAPES, ("token", "password", "device_token"))):
            # Each from its own address: what one address gets wrong slows it down.
            nursery.start_soon(partial(refused, gateway, address=f"203.0.113.{number}", **{kind: shape}))
    async with connect_peer(gateway, scopes=ADMIN, token=TOKEN) as peer:
        for shape in SHAPES:
            for method in ("gateway.explain", "audit.activity.list", shape[:40]):
                with pytest.raises(CallFailed):
                    await peer.request(method, {shape: shape})
        await peer.close(1000, SHAPES[0])
    await gateway.audit.flush()
    text = (audit_folder(tmp_path) / "audit.jsonl").read_text()
    assert "disconnect" in text
    for shape in (*SHAPES, TOKEN):
        assert shape not in text


async def test_explain_a_connection_that_was_refused_tells_what_the_client_was_told(
    gateway: Gateway, tmp_path: Path
) -> None:
    error = await refused(gateway, token="wrong-token-0123456789abcdef")
    await gateway.audit.flush()
    (row,) = tail_lines(audit_folder(tmp_path), 1)
    async with connect_peer(gateway, scopes=ADMIN) as peer:
        told = await peer.request("gateway.explain", {"connId": row["conn_id"]})
        assert (told["verdict"], told["fix"]) == ("refused", told_to(error, "remediationHint"))
        assert told["path"] == row["trail"]
        with pytest.raises(CallFailed, match="unknown connection"):
            await peer.request("gateway.explain", {"connId": "nobody"})


async def test_explain_names_the_request_that_waits_and_then_the_approval(gateway: Gateway) -> None:
    identity = DeviceIdentity.generate()
    error = await refused(gateway, address="203.0.113.9", device=identity, token=TOKEN)
    async with connect_peer(gateway, scopes=ADMIN) as peer:
        who = {"ip": "203.0.113.9", "device": identity.device_id[:12]}
        told = await peer.request("gateway.explain", who)
        assert (told["verdict"], told["device"]) == ("pairing-needed", identity.device_id)
        assert told["fix"] == told_to(error, "remediationHint")
        assert told_to(error, "requestId") in told["fix"]
        assert len(gateway.gatekeeper.ledger) == 0  # asking counts nothing


@pytest.mark.parametrize(
    "params",
    [{}, {"ip": "1.2.3.4", "connId": "c"}, {"ip": ""}, {"ip": "1\n2"}, {"ip": "::1", "role": "king"},
     {"ip": "::1", "clientId": "no-such-client"}, {"ip": "::1", "auth": "device"}, {"ip": "::1", "auth": "magic"},
     {"ip": "::1", "scopes": ["s"] * 65}, {"ip": "::1", "host": "h" * 600}],
)  # fmt: skip
async def test_explain_refuses_questions_that_make_no_sense(gateway: Gateway, params: dict[str, Any]) -> None:
    async with connect_peer(gateway, scopes=ADMIN) as peer:
        with pytest.raises(CallFailed, match=r"invalid gateway\.explain params"):
            await peer.request("gateway.explain", params)
