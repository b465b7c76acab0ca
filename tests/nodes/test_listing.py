"""Rows of nodes: pairing, surface and live connection in one look (LIVE-5); what is not approved lends nothing."""

from __future__ import annotations

from openclaw_gateway.nodes.hub import NodeHub
from openclaw_gateway.nodes.listing import describe_node, node_rows

from .conftest import Clock, Pair, device_id, make_link


async def test_live5_paired_and_connected_are_one_row(hub: NodeHub, pair: Pair) -> None:
    node_id = await pair()
    hub.joined(make_link())
    [row] = node_rows(hub)
    assert (row["nodeId"], row["paired"], row["connected"], row["remoteIp"]) == (node_id, True, True, "192.0.2.4")
    assert row["connectedAtMs"] > 0


async def test_live5_the_connected_come_first_then_by_name(hub: NodeHub, pair: Pair) -> None:
    for name in ("zed", "ann", "yak"):
        await pair(name)
    hub.joined(make_link("yak"))
    assert [(row["displayName"], row["connected"]) for row in node_rows(hub)] == [
        ("yak", True),
        ("ann", False),
        ("zed", False),
    ]


async def test_operators_are_no_rows(hub: NodeHub, pair: Pair) -> None:
    await pair("cli", role="operator")
    assert node_rows(hub) == []
    assert describe_node(hub, device_id("cli")) is None


async def test_default_deny_what_was_not_approved_lends_nothing(hub: NodeHub, pair: Pair) -> None:
    await pair()
    hub.joined(make_link(commands=("system.run", "camera.snap"), caps=("system",)))
    [row] = node_rows(hub)
    assert (row["approvalState"], row["caps"], row["commands"]) == ("pending-approval", [], [])
    assert row["pendingDeclaredCommands"] == ["system.run"]


async def test_live1_of_two_connections_of_one_node_the_newer_counts(hub: NodeHub, pair: Pair, clock: Clock) -> None:
    await pair()
    hub.joined(make_link())
    clock.now += 500
    hub.joined(make_link(commands=("system.notify",)))
    [row] = node_rows(hub)
    assert (row["connectedAtMs"], row["pendingDeclaredCommands"]) == (clock.now, ["system.notify"])


async def test_v31_a_row_shows_the_pinned_platform(hub: NodeHub, pair: Pair) -> None:
    await pair(platform="ios")
    hub.joined(make_link())
    [row] = node_rows(hub)
    assert (row["platform"], row["kind"]) == ("ios", "ios")
    described = describe_node(hub, row["nodeId"])
    assert described == row


async def test_what_the_node_said_last_is_shown_while_it_is_away(hub: NodeHub, pair: Pair) -> None:
    node_id = await pair()
    link = make_link()
    hub.joined(link)
    node = hub.registry.get(node_id)
    assert node is not None
    assert hub.report_stats(node, {"cpuCount": 2})
    hub.left(link)
    [row] = node_rows(hub)
    assert (row["connected"], row["lastSeenReason"]) == (False, "disconnect")
    assert row["hostStats"]["cpuCount"] == 2
