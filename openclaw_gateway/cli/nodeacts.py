"""``openclaw nodes describe|pending|approve|reject|rename|remove|invoke``: one node, looked at or acted on.

Owns which node is meant (by id, its beginning, name or address) and the least scopes of each act. It must not know what
a command does. Invariants: a name that fits two nodes is an error, never a guess; what a node calls itself reaches the
terminal only escaped (V52); more scopes are asked for only where the gateway said which are missing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import attrs
import click

from openclaw_gateway.cli.connect import Reach, call, reach_options
from openclaw_gateway.cli.output import ago, print_json, print_table, printable
from openclaw_gateway.errors import CallFailed, GatewayError

__all__ = ["approve", "describe", "find_node", "invoke", "pending", "reject", "remove", "rename"]

_READ: Final = ("operator.read", "operator.pairing")
_PAIRING: Final = ("operator.pairing",)
_INVOKE_TIMEOUT: Final = 15_000
_NODE_OPTION: Final = click.option("--node", "which", required=True, metavar="NODE", help="Its id, name or address.")
_JSON_OPTION: Final = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")


@attrs.define(eq=False)
class _NoSuch(GatewayError):
    message: str
    fix: str


def find_node(reach: Reach, which: str) -> dict[str, Any]:
    """The one node that is meant. An exact id wins over a name, a name over the beginning of an id."""
    rows: list[dict[str, Any]] = call(reach, "node.list", {}, scopes=_READ).get("nodes") or []
    wanted = which.strip().casefold()
    exact = [row for row in rows if str(row.get("nodeId")).casefold() == wanted]
    named = [
        row
        for row in rows
        if wanted and wanted in {str(row.get(key)).casefold() for key in ("displayName", "remoteIp")}
    ]
    begun = [row for row in rows if len(wanted) >= 4 and str(row.get("nodeId")).casefold().startswith(wanted)]
    for found in (exact, named, begun):
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(str(row.get("nodeId"))[:16] for row in found[:8])
            raise _NoSuch(f"{printable(which)} fits {len(found)} nodes: {ids}", "give the node's id")
    raise _NoSuch(f"no node is called {printable(which)}", "openclaw nodes status")


def _request_row(reach: Reach, request_id: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = call(reach, "node.pair.list", {}, scopes=_PAIRING).get("pending") or []
    found = [row for row in rows if row.get("requestId") == request_id]
    if not found:
        found = [row for row in rows if len(request_id) >= 6 and str(row.get("requestId")).startswith(request_id)]
    if len(found) != 1:
        raise _NoSuch(f"no node asks under the id {printable(request_id)}", "openclaw nodes pending")
    return found[0]


@click.command()
@_NODE_OPTION
@_JSON_OPTION
@reach_options()
def describe(which: str, as_json: bool, reach: Reach) -> None:
    """Everything the gateway knows of one node."""
    answer = call(reach, "node.describe", {"nodeId": find_node(reach, which)["nodeId"]}, scopes=_READ)
    if as_json:
        print_json(answer)
        return
    now = time.time() * 1000
    state = "connected" if answer.get("connected") else "away"
    rows: list[tuple[str, object]] = [
        ("node", answer.get("nodeId")), ("name", answer.get("displayName")), ("state", state),
        ("approval", answer.get("approvalState")), ("platform", answer.get("platform")),
        ("version", answer.get("version")), ("address", answer.get("remoteIp")),
        ("caps", ", ".join(answer.get("caps") or [])), ("commands", ", ".join(answer.get("commands") or [])),
        ("asks for", ", ".join(answer.get("pendingDeclaredCommands") or [])),
        ("request", answer.get("pendingRequestId")), ("seen", ago(answer.get("lastSeenAtMs"), now)),
    ]  # fmt: skip
    for name, value in rows:
        if value:
            click.echo(f"{name:<9} {printable(value, 2000)}")


@click.command()
@_JSON_OPTION
@reach_options()
def pending(as_json: bool, reach: Reach) -> None:
    """What nodes ask to be allowed, with the commands each would lend."""
    answer = call(reach, "node.pair.list", {}, scopes=_PAIRING)
    rows = answer.get("pending") or []
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo("No node asks for anything.")
        return
    now = time.time() * 1000
    print_table(
        [
            (
                row.get("requestId"), str(row.get("nodeId"))[:16], row.get("displayName"), row.get("platform"),
                ",".join(row.get("commands") or []), ago(row.get("ts"), now),
            )
            for row in rows
        ],
        ("REQUEST", "NODE", "NAME", "PLATFORM", "COMMANDS", "SINCE"),
    )  # fmt: skip
    click.echo("\nAllow with: openclaw nodes approve <request>")


@click.command()
@click.argument("request")
@_JSON_OPTION
@reach_options()
def approve(request: str, as_json: bool, reach: Reach) -> None:
    """Allow what a node asks for under the id REQUEST (or its first 6 characters). It holds at once."""
    row = _request_row(reach, request)
    scopes = tuple(scope for scope in row.get("requiredApproveScopes") or () if isinstance(scope, str))
    answer = _call_with(reach, "node.pair.approve", {"requestId": row["requestId"]}, scopes or _PAIRING)
    if as_json:
        print_json(answer)
        return
    commands = ", ".join((answer.get("node") or {}).get("commands") or row.get("commands") or []) or "nothing"
    name = printable(row.get("displayName") or row.get("nodeId"))
    click.echo(f"Approved: {name} may be asked for {printable(commands, 2000)}")


@click.command()
@click.argument("request")
@_JSON_OPTION
@reach_options()
def reject(request: str, as_json: bool, reach: Reach) -> None:
    """Refuse what a node asks for under the id REQUEST. What was approved before stays."""
    row = _request_row(reach, request)
    answer = _call_with(reach, "node.pair.reject", {"requestId": row["requestId"]}, _PAIRING)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"Rejected: {printable(row.get('displayName') or row.get('nodeId'))}")


@click.command()
@_NODE_OPTION
@click.option("--name", required=True, metavar="NAME", help="The new name.")
@_JSON_OPTION
@reach_options()
def rename(which: str, name: str, as_json: bool, reach: Reach) -> None:
    """Give a node another name. It keeps it whatever it calls itself."""
    if not name.strip():
        raise click.BadParameter("must not be empty", param_hint="--name")
    params = {"nodeId": find_node(reach, which)["nodeId"], "displayName": name.strip()}
    answer = _call_with(reach, "node.rename", params, _PAIRING)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"{params['nodeId'][:16]} is now called {printable(params['displayName'])}")


@click.command()
@_NODE_OPTION
@_JSON_OPTION
@reach_options()
def remove(which: str, as_json: bool, reach: Reach) -> None:
    """Forget a node: its connection ends, and it must be approved anew to come back."""
    node_id = find_node(reach, which)["nodeId"]
    answer = _call_with(reach, "node.pair.remove", {"nodeId": node_id}, _PAIRING)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"Removed: {node_id}")


@click.command()
@_NODE_OPTION
@click.option("--command", required=True, metavar="COMMAND", help="What to carry out, such as system.which.")
@click.option("--params", default="{}", show_default=True, metavar="JSON", help="The parameters, a JSON object.")
@click.option(
    "--invoke-timeout", type=click.IntRange(1), default=_INVOKE_TIMEOUT, show_default=True, metavar="MS",
    help="How long the node may take.",
)  # fmt: skip
@click.option("--idempotency-key", metavar="KEY", help="Invokes with the same key are carried out once.")
@click.option("--sealed/--unsealed", default=None, help="Let the gateway read neither parameters nor result.")
@_JSON_OPTION
@reach_options(30_000)
def invoke(
    which: str, command: str, params: str, invoke_timeout: int, idempotency_key: str | None, sealed: bool | None,
    as_json: bool, reach: Reach,
) -> None:  # fmt: skip
    """Have a node carry out a command, and print what it answers. What once went sealed to a node goes there
    unsealed only with --unsealed."""
    import uuid

    import msgspec

    from openclaw_gateway.policy.nodes import invoke_scope

    try:
        given = msgspec.json.decode(params)
    except msgspec.DecodeError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--params") from error
    if not isinstance(given, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--params")
    row = find_node(reach, which)
    # The gateway gives up first, so that its own answer says what became of the command.
    patient = attrs.evolve(reach, timeout=max(reach.timeout, invoke_timeout / 1000 + 5))
    scopes = tuple(dict.fromkeys(("operator.write", invoke_scope(command))))
    if sealed:
        from openclaw_gateway.cli.nodekeys import invoke_sealed

        sealed_answer = invoke_sealed(
            patient, row, which, command, given, scopes=scopes, key=idempotency_key, timeout_ms=invoke_timeout
        )
        print_json(sealed_answer if as_json else sealed_answer["payload"])
        return
    if sealed is None:
        from openclaw_gateway.cli.nodekeys import refuse_downgrade

        refuse_downgrade(str(row.get("nodeId")), which, command)
    request = {
        "nodeId": row["nodeId"],
        "command": command,
        "params": given,
        "idempotencyKey": idempotency_key or str(uuid.uuid4()),
        "timeoutMs": invoke_timeout,
    }
    answer = _call_with(patient, "node.invoke", request, scopes)
    print_json(answer if as_json else answer.get("payload"))


def _call_with(reach: Reach, method: str, params: object, scopes: Sequence[str]) -> Any:
    """Call with the least scopes; once more with those that the gateway says are missing."""
    try:
        return call(reach, method, params, scopes=scopes)
    except CallFailed as error:
        details = error.details or {}
        lacking = "scope" in error.message or "denied" in error.message
        if details.get("code") != "MISSING_SCOPE" and not (method.startswith("node.pair.") and lacking):
            raise
        if "operator.admin" in scopes:
            raise
    return call(reach, method, params, scopes=(*scopes, "operator.admin"))
