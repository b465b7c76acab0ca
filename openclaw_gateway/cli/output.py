"""What commands print: JSON for programs, aligned columns for people.

Owns the look of tables and of durations. Invariants: what a peer named itself reaches a terminal only escaped (attack
V52); JSON goes to stdout alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

__all__ = ["ago", "colour", "print_failure", "print_json", "print_table", "printable"]


def printable(value: object, limit: int = 120) -> str:
    """One line for a terminal, whatever is in it."""
    from openclaw_gateway.ops.log import escape

    return escape("" if value is None else str(value), limit)


def print_json(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_failure(type_: str, message: str, fix: str | None) -> None:
    """A failure under ``--json``, in the one shape that every command has."""
    print_json({"ok": False, "error": {"type": type_, "message": message, **({"fix": fix} if fix else {})}})


def print_table(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> None:
    """Columns as wide as they need to be; on a terminal that is narrower, folded or as blocks (`columns.laid_out`)."""
    from openclaw_gateway.cli.columns import laid_out

    texts = [[printable(cell) for cell in row] for row in rows]
    head = " ".join(header).split()
    for number, line in enumerate(laid_out(header, texts, _terminal_width())):
        click.echo(colour(line, bold=True) if number == 0 and line.split() == head else line)


def _terminal_width() -> int | None:
    """Columns of the terminal on standard output; None where it is none, so that programs get a row a line."""
    import shutil

    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def colour(text: str, **style: Any) -> str:
    """Styled on a terminal, bare elsewhere and with ``NO_COLOR``."""
    import os

    return click.style(text, **style) if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def ago(then_ms: object, now_ms: float) -> str:
    """``3 min ago``; empty for what is no time."""
    if not isinstance(then_ms, (int, float)) or then_ms <= 0:
        return ""
    seconds = max(0.0, (now_ms - then_ms) / 1000)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
