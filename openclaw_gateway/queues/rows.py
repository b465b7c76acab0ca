"""Rows of the queues: the SQL behind accepted messages and the dedupe window, as jobs for `Store.run`.

Owns how messages become rows and back, each durable change as one function that decides and writes in the same
transaction. It must not know tasks, memory or limits. Every function may run again from the start (see `Store.run`).

Invariants: a message and its dedupe key are written together; a message leaves together with its effects or not at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import attrs

from openclaw_gateway.queues.records import Accepted, Effect, NewMessage, QueuedMessage
from openclaw_gateway.value import Value

__all__ = ["Put", "Row"]

_COLUMNS: Final = (
    "id, queue, lane, dedupe, source, kind, accepted_at_ms, attempts, due_at_ms, state, uncertain, last_error, "
    "order_no, length(payload)"
)


@attrs.frozen(eq=False, repr=False)
class Row(Value):
    """A message without its payload: what is kept in memory of each."""

    message: QueuedMessage  # payload empty
    size: int


@attrs.frozen(eq=False, repr=False)
class Put(Value):
    """What became of a put: the answer, and the row where one was written."""

    accepted: Accepted
    row: Row | None


def load(db: sqlite3.Connection, queue: str) -> list[Row]:
    """All messages of a queue in the order of their acceptance. What was under way when the process died waits again
    and is marked as uncertain."""
    db.execute(
        "UPDATE queue_messages SET state = 'waiting', uncertain = 1 WHERE queue = ? AND state = 'running'", (queue,)
    )
    query = f"SELECT {_COLUMNS} FROM queue_messages WHERE queue = ? ORDER BY order_no"  # noqa: S608 - a constant
    return [_row(found) for found in db.execute(query, (queue,))]


def put(db: sqlite3.Connection, *, queue: str, id_: str, message: NewMessage, now: int, dedupe_ms: int) -> Put:
    """Write a message, unless one of its dedupe key was accepted within the window or is still here."""
    known = db.execute(
        "SELECT message_id, digest FROM queue_seen WHERE queue = ? AND dedupe = ? AND at_ms > ?",
        (queue, message.dedupe, now - dedupe_ms),
    ).fetchone()
    if known is None:
        known = db.execute(
            "SELECT id, NULL FROM queue_messages WHERE queue = ? AND dedupe = ?", (queue, message.dedupe)
        ).fetchone()
    if known is not None:
        return Put(Accepted(known[0], duplicate=True, same=None in known or known[1] == message.digest), None)
    cursor = db.execute(
        "INSERT INTO queue_messages (id, queue, lane, dedupe, source, kind, payload, accepted_at_ms, attempts, "
        "due_at_ms, state, uncertain) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?, 'waiting', 0)",
        (id_, queue, message.lane, message.dedupe, message.source, message.kind, message.payload, now, now),
    )
    db.execute(
        "INSERT OR REPLACE INTO queue_seen VALUES (?, ?, ?, ?, ?)", (queue, message.dedupe, id_, now, message.digest)
    )
    written = QueuedMessage(
        id=id_,
        queue=queue,
        lane=message.lane,
        dedupe=message.dedupe,
        source=message.source,
        kind=message.kind,
        payload=b"",
        accepted_at_ms=now,
        due_at_ms=now,
        order=int(cursor.lastrowid or 0),
    )
    return Put(Accepted(id_, duplicate=False), Row(written, len(message.payload)))


def payload(db: sqlite3.Connection, id_: str) -> bytes | None:
    found = db.execute("SELECT payload FROM queue_messages WHERE id = ?", (id_,)).fetchone()
    return bytes(found[0]) if found is not None else None


def payloads(db: sqlite3.Connection, ids: Sequence[str]) -> list[tuple[str, bytes]]:
    """The payloads of those that are here, by id."""
    found = ((id_, payload(db, id_)) for id_ in ids)
    return [(id_, data) for id_, data in found if data is not None]


def reclassify(db: sqlite3.Connection, kinds: Sequence[tuple[str, str]]) -> None:
    """Messages (by id) are of another kind from now on; those that are gone stay so."""
    db.executemany("UPDATE queue_messages SET kind = ? WHERE id = ?", [(kind, id_) for id_, kind in kinds])


def begin(db: sqlite3.Connection, id_: str) -> None:
    """A try starts; if the process dies now, the message is uncertain."""
    db.execute("UPDATE queue_messages SET state = 'running', attempts = attempts + 1 WHERE id = ?", (id_,))


def finish(db: sqlite3.Connection, id_: str, effects: Sequence[Effect]) -> list[Any] | None:
    """The message is done: it goes, and its effects come, in one transaction. The effects' results, in order; None
    where it had gone before, and then nothing comes a second time."""
    if db.execute("DELETE FROM queue_messages WHERE id = ?", (id_,)).rowcount != 1:
        return None
    return [effect.work(db) for effect in effects]


def put_back(
    db: sqlite3.Connection, id_: str, *, attempts: int, due: int, state: str, uncertain: bool, error: str | None
) -> bool:
    """The message waits for its next try, or lies with the dead letters. False where it is gone."""
    changed = db.execute(
        "UPDATE queue_messages SET state = ?, attempts = ?, due_at_ms = ?, uncertain = ?, last_error = ? WHERE id = ?",
        (state, attempts, due, uncertain, error, id_),
    )
    return changed.rowcount == 1


def drop(db: sqlite3.Connection, ids: Sequence[str]) -> None:
    db.executemany("DELETE FROM queue_messages WHERE id = ?", [(id_,) for id_ in ids])


def prune_seen(db: sqlite3.Connection, *, queue: str, now: int, dedupe_ms: int, most: int) -> None:
    """Forget dedupe keys that are past their window, and the oldest over ``most``."""
    db.execute("DELETE FROM queue_seen WHERE queue = ? AND at_ms <= ?", (queue, now - dedupe_ms))
    db.execute(
        "DELETE FROM queue_seen WHERE queue = ? AND rowid IN "
        "(SELECT rowid FROM queue_seen WHERE queue = ? ORDER BY at_ms DESC, rowid DESC LIMIT -1 OFFSET ?)",
        (queue, queue, most),
    )


def _row(found: tuple[Any, ...]) -> Row:
    id_, queue, lane, dedupe, source, kind, accepted, attempts, due, state, uncertain, error, order, size = found
    message = QueuedMessage(
        id=id_,
        queue=queue,
        lane=lane,
        dedupe=dedupe,
        source=source,
        kind=kind,
        payload=b"",
        accepted_at_ms=accepted,
        attempts=attempts,
        due_at_ms=due,
        state=state,
        uncertain=bool(uncertain),
        last_error=error,
        order=order,
    )
    return Row(message, size)
