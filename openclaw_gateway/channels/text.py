"""Long answers in pieces that a service takes.

Owns where a text is cut. Pure. Invariants: the pieces joined are the text (but for white space at the cuts); no piece
is longer than the limit or empty; a code fence that a cut falls into is closed before it and opened again after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

__all__ = ["pieces"]

_FENCE: Final = "```"


def pieces(text: str, limit: int) -> list[str]:
    """``text`` in pieces of at most ``limit`` characters (at least 64), cut at paragraphs, lines or words where
    possible.
    """
    limit = max(limit, 64)
    return [piece for piece in _fenced(_cut(text.strip(), limit - 2 * len(_FENCE) - 2), limit) if piece.strip()]


def _cut(text: str, limit: int) -> Iterator[str]:
    while len(text) > limit:
        at = max(text.rfind("\n\n", 0, limit), -1)
        for mark in ("\n", " "):
            if at < limit // 2:
                at = max(at, text.rfind(mark, 0, limit))
        if at < limit // 4:
            at = limit
        yield text[:at].rstrip()
        text = text[at:].lstrip("\n ") if at != limit else text[at:]
    yield text


def _fenced(parts: Iterator[str], limit: int) -> Iterator[str]:
    open_ = False
    for part in parts:
        whole = f"{_FENCE}\n{part}" if open_ else part
        open_ = (part.count(_FENCE) % 2 == 1) != open_
        yield f"{whole}\n{_FENCE}"[:limit] if open_ else whole
