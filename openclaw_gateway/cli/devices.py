"""``openclaw devices``: what the gateway says about devices."""

from __future__ import annotations

import time

import click

from openclaw_gateway.cli.connect import Reach, call, reach_options
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import ago, print_json, print_table

__all__ = ["devices", "list_devices"]


@click.group(
    cls=LazyGroup,
    table={"list": ("openclaw_gateway.cli.devices:list_devices", "Devices that are paired or ask to be.")},
)
def devices() -> None:
    """Devices that are paired or ask to be."""


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def list_devices(as_json: bool, reach: Reach) -> None:
    """List devices: those that ask to be paired, and those that are."""
    answer = call(reach, "device.pair.list", {}, scopes=("operator.pairing",))
    if as_json:
        print_json(answer)
        return
    now = time.time() * 1000
    pending, paired = answer.get("pending") or [], answer.get("paired") or []
    if pending:
        click.echo(f"Pending ({len(pending)})")
        print_table(
            [
                (
                    row.get("requestId"), str(row.get("deviceId"))[:16], row.get("displayName"), row.get("role"),
                    ",".join(row.get("scopes") or []), ago(row.get("ts"), now),
                )
                for row in pending
            ],
            ("REQUEST", "DEVICE", "NAME", "ROLE", "SCOPES", "SINCE"),
        )  # fmt: skip
        click.echo("\nApprove with: openclaw devices approve <request>\n")
    if paired:
        click.echo(f"Paired ({len(paired)})")
        print_table(
            [
                (
                    str(row.get("deviceId"))[:16], row.get("displayName") or row.get("label"), row.get("platform"),
                    ",".join(row.get("roles") or filter(None, [row.get("role")])),
                    ago(row.get("lastSeenAtMs") or row.get("approvedAtMs"), now),
                )
                for row in paired
            ],
            ("DEVICE", "NAME", "PLATFORM", "ROLES", "SEEN"),
        )  # fmt: skip
    if not pending and not paired:
        click.echo("No device is paired, and none asks to be.")
