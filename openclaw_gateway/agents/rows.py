"""Rows of sessions and transcripts: the SQL, as jobs for `Store.run` and as effects of a queue.

Owns how sessions and messages become rows and back, each change as one function that decides and writes in the same
transaction. It must not know tasks, memory or events. Every function may run again from the start (see `Store.run`).

Invariants: a run's question stands once in a transcript however often the run is tried; messages of a session are
numbered without a gap in the order in which they were written, and a number is never given twice; a reset keeps the old
messages under their old session id until the session is deleted; what is kept has limits (`agents.trimming`).
"""

from __future__ import annotations

import sqlite3
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.agents import counting
from openclaw_gateway.agents.records import Attachment, Message, Session, Usage
from openclaw_gateway.agents.trimming import TranscriptLimits, trim, trim_past
from openclaw_gateway.value import Value

__all__ = ["MAX_SESSIONS", "Page"]

MAX_SESSIONS: Final = 5_000
MAX_PAGE_BYTES: Final = 8 * 1024 * 1024
KEPT_MESSAGES: Final = 20_000  # of one session id; older ones are dropped when more are written

_SESSION: Final = (
    "key, session_id, agent_id, created_at_ms, started_at_ms, updated_at_ms, last_interaction_ms, label, channel, "
    "chat_type, model, archived, pinned, last_read_ms, tokens_in, tokens_out, tokens_cache_read, tokens_cache_write, "
    "messages"
)
_MESSAGE: Final = "seq, id, role, body, at_ms, run_id"
_PUT_SESSION: Final = (
    f"INSERT OR REPLACE INTO agent_sessions ({_SESSION}) VALUES ({', '.join('?' * len(_SESSION.split(', ')))})"  # noqa: S608
)


@attrs.frozen(eq=False, repr=False)
class Body(Value):
    """What of a message has no column of its own."""

    text: str = attrs.field(repr=False)
    model: str | None = None
    stop: str | None = None
    error: str | None = None
    usage: Usage | None = None
    sender_name: str | None = None
    attachments: tuple[Attachment, ...] = attrs.field(default=(), repr=False)


@attrs.frozen(eq=False, repr=False)
class Page(Value):
    """Messages of a session, oldest first; ``total`` counts all of that session id that are kept, ``first`` is the
    place of the oldest of them (0: there are none)."""

    messages: tuple[Message, ...]
    total: int
    first: int = 0


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Body).decode


def load_sessions(db: sqlite3.Connection) -> list[Session]:
    return [_session(row) for row in db.execute(f"SELECT {_SESSION} FROM agent_sessions")]  # noqa: S608


def put_session(db: sqlite3.Connection, session: Session) -> Session:
    use = session.usage
    db.execute(
        _PUT_SESSION,
        (
            session.key, session.session_id, session.agent_id, session.created_at_ms, session.started_at_ms,
            session.updated_at_ms, session.last_interaction_ms, session.label, session.channel, session.chat_type,
            session.model, int(session.archived), int(session.pinned), session.last_read_ms, use.input, use.output,
            use.cache_read, use.cache_write, session.messages,
        ),
    )  # fmt: skip
    return session


def get_session(db: sqlite3.Connection, key: str) -> Session | None:
    row = db.execute(f"SELECT {_SESSION} FROM agent_sessions WHERE key = ?", (key,)).fetchone()  # noqa: S608
    return _session(row) if row is not None else None


def append(
    db: sqlite3.Connection,
    *,
    fresh: Session,
    message: Message,
    interaction: bool,
    limits: TranscriptLimits,
    only: bool = False,
) -> tuple[Session | None, Message]:
    """Write a message into the session ``fresh.key`` (made as ``fresh`` where there is none, continued as ``fresh``
    where its ``session_id`` is another: a reset). The same question of the same run is written once.

    A ``fresh`` that was read before somebody else's reset does not undo that: the message goes to the session as it is
    now, or, with ``only``, into the old transcript. With ``only`` nothing is written where the session is gone (None),
    nor where it was deleted and begun anew, or its old transcript was cut: nobody could reach or delete the rest.
    """
    session = get_session(db, fresh.key)
    if session is None and only:
        return None, message
    if session is not None and session.session_id != fresh.session_id:
        if only:
            if _is_past(db, fresh):
                _insert(db, fresh, message, limits)
            return session, message
        if _is_past(db, fresh):
            fresh = session
    if session is None or session.session_id != fresh.session_id:
        session = reset(db, fresh)
    if message.run_id is not None:
        known = db.execute(
            f"SELECT {_MESSAGE} FROM agent_messages WHERE session_id = ? AND run_id = ? AND role = ?",  # noqa: S608
            (session.session_id, message.run_id, message.role),
        ).fetchone()
        if known is not None:
            return put_session(db, session), _message(known)
    seq = _insert(db, session, message, limits)
    use = message.usage or Usage()
    seen = max(session.last_interaction_ms, message.at_ms) if interaction else session.last_interaction_ms
    written = attrs.evolve(
        session,
        updated_at_ms=max(session.updated_at_ms, message.at_ms),
        last_interaction_ms=seen,
        usage=Usage(
            session.usage.input + use.input,
            session.usage.output + use.output,
            session.usage.cache_read + use.cache_read,
            session.usage.cache_write + use.cache_write,
        ),
        messages=seq,
        archived=session.archived and not interaction,
    )
    return put_session(db, written), attrs.evolve(message, seq=seq)


def _insert(db: sqlite3.Connection, session: Session, message: Message, limits: TranscriptLimits) -> int:
    """Write a message at the end of the transcript ``session.session_id``, count it, and cut what is too much; its
    place."""
    session_id = session.session_id
    newest = db.execute("SELECT newest FROM agent_transcripts WHERE session_id = ?", (session_id,)).fetchone()
    seq = (int(newest[0]) if newest is not None else 0) + 1
    body = Body(
        text=message.text,
        model=message.model,
        stop=message.stop,
        error=message.error,
        usage=message.usage,
        sender_name=message.sender_name,
        attachments=message.attachments,
    )
    db.execute(
        "INSERT INTO agent_messages (session_id, seq, id, role, body, at_ms, run_id) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (session_id, seq, message.id, message.role, _encode(body), message.at_ms, message.run_id),
    )
    db.execute("DELETE FROM agent_messages WHERE session_id = ? AND seq <= ?", (session_id, seq - KEPT_MESSAGES))
    trim(db, session_id, seq, limits)
    counting.count(db, message, session_id=session_id, key=session.key, agent_id=session.agent_id)
    return seq


def _is_past(db: sqlite3.Connection, session: Session) -> bool:
    found = db.execute(
        "SELECT 1 FROM agent_session_past WHERE key = ? AND session_id = ?", (session.key, session.session_id)
    ).fetchone()
    return found is not None


def page(db: sqlite3.Connection, session_id: str, *, limit: int, before: int | None = None) -> Page:
    """The newest ``limit`` messages before place ``before`` (None: before the end), as many as have `MAX_PAGE_BYTES`
    together, and at least one: the store's thread and the loop must not chew on what nobody can be shown."""
    kept = db.execute("SELECT messages FROM agent_transcripts WHERE session_id = ?", (session_id,)).fetchone()
    first = db.execute("SELECT min(seq) FROM agent_messages WHERE session_id = ?", (session_id,)).fetchone()[0]
    found = db.execute(
        f"SELECT {_MESSAGE} FROM agent_messages WHERE session_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?",  # noqa: S608
        (session_id, before if before is not None else 2**62, limit),
    )
    messages: list[Message] = []
    size = 0
    for row in found:
        size += len(row[3])
        if messages and size > MAX_PAGE_BYTES:
            break
        messages.append(_message(row))
    return Page(tuple(reversed(messages)), kept[0] if kept is not None else 0, first or 0)


def message_of(db: sqlite3.Connection, session_id: str, message_id: str) -> Message | None:
    row = db.execute(
        f"SELECT {_MESSAGE} FROM agent_messages WHERE session_id = ? AND id = ?",  # noqa: S608
        (session_id, message_id),
    ).fetchone()
    return _message(row) if row is not None else None


def delete(db: sqlite3.Connection, key: str) -> bool:
    """The session and every transcript it ever had."""
    session = get_session(db, key)
    if session is None:
        return False
    for table in ("agent_messages", "agent_transcripts"):
        db.execute(
            f"DELETE FROM {table} WHERE session_id = ? OR session_id IN "  # noqa: S608 - constants
            "(SELECT session_id FROM agent_session_past WHERE key = ?)",
            (session.session_id, key),
        )
    db.execute("DELETE FROM agent_session_past WHERE key = ?", (key,))
    db.execute("DELETE FROM agent_sessions WHERE key = ?", (key,))
    counting.forget(db, key)
    return True


def reset(db: sqlite3.Connection, fresh: Session) -> Session:
    """The session goes on under ``fresh.session_id``; its old transcript stays."""
    old = get_session(db, fresh.key)
    if old is not None and old.session_id != fresh.session_id:
        db.execute(
            "INSERT OR IGNORE INTO agent_session_past VALUES (?, ?, ?)",
            (fresh.key, old.session_id, fresh.started_at_ms),
        )
        trim_past(db)
    return put_session(db, fresh)


def _session(row: tuple[Any, ...]) -> Session:
    *most, tin, tout, tread, twrite, messages = row
    key, session_id, agent_id, created, started, updated, interaction, label, channel, chat, model, arch, pin, read = (
        most
    )
    return Session(
        key=key,
        session_id=session_id,
        agent_id=agent_id,
        created_at_ms=created,
        started_at_ms=started,
        updated_at_ms=updated,
        last_interaction_ms=interaction,
        label=label,
        channel=channel,
        chat_type=chat,
        model=model,
        archived=bool(arch),
        pinned=bool(pin),
        last_read_ms=read,
        usage=Usage(tin, tout, tread, twrite),
        messages=messages,
    )


def _message(row: tuple[Any, ...]) -> Message:
    seq, id_, role, raw, at_ms, run_id = row
    body = _decode(raw)
    return Message(
        id=id_,
        role=role,
        text=body.text,
        at_ms=at_ms,
        run_id=run_id,
        model=body.model,
        stop=body.stop,
        error=body.error,
        usage=body.usage,
        sender_name=body.sender_name,
        attachments=body.attachments,
        seq=seq,
    )
