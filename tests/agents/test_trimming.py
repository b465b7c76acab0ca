"""Transcripts have limits of bytes, and nothing that is read or written goes wrong at the edge."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.agents import rows, trimming
from openclaw_gateway.agents.records import MAX_ATTACHMENT_CHARS, MAX_MESSAGE, Attachment, Message, Session
from openclaw_gateway.agents.sessions import Sessions, open_sessions
from openclaw_gateway.agents.trimming import PER_MESSAGE, TranscriptLimits
from openclaw_gateway.config.leaves import RANGES
from openclaw_gateway.config.schema import AuthConfig, SessionConfig, TranscriptConfig
from openclaw_gateway.store import open_store
from openclaw_gateway.store.migrations import MIGRATIONS, migrate
from openclaw_gateway.testing import connect_peer, open_memory_gateway

TOKEN = "token-of-the-tests-of-trimming-0123456789"
ALL = ["operator.read", "operator.write", "operator.admin"]


def said(number: int, size: int = 1_000, role: str = "user") -> Message:
    text = f"{number} ".ljust(size, "x")
    return Message(id=f"m{number}", role=role, text=text, at_ms=1_800_000_000_000 + number)  # type: ignore[arg-type]


def fresh(key: str, session_id: str, at: int = 1) -> Session:
    return Session(
        key=key, session_id=session_id, agent_id="main", created_at_ms=at, started_at_ms=at, updated_at_ms=at,
        last_interaction_ms=at,
    )  # fmt: skip


@asynccontextmanager
async def opened(limits: TranscriptLimits, path: Path | None = None) -> AsyncIterator[Sessions]:
    with trio.fail_after(20):
        async with open_store(path) as store, open_sessions(store, clock=lambda: 1_800_000_000_000) as sessions:
            sessions.limits = limits
            yield sessions


async def write(sessions: Sessions, key: str, count: int, size: int = 1_000, first: int = 1) -> Session:
    session = sessions.current(key, agent_id="main")
    for number in range(first, first + count):
        session, _ = await sessions.append(session, said(number, size, "user" if number % 2 else "assistant"))
    return session


async def test_cap_a_transcript_has_a_limit_of_bytes_and_loses_its_oldest_turns(tmp_path: Path) -> None:
    async with opened(TranscriptLimits(max_bytes=8_000)) as sessions:
        await write(sessions, "a", 40)
        page = await sessions.page("a", limit=99)
        assert sum(len(one.text) + PER_MESSAGE for one in page.messages) <= 8_000
        assert page.messages[0].role == "user", "a transcript does not begin with an answer to nothing"
        assert [one.seq for one in page.messages] == list(range(page.first, 41))
        assert (page.total, len(page.messages)) == (41 - page.first, 41 - page.first)
        session = sessions.get("a")
        assert session is not None
        assert session.messages == 40, "numbers go on"


async def test_cap_the_message_that_was_just_written_stays_whatever_it_costs() -> None:
    async with opened(TranscriptLimits(max_bytes=8_000, max_total_bytes=9_000)) as sessions:
        await write(sessions, "a", 3)
        await write(sessions, "a", 1, size=20_000, first=4)
        assert [one.seq for one in (await sessions.page("a", limit=9)).messages] == [4]
        await write(sessions, "b", 1)
        assert [one.seq for one in (await sessions.page("b", limit=9)).messages] == [1]
        assert (await sessions.page("a", limit=9)).messages == (), "the largest pays"
        await write(sessions, "a", 1, first=5)
        assert [one.seq for one in (await sessions.page("a", limit=9)).messages] == [5], "no number comes twice"


async def test_cap_one_who_writes_much_pushes_out_nobody_elses_words() -> None:
    async with opened(TranscriptLimits(max_bytes=30_000, max_total_bytes=60_000)) as sessions:
        await write(sessions, "quiet", 4)
        for session in ("loud", "louder", "loudest"):
            await write(sessions, session, 60)
        sizes = {key: (await sessions.page(key, limit=99)).total for key in ("quiet", "loud", "louder", "loudest")}
        assert sizes["quiet"] == 4
        assert sum(sizes.values()) * (1_000 + PER_MESSAGE) <= 60_000


async def test_cap_what_resets_left_behind_goes_first() -> None:
    async with opened(TranscriptLimits(max_total_bytes=20_000)) as sessions:
        old = await write(sessions, "a", 6)
        await sessions.reset("a", agent_id="main")
        await write(sessions, "a", 6)
        assert len(await sessions.history(old, before=99, limit=99)) == 6
        await write(sessions, "b", 6)
        assert len(await sessions.history(old, before=99, limit=99)) == 0
        assert [(await sessions.page(key, limit=9)).total for key in ("a", "b")] == [6, 6]


async def test_cap_transcripts_from_before_a_reset_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "MAX_PAST", 3)
    async with opened(TranscriptLimits()) as sessions:
        for number in range(8):
            await write(sessions, "a", 1, first=number)
            await sessions.reset("a", agent_id="main")
        counts = await sessions._store.run(
            lambda db: [
                db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for table in ("agent_session_past", "agent_messages", "agent_transcripts")
            ]
        )
        assert counts == [3, 3, 3]


def test_the_least_limit_holds_the_largest_message() -> None:
    largest = Message(
        id="m", role="user", text="\x00" * MAX_MESSAGE, at_ms=1,
        attachments=(Attachment("image/png", "A" * MAX_ATTACHMENT_CHARS),),
    )  # fmt: skip
    body = rows._encode(rows.Body(text=largest.text, attachments=largest.attachments))
    assert len(body) < RANGES["session.transcript.maxBytes"][0] < RANGES["session.transcript.maxTotalBytes"][0]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    session = SessionConfig(transcript=TranscriptConfig(max_bytes=9_000, max_total_bytes=30_000))
    async with open_memory_gateway(GatewayConfig(auth=AuthConfig(token=TOKEN), session=session)) as found:
        yield found


async def test_cap_the_history_is_right_across_the_edge(gateway: Gateway) -> None:
    """Page by page to the first message that is kept: each once, in order, and no page after it."""
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        for number in range(30):
            await peer.request("chat.inject", {"sessionKey": "main", "message": f"m{number:02}".ljust(1_000, "x")})
        seen: list[str] = []
        offset: int | None = None
        while True:
            params: dict[str, Any] = {"sessionKey": "main", "limit": 2}
            page = await peer.request("chat.history", params if offset is None else {**params, "offset": offset})
            seen = [entry["content"][0]["text"][:3] for entry in page["messages"]] + seen
            assert page["messages"], "a page that was promised holds something"
            assert page["totalMessages"] + page["cutMessages"] == 30
            if not page["hasMore"]:
                break
            offset = page["nextOffset"]
        assert "nextOffset" not in page
        assert seen == [f"m{number:02}" for number in range(30 - page["totalMessages"], 30)]
        assert 5 <= len(seen) <= 9
        gone = await peer.request("chat.history", {"sessionKey": "main", "offset": 29})
        assert (gone["messages"], gone["hasMore"]) == ([], False)


async def test_cap_a_hostile_client_cannot_fill_the_disk(gateway: Gateway) -> None:
    async with connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
        for number in range(120):
            key = "main" if number < 60 else f"s{number}"
            await peer.request("chat.inject", {"sessionKey": key, "message": f"{number}".ljust(2_000, "x")})
        sizes = await gateway.messaging.sessions._store.run(
            lambda db: db.execute("SELECT sum(length(body)), count(*) FROM agent_messages").fetchone()
        )
        assert sizes[0] + sizes[1] * PER_MESSAGE <= 30_000
        newest = await peer.request("chat.history", {"sessionKey": "s119"})
        assert len(newest["messages"]) == 1


def test_what_was_there_before_the_count_is_counted() -> None:
    """The step that brings the counts, on a database that has transcripts already."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    before = next(number for number, step in enumerate(MIGRATIONS) if any("agent_transcripts" in sql for sql in step))
    migrate(db, steps=MIGRATIONS[:before])
    for number in range(1, 4):
        values = ("s", number, f"m{number}", "user", b"12345", number, None)
        db.execute("INSERT INTO agent_messages VALUES (?, ?, ?, ?, ?, ?, ?)", values)
    migrate(db)
    assert db.execute("SELECT * FROM agent_transcripts").fetchall() == [("s", 3 * (5 + PER_MESSAGE), 3, 3)]
    assert db.execute("SELECT bytes FROM agent_storage").fetchall() == [(3 * (5 + PER_MESSAGE),)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5_000), st.sampled_from("waur")), max_size=40))
def test_law_the_counts_are_what_is_there_and_the_limits_hold(acts: list[tuple[str, int, str]]) -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    migrate(db)
    limits = TranscriptLimits(max_bytes=9_000, max_total_bytes=15_000)
    for number, (key, size, act) in enumerate(acts):
        known = rows.get_session(db, key) or fresh(key, f"{key}-{number}")
        if act == "r":
            rows.reset(db, fresh(key, f"{key}-{number}-again", at=number))
            continue
        if act == "u" and number % 5 == 0:
            rows.delete(db, key)
            continue
        message = said(number, size, "assistant" if act == "a" else "user")
        _, written = rows.append(db, fresh=known, message=message, interaction=True, limits=limits)
        kept = db.execute("SELECT session_id, sum(length(body) + 256), count(*) FROM agent_messages GROUP BY 1")
        counted = "SELECT session_id, bytes, messages FROM agent_transcripts WHERE messages > 0 ORDER BY 1"
        there = sorted(kept.fetchall())
        assert db.execute(counted).fetchall() == there
        total = db.execute("SELECT bytes FROM agent_storage").fetchone()[0]
        assert total == sum(size for _, size, _ in there) <= 15_000
        assert all(size <= 9_000 for _, size, _ in there)
        session = rows.get_session(db, key)
        assert session is not None
        assert rows.page(db, session.session_id, limit=1).messages[0].seq == written.seq
