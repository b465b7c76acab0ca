"""``openclaw queue``: messages that wait or were given up; try them again or drop them.

Owns what is printed and asked. It must not know how a queue works. Invariant: what people wrote reaches the terminal
only escaped, and only when one message is asked for by its id (V52).
"""

from __future__ import annotations

import time
from typing import Any

import click

from openclaw_gateway.cli.connect import Reach, call, reach_options
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import ago, print_json, print_table, printable

__all__ = ["drop", "list_messages", "queue", "retry"]

_HERE = "openclaw_gateway.cli.queue"
_ADMIN = ("operator.admin",)


@click.group(
    cls=LazyGroup,
    table={
        "list": (f"{_HERE}:list_messages", "Messages that wait, are worked on, or were given up."),
        "retry": (f"{_HERE}:retry", "Try messages again now."),
        "drop": (f"{_HERE}:drop", "Remove messages for good."),
    },
)
def queue() -> None:
    """Messages on their way: in from channels and webhooks, out to people."""


@click.command("list")
@click.argument("message_id", required=False, metavar="[ID]")
@click.option("--queue", "name", type=click.Choice(["inbound", "outbound"]), help="Only this queue.")
@click.option("--state", type=click.Choice(["waiting", "running", "dead"]), help="Only messages in this state.")
@click.option("--dead", "dead", is_flag=True, help="Short for --state dead: what was given up.")
@click.option("--limit", "-n", type=click.IntRange(1, 1000), default=100, show_default=True, help="Messages to show.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def list_messages(
    message_id: str | None, name: str | None, state: str | None, dead: bool, limit: int, as_json: bool, reach: Reach
) -> None:
    """List what is in the queues; with ID, one message with what it holds."""
    params: dict[str, Any] = {"limit": limit}
    if message_id:
        params["id"] = message_id
    if name:
        params["queue"] = name
    if dead or state:
        params["state"] = "dead" if dead else state
    answer = call(reach, "queue.list", params, scopes=_ADMIN)
    if as_json:
        print_json(answer)
        return
    messages = answer.get("messages") or []
    if message_id and messages:
        for label, value in messages[0].items():
            click.echo(f"{label}: {printable(str(value))}")
        return
    now = time.time() * 1000
    if messages:
        print_table(
            [
                (
                    one["queue"], one["state"], one["kind"], one["lane"], ago(one["acceptedAtMs"], now),
                    one["attempts"], one.get("lastError") or "", one["id"],
                )
                for one in messages
            ],
            ("QUEUE", "STATE", "KIND", "CONVERSATION", "ACCEPTED", "TRIES", "LAST ERROR", "ID"),
        )  # fmt: skip
    for label, counts in sorted((answer.get("queues") or {}).items()):
        told = f"{counts['waiting']} waiting, {counts['running']} running (room for {counts['maxMessages']})"
        given_up = f"{counts['dead']} dead (the newest {counts['maxDead']} are kept)"
        click.echo(f"{printable(label)}: {told}, {given_up}", err=bool(messages))
    if any(one["state"] == "dead" for one in messages):
        click.echo("Try them again with: openclaw queue retry --dead", err=True)


def _act(method: str, ids: tuple[str, ...], dead: bool, name: str | None, reach: Reach) -> Any:
    if bool(ids) == dead:
        raise click.UsageError("give the IDs of messages, or --dead for every message that was given up")
    params: dict[str, Any] = {"dead": True} if dead else {"ids": list(ids)}
    if name:
        params["queue"] = name
    return call(reach, method, params, scopes=_ADMIN)


@click.command("retry")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--dead", is_flag=True, help="Every message that was given up.")
@click.option("--queue", "name", type=click.Choice(["inbound", "outbound"]), help="Only this queue.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def retry(ids: tuple[str, ...], dead: bool, name: str | None, as_json: bool, reach: Reach) -> None:
    """Try messages again now, with their count of tries at nothing."""
    answer = _act("queue.retry", ids, dead, name, reach)
    if as_json:
        print_json(answer)
        return
    click.echo(f"Trying again: {len(answer['retried'])}")


@click.command("drop")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--dead", is_flag=True, help="Every message that was given up.")
@click.option("--queue", "name", type=click.Choice(["inbound", "outbound"]), help="Only this queue.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def drop(ids: tuple[str, ...], dead: bool, name: str | None, yes: bool, as_json: bool, reach: Reach) -> None:
    """Remove messages for good: nobody will get them any more."""
    if not yes:
        click.confirm("They will be gone for good. Go on?", abort=True, err=True)
    answer = _act("queue.drop", ids, dead, name, reach)
    if as_json:
        print_json(answer)
        return
    click.echo(f"Dropped: {len(answer['dropped'])}")
