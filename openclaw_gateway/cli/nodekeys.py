"""``openclaw nodes keys|trust``, and the sealed half of ``nodes invoke``: whose keys this operator believes.

Owns what is printed and asked of `client.nodekeys` and `client.sealed`. It must not decide whether a key may be
believed. Invariants: a pin that is made says so on standard error, with the fingerprint to compare; nothing goes
unsealed to a node that a command went to sealed before, unless ``--unsealed`` says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from openclaw_gateway.cli.connect import Reach, converse, reach_options
from openclaw_gateway.cli.nodeacts import find_node
from openclaw_gateway.cli.output import print_json, print_table, printable

if TYPE_CHECKING:
    from openclaw_gateway.client import DeviceIdentity, GatewayClient
    from openclaw_gateway.client.nodekeys import NodeKeys

__all__ = ["invoke_sealed", "keys", "refuse_downgrade", "trust"]


def _kept() -> NodeKeys:
    from openclaw_gateway.client.nodekeys import NodeKeys, operator_dir
    from openclaw_gateway.config.paths import state_dir

    return NodeKeys(operator_dir(state_dir(os.environ)))


def _identity(kept: NodeKeys) -> DeviceIdentity:
    from openclaw_gateway.client import load_or_create_identity
    from openclaw_gateway.ops.statedir import ensure_private_dir

    ensure_private_dir(kept.directory)
    return load_or_create_identity(kept.directory / "identity.json")


def invoke_sealed(
    reach: Reach, row: Mapping[str, Any], which: str, command: str, params: object, *, scopes: Sequence[str],
    key: str | None, timeout_ms: int,
) -> dict[str, Any]:  # fmt: skip
    """One sealed invoke on a connection of its own; see `client.sealed.invoke_sealed`."""
    from openclaw_gateway.client import sealed

    kept = _kept()
    identity = _identity(kept)
    statement = sealed.believed_key(row)
    name = which.strip()
    if kept.check(statement, name):
        _say_pinned(name, statement)

    async def ask(client: GatewayClient) -> dict[str, Any]:
        return await sealed.invoke_sealed(
            client, row, command, params, identity=identity, keys=kept, name=name, key=key, timeout_ms=timeout_ms
        )

    return converse(reach, ask, scopes=scopes)


def refuse_downgrade(node_id: str, which: str, command: str) -> None:
    """Raises `NodeKeyRefused` where that command went to that node sealed before, whatever the gateway says now."""
    from openclaw_gateway.client.nodekeys import NodeKeyRefused

    if _kept().went_sealed(node_id, which.strip(), command):
        raise NodeKeyRefused(
            f"{printable(command)} went to this node sealed before; unsealed, the gateway reads it. Nothing was sent",
            "add --sealed, or --unsealed where that is meant",
        )


def _say_pinned(name: str, statement: Any) -> None:
    from openclaw_gateway.protocol.keystatement import fingerprint

    click.echo(f"Pinned the key of {printable(name)}: {fingerprint(statement.raw_key)}", err=True)
    click.echo("  compare it on the node: openclaw node identity", err=True)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def keys(as_json: bool) -> None:
    """The id by which nodes know this operator's sealed invokes (made where there is none yet), and the keys of nodes
    that were pinned."""
    import base64

    from openclaw_gateway.protocol.keystatement import fingerprint

    kept = _kept()
    own = _identity(kept)
    pins = kept.all()
    marks = [fingerprint(base64.urlsafe_b64decode(pin.key + "=")) for pin in pins]
    if as_json:
        rows = [
            {
                "nodeId": pin.nodeId, "name": pin.name, "fingerprint": mark, "key": pin.key,
                "pinnedAtMs": pin.pinnedAtMs, "commands": list(pin.commands),
            }
            for pin, mark in zip(pins, marks, strict=True)
        ]  # fmt: skip
        print_json({"operatorId": own.device_id, "nodes": rows})
        return
    click.echo(f"Operator: {own.device_id}")
    click.echo("  on a node: openclaw node seal system.run --operator <that id>")
    if pins:
        table = [
            (pin.nodeId[:16], pin.name, mark, ",".join(pin.commands)) for pin, mark in zip(pins, marks, strict=True)
        ]
        print_table(table, ("NODE", "NAME", "FINGERPRINT", "SEALED"))


@click.command()
@click.option("--node", "which", required=True, metavar="NODE", help="Its id, name or address.")
@click.option("--json", "as_json", is_flag=True, help="Print the pin as JSON.")
@reach_options()
def trust(which: str, as_json: bool, reach: Reach) -> None:
    """Believe the key that the gateway shows for a node now, in place of the one that was pinned. Compare the
    fingerprint with `openclaw node identity` on the node first."""
    from openclaw_gateway.client.sealed import believed_key
    from openclaw_gateway.protocol.keystatement import fingerprint

    row = find_node(reach, which)
    statement = believed_key(row)
    pin = _kept().trust(statement, which.strip())
    if as_json:
        print_json({"nodeId": pin.nodeId, "name": pin.name, "fingerprint": fingerprint(statement.raw_key)})
    else:
        click.echo(f"Trusted: {printable(pin.name)} has the key {fingerprint(statement.raw_key)}")
