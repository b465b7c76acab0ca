"""``openclaw audit``: the audit trail of this host's gateway, read from its files; ``--verify`` checks the chain.

Owns how a row looks to a person. It reads the files of the state directory and needs no gateway: whoever owns them may
read them. Invariant: what a peer sent reaches a terminal only escaped (attack V52).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from openclaw_gateway.cli.output import colour, print_json, printable

__all__ = ["audit", "render"]

_FOLLOW_SECONDS: Final = 0.5
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_HIDDEN: Final = frozenset({"seq", "time", "action", "outcome", "actor", "trail", "prev", "hash"})


def _since(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """A length of time (2h, 30m, 7d) or a date, as the stamp that rows carry."""
    if value is None:
        return None
    length = re.fullmatch(r"(\d{1,6})([smhdw])", value.strip())
    try:
        if length is not None:
            at = datetime.now(UTC) - timedelta(**{_UNITS[length[2]]: int(length[1])})
        else:
            at = datetime.fromisoformat(value.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter("give a length such as 2h, 30m, 7d, or a date such as 2026-11-23T08:00") from None
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Keep showing new rows.")
@click.option("--since", callback=_since, metavar="WHEN", help="Rows since then: 2h, 30m, 7d, or a date.")
@click.option("--action", "actions", multiple=True, metavar="ACTION", help="Only these: connect, pairing, ...")
@click.option("--limit", "-n", type=click.IntRange(1, 100_000), default=100, show_default=True, help="Rows to show.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per row, as in the file.")
@click.option("--verify", is_flag=True, help="Check every row instead; exit code 1 where one is bad.")
def audit(follow: bool, since: str | None, actions: tuple[str, ...], limit: int, as_json: bool, verify: bool) -> None:
    """Show who came, who was turned away, and what authority was given or taken; or check that nobody changed it."""
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.ops.audit import audit_folder

    directory = state_dir(os.environ)
    if verify:
        _verify(directory, as_json)
        return
    _check_actions(actions)
    folder = audit_folder(directory)
    for row in _last(folder, since, actions, limit):
        _show(row, as_json)
    if follow:
        _follow(folder, actions, as_json)


def _check_actions(actions: tuple[str, ...]) -> None:
    import difflib

    from openclaw_gateway.ops.auditrows import Action

    known = [action.value for action in Action]
    for action in actions:
        if action not in known and not any(name.startswith(action + ".") for name in known):
            close = difflib.get_close_matches(action, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
            raise click.BadParameter(f"no such action {action!r}; {hint}", param_hint="--action")


def _wanted(row: dict[str, Any], since: str | None, actions: tuple[str, ...]) -> bool:
    action = str(row.get("action", ""))
    fits = not actions or any(action == one or action.startswith(one + ".") for one in actions)
    return fits and (since is None or str(row.get("time", "")) >= since)


def _last(folder: Path, since: str | None, actions: tuple[str, ...], limit: int) -> list[dict[str, Any]]:
    from collections import deque

    from openclaw_gateway.ops.auditfile import opened, read_lines, tail_lines

    if since is None and not actions:
        return tail_lines(folder, limit)
    kept: deque[dict[str, Any]] = deque(maxlen=limit)
    with opened(folder) as files:
        for _, fd in files:
            kept.extend(row for row in _rows(read_lines(fd)) if _wanted(row, since, actions))
    return list(kept)


def _rows(lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    from openclaw_gateway.ops.auditchain import read_row

    for line in lines:
        row = read_row(line)
        if row is not None:
            yield row


def _follow(folder: Path, actions: tuple[str, ...], as_json: bool) -> None:
    """New rows as they come, over rotations and restarts, until Ctrl-C."""
    import time

    from openclaw_gateway.ops.auditfile import tail_lines

    shown = max((int(row.get("seq", 0)) for row in tail_lines(folder, 1)), default=0)
    while True:
        sys.stdout.flush()
        time.sleep(_FOLLOW_SECONDS)
        step = 64
        rows = tail_lines(folder, step)
        while len(rows) == step and int(rows[0].get("seq", 0)) > shown + 1 and step < 100_000:
            step *= 8
            rows = tail_lines(folder, step)
        for row in rows:
            if int(row.get("seq", 0)) > shown:
                shown = int(row["seq"])
                if _wanted(row, None, actions):
                    _show(row, as_json)


def _show(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(row).decode())
    else:
        click.echo(render(row))


def render(row: dict[str, Any]) -> str:
    """One row for a person, on one line, with the local time."""
    time = str(row.get("time", ""))
    try:
        time = datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        time = printable(time, 32)
    outcome = str(row.get("outcome", ""))
    action, actor = printable(row.get("action"), 24), printable(row.get("actor"), 90)
    head = f"{time}  {action:<19} {printable(outcome, 10):<8}{actor}"
    rest = "  ".join(
        f"{printable(name, 24)}={printable(','.join(map(str, value)) if isinstance(value, list) else value, 200)}"
        for name, value in row.items()
        if name not in _HIDDEN
    )
    text = f"{head}  {rest}".rstrip()
    return colour(text, fg="yellow") if outcome != "ok" else text


def _verify(directory: Path, as_json: bool) -> None:
    import attrs

    from openclaw_gateway.ops.doctor_audit import examine_trail

    report = examine_trail(directory)
    good = report is None or report.fault is None
    if as_json:
        print_json({"ok": good, **(attrs.asdict(report) if report is not None else {"rows": 0})})
    elif report is None:
        click.echo("There is no audit trail yet.")
    elif report.fault is not None:
        click.echo(colour(f"BAD  {printable(report.fault, 400)}", fg="red"))
        click.echo(f"     the {report.rows} rows before it are whole")
    else:
        click.echo(f"OK   {report.rows} rows, {report.first_seq} to {report.head.seq}, head {report.head.hash}")
        if report.torn:
            click.echo("     the last line is half-written (a crash); the next start removes it")
        if report.begins_late is not None:
            click.echo(f"     row {report.begins_late} is the first: what was before was taken away")
    if not good:
        raise click.exceptions.Exit(1)
