"""``openclaw sessions``: the conversations there are, and an end to what runs in one.

Owns what is printed. It must not know how a run works. Invariant: what people named reaches the terminal escaped.
"""

from __future__ import annotations

import time
from typing import Any, Final

import click

from openclaw_gateway.cli.connect import Reach, call, reach_options
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import ago, print_json, print_table, printable

__all__ = ["abort", "list_sessions", "sessions"]

_HERE: Final = "openclaw_gateway.cli.sessions"


@click.group(
    cls=LazyGroup,
    default="list",
    table={
        "list": (f"{_HERE}:list_sessions", "Conversations, the last used first."),
        "abort": (f"{_HERE}:abort", "End what an agent is doing in a conversation."),
    },
)
def sessions() -> None:
    """Conversations with agents. Without a command: list."""


@click.command("list")
@click.option("--agent", metavar="ID", help="Only this agent's.")
@click.option("--all-agents", is_flag=True, expose_value=False, hidden=True)  # as it is without --agent
@click.option("--active", type=click.IntRange(1), metavar="MINUTES", help="Only those used in the last minutes.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="Conversations to show.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def list_sessions(agent: str | None, active: int | None, limit: int, as_json: bool, reach: Reach) -> None:
    """List conversations."""
    params: dict[str, Any] = {"limit": limit}
    if agent:
        params["agentId"] = agent
    if active:
        params["activeMinutes"] = active
    answer = call(reach, "sessions.list", params)
    if as_json:
        print_json(answer)
        return
    rows, now = answer["sessions"], time.time() * 1000
    if not rows:
        click.echo("There is no conversation yet.", err=True)
        return
    print_table(
        [
            (row["key"], row["displayName"], ago(row["updatedAt"], now), row["messageCount"], row["totalTokens"],
             "running" if row["hasActiveRun"] else "-")
            for row in rows
        ],
        ("SESSION", "NAME", "USED", "MESSAGES", "TOKENS", "STATE"),
    )  # fmt: skip
    if answer["hasMore"]:
        click.echo(f"{answer['totalCount'] - len(rows)} more: --limit", err=True)


@click.command()
@click.argument("key", metavar="SESSION")
@click.option("--run", "run_id", metavar="ID", help="Only this run.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def abort(key: str, run_id: str | None, as_json: bool, reach: Reach) -> None:
    """End what an agent is doing in SESSION (main, or a whole key), and what waits there."""
    params = {"sessionKey": key, **({"runId": run_id} if run_id else {})}
    answer = call(reach, "chat.abort", params, scopes=("operator.write",))
    if as_json:
        print_json(answer)
        return
    ended = answer.get("runIds") or []
    click.echo("\n".join(f"ended: {printable(one)}" for one in ended) if ended else "nothing was running")
