"""Reading what was counted: slices of the store, one reader at a time, and never all of the time.

Owns the way from a question about usage to the rows that answer it, and the bound on what such questions cost the
gateway. It must not know the shapes of answers (`agents.usage`). Loaded when somebody asks.

Theory of operation. There are at most `counting.MAX_ROWS` rows. They are read in slices of `SLICE`, each a job of its
own, so that what others write comes in between, and put together in a thread; one question at a time (`agents.pace`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from sys import intern
from typing import Any, Final, TypeVar

import trio

from openclaw_gateway.agents.counting import QUARTER_MS
from openclaw_gateway.agents.pace import Pace
from openclaw_gateway.agents.sessions import Sessions
from openclaw_gateway.agents.span import Span
from openclaw_gateway.agents.usage import Counted

__all__ = ["UsageReader"]

SLICE: Final = 500
_PLACE: Final = "quarter, session_id, model, agent_id"
_COLUMNS: Final = (
    f"{_PLACE}, key, asked, answered, errors, counted, tokens_in, tokens_out, tokens_cache_read, tokens_cache_write, "
    "first_ms, last_ms"
)

T = TypeVar("T")


class UsageReader:
    """One for a gateway."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._pace = Pace()

    async def answer(
        self, span: Span, put_together: Callable[[list[Counted]], T], *, agent_id: str | None, key: str | None = None
    ) -> T:
        """What ``put_together`` makes, in a thread, of the rows of an agent (None: of all) and of a session. Raises
        `StoreError`."""
        async with self._pace.turn():
            rows = await self._rows(span, agent_id, key)
            return await trio.to_thread.run_sync(put_together, rows)

    async def _rows(self, span: Span, agent_id: str | None, key: str | None) -> list[Counted]:
        found: list[Counted] = []
        after: tuple[Any, ...] = (span.start_ms // QUARTER_MS, "", "", "")
        while True:
            read = partial(_slice, after=after, last=span.end_ms // QUARTER_MS, agent_id=agent_id, key=key)
            part = await self._sessions.look(read)
            found += part
            if len(part) < SLICE:
                return found
            after = part[-1][:4]


def _slice(
    db: sqlite3.Connection, *, after: tuple[Any, ...], last: int, agent_id: str | None, key: str | None
) -> list[Counted]:
    where, values = [f"({_PLACE}) > (?, ?, ?, ?)", "quarter <= ?"], [*after, last]
    for name, value in (("agent_id", agent_id), ("key", key)):
        if value is not None:
            where.append(f"{name} = ?")
            values.append(value)
    sql = f"SELECT {_COLUMNS} FROM agent_usage WHERE {' AND '.join(where)} ORDER BY {_PLACE} LIMIT {SLICE}"  # noqa: S608
    # The same few names stand in all rows: as many objects as names, not as rows.
    return [Counted._make((row[0], *map(intern, row[1:5]), *row[5:])) for row in db.execute(sql, values)]
