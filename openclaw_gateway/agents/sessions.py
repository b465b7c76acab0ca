"""Sessions and their transcripts, as everybody else sees them.

Owns the view of all sessions in memory (never their messages), when a session starts anew, and the ways into a
transcript. It must not know agents, runs or clients.

Invariants: what `append` and `append_effect` wrote is durable before anybody is told; memory follows the database, not
the other way round; at most `rows.MAX_SESSIONS` sessions: over it a new one is refused, none is forgotten.
"""

from __future__ import annotations

import heapq
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, Literal, TypeVar

import attrs

from openclaw_gateway.agents import rows
from openclaw_gateway.agents.records import Message, Session
from openclaw_gateway.agents.trimming import TranscriptLimits
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.queues import Effect
from openclaw_gateway.store import Store
from openclaw_gateway.value import Value

__all__ = ["ResetRule", "Sessions", "TooManySessions", "open_sessions", "reset_due"]

T = TypeVar("T")
DAY_MS: Final = 86_400_000
RECENT_KEPT: Final = 10
MAX_EMPTY: Final = 1_000  # in which nothing was said: opening one costs nothing, and must not take all the room


@attrs.frozen(eq=False, repr=False)
class ResetRule(Value):
    """When a session starts anew by itself: after ``idle_ms`` without a message, or daily at ``at_hour`` (0 to 23,
    local time)."""

    mode: Literal["none", "daily", "idle"] = "none"
    at_hour: int = 4
    idle_ms: int = 0


@attrs.define(eq=False)
class TooManySessions(GatewayError):
    limit: int

    def __str__(self) -> str:
        return f"there are {self.limit} sessions already; delete some with sessions.delete"


def reset_due(session: Session, rule: ResetRule, now_ms: int, utc_offset_ms: int) -> bool:
    """Whether the next message of a session belongs to a new transcript. ``utc_offset_ms``: local time minus UTC."""
    if rule.mode == "idle":
        return rule.idle_ms > 0 and now_ms - session.last_interaction_ms >= rule.idle_ms
    if rule.mode == "daily":
        shift = utc_offset_ms - rule.at_hour * 3_600_000
        return (session.started_at_ms + shift) // DAY_MS != (now_ms + shift) // DAY_MS
    return False


class Sessions:
    """Made by `open_sessions`. Times are Unix milliseconds."""

    def __init__(self, store: Store, *, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self.limits = TranscriptLimits()
        self._recent: list[Session] | None = None  # looked up once between changes: every hello shows it
        self.rule: Callable[[Session], ResetRule] = lambda session: ResetRule()
        self.on_change: Callable[[Session | None, str, str], None] = lambda session, key, reason: None
        self.on_message: Callable[[Session, Message], None] = lambda session, message: None

    def restore(self, found: list[Session]) -> None:
        self._sessions = {session.key: session for session in found}
        self._recent = None

    def _changed(self, session: Session | None, key: str, reason: str) -> None:
        """Memory follows the database; then whoever listens is told."""
        if session is None:
            self._sessions.pop(key, None)
        else:
            self._sessions[key] = session
        self._recent = None
        self.on_change(session, key, reason)

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: str) -> Session | None:
        return self._sessions.get(key)

    def all(self) -> list[Session]:
        """Every session, the last used first."""
        return sorted(self._sessions.values(), key=lambda session: -session.updated_at_ms)

    def recent(self, count: int) -> list[Session]:
        """The ``count`` sessions that were used last (at most `RECENT_KEPT`), the newest first."""
        if self._recent is None:
            self._recent = heapq.nlargest(RECENT_KEPT, self._sessions.values(), key=lambda one: one.updated_at_ms)
        return self._recent[:count]

    def counts(self) -> Counter[str]:
        """How many sessions each agent has."""
        return Counter(session.agent_id for session in self._sessions.values())

    def current(self, key: str, *, agent_id: str, channel: str | None = None, chat_type: str = "direct") -> Session:
        """The session that the next message of this key belongs to: the one there is, or a new one (not written yet).
        Raises `TooManySessions`."""
        now = self._clock()
        known = self._sessions.get(key)
        if known is not None and not reset_due(known, self.rule(known), now, _utc_offset_ms()):
            return known
        if known is not None:
            return attrs.evolve(known, session_id=str(uuid.uuid4()), started_at_ms=now, messages=0)
        if len(self._sessions) >= rows.MAX_SESSIONS:
            raise TooManySessions(rows.MAX_SESSIONS)
        return Session(
            key=key,
            session_id=str(uuid.uuid4()),
            agent_id=agent_id,
            created_at_ms=now,
            started_at_ms=now,
            updated_at_ms=now,
            last_interaction_ms=now,
            channel=channel,
            chat_type=chat_type,
        )

    async def append(self, session: Session, message: Message, *, interaction: bool = True) -> tuple[Session, Message]:
        """Write a message; the session as it is then, and the message with its place. Raises `StoreError`."""
        effect = self.append_effect(session, message, interaction=interaction)
        written: tuple[Session, Message] = await self._store.run(effect.work, then=effect.then)
        return written

    def append_effect(
        self, session: Session, message: Message, *, interaction: bool = False, only: bool = False
    ) -> Effect:
        """The same as a part of somebody's transaction. ``only``: the message belongs to the transcript of
        ``session.session_id`` alone and changes nothing where the session was reset or deleted meanwhile."""

        def then(written: tuple[Session | None, Message]) -> None:
            if written[0] is None:
                return
            self._changed(written[0], session.key, "message")
            # Without a place it went where nobody sees it any more; under another id it stood there before.
            if written[1].seq and written[1].id == message.id:
                self.on_message(written[0], written[1])

        work = partial(
            rows.append, fresh=session, message=message, interaction=interaction, only=only, limits=self.limits
        )
        return Effect(work, then)

    async def look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What a job of this package reads in the tables of sessions. Raises `StoreError`."""
        return await self._store.run(work)

    async def page(self, key: str, *, limit: int, before: int | None = None) -> rows.Page:
        """The newest messages of a session before a place. An unknown session has none. Raises `StoreError`."""
        session = self._sessions.get(key)
        if session is None:
            return rows.Page((), 0)
        return await self._store.run(partial(rows.page, session_id=session.session_id, limit=limit, before=before))

    async def history(self, session: Session, *, before: int, limit: int) -> tuple[Message, ...]:
        """What was said in a session before place ``before``, oldest first."""
        found = await self._store.run(partial(rows.page, session_id=session.session_id, limit=limit, before=before))
        return found.messages

    async def message(self, key: str, message_id: str) -> Message | None:
        session = self._sessions.get(key)
        if session is None:
            return None
        return await self._store.run(partial(rows.message_of, session_id=session.session_id, message_id=message_id))

    async def change(self, key: str, *, only: str | None = None, **changes: object) -> Session | None:
        """Set fields of a session; None where there is none, or none with the session id ``only``. Raises
        `StoreError`."""

        def work(db: object) -> Session | None:
            known = rows.get_session(db, key)  # type: ignore[arg-type]
            if known is not None and only not in {None, known.session_id}:
                return None
            changed = attrs.evolve(known, **changes) if known is not None else None  # type: ignore[arg-type]
            return rows.put_session(db, changed) if changed is not None else None  # type: ignore[arg-type]

        def then(changed: Session | None) -> None:
            if changed is not None:
                self._changed(changed, key, "patch")

        return await self._store.run(work, then=then)

    async def open(self, key: str, *, agent_id: str, label: str | None = None, model: str | None = None) -> Session:
        """The session of ``key``, made and written where there is none. Raises `StoreError`, `TooManySessions` (also
        over `MAX_EMPTY` sessions without a message)."""
        known = self._sessions.get(key)
        if known is not None:
            return known
        if sum(not session.messages for session in self._sessions.values()) >= MAX_EMPTY:
            raise TooManySessions(MAX_EMPTY)
        fresh = attrs.evolve(self.current(key, agent_id=agent_id), label=label, model=model)

        def work(db: object) -> Session:
            return rows.get_session(db, key) or rows.put_session(db, fresh)  # type: ignore[arg-type]

        return await self._store.run(work, then=lambda session: self._changed(session, key, "create"))

    async def reset(self, key: str, *, agent_id: str) -> Session:
        """Begin a new transcript under the same key. Raises `StoreError`, `TooManySessions`."""
        now = self._clock()
        known = self._sessions.get(key) or self.current(key, agent_id=agent_id)
        fresh = attrs.evolve(
            known,
            session_id=str(uuid.uuid4()),
            started_at_ms=now,
            updated_at_ms=now,
            last_interaction_ms=now,
            messages=0,
        )

        def then(written: Session) -> None:
            self._changed(written, key, "reset")

        return await self._store.run(partial(rows.reset, fresh=fresh), then=then)

    async def delete(self, key: str) -> bool:
        """Forget a session and all its transcripts. Raises `StoreError`."""

        def then(gone: bool) -> None:
            if key in self._sessions or gone:
                self._changed(None, key, "delete")

        return await self._store.run(partial(rows.delete, key=key), then=then)


def _utc_offset_ms() -> int:
    return int(time.localtime().tm_gmtoff * 1000)


@asynccontextmanager
async def open_sessions(store: Store, *, clock: Callable[[], int]) -> AsyncIterator[Sessions]:
    """The sessions that the store holds. Raises `StoreError`."""
    sessions = Sessions(store, clock=clock)
    await store.run(rows.load_sessions, then=sessions.restore)
    yield sessions
