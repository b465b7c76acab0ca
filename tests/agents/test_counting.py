"""Counters of what runs used: once for each message, capped, and without the names of what was deleted."""

from __future__ import annotations

import sqlite3
from typing import Any

import attrs
import pytest

from openclaw_gateway.agents import counting, rows
from openclaw_gateway.agents.counting import QUARTER_MS
from openclaw_gateway.agents.records import Message, Session, Usage
from openclaw_gateway.agents.trimming import TranscriptLimits
from openclaw_gateway.store.migrations import MIGRATIONS, migrate

AT = 1_800_000_000_000
LIMITS = TranscriptLimits()


@pytest.fixture
def db() -> Any:
    opened = sqlite3.connect(":memory:", isolation_level=None)
    migrate(opened)
    yield opened
    opened.close()


def session(key: str = "agent:main:main", session_id: str = "s1") -> Session:
    return Session(
        key=key, session_id=session_id, agent_id="main", created_at_ms=AT, started_at_ms=AT, updated_at_ms=AT,
        last_interaction_ms=AT,
    )  # fmt: skip


def answer(number: int, at: int = AT, *, model: str | None = "acme/one", stop: str = "stop") -> Message:
    return Message(
        id=f"a{number}", role="assistant", text="x", at_ms=at, run_id=f"r{number}", model=model, stop=stop,
        usage=Usage(10, 5, 2, 1),
    )  # fmt: skip


def write(db: sqlite3.Connection, message: Message, into: Session | None = None, **options: Any) -> None:
    rows.append(db, fresh=into or session(), message=message, interaction=False, limits=LIMITS, **options)


def counted(db: sqlite3.Connection) -> list[dict[str, Any]]:
    found = db.execute("SELECT * FROM agent_usage")
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found]


def total(db: sqlite3.Connection, name: str) -> int:
    return sum(int(row[name]) for row in counted(db))


def rows_known(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count FROM agent_usage_rows").fetchone()[0])


def test_a_message_is_counted_once_in_its_quarter(db: sqlite3.Connection) -> None:
    question = Message(id="q", role="user", text="hello", at_ms=AT, run_id="r1")
    for message in (question, question, answer(1), answer(1), answer(2, AT + 1, stop="error")):
        write(db, message)
    write(db, answer(3, AT + QUARTER_MS))
    first, second, third = counted(db)
    assert (first["model"], first["asked"], first["answered"], first["counted"]) == ("", 1, 0, 0)
    assert (second["model"], second["answered"], second["errors"], second["counted"]) == ("acme/one", 2, 1, 2)
    numbers = ("tokens_in", "tokens_out", "tokens_cache_read", "tokens_cache_write", "first_ms", "last_ms")
    assert [second[name] for name in numbers] == [20, 10, 4, 2, AT, AT + 1]
    assert third["quarter"] == second["quarter"] + 1 == AT // QUARTER_MS + 1


def test_what_is_written_by_the_system_is_no_use(db: sqlite3.Connection) -> None:
    write(db, Message(id="n", role="system", text="x", at_ms=AT))
    assert counted(db) == []


def test_a_late_answer_counts_for_the_transcript_that_it_is_in(db: sqlite3.Connection) -> None:
    write(db, Message(id="q", role="user", text="hello", at_ms=AT, run_id="r1"))
    rows.reset(db, attrs.evolve(session(), session_id="s2"))
    write(db, answer(1), only=True)
    assert {row["session_id"] for row in counted(db)} == {"s1"}
    rows.delete(db, session().key)
    write(db, answer(2), only=True)
    assert total(db, "answered") == 1, "it went nowhere"


def test_a_deleted_conversation_leaves_its_numbers_without_its_name(db: sqlite3.Connection) -> None:
    write(db, answer(1))
    write(db, answer(2), session("agent:main:telegram:dm:ann", "s2"))
    for key in ("agent:main:telegram:dm:ann", session().key):
        assert rows.delete(db, key)
    (row,) = counted(db)
    assert (row["key"], row["session_id"], row["answered"], row["tokens_in"]) == ("", "", 2, 20)
    assert rows_known(db) == 1


def test_cap_counters_have_a_limit_and_totals_outlive_details(
    db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "MAX_ROWS", 40)
    monkeypatch.setattr(counting, "FOLD", 10)
    for number in range(300):
        write(db, answer(number, AT + number * QUARTER_MS))
        assert rows_known(db) <= 40
    assert rows_known(db) == len(counted(db))
    assert (total(db, "answered"), total(db, "tokens_in")) == (300, 3_000)
    folded = [row for row in counted(db) if not row["session_id"]]
    assert folded
    assert all(row["quarter"] % 96 == 0 for row in folded)
    assert total(db, "first_ms") > 0
    assert max(row["quarter"] for row in folded) < min(row["quarter"] for row in counted(db) if row["session_id"])


def test_cap_models_without_end_push_out_the_oldest(db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MAX_ROWS", 40)
    monkeypatch.setattr(counting, "FOLD", 10)
    for number in range(200):
        write(db, answer(number, AT + number * 86_400_000, model=f"made/{number}" + "x" * 500))
        assert rows_known(db) <= 40
    assert counted(db)[-1]["quarter"] == (AT + 199 * 86_400_000) // QUARTER_MS
    assert all(len(row["model"]) <= 256 for row in counted(db))


def test_transcripts_from_before_are_counted_when_the_database_grows() -> None:
    db = sqlite3.connect(":memory:", isolation_level=None)
    before = next(number for number, step in enumerate(MIGRATIONS) if "CREATE TABLE agent_usage (" in step[0])
    migrate(db, steps=MIGRATIONS[:before])
    for step in MIGRATIONS[before][:3]:  # the counters, so that today's code can write, and away with them again
        db.execute(step)
    db.execute("INSERT INTO agent_usage_rows VALUES (1, 0)")
    write(db, Message(id="q", role="user", text='odd "text" 😀 \\ \n', at_ms=AT, run_id="r1"))
    write(db, answer(1))
    write(db, answer(2, AT + 5, model=None, stop="aborted"))
    rows.reset(db, attrs.evolve(session(), session_id="s2"))
    write(db, answer(3, AT + QUARTER_MS), session(session_id="s2"))
    db.execute("INSERT INTO agent_messages VALUES ('s2', 99, 'bad', 'assistant', x'7b7b', ?, NULL)", (AT,))
    db.execute("INSERT INTO agent_messages VALUES ('orphan', 1, 'o', 'user', x'7b7d', ?, NULL)", (AT,))
    told = counted(db)
    db.executescript("DROP TABLE agent_usage; DROP TABLE agent_usage_rows")
    assert migrate(db) == len(MIGRATIONS) - before
    again = counted(db)
    bad = next(row for row in again if (row["session_id"], row["model"]) == ("s2", ""))
    assert (bad["answered"], bad["counted"]) == (1, 0), "what cannot be read counts as an answer without tokens"
    assert [row for row in again if row is not bad] == told
    assert rows_known(db) == len(again)
    db.close()
