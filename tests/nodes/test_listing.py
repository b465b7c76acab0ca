"""Rows of nodes: the device book and the live connections in one look (LIVE-5); what is not approved lends nothing."""

from __future__ import annotations

from typing import Any, cast

import attrs

from openclaw_gateway.nodes.listing import node_rows
from openclaw_gateway.pairing.records import PairedDevice
from openclaw_gateway.protocol.connect import ClientInfo, ConnectParams
from openclaw_gateway.server.gatekeeper import Grant
from openclaw_gateway.server.session import Session


@attrs.define(eq=False)
class Live:
    """What a row reads of a session."""

    grant: Grant
    role: str
    device_id: str | None
    conn_id: str
    client_address: str = "192.0.2.4"
    connected_for: float = 5.0


def _session(
    device_id: str | None, *, role: str = "node", name: str | None = "Node", commands: tuple[str, ...] = ()
) -> Session:
    client = ClientInfo(id="node-host", mode="node", version="1", platform="linux", display_name=name)
    params = ConnectParams(min_protocol=4, max_protocol=4, client=client, role=role, commands=commands)
    grant = Grant(role=role, scopes=(), method="token", protocol=4, params=params, device_id=device_id, principal="p")
    return cast("Session", Live(grant, role, device_id, conn_id=f"conn-{device_id}"))


def _paired(device_id: str, **changes: Any) -> PairedDevice:
    facts: dict[str, Any] = {
        "device_id": device_id,
        "public_key": "k",
        "role": "node",
        "roles": ("node",),
        "scopes": (),
        "client_id": "node-host",
        "client_mode": "node",
        "display_name": "As it said",
        "label": None,
        "platform": "linux",
        "device_family": "Linux",
        "created_at_ms": 1,
        "approved_at_ms": 2,
        "approved_via": "local",
        "last_seen_at_ms": 3,
        "last_ip": "192.0.2.9",
        "token_generation": 1,
        "token_issued_at_ms": 4,
        "token_salt": b"",
        "token_digest": b"",
    }
    return PairedDevice(**(facts | changes))


def test_live5_paired_and_connected_are_one_row() -> None:
    [row] = node_rows([_paired("a")], [_session("a")])
    assert (row["nodeId"], row["paired"], row["connected"], row["remoteIp"]) == ("a", True, True, "192.0.2.4")
    assert row["approvedAtMs"] == 2
    assert row["connectedAtMs"] > 0


def test_live5_each_alone_is_a_row_too_and_the_connected_come_first() -> None:
    rows = node_rows([_paired("b", label="Zed"), _paired("c", label="Ann")], [_session("d", name="Yak")])
    assert [(row["nodeId"], row["paired"], row["connected"]) for row in rows] == [
        ("d", False, True),
        ("c", True, False),
        ("b", True, False),
    ]
    assert [row["displayName"] for row in rows] == ["Yak", "Ann", "Zed"]


def test_operators_and_revoked_nodes_are_no_rows() -> None:
    revoked = [_paired("a", revoked_at_ms=9), _paired("b", token_generation=0), _paired("c", role="operator")]
    assert node_rows(revoked, [_session("d", role="operator")]) == []


def test_default_deny_what_was_not_approved_lends_nothing() -> None:
    [row] = node_rows([], [_session("a", commands=("system.run", "camera.snap"))])
    assert (row["approvalState"], row["caps"], row["commands"]) == ("pending-approval", [], [])
    assert row["pendingDeclaredCommands"] == ["system.run", "camera.snap"]


def test_a_node_without_device_or_name_still_has_both() -> None:
    [row] = node_rows([], [_session(None, name=None)])
    assert (row["nodeId"], row["displayName"]) == ("conn-None", "node-host")


def test_live1_of_two_connections_of_one_node_the_newer_counts() -> None:
    [row] = node_rows([], [_session("a", name="old"), _session("a", name="new")])
    assert row["displayName"] == "new"
