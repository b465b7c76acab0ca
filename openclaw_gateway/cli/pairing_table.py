"""The look of ``openclaw pairing``: folded tables on a terminal, plain columns with whole ids elsewhere.

Owns the columns. Invariant: what people and devices named themselves is escaped, and never read as markup (V52).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from openclaw_gateway.cli.output import ago, print_table, printable

__all__ = ["approve_command", "print_folded", "print_paired", "print_pending", "who"]

_SHORT = 8  # how much of an id a table on a terminal shows; enough for a prefix


def approve_command(row: Mapping[str, Any]) -> str:
    if row.get("code"):
        account = "" if row["accountId"] == "default" else f" --account {printable(row['accountId'])}"
        return f"openclaw pairing approve {printable(row['channel'])} {row['code']}{account}"
    return f"openclaw pairing approve {printable(row['id'])}"


def who(row: Mapping[str, Any]) -> str:
    subject = printable(row["subject"])
    short = subject[:12] if row["kind"] != "dm" else subject
    name = printable(row.get("name") or "", 40)
    return f"{name} ({short})" if name else short


def print_pending(rows: Sequence[Mapping[str, Any]], now: float) -> None:
    if not sys.stdout.isatty():
        cells = [
            (
                row["kind"], row["id"], row.get("code", ""), who(row), row["source"], ago(row["createdAtMs"], now),
                _asked(row), row["grants"],
            )
            for row in rows
        ]  # fmt: skip
        print_table(cells, ("KIND", "ID", "CODE", "WHO", "FROM", "SINCE", "ASKS FOR", "GRANTS"))
        return
    short = [
        (
            row["kind"], row.get("code") or str(row["id"])[:_SHORT], _who_from(row),
            ago(row["createdAtMs"], now), _asked(row), _scopes(row["grants"]),
        )
        for row in rows
    ]  # fmt: skip
    print_folded(short, ("KIND", "CODE/ID", "WHO, FROM", "SINCE", "ASKS FOR", "GRANTS"))


def _who_from(row: Mapping[str, Any]) -> str:
    return f"{who(row)}\n{printable(row['source']).removesuffix('/default')}"


def _scopes(text: str) -> str:
    return text.replace("operator.", "")


def _asked(row: Mapping[str, Any]) -> str:
    asks = [str(item).removeprefix("operator.") for item in row["asks"]]
    more = f" and {len(asks) - 8} more" if len(asks) > 8 else ""
    return ", ".join(asks[:8]) + more or f"to connect as {row.get('role')}"


def print_paired(rows: Sequence[Mapping[str, Any]], now: float) -> None:
    if not sys.stdout.isatty():
        cells = [
            (
                row["kind"], row["id"], printable(row.get("name"), 40), row["source"], ago(row["lastSeenAtMs"], now),
                row["grants"],
            )
            for row in rows
        ]  # fmt: skip
        print_table(cells, ("KIND", "ID", "NAME", "FROM", "SEEN", "HOLDS"))
        return
    short = [(row["kind"], _who_from(row), ago(row["lastSeenAtMs"], now), _scopes(row["grants"])) for row in rows]
    print_folded(short, ("KIND", "WHO, FROM", "SEEN", "HOLDS"))


_NEVER_FOLDED = frozenset({"KIND", "CODE/ID", "SINCE", "SEEN"})


def print_folded(rows: Sequence[Sequence[str]], header: Sequence[str]) -> None:
    """A table as wide as the terminal. Cells are escaped already, but for the line breaks that are ours."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(no_color=bool(os.environ.get("NO_COLOR")))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    columns = [[row[number] for row in [*rows, header]] for number in range(len(header))]
    least = [_least(name, cells) for name, cells in zip(header, columns, strict=True)]
    roomy = sum(least) + 2 * (len(least) - 1) <= console.width
    for name, width in zip(header, least, strict=True):
        if name in _NEVER_FOLDED:
            table.add_column(name, no_wrap=True, min_width=width)
        else:
            table.add_column(name, overflow="fold", min_width=width if roomy else None)
    for row in rows:
        table.add_row(*map(Text, row))  # Text: no markup in what peers named themselves
    console.print(table)


def _least(name: str, cells: Sequence[str]) -> int:
    """How wide a column has to be for its words to stay whole; of a column that is never folded, for its cells."""
    if name in _NEVER_FOLDED:
        return max(map(len, cells))
    return max(len(word) for cell in cells for word in cell.split() or [""])
