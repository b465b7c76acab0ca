"""What runs use, counted as they end: the counters behind `sessions.usage` and `usage.cost`.

Owns the SQL that counts, as a part of the transaction that writes a message, and what goes when there are too many
counters. It must not know what is asked of them (`agents.usage`), nor what a message says.

Theory of operation. One row counts what one session used of one model in one quarter of an hour: every time zone's days
begin with a quarter, so that a day of any of them is a sum of rows. Transcripts are cut and thrown away; the counters
stay, because the tokens were used. A session that is deleted leaves its numbers without its name (``session_id`` and
``key`` empty), and over `MAX_ROWS` the oldest rows become days of an agent without names, so that totals stay true for
as long as they can.

Invariants: a message is counted once, with its row in the transcript or not at all; at most `MAX_ROWS` rows after every
write; a name that was deleted is in no row.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from openclaw_gateway.agents.records import Message, Usage

__all__ = ["MAX_ROWS", "QUARTER_MS", "count", "forget"]

QUARTER_MS: Final = 900_000
DAY_QUARTERS: Final = 96
MAX_ROWS: Final = 50_000
FOLD: Final = 1_000  # rows that lose their session, or go, at once
MAX_MODEL: Final = 256
_FAILED: Final = frozenset({"error", "aborted", "timeout"})

_NUMBERS: Final = (
    "asked", "answered", "errors", "counted", "tokens_in", "tokens_out", "tokens_cache_read", "tokens_cache_write",
)  # fmt: skip
_ADD: Final = (
    "ON CONFLICT (quarter, session_id, model, agent_id) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in _NUMBERS)
    + ", first_ms = min(first_ms, excluded.first_ms), last_ms = max(last_ms, excluded.last_ms)"
)
_COUNT: Final = f"INSERT INTO agent_usage VALUES ({', '.join('?' * (7 + len(_NUMBERS)))}) {_ADD}"  # noqa: S608
_SUMS: Final = ", ".join(f"sum({name})" for name in _NUMBERS)


def count(db: sqlite3.Connection, message: Message, *, session_id: str, key: str, agent_id: str) -> None:
    """Count a message that was just written into the transcript ``session_id``."""
    if message.role == "system":
        return
    use, at = message.usage or Usage(), message.at_ms
    db.execute(
        _COUNT,
        (
            at // QUARTER_MS, session_id, (message.model or "")[:MAX_MODEL], agent_id, key,
            int(message.role == "user"), int(message.role == "assistant"), int(message.stop in _FAILED),
            int(message.usage is not None), use.input, use.output, use.cache_read, use.cache_write, at, at,
        ),
    )  # fmt: skip
    while _rows(db) > MAX_ROWS:
        _shrink(db)


def forget(db: sqlite3.Connection, key: str) -> None:
    """The session ``key`` is deleted: its numbers stay, its name goes."""
    _fold(db, "quarter", "key = ? AND session_id <> ''", (key,))


def _rows(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count FROM agent_usage_rows").fetchone()[0])


def _shrink(db: sqlite3.Connection) -> None:
    named = "FROM agent_usage WHERE session_id <> '' ORDER BY quarter LIMIT 1 OFFSET ?"
    last = db.execute(f"SELECT quarter {named}", (FOLD - 1,)).fetchone()
    if last is not None:
        _fold(db, f"quarter - quarter % {DAY_QUARTERS}", "quarter <= ? AND session_id <> ''", last)
        return
    last = db.execute("SELECT quarter FROM agent_usage ORDER BY quarter LIMIT 1 OFFSET ?", (FOLD - 1,)).fetchone()
    db.execute("DELETE FROM agent_usage WHERE quarter <= ?", last)


def _fold(db: sqlite3.Connection, quarter: str, where: str, values: tuple[object, ...]) -> None:
    """Add the rows ``where`` to those without a name, of the quarter that the expression gives, and drop them."""
    db.execute(
        f"INSERT INTO agent_usage SELECT {quarter}, '', model, agent_id, '', {_SUMS}, min(first_ms), max(last_ms) "  # noqa: S608
        f"FROM agent_usage WHERE {where} GROUP BY {quarter}, model, agent_id {_ADD}",
        values,
    )
    db.execute(f"DELETE FROM agent_usage WHERE {where}", values)  # noqa: S608 - constants
