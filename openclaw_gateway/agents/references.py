"""Short references to conversations: the tail of a Control UI address leads back to its session.

Owns what a short id matches. Pure: sessions in, sessions out. The Control UI shortens the UUID that ends a session's
key to its first 8 to 32 hexadecimal digits and puts the session's name in front (``/chat/main/my-plan-1a2b3c4d``).

Invariants: only keys that end with a UUID can be meant; a name narrows several matches and never widens them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from openclaw_gateway.agents.records import Session

__all__ = ["resolution_view", "with_short_id"]

MAX_CANDIDATES: Final = 10
_SHORT: Final = re.compile(r"[0-9a-fA-F]{8,32}")
_UUID_TAIL: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)
_NO_SLUG: Final = re.compile(r"[^a-z0-9]+")


def with_short_id(
    sessions: Iterable[Session], short_id: str, *, agent_id: str | None = None, slug_hint: str | None = None
) -> list[Session]:
    """The sessions (of ``agent_id``, where given) whose key's UUID starts with ``short_id``. Raises `ValueError`."""
    if _SHORT.fullmatch(short_id) is None:
        raise ValueError("shortId must be 8-32 hexadecimal characters")
    found = [
        session
        for session in sessions
        if (agent_id is None or session.agent_id == agent_id) and _digits(session.key).startswith(short_id.lower())
    ]
    named = [session for session in found if slug_hint and _slug(session) == slug_hint]
    return named or found


def resolution_view(found: list[Session]) -> dict[str, Any]:
    """What a short id came to, as clients read it: one session, none, or the candidates."""
    if len(found) == 1:
        return {"ok": True, **_candidate(found[0])}
    if not found:
        return {"ok": False}
    return {"ok": False, "candidates": [_candidate(session) for session in found[:MAX_CANDIDATES]]}


def _candidate(session: Session) -> dict[str, Any]:
    named = {"displayName": session.label} if session.label else {}
    return {"key": session.key, "agentId": session.agent_id, **named}


def _digits(key: str) -> str:
    tail = _UUID_TAIL.search(key)
    return tail[0].lower().replace("-", "") if tail is not None else ""


def _slug(session: Session) -> str:
    return _NO_SLUG.sub("-", (session.label or "").lower()).strip("-")
