"""``openclaw gateway usage-cost``: what runs used in the last days.

Owns what is printed, with OpenClaw's flags and words. It must not know how anything is counted. Invariant: a cost is
printed only with how many answers have no known price.
"""

from __future__ import annotations

from typing import Any

import click

from openclaw_gateway.cli.connect import Reach, call, reach_options
from openclaw_gateway.cli.output import print_json, printable

__all__ = ["usage_cost"]


@click.command("usage-cost")
@click.option("--days", type=click.IntRange(1, 36_600), default=30, show_default=True, help="Days up to today, in UTC.")
@click.option("--agent", metavar="ID", help="The agent; without it the default one.")
@click.option("--all-agents", is_flag=True, help="All agents together.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def usage_cost(days: int, agent: str | None, all_agents: bool, as_json: bool, reach: Reach) -> None:
    """Show how many tokens were used, and what they cost as far as that is known."""
    if agent and all_agents:
        raise click.UsageError("use --agent or --all-agents, not both")
    params: dict[str, Any] = {"days": days}
    if agent:
        params["agentId"] = agent
    if all_agents:
        params["agentScope"] = "all"
    answer = call(reach, "usage.cost", params)
    if as_json:
        print_json(answer)
        return
    click.echo(f"Usage cost ({days} days)")
    totals = answer["totals"]
    click.echo(f"Total: {_amounts(totals)}")
    if totals["missingCostEntries"]:
        models = sorted((totals.get("missingCostByModel") or {}).items(), key=lambda one: (-one[1], one[0]))
        named = ", ".join(f"{printable(model)} {count}" for model, count in models[:20])
        click.echo(f"Missing cost: {totals['missingCostEntries']}{f' ({named})' if named else ''}")
    if answer["daily"]:
        latest = answer["daily"][-1]
        click.echo(f"Latest day: {printable(latest['date'])} · {_amounts(latest)}")


def _amounts(row: dict[str, Any]) -> str:
    return f"${row['totalCost']:.2f} · {row['totalTokens']:,} tokens"
