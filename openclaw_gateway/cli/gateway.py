"""``openclaw gateway``: the names below it. Options without a name mean ``run``, as with OpenClaw's own command."""

from __future__ import annotations

import click

from openclaw_gateway.cli.lazy import LazyGroup

__all__ = ["gateway"]

_HERE = "openclaw_gateway.cli"


@click.group(
    cls=LazyGroup,
    default="run",
    table={
        "run": (f"{_HERE}.run:run", "Run the gateway in the foreground."),
        "start": (f"{_HERE}.life:start", "Start the gateway in the background; a verdict within 5 seconds."),
        "stop": (f"{_HERE}.life:stop", "Stop it; done when the port is free."),
        "restart": (f"{_HERE}.life:restart", "Restart it in place, same process."),
        "status": (f"{_HERE}.status:status", "How the gateway is doing, row by row."),
        "health": (f"{_HERE}.call:health", "Ask the running gateway for its health."),
        "probe": (f"{_HERE}.probe:probe", "Is it reachable, does it let us in, can it be read?"),
        "discover": (f"{_HERE}.discover:gateway_discover", "Find the gateways around."),
        "explain": (f"{_HERE}.explain:explain", "Why somebody is let in or not, and what changes it."),
        "auth-token": (f"{_HERE}.authtoken:auth_token", "Which token clients present, and where it is kept."),
        "usage-cost": (f"{_HERE}.usage:usage_cost", "How many tokens were used in the last days."),
        "call": (f"{_HERE}.call:call", "Call a method."),
    },
)
def gateway() -> None:
    """Run, start, stop, inspect and query the gateway. Without a command: run."""
