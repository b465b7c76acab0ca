"""Agents and conversations as `health` and `status` show them: counts, and the few that were used last.

Owns the shapes (OpenClaw's). It must not know methods, events or who asks: session keys may name people, so whoever
shows ``recent`` to a caller has made sure that the caller may read. Times are Unix milliseconds.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from openclaw_gateway.agents.records import Session
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.sessions import Sessions

__all__ = ["health_members", "status_sessions", "without_names"]

RECENT: Final = 5
# There is no scheduler here that would wake an agent by itself.
_NO_HEARTBEAT: Final = {
    "enabled": False, "every": "disabled", "everyMs": None, "prompt": "", "target": "none", "ackMaxChars": 0,
}  # fmt: skip


def health_members(router: AgentRouter, sessions: Sessions, now: int) -> dict[str, Any]:
    """The members of `health` that tell of agents and conversations."""
    counts = sessions.counts()
    recent = [_brief(session, now) for session in sessions.recent(RECENT)]
    owners = {session.key: session.agent_id for session in sessions.recent(RECENT)}
    return {
        "defaultAgentId": router.default_id,
        "agents": [
            {
                "agentId": agent_id,
                "isDefault": agent_id == router.default_id,
                "heartbeat": _NO_HEARTBEAT,
                "sessions": {
                    "path": "",
                    "count": counts.get(agent_id, 0),
                    "recent": [row for row in recent if owners[row["key"]] == agent_id],
                },
            }
            for agent_id in router.ids
        ],
        "sessions": {"path": "", "count": sum(counts.values()), "recent": recent},
    }


def without_names(view: dict[str, Any]) -> dict[str, Any]:
    """A health view for a caller who may not read: counts stay, session keys go."""
    agents = [{**row, "sessions": {**row["sessions"], "recent": []}} for row in view["agents"]]
    return {**view, "agents": agents, "sessions": {**view["sessions"], "recent": []}}


def status_sessions(router: AgentRouter, sessions: Sessions, now: int) -> dict[str, Any]:
    """The member ``sessions`` of `status`."""
    counts: Counter[str] = sessions.counts()
    defaults = _defaults(router, router.default_id)
    recent = [_row(session, router, now) for session in sessions.recent(RECENT)]
    return {
        "paths": [],
        "count": sum(counts.values()),
        "defaults": defaults,
        "recent": recent,
        "byAgent": [
            {
                "agentId": agent_id,
                "path": "",
                "count": counts[agent_id],
                "recent": [row for row in recent if row["agentId"] == agent_id],
            }
            for agent_id in counts
        ],
    }


def _brief(session: Session, now: int) -> dict[str, Any]:
    return {"key": session.key, "updatedAt": session.updated_at_ms, "age": max(0, now - session.updated_at_ms)}


def _row(session: Session, router: AgentRouter, now: int) -> dict[str, Any]:
    defaults = _defaults(router, session.agent_id)
    return {
        **_brief(session, now),
        "agentId": session.agent_id,
        "kind": "group" if session.chat_type == "group" else "direct",
        "sessionId": session.session_id,
        "systemSent": True,
        "abortedLastRun": False,
        "inputTokens": session.usage.input,
        "outputTokens": session.usage.output,
        "totalTokens": session.usage.total,
        "totalTokensFresh": True,
        "remainingTokens": None,  # tokens are summed over a conversation's life: they do not say how full a window is
        "percentUsed": None,
        "model": session.model or defaults["model"],
        "contextTokens": defaults["contextTokens"],
        "flags": [],
    }


def _defaults(router: AgentRouter, agent_id: str) -> dict[str, Any]:
    model = router.summary(agent_id).get("model", {}) if agent_id in router.ids else {}
    return {"model": model.get("primary"), "contextTokens": router.agents.defaults.context_tokens}
