"""``openclaw devices join-code``: an address that pairs a node, good for one look.

Owns what is printed. It must not know what a code grants: the running gateway makes it (`device.pair.setupCode`).
"""

from __future__ import annotations

import click

from openclaw_gateway.cli.connect import Reach, call, reach_options
from openclaw_gateway.cli.output import print_json, printable

__all__ = ["join_code"]


@click.command("join-code")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def join_code(as_json: bool, reach: Reach) -> None:
    """Make a join URL for a node: good once, for ten minutes. For a phone: openclaw qr."""
    params = {"bootstrapProfile": "node", "includeQr": False, "joinUrl": True}
    answer = call(reach, "device.pair.setupCode", params, scopes=("operator.admin",))
    if as_json:
        print_json(answer)
        return
    link = printable(answer["joinUrl"], 600)
    click.echo(f"Join URL: {link}")
    click.echo(f"Run on the node: openclaw node run --pair {link}")
    click.echo(f"With OpenClaw's own program there: openclaw connect {link}")
    click.echo("It is good once, for ten minutes. Whoever has it first is paired: treat it like a password.")
