"""Short references: which sessions a page's address can mean."""

from __future__ import annotations

import uuid

import pytest

from openclaw_gateway.agents.keys import fresh_key
from openclaw_gateway.agents.records import Session
from openclaw_gateway.agents.references import MAX_CANDIDATES, resolution_view, with_short_id

TAIL = uuid.UUID("1a2b3c4d-0000-4000-8000-000000000000")
TWIN = uuid.UUID("1a2b3c4d-ffff-4000-8000-000000000000")


def session(key: str, *, label: str | None = None) -> Session:
    return Session(
        key=key, session_id="s", agent_id=key.split(":")[1], created_at_ms=0, started_at_ms=0, updated_at_ms=0,
        last_interaction_ms=0, label=label,
    )  # fmt: skip


ONE = session(fresh_key("main", TAIL), label="My plan!")
OTHER = session(fresh_key("second", TWIN), label="Their plan")
PLAIN = session("agent:main:main")


@pytest.mark.parametrize("short", ["1a2b3c4d", "1A2B3C4D", "1a2b3c4d0000", TAIL.hex])
def test_digits_of_the_uuid_at_a_keys_end_are_enough(short: str) -> None:
    assert with_short_id([PLAIN, ONE], short) == [ONE]


@pytest.mark.parametrize("short", ["", "1a2b3c4", "1a2b-3c4d", "x" * 8, "1a2b3c4d" * 5])
def test_what_is_no_short_id_is_a_fault(short: str) -> None:
    with pytest.raises(ValueError, match="8-32 hexadecimal"):
        with_short_id([ONE], short)


def test_a_name_narrows_and_never_widens() -> None:
    assert with_short_id([ONE, OTHER], "1a2b3c4d") == [ONE, OTHER]
    assert with_short_id([ONE, OTHER], "1a2b3c4d", slug_hint="my-plan") == [ONE]
    assert with_short_id([ONE, OTHER], "1a2b3c4d", slug_hint="no such name") == [ONE, OTHER]
    assert with_short_id([ONE, OTHER], "1a2b3c4d", agent_id="second") == [OTHER]
    assert with_short_id([ONE], "ffffffff", slug_hint="my-plan") == []


def test_candidates_are_shown_up_to_a_cap() -> None:
    many = [session(fresh_key("main", uuid.UUID(int=number))) for number in range(MAX_CANDIDATES + 5)]
    assert resolution_view([]) == {"ok": False}
    assert resolution_view([PLAIN]) == {"ok": True, "key": "agent:main:main", "agentId": "main"}
    assert len(resolution_view(many)["candidates"]) == MAX_CANDIDATES
