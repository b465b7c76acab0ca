"""``gateway call`` and ``health``: one method, its answer printed."""

from __future__ import annotations

from typing import Any

import click

from openclaw_gateway.cli import connect
from openclaw_gateway.cli.connect import Reach, reach_options
from openclaw_gateway.cli.output import print_json, printable

__all__ = ["call", "health", "scopes_for"]

# What a method needs, least first; what is not listed is asked for with everything (spec wire.md sections 2 and 6).
_SCOPES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "health", "status", "system-presence", "last-heartbeat", "gateway.identity.get", "logs.tail", "config.get",
            "config.schema", "config.schema.lookup", "channels.status", "diagnostics.stability", "audit.activity.list",
        ),
        ("operator.read",),
    ),
    "node.list": ("operator.read", "operator.pairing"),
    "node.describe": ("operator.read", "operator.pairing"),
    **dict.fromkeys(("agent", "agent.send", "agent.wait", "chat.abort", "chat.send"), ("operator.write",)),
    **dict.fromkeys(("agents.list", "chat.history", "models.list", "sessions.list"), ("operator.read",)),
    **dict.fromkeys(("sessions.search", "sessions.usage", "usage.cost", "usage.status"), ("operator.read",)),
    "sessions.patchMany": ("operator.write",),
    "node.invoke": ("operator.write",),
    **dict.fromkeys(
        ("device.pair.list", "node.pair.list", "node.pair.reject", "device.pair.reject", "device.pair.rename"),
        ("operator.pairing",),
    ),
}  # fmt: skip


def scopes_for(method: str) -> tuple[str, ...]:
    """The least scopes that a method is known to need; ``operator.admin`` for others."""
    return _SCOPES.get(method, ("operator.admin",))


@click.command()
@click.argument("method")
@click.option("--params", default=None, metavar="JSON", help="The parameters, a JSON object.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer alone.")
@click.option("--expect-final", is_flag=True, hidden=True)
@reach_options()
def call(method: str, params: str | None, as_json: bool, expect_final: bool, reach: Reach) -> None:
    """Call METHOD and print its answer."""
    import msgspec

    given: Any = None
    if params is not None:
        try:
            given = msgspec.json.decode(params)
        except msgspec.DecodeError as error:
            raise click.BadParameter(f"not JSON: {error}", param_hint="--params") from error
        if not isinstance(given, dict):
            raise click.BadParameter("must be a JSON object", param_hint="--params")
    answer = connect.call(reach, method, given, scopes=scopes_for(method))
    if not as_json:
        click.echo(f"{method}: ok", err=True)
    print_json(answer)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.option("--verbose", is_flag=True, help="Probe every part.")
@click.option("--expect-final", is_flag=True, hidden=True)
@reach_options()
def health(as_json: bool, verbose: bool, expect_final: bool, reach: Reach) -> None:
    """Ask the running gateway for its health. Exit code 1 where it is not well."""
    answer = connect.call(reach, "health", {"probe": True} if verbose else None)
    well = isinstance(answer, dict) and answer.get("ok") is not False
    if as_json:
        print_json(answer)
    else:
        took = answer.get("durationMs") if isinstance(answer, dict) else None
        spent = f" ({took} ms)" if isinstance(took, (int, float)) else ""
        click.echo(f"Gateway: {'ok' if well else 'NOT ok'}{spent}")
        if isinstance(answer, dict):
            for name, state in (answer.get("channels") or {}).items():
                click.echo(f"  {printable(name)}: {printable(state)}")
    if not well:
        raise click.exceptions.Exit(1)
