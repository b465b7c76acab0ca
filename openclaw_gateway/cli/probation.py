"""``openclaw config set --confirm``, ``config confirm``, ``config rollback``: a change that goes back unless confirmed.

Owns the option and the two commands. The record is `config.pending`'s; confirming is asked of the running gateway, on
a connection made now, because that somebody can get in is what is to be shown.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from openclaw_gateway.cli.connect import Reach, call, reach_options

__all__ = ["confirm_command", "probation_window", "rollback_command", "write_on_probation"]

_TRIES = 4
_NOT_YET = "CONFIG_NOT_IN_USE"


def probation_window(text: str | None) -> float | None:
    """Seconds out of ``60s`` or ``5m``. Raises `click.BadParameter`."""
    if text is None:
        return None
    from openclaw_gateway.config.leaves import BadValueError, duration
    from openclaw_gateway.config.pending import LONGEST_SECONDS, SHORTEST_SECONDS

    try:
        seconds = duration(float(text) if text.isdigit() else text)
    except BadValueError as error:
        raise click.BadParameter(error.message, param_hint="--confirm") from None
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        text = f"must be from {SHORTEST_SECONDS:g}s to {LONGEST_SECONDS / 60:g}m"
        raise click.BadParameter(text, param_hint="--confirm")
    return seconds


def write_on_probation(path: Path, edited: str, window: float) -> tuple[Any, Any]:
    """Write the text for ``window`` seconds. Returns as `write_config` does. Raises `PendingExists`, and as it does."""
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.config.pending import propose
    from openclaw_gateway.ops.instance import read_holder

    state = state_dir(os.environ)
    if read_holder(state) is None:
        raise click.ClickException(
            "no gateway runs here: nothing would take the change back, and nothing could confirm it\n"
            "  fix: openclaw gateway start, or leave out --confirm"
        )
    now_ms = time.time_ns() // 1_000_000
    _, loaded, issues = propose(state, path, edited, env=os.environ, window=window, now_ms=now_ms)
    return loaded, issues


@click.command("confirm")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@reach_options()
def confirm_command(reach: Reach, as_json: bool) -> None:
    """Make a change set with --confirm stay. Connects anew: run it from where you need to get in."""
    from openclaw_gateway.cli.output import print_json
    from openclaw_gateway.errors import CallFailed

    for attempt in range(_TRIES):
        try:
            done = call(reach, "config.confirm", scopes=("operator.admin",))
        except CallFailed as refused:
            if (refused.details or {}).get("code") != _NOT_YET or attempt == _TRIES - 1:
                raise
            time.sleep(1)  # the gateway looks at its file once a second
        else:
            break
    if as_json:
        print_json(done)
    else:
        click.echo(f"confirmed: {', '.join(done['keys'])} stays")


@click.command("rollback")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@reach_options()
def rollback_command(reach: Reach, as_json: bool) -> None:
    """Take a change set with --confirm back now."""
    from openclaw_gateway.cli.output import print_json

    done = call(reach, "config.rollback", scopes=("operator.admin",))
    if as_json:
        print_json(done)
    else:
        click.echo(f"taken back: {', '.join(done['keys'])}; {done['text']}")
