"""``openclaw nodes``: what the gateway says about nodes."""

from __future__ import annotations

import time
from typing import Any

import click

from openclaw_gateway.cli.connect import Reach, call, call_many, reach_options
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import ago, print_json, print_table

__all__ = ["list_nodes", "node_status", "nodes"]

_SCOPES = ("operator.read", "operator.pairing")


@click.group(
    cls=LazyGroup,
    table={
        "list": ("openclaw_gateway.cli.nodes:list_nodes", "Nodes that are paired or ask to be."),
        "status": ("openclaw_gateway.cli.nodes:node_status", "Known nodes, whether they are here, what they can do."),
        "describe": ("openclaw_gateway.cli.nodeacts:describe", "Everything about one node."),
        "pending": ("openclaw_gateway.cli.nodeacts:pending", "What nodes ask to be allowed."),
        "approve": ("openclaw_gateway.cli.nodeacts:approve", "Allow what a node asks for."),
        "reject": ("openclaw_gateway.cli.nodeacts:reject", "Refuse what a node asks for."),
        "rename": ("openclaw_gateway.cli.nodeacts:rename", "Give a node another name."),
        "remove": ("openclaw_gateway.cli.nodeacts:remove", "Forget a node and end its connection."),
        "invoke": ("openclaw_gateway.cli.nodeacts:invoke", "Have a node carry out a command."),
        "keys": ("openclaw_gateway.cli.nodekeys:keys", "Your own id for sealed invokes, and the nodes you trust."),
        "trust": ("openclaw_gateway.cli.nodekeys:trust", "Believe the key that a node has now."),
    },
)
def nodes() -> None:
    """Nodes and what they can do."""


def _print_rows(rows: list[dict[str, Any]]) -> None:
    now = time.time() * 1000
    print_table(
        [
            (
                str(row.get("nodeId"))[:16], row.get("displayName"), row.get("platform"),
                "connected" if row.get("connected") else row.get("approvalState") or "away", _channel(row),
                ",".join(row.get("caps") or []), len(row.get("commands") or []),
                ago(row.get("lastSeenAtMs") or row.get("connectedAtMs"), now),
            )
            for row in rows
        ],
        ("NODE", "NAME", "PLATFORM", "STATE", "CHANNEL", "CAPS", "COMMANDS", "SEEN"),
    )  # fmt: skip


def _channel(row: dict[str, Any]) -> str:
    """``end-to-end``: what is said to the node cannot be read on the way; empty where it is not here."""
    if not row.get("connected"):
        return ""
    return "end-to-end" if row.get("secureChannel") else "clear"


@click.command("list")
@click.option("--connected", is_flag=True, help="Only those that are here.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def list_nodes(connected: bool, as_json: bool, reach: Reach) -> None:
    """List nodes: those that ask to be paired, and those that are."""
    pairing, known = call_many(reach, [("node.pair.list", {}), ("node.list", {})], scopes=_SCOPES)
    rows = [row for row in known.get("nodes") or [] if row.get("connected") or not connected]
    if as_json:
        print_json({**pairing, "nodes": rows})
        return
    pending = pairing.get("pending") or []
    if pending:
        click.echo(f"Pending ({len(pending)})")
        print_table(
            [
                (row.get("requestId"), str(row.get("nodeId"))[:16], row.get("displayName"), row.get("platform"))
                for row in pending
            ],
            ("REQUEST", "NODE", "NAME", "PLATFORM"),
        )
        click.echo("\nApprove with: openclaw nodes approve <request>\n")
    if rows:
        _print_rows(rows)
    elif not pending:
        click.echo("No nodes.")


@click.command("status")
@click.option("--connected", is_flag=True, help="Only those that are here.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def node_status(connected: bool, as_json: bool, reach: Reach) -> None:
    """Known nodes, whether they are here, and what they can do."""
    answer = call(reach, "node.list", {}, scopes=_SCOPES)
    rows = [row for row in answer.get("nodes") or [] if row.get("connected") or not connected]
    if as_json:
        print_json({**answer, "nodes": rows})
        return
    here = sum(1 for row in rows if row.get("connected"))
    click.echo(f"Known: {len(rows)}   connected: {here}")
    if rows:
        _print_rows(rows)
