"""V10, V11, V22, V41, V42: getting more than was granted, over every way in."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from openclaw_gateway import Gateway
from openclaw_gateway.errors import LocalProtocolError
from openclaw_gateway.rpc.table import MethodTable
from openclaw_gateway.server.gatekeeper import Grant
from openclaw_gateway.server.http import HttpReply, HttpRequest, Route, json_reply
from tests.websocket.rawclient import TEXT, frame

from .attacker import (
    ALL_SCOPES,
    CLIENT_IDS,
    PASSWORD,
    TOKEN,
    Attacker,
    Device,
    http,
    open_victim,
    remote_door,
    rpc,
)

SECRETS: dict[str, dict[str, str]] = {"none": {}, "token": {"token": TOKEN}, "password": {"password": PASSWORD}}
INVENTED = ("operator.superuser", "*", "operator.*", "admin", "OPERATOR.ADMIN", "operator.admin ", "node.invoke", "any")

# What an admitted operator may ask without any scope: how the gateway is, and a new token of its own for its old one.
NO_SCOPE = {"health", "auth.refresh"}

# What each scope opens by itself, spelled out here so that a change of the rule needs a change of this test.
OPENS = {
    "operator.admin": set(ALL_SCOPES),
    "operator.write": {"operator.write", "operator.read"},
    **{s: {s} for s in ALL_SCOPES if s not in {"operator.admin", "operator.write"}},
}


# --- V10


@pytest.mark.parametrize("mode", SECRETS)
async def test_v10_a_grant_is_within_what_the_server_grants(mode: str) -> None:
    claimed = {"x_openclaw_scopes": "operator.admin", "x_openclaw_role": "operator"}
    async with open_victim(mode) as gateway, remote_door(gateway) as far:
        for client_id, role in itertools.product(CLIENT_IDS, ("operator", "node", "admin", "gateway")):
            asked = ["operator.read", *INVENTED]
            async with await Attacker.at(gateway.port) as client:
                outcome = await client.connect(
                    client=client_id, role=role, scopes=asked, headers=claimed, **SECRETS[mode]
                )
                if outcome.admitted:
                    assert role == "operator"
                    assert outcome.scopes <= {"operator.read"}
                    reply = await client.call("set-heartbeats", {"enabled": False})
                    assert reply["error"]["details"]["code"] == "MISSING_SCOPE"
                else:
                    assert role != "operator" or client_id == "openclaw-control-ui"
            async with await Attacker.at(far) as client:  # elsewhere the server grants nothing by itself
                outcome = await client.connect(
                    client=client_id, role=role, scopes=ALL_SCOPES, headers=claimed, **SECRETS[mode]
                )
                assert not outcome.admitted
        assert gateway.health.heartbeats_enabled


async def test_v10_a_probe_without_a_device_holds_nothing(victim: Gateway) -> None:
    async with await Attacker.at(victim.port) as client:
        outcome = await client.connect(client="cli", mode="probe", token=TOKEN)
        assert outcome.scopes == set()


async def test_v10_a_node_holds_no_operator_scope(victim: Gateway) -> None:
    async with await Attacker.at(victim.port) as client:
        outcome = await client.connect(
            client="node-host", mode="node", role="node", scopes=ALL_SCOPES, token=TOKEN, device=Device()
        )
        assert outcome.admitted
        assert outcome.scopes == set()
        for method in victim.rpc.names:
            spec = victim.rpc.get(method)
            if spec is not None and "node" in spec.roles and "operator" in spec.roles:
                assert method == "gateway.identity.get"  # the gateway's public key: what a node has to know again
                continue
            reply = await client.call(method)
            if not reply["ok"] and "close" in reply:
                break
            assert not reply["ok"], method
            if client.received.startswith(b"\x88"):
                break  # ten such calls end the connection


async def test_v10_scopes_header_widens_no_http_call(victim: Gateway, far_port: int) -> None:
    claimed = {"X-OpenClaw-Scopes": "operator.admin", "X-OpenClaw-Role": "operator"}
    for port, token, want in ((far_port, TOKEN, 403), (victim.port, None, 401), (victim.port, "wrong", 401)):
        status, body = await rpc(port, "set-heartbeats", {"enabled": False}, token=token, headers=claimed)
        assert status == want
        assert "result" not in body
    assert victim.health.heartbeats_enabled


# --- V11


async def test_v11_a_reconnect_does_not_widen_what_was_paired(victim: Gateway) -> None:
    device = Device()
    async with await Attacker.at(victim.port) as client:
        first = await client.connect(token=TOKEN, device=device, scopes=["operator.read"])
        assert first.scopes == {"operator.read"}
        await client.leave()
    for scopes in (["operator.admin"], ["operator.read", "operator.write"], list(ALL_SCOPES)):
        async with await Attacker.at(victim.port) as client:  # this host, the right secret, the same key
            outcome = await client.connect(token=TOKEN, device=device, scopes=scopes)
            assert not outcome.admitted
            assert outcome.error["details"]["reason"] == "scope-upgrade"
        async with await Attacker.at(victim.port) as client:
            token = first.hello["auth"]["deviceToken"]
            outcome = await client.connect(deviceToken=token, device=device, scopes=scopes)
            assert not outcome.admitted
    async with await Attacker.at(victim.port) as client:
        again = await client.connect(token=TOKEN, device=device, scopes=["operator.read"])
        assert again.scopes == {"operator.read"}
        reply = await client.call("set-heartbeats", {"enabled": False})
        assert reply["error"]["details"]["code"] == "MISSING_SCOPE"
    (record,) = victim._book.paired()
    assert record.scopes == ("operator.read",)
    (pending,) = victim._book.pending()
    assert (pending.device_id, pending.reason) == (device.id, "scope-upgrade")


# --- V22


@pytest.mark.parametrize("mode", SECRETS)
async def test_v22_no_scopes_grant_nothing(mode: str) -> None:
    async with open_victim(mode) as gateway, await Attacker.at(gateway.port) as client:
        outcome = await client.connect(scopes=[], **SECRETS[mode])
        assert outcome.scopes == set()
        assert outcome.hello["snapshot"]["presence"] == []
        assert outcome.hello["snapshot"]["health"] == {}
        for name in gateway.rpc.names:
            if name in NO_SCOPE:
                continue
            if _is_for_nodes(gateway, name):  # refused by role; ten of those end the connection
                continue
            reply = await client.call(name)
            assert reply["error"]["details"]["code"] == "MISSING_SCOPE", name
        # It hears nothing that needs a scope either.
        gateway.presence.update("somebody", {}, reason="connect")
        gateway.presence.tell()
        await gateway.events.publish("canary", {}, scope="operator.read")
        await client.send(frame(TEXT, client.request("health", id_="end")))
        heard = []
        while (got := await client.read_frame()) is not None and got.json.get("id") != "end":
            heard.append(got.json["event"])
        assert heard == []


async def test_v22_a_device_paired_without_scopes_gains_none(victim: Gateway) -> None:
    device = Device()
    async with await Attacker.at(victim.port) as client:
        assert (await client.connect(token=TOKEN, device=device, scopes=[])).scopes == set()
    for scope in ALL_SCOPES:
        async with await Attacker.at(victim.port) as client:
            assert (await client.connect(token=TOKEN, device=device, scopes=[scope])).detail == "PAIRING_REQUIRED"


# --- V41


async def test_v41_every_method_is_refused_without_its_scope_on_every_way_in(victim: Gateway) -> None:
    ran: list[str] = []
    for scope in ALL_SCOPES:
        victim.rpc.method(f"bait.{scope}", scope=scope)(lambda context, params, scope=scope: ran.append(scope))
    checked = 0
    for held in ALL_SCOPES:
        async with await Attacker.at(victim.port) as client, await Attacker.at(victim.port) as twin:
            assert (await client.connect(token=TOKEN, scopes=[held])).scopes == {held}
            await twin.open()
            hello = {"method": "connect", "id": 0, "params": {"token": TOKEN, "scopes": [held]}}
            await twin.send(frame(TEXT, json.dumps(hello).encode()))
            assert "result" in (await _jsonrpc_reply(twin))
            for name in victim.rpc.names:
                spec = victim.rpc.get(name)
                assert spec is not None
                if _is_for_nodes(victim, name):
                    continue
                assert spec.scope in ALL_SCOPES or name in NO_SCOPE
                if name in NO_SCOPE or spec.scope in OPENS[held]:
                    continue
                reply = await client.call(name, {"enabled": False, "text": "x", "raw": "{}"})
                assert reply["error"]["details"]["missingScope"] == spec.scope
                for message in ({"method": name, "id": 1}, [{"method": name, "id": 1}]):
                    await twin.send(frame(TEXT, json.dumps(message).encode()))
                    answer = await _jsonrpc_reply(twin)
                    (answer,) = answer if isinstance(answer, list) else [answer]
                    assert answer["error"]["data"]["details"]["missingScope"] == spec.scope
                checked += 1
    assert checked > 50
    assert ran == []


def _is_for_nodes(gateway: Gateway, name: str) -> bool:
    spec = gateway.rpc.get(name)
    assert spec is not None
    return spec.roles == {"node"}


async def _jsonrpc_reply(client: Attacker) -> Any:
    while True:
        got = await client.read_frame()
        assert got is not None
        if isinstance(got.json, list) or "id" in got.json:
            return got.json


async def test_v41_every_http_route_asks_the_same_gatekeeper(victim: Gateway, far_port: int) -> None:
    routes = victim._http.routes
    open_routes = {path for path, route in routes.items() if not route.needs_admission}
    probes = {"/", "/health", "/healthz", "/ready", "/readyz", "/startupz"}
    # The refresh token in its body is that route's credential (tests/server/test_refresh.py).
    # The approval page asks the gatekeeper with what is in its form (tests/attacks/test_approvals.py).
    assert open_routes == probes | {"/auth/refresh", "/nodes/approve"}
    for path in probes:
        assert routes[path].methods == ("GET", "HEAD")
    for path in routes.keys() - open_routes:
        for method in routes[path].methods:
            for port, headers in (
                (victim.port, {}),
                (victim.port, {"Authorization": "Bearer wrong"}),
                (victim.port, {"Authorization": f"Basic {TOKEN}"}),
                (victim.port, {"Authorization": f"Bearer {TOKEN}", "X-Forwarded-For": "127.0.0.1"}),
                (far_port, {"Authorization": f"Bearer {TOKEN}"}),
            ):
                status, _, body = await http(port, method, path, headers=headers, body=b'{"method":"health"}')
                assert status in {401, 403}, (path, status)
                assert b"result" not in body


async def test_v41_http_calls_go_through_the_method_table(victim: Gateway) -> None:
    """Every method over POST /rpc and over WebSocket: the same refusal of the same unknown or forbidden name."""
    for name in ("no.such", "connect", "bait", "node.only"):
        status, body = await rpc(victim.port, name)
        assert status == 200
        assert body["error"]["code"] == -32601
    victim.rpc.method("node.only", role="node")(lambda context, params: {"leak": True})
    status, body = await rpc(victim.port, "node.only")
    assert (status, body["error"]["message"]) == (200, "unauthorized role: operator")


def test_v41_a_method_without_a_scope_cannot_be_registered() -> None:
    table = MethodTable()
    for scope in (None, "", "operator.superuser", "*"):
        with pytest.raises(LocalProtocolError):
            table.method("bait", scope=scope)(lambda context, params: None)
    assert table.names == []


# --- V42


async def test_v42_a_new_route_is_closed_unless_it_says_otherwise(victim: Gateway, far_port: int) -> None:
    seen: list[Grant | None] = []

    async def handler(request: HttpRequest, grant: Grant | None) -> HttpReply:
        seen.append(grant)
        return json_reply(200, {"scopes": list(grant.scopes) if grant is not None else []})

    victim._http.routes["/plugin/hook"] = Route(methods=("GET", "POST"), handler=handler)
    victim._http.routes["/open"] = Route(methods=("GET",), handler=handler, needs_admission=False)
    for port, headers in (
        (victim.port, {}),
        (victim.port, {"Authorization": "Bearer wrong"}),
        (victim.port, {"X-OpenClaw-Scopes": "operator.admin"}),
        (far_port, {"Authorization": f"Bearer {TOKEN}"}),
    ):
        for method in ("GET", "POST"):
            status, _, _ = await http(port, method, "/plugin/hook", headers=headers)
            assert status in {401, 403}
    assert seen == []
    # An open route has no principal at all, not a made-up one, whatever comes along.
    status, _, body = await http(
        victim.port, "GET", "/open", headers={"X-OpenClaw-Scopes": "operator.admin", "Authorization": f"Bearer {TOKEN}"}
    )
    assert (status, json.loads(body)) == (200, {"scopes": []})
    assert seen == [None]


async def test_v42_an_http_caller_is_never_more_than_the_holder_of_the_secret(victim: Gateway) -> None:
    callers: list[Any] = []
    victim.rpc.method("whoami", scope="operator.read")(
        lambda context, params: callers.append((context.role, context.scopes, context.principal, context.device_id))
    )
    assert (await rpc(victim.port, "whoami"))[0] == 200
    assert callers == [("operator", frozenset(ALL_SCOPES), "token:operator", None)]
