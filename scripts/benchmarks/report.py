"""The table: what was measured, what was asked, whether it was reached.

Pure: rows in, text out. Invariant: a row without a target never counts as failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Row", "failed", "markdown", "table"]

_HEAD = ("what", "ours", "beside it", "ratio", "target", "")


class Row(NamedTuple):
    """``reached`` is None where nothing was asked."""

    what: str
    ours: str
    beside: str
    ratio: str
    target: str = ""
    reached: bool | None = None


def _cells(row: Row) -> tuple[str, ...]:
    mark = "" if row.reached is None else ("pass" if row.reached else "FAIL")
    return (*row[:5], mark)


def table(rows: Sequence[Row]) -> str:
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| " + " | ".join((*_HEAD[:5], "reached")) + " |", "|" + "---|" * len(_HEAD)]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    return "\n".join(lines)


def failed(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.reached is False]
