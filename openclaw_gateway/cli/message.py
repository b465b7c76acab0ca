"""``openclaw message send``: words to somebody on a message channel, by hand.

Owns what is asked and printed: OpenClaw's flags and members. It must not know channels. Invariants: the command says
that a message waits, because nothing is delivered by then; what this gateway cannot carry is refused before anything is
asked, so that nobody believes that a file went along.
"""

from __future__ import annotations

import uuid
from typing import Any, Final

import click

from openclaw_gateway.cli.connect import Reach, call, reach_options
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import print_json, printable

__all__ = ["message", "send"]

_HERE: Final = "openclaw_gateway.cli.message"


@click.group(cls=LazyGroup, table={"send": (f"{_HERE}:send", "Send a text to a person or a conversation.")})
def message() -> None:
    """Messages on channels, by hand."""


def _not_carried(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        raise click.BadParameter("this gateway sends text alone", ctx, param)


@click.command()
@click.option("-t", "--target", required=True, help="Whom: an id, user:ID or channel:ID of the channel's service.")
@click.option("-m", "--message", "text", required=True, help="The text.")
@click.option("--channel", help="The channel; without it the one there is.")
@click.option("--account", help="The account; without it the channel's default one.")
@click.option("--reply-to", metavar="ID", help="The message that this answers.")
@click.option("--thread-id", metavar="ID", help="The thread or topic.")
@click.option("--dry-run", is_flag=True, help="Look whether it could be sent, and send nothing.")
@click.option("--media", multiple=True, callback=_not_carried, expose_value=False, hidden=True)
@click.option("--presentation", callback=_not_carried, expose_value=False, hidden=True)
@click.option("--delivery", callback=_not_carried, expose_value=False, hidden=True)
@click.option("--pin", is_flag=True, callback=_not_carried, expose_value=False, hidden=True)
@click.option("--silent", is_flag=True, callback=_not_carried, expose_value=False, hidden=True)
@click.option("--force-document", is_flag=True, expose_value=False, hidden=True)  # of files, and there are none
@click.option("--gif-playback", is_flag=True, expose_value=False, hidden=True)
@click.option("--verbose", is_flag=True, expose_value=False, hidden=True)
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def send(
    target: str, text: str, channel: str | None, account: str | None, reply_to: str | None, thread_id: str | None,
    dry_run: bool, as_json: bool, reach: Reach,
) -> None:  # fmt: skip
    """Send a text. The gateway keeps it until the channel's service took it."""
    given = {"to": target, "message": text, "replyTo": reply_to, "threadId": thread_id}
    params: dict[str, Any] = {
        "channel": channel or "",
        "action": "send",
        "params": {name: value for name, value in given.items() if value} | ({"dryRun": True} if dry_run else {}),
        "idempotencyKey": str(uuid.uuid4()),
    }
    if account:
        params["accountId"] = account
    answer = call(reach, "message.action", params, scopes=("operator.write",))
    if as_json:
        handled = "dry-run" if dry_run else "core"
        told = {"action": "send", "channel": answer["channel"], "dryRun": dry_run, "handledBy": handled}
        print_json({**told, "payload": answer})
        return
    where = f"{printable(answer['channel'])}/{printable(answer['accountId'])}"
    act = "would be sent" if dry_run else "waits to be sent"
    click.echo(f"{where}: {act} to {printable(answer['to'])}")
    if not dry_run:
        click.echo("what became of it: openclaw queue list --queue outbound", err=True)
