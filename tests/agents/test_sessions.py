"""Sessions and transcripts on a real store."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.agents import rows
from openclaw_gateway.agents import sessions as sessions_module
from openclaw_gateway.agents.records import Message, Session, Usage
from openclaw_gateway.agents.sessions import DAY_MS, ResetRule, Sessions, TooManySessions, open_sessions, reset_due
from openclaw_gateway.store import open_store

KEY = "agent:main:main"


class Clock:
    now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


@asynccontextmanager
async def opened(path: Path | None = None, clock: Clock | None = None) -> AsyncIterator[Sessions]:
    async with open_store(path) as store, open_sessions(store, clock=clock or Clock()) as sessions:
        yield sessions


def said(number: int, role: str = "user", run: str | None = None, usage: Usage | None = None) -> Message:
    return Message(
        id=f"m{number}",
        role=role,  # type: ignore[arg-type]
        text=f"text {number}",
        at_ms=1_800_000_000_000 + number,
        run_id=run,
        usage=usage,
    )


async def test_s028_what_was_said_is_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as sessions:
        session = sessions.current(KEY, agent_id="main")
        for number in range(5):
            session, _ = await sessions.append(session, said(number, usage=Usage(1, 2)))
        assert sessions.get(KEY) == session
    async with opened(tmp_path) as sessions:
        again = sessions.get(KEY)
        assert again == session
        assert again is not None
        assert (again.messages, again.usage) == (5, Usage(5, 10))
        page = await sessions.page(KEY, limit=2)
        assert ([message.text for message in page.messages], page.total) == (["text 3", "text 4"], 5)
        older = await sessions.page(KEY, limit=2, before=page.messages[0].seq)
        assert [message.seq for message in older.messages] == [2, 3]
        assert (await sessions.message(KEY, "m1")) == older.messages[0]
        assert await sessions.message(KEY, "nobody") is None


async def test_a_question_stands_once_however_often_its_run_is_tried() -> None:
    async with opened() as sessions:
        session = sessions.current(KEY, agent_id="main")
        session, first = await sessions.append(session, said(1, run="r"))
        session, again = await sessions.append(session, said(2, run="r"))
        assert (again.id, again.seq) == (first.id, first.seq)
        _, answer = await sessions.append(session, said(3, role="assistant", run="r"))
        assert answer.seq == 2


async def test_a_reset_begins_anew_and_a_delete_takes_every_transcript(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    async with open_store(tmp_path) as store, open_sessions(store, clock=Clock()) as sessions:
        sessions.on_change = lambda session, key, reason: told.append((key, reason))
        session, _ = await sessions.append(sessions.current(KEY, agent_id="main"), said(1))
        fresh = await sessions.reset(KEY, agent_id="main")
        assert fresh.session_id != session.session_id
        assert (await sessions.page(KEY, limit=9)).messages == ()
        await sessions.append(fresh, said(2))
        count = await store.run(lambda db: db.execute("SELECT count(*) FROM agent_messages").fetchone()[0])
        assert count == 2  # the old one stays until the session goes
        assert await sessions.delete(KEY)
        assert not await sessions.delete(KEY)
        assert await store.run(lambda db: db.execute("SELECT count(*) FROM agent_messages").fetchone()[0]) == 0
        assert sessions.get(KEY) is None
    assert [reason for _, reason in told] == ["message", "reset", "message", "delete"]


async def test_s028_an_idle_session_starts_anew_with_its_next_message() -> None:
    clock = Clock()
    async with opened(clock=clock) as sessions:
        sessions.rule = lambda session: ResetRule("idle", idle_ms=60_000)
        session, _ = await sessions.append(sessions.current(KEY, agent_id="main"), said(1))
        clock.now += 59_000
        assert sessions.current(KEY, agent_id="main").session_id == session.session_id
        clock.now += 2_000
        fresh = sessions.current(KEY, agent_id="main")
        assert fresh.session_id != session.session_id
        await sessions.append(fresh, attrs.evolve(said(2), at_ms=clock.now))
        assert [message.text for message in (await sessions.page(KEY, limit=9)).messages] == ["text 2"]


@given(st.integers(0, 23), st.integers(-12, 14), st.integers(0, 5 * DAY_MS), st.integers(0, 3 * DAY_MS))
def test_s028_a_daily_session_ends_when_the_hour_passes(hour: int, zone: int, start: int, later: int) -> None:
    session = Session(
        key=KEY,
        session_id="s",
        agent_id="main",
        created_at_ms=0,
        started_at_ms=start,
        updated_at_ms=0,
        last_interaction_ms=0,
    )
    offset = zone * 3_600_000
    due = reset_due(session, ResetRule("daily", at_hour=hour), start + later, offset)
    local_start, local_now = start + offset, start + later + offset
    boundary = (local_start - hour * 3_600_000) // DAY_MS * DAY_MS + hour * 3_600_000 + DAY_MS
    assert due == (local_now >= boundary)


async def test_there_is_a_limit_of_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_SESSIONS", 2)
    async with opened() as sessions:
        for number in range(2):
            await sessions.append(sessions.current(f"agent:main:{number}", agent_id="main"), said(number))
        with pytest.raises(TooManySessions):
            sessions.current("agent:main:9", agent_id="main")
        assert sessions.current("agent:main:1", agent_id="main").messages == 1


async def test_cap_conversations_that_were_only_opened_leave_room_for_those_who_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Opening costs nothing: whoever may write took all of the room in a second, and no new person was heard."""
    monkeypatch.setattr(sessions_module, "MAX_EMPTY", 3)
    async with opened() as sessions:
        for number in range(3):
            await sessions.open(f"agent:main:{number}", agent_id="main")
        with pytest.raises(TooManySessions):
            await sessions.open("agent:main:9", agent_id="main")
        assert (await sessions.open("agent:main:1", agent_id="main")).key == "agent:main:1"
        await sessions.append(sessions.current("agent:main:new", agent_id="main"), said(1))
        await sessions.append(sessions.current("agent:main:0", agent_id="main"), said(2))
        assert (await sessions.open("agent:main:9", agent_id="main")).messages == 0
        assert len(sessions) == 5


async def test_a_transcript_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "KEPT_MESSAGES", 3)
    async with opened() as sessions:
        session = sessions.current(KEY, agent_id="main")
        for number in range(6):
            session, _ = await sessions.append(session, said(number))
        page = await sessions.page(KEY, limit=9)
        assert [message.seq for message in page.messages] == [4, 5, 6]


async def test_a_late_answer_undoes_neither_a_reset_nor_a_delete(tmp_path: Path) -> None:
    async with opened(tmp_path) as sessions:
        old, _ = await sessions.append(sessions.current(KEY, agent_id="main"), said(1))
        new = await sessions.reset(KEY, agent_id="main")
        effect = sessions.append_effect(old, said(2, role="assistant"), only=True)
        await sessions._store.run(effect.work, then=effect.then)
        assert sessions.get(KEY) == new
        assert (await sessions.page(KEY, limit=9)).messages == ()
        kept = await sessions.history(old, before=99, limit=9)
        assert [one.text for one in kept] == ["text 1", "text 2"]
        # a question whose session was looked up before the reset belongs to the new transcript
        session, _ = await sessions.append(old, said(3))
        assert session.session_id == new.session_id
        await sessions.delete(KEY)
        await sessions._store.run(effect.work, then=effect.then)
        assert (sessions.get(KEY), len(sessions)) == (None, 0)
    async with opened(tmp_path) as sessions:
        assert len(sessions) == 0


async def test_what_stood_in_the_transcript_already_is_told_of_once() -> None:
    """A question whose agent failed for now is asked again: it was written, and told of, the first time."""
    told: list[str] = []
    async with opened() as sessions:
        sessions.on_message = lambda session, message: told.append(message.id)
        session = sessions.current(KEY, agent_id="main")
        first = attrs.evolve(said(1), run_id="r1")
        session, written = await sessions.append(session, first)
        session, again = await sessions.append(session, attrs.evolve(first, id="another try"))
        assert (again.id, again.seq) == (written.id, 1)
        await sessions.append(session, attrs.evolve(said(2), run_id="r2"))
    assert told == [written.id, said(2).id]


async def test_a_late_answer_leaves_nothing_of_a_conversation_that_was_deleted_and_begun_anew() -> None:
    """It would lie in a transcript that no session knows: nobody could read it, and nobody could delete it."""

    def kept(db: sqlite3.Connection) -> list[str]:
        return [row[0] for row in db.execute("SELECT id FROM agent_messages")]

    async with opened() as sessions:
        old, _ = await sessions.append(sessions.current(KEY, agent_id="main"), said(1))
        effect = sessions.append_effect(old, said(2, role="assistant"), only=True)
        await sessions.delete(KEY)
        await sessions.open(KEY, agent_id="main")
        await sessions._store.run(effect.work, then=effect.then)
        assert (await sessions.page(KEY, limit=9)).messages == ()
        assert await sessions._store.run(kept) == []


async def test_a_page_has_a_limit_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_PAGE_BYTES", 200)
    async with opened() as sessions:
        session = sessions.current(KEY, agent_id="main")
        for number in range(20):
            session, _ = await sessions.append(session, said(number))
        page = await sessions.page(KEY, limit=20)
        assert 1 <= len(page.messages) < 20
        assert (page.messages[-1].text, page.total) == ("text 19", 20)
        monkeypatch.setattr(rows, "MAX_PAGE_BYTES", 1)
        assert len((await sessions.page(KEY, limit=20)).messages) == 1
