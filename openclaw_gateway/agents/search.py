"""Words that were said: a search through the transcripts, newest first and as far as its allowance goes.

Owns what a hit is and how much is looked at for one question. It must not know who asks, nor which sessions there are.
Loaded when somebody asks.

Theory of operation. There is no index: it would take as much room as the transcripts, and every message its time. A
search looks through the current transcripts of the sessions that it is given, one after the other, newest messages
first, in slices that are a job of the store each; after `MAX_BYTES` of rows it ends and says so. One search at a time
(`agents.pace`).

Invariants: no more than `MAX_BYTES` and one message are looked at for a question; a slice keeps the store no longer
than `SLICE` messages or `SLICE_BYTES` do; attachments are not looked into.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Final, Literal

import attrs
import msgspec

from openclaw_gateway.agents.pace import Pace
from openclaw_gateway.agents.records import Session
from openclaw_gateway.agents.sessions import Sessions
from openclaw_gateway.value import Value

__all__ = ["Hit", "TranscriptSearch"]

MAX_BYTES: Final = 16 * 1024 * 1024
MAX_WORDS: Final = 16
SLICE: Final = 200
SLICE_BYTES: Final = 512 * 1024
SNIPPET: Final = 200
LEAD: Final = 60  # characters of a snippet before what was found
PER_MESSAGE: Final = 256


@attrs.frozen(eq=False, repr=False)
class Hit(Value):
    session: Session
    message_id: str
    role: Literal["user", "assistant"]
    at_ms: int
    snippet: str = attrs.field(repr=False)
    score: float  # 1 where the words stand together as they were asked for, else less


@attrs.frozen(eq=False, repr=False)
class _Said(Value):
    text: str = attrs.field(repr=False)


@attrs.frozen(eq=False, repr=False)
class _Slice(Value):
    hits: tuple[tuple[str, Literal["user", "assistant"], int, str, float], ...]
    before: int | None  # where the next slice begins; None: there is none
    size: int


class TranscriptSearch:
    """One for a gateway."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._pace = Pace()

    async def search(self, among: Sequence[Session], query: str, limit: int) -> tuple[list[Hit], bool]:
        """At most ``limit`` messages with all words of ``query``, the best and then the newest first, and whether
        there may be more. Raises `StoreError`."""
        words = tuple(query.casefold().split()[:MAX_WORDS])
        found: list[Hit] = []
        left = MAX_BYTES
        async with self._pace.turn():
            for session in among:
                before: int | None = 2**62
                while before is not None:
                    if left <= 0 or len(found) > limit:
                        return _best(found, limit), True
                    part = await self._sessions.look(partial(_look, session.session_id, before, words))
                    found += [Hit(session, *hit) for hit in part.hits]
                    before, left = part.before, left - part.size - PER_MESSAGE
        return _best(found, limit), len(found) > limit


def _best(found: list[Hit], limit: int) -> list[Hit]:
    return sorted(found, key=lambda hit: (-hit.score, -hit.at_ms))[:limit]


_decode = msgspec.json.Decoder(_Said).decode


def _look(session_id: str, before: int, words: tuple[str, ...], db: sqlite3.Connection) -> _Slice:
    hits: list[tuple[str, Literal["user", "assistant"], int, str, float]] = []
    size, last = 0, before
    told = db.execute(
        "SELECT seq, id, role, body, at_ms FROM agent_messages WHERE session_id = ? AND seq < ? ORDER BY seq DESC "
        "LIMIT ?",
        (session_id, before, SLICE),
    )
    count = 0
    for seq, id_, role, body, at_ms in told:
        if size and size + len(body) > SLICE_BYTES:
            return _Slice(tuple(hits), last, size)
        last, count, size = seq, count + 1, size + len(body) + PER_MESSAGE
        if role == "system":
            continue
        text = _decode(body).text
        score = _score(text.casefold(), words)
        if score > 0:
            hits.append((id_, role, at_ms, _snippet(text, words), score))
    return _Slice(tuple(hits), last if count == SLICE else None, size)


def _score(text: str, words: tuple[str, ...]) -> float:
    if not words or not all(word in text for word in words):
        return 0.0
    return 1.0 if " ".join(words) in " ".join(text.split()) else 0.5


def _snippet(text: str, words: tuple[str, ...]) -> str:
    folded = text.casefold()
    places = [folded.find(" ".join(words)), *(folded.find(word) for word in words)]
    place = next(place for place in places if place >= 0)
    first = max(0, min(place, len(text)) - LEAD)
    part = " ".join(text[first : first + SNIPPET].split())
    return f"{'…' if first else ''}{part}{'…' if first + SNIPPET < len(text) else ''}"
