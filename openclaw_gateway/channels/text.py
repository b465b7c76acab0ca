"""Long answers in pieces that a service takes.

Owns where a text is cut. Pure. Lengths are UTF-16 code units, which is the strictest way that any of the services
counts: an emoji is two.

Invariants: the pieces joined are the text (but for white space at the cuts); no piece is longer than the limit or
empty; a code fence that a cut falls into is closed before it and opened again after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["length", "pieces"]

_FENCE: Final = "```"
SMALLEST: Final = 64


def length(text: str) -> int:
    """UTF-16 code units of ``text``."""
    return len(text) if text.isascii() else len(text) + sum(char > "\uffff" for char in text)


def pieces(text: str, limit: int) -> list[str]:
    """``text`` in pieces of at most ``limit`` units (at least 64), cut at paragraphs, lines or words where possible."""
    limit = max(limit, SMALLEST)
    text = text.strip()
    if length(text) <= limit and text.count(_FENCE) % 2 == 0:
        return [text] if text else []
    return [piece for piece in _fenced(_cut(text, limit - 2 * len(_FENCE) - 2)) if piece.strip()]


def _cut(text: str, limit: int) -> Iterator[str]:
    while (most := _fitting(text, limit)) < len(text):
        at = text.rfind("\n\n", 0, most)
        for mark in ("\n", " "):
            if at < most // 2:
                at = max(at, text.rfind(mark, 0, most))
        if at < most // 4:
            at = most
            while at > most - len(_FENCE) and text[at - 1] == "`" and text[at] == "`":
                at -= 1  # never inside of a fence
        yield text[:at].rstrip()
        text = text[at:].lstrip("\n ")
    yield text


def _fitting(text: str, limit: int) -> int:
    """How many characters from the start have at most ``limit`` units."""
    if text.isascii():
        return min(len(text), limit)
    units = 0
    for number, char in enumerate(text):
        units += 2 if char > "\uffff" else 1
        if units > limit:
            return number
    return len(text)


def _fenced(parts: Iterator[str]) -> Iterator[str]:
    open_ = False
    for part in parts:
        whole = f"{_FENCE}\n{part}" if open_ else part
        open_ = (part.count(_FENCE) % 2 == 1) != open_
        yield f"{whole}\n{_FENCE}" if open_ else whole
