"""How much of all conversations is kept: the limits of transcripts, and what goes when they are reached.

Owns the limits and the SQL that cuts, as a part of the transaction that writes a message. It must not know what a
message says. What transcripts take is counted by the triggers of `store.migrations`, so that no way of writing or
deleting can miss the count; sizes are bytes of a message's row: its body and `PER_MESSAGE`.

Invariants: after every write a transcript has at most ``max_bytes`` and all of them together ``max_total_bytes`` (the
message that was just written stays, whatever it costs); what is cut is the oldest, in whole turns; over the total
transcripts that a reset left behind go first, the oldest before the others, then the largest conversation pays: whoever
writes much cannot push out what others said.
"""

from __future__ import annotations

import sqlite3
from typing import Final

import attrs

from openclaw_gateway.value import Value

__all__ = ["MAX_PAST", "PER_MESSAGE", "TranscriptLimits", "trim", "trim_past"]

PER_MESSAGE: Final = 256  # what a row costs beside its body; the triggers count with the same number
MAX_PAST: Final = 10_000  # transcripts that resets left behind


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TranscriptLimits(Value):
    """``max_bytes`` of one transcript, ``max_total_bytes`` of all of them."""

    max_bytes: int = 32 * 1024 * 1024
    max_total_bytes: int = 512 * 1024 * 1024


def trim(db: sqlite3.Connection, session_id: str, seq: int, limits: TranscriptLimits) -> None:
    """Make the limits true again after the message ``seq`` of ``session_id`` was written."""
    over = _size(db, session_id) - limits.max_bytes
    if over > 0:
        _cut(db, session_id, over, before=seq)
    while (over := _total(db) - limits.max_total_bytes) > 0:
        past = _oldest_past(db, session_id)
        if past is not None:
            _drop_past(db, past)
            continue
        largest = db.execute(
            "SELECT session_id FROM agent_transcripts WHERE messages > (session_id = ?) ORDER BY bytes DESC LIMIT 1",
            (session_id,),
        ).fetchone()
        if largest is None or not _cut(db, largest[0], over, before=seq if largest[0] == session_id else 2**62):
            return


def trim_past(db: sqlite3.Connection) -> None:
    """At most `MAX_PAST` transcripts that resets left behind."""
    count = db.execute("SELECT count(*) FROM agent_session_past").fetchone()[0]
    for _ in range(count - MAX_PAST):
        past = _oldest_past(db, "")
        if past is not None:
            _drop_past(db, past)


def _size(db: sqlite3.Connection, session_id: str) -> int:
    found = db.execute("SELECT bytes FROM agent_transcripts WHERE session_id = ?", (session_id,)).fetchone()
    return int(found[0]) if found is not None else 0


def _total(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT bytes FROM agent_storage").fetchone()[0])


def _oldest_past(db: sqlite3.Connection, but: str) -> str | None:
    found = db.execute(
        "SELECT session_id FROM agent_session_past WHERE session_id <> ? ORDER BY until_ms LIMIT 1", (but,)
    ).fetchone()
    return str(found[0]) if found is not None else None


def _drop_past(db: sqlite3.Connection, session_id: str) -> None:
    for table in ("agent_messages", "agent_transcripts", "agent_session_past"):
        db.execute(f"DELETE FROM {table} WHERE session_id = ?", (session_id,))  # noqa: S608 - constants


def _cut(db: sqlite3.Connection, session_id: str, need: int, *, before: int) -> bool:
    """Take the oldest turns out of a transcript until ``need`` bytes are free or nothing before place ``before`` is
    left. False: there was nothing to take."""
    freed = last = 0
    for seq, role, size in db.execute(
        "SELECT seq, role, length(body) FROM agent_messages WHERE session_id = ? AND seq < ? ORDER BY seq",
        (session_id, before),
    ):
        if freed >= need and role == "user":
            break
        freed += size + PER_MESSAGE
        last = seq
    db.execute("DELETE FROM agent_messages WHERE session_id = ? AND seq <= ?", (session_id, last))
    return last > 0
