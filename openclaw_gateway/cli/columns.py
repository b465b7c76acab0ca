"""Tables that fit where they are read. Pure: texts and a width in, lines out.

Owns how a table that is wider than a terminal is laid out: long cells are folded at spaces and commas where that is
enough, else each row becomes a block of ``name  value`` lines. Invariant: nothing is cut off, and no word is broken, so
that an id can be copied as it stands; an empty cell takes no line in a block.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import zip_longest

__all__ = ["laid_out"]

_GAP = "  "
_SHORT = 20  # a cell of so many characters, such as "5 min ago", is one word
_WORDS = re.compile(r"[^ ,]*(?:,|[ ]+|$)")  # a word with the comma or the spaces that a line may end with


def laid_out(header: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """The lines of a table, its header first where there is one. ``width`` None: as wide as it needs to be.

    A table without a header is never changed: its first column is the names already.
    """
    everything = ([header] if header else []) + list(rows)
    if not everything:
        return []
    widths = [max(len(row[column]) for row in everything) for column in range(len(everything[0]))]
    room = None if width is None else width - len(_GAP) * (len(widths) - 1)
    if not header or room is None or sum(widths) <= room:
        return [_line(row, widths) for row in everything]
    least = [max(len(word) for row in everything for word in _words(row[column])) for column in range(len(widths))]
    if sum(least) > room:
        return _blocks(header, rows)
    widths = _narrowed(widths, least, room)
    return [line for row in everything for line in _folded(row, widths)]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return _GAP.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _words(text: str) -> list[str]:
    """What a line cannot be broken in."""
    return [text] if len(text) <= _SHORT else [word.rstrip(" ") for word in _WORDS.findall(text) if word]


def _narrowed(widths: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Take from the widest column that can give, until they all fit."""
    out = list(widths)
    while sum(out) > room:
        givers = [column for column in range(len(out)) if out[column] > least[column]]
        out[max(givers, key=lambda column: out[column])] -= 1
    return out


def _folded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    columns = [_fold(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return [_line(line, widths) for line in zip_longest(*columns, fillvalue="")]


def _fold(text: str, width: int) -> list[str]:
    if len(text) <= width:
        return [text]
    lines, line = [], ""
    for word in (word for word in _WORDS.findall(text) if word):
        if line and len(line) + len(word.rstrip(" ")) > width:
            lines.append(line.rstrip(" "))
            line = ""
        line += word
    return [*lines, line.rstrip(" ")]


def _blocks(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    names = max(map(len, header))
    lines: list[str] = []
    for row in rows:
        if lines:
            lines.append("")
        lines += [f"{name.ljust(names)}{_GAP}{cell}" for name, cell in zip(header, row, strict=True) if cell]
    return lines
