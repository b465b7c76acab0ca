"""What official pages ask for and this gateway has none of: approvals, questions, tasks, schedules, boards.

Owns the truthful empty answers, in the shapes that OpenClaw's Control UI reads (spec method-shapes.md), so that its
pages open without an error banner. It must not pretend: nothing here says that a thing exists, and nothing takes a
change. Unknown members of parameters are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from openclaw_gateway.rpc.table import CallContext, MethodTable, NoParams

__all__ = ["EMPTY", "register"]

EMPTY: Final[dict[str, Any]] = {
    "exec.approval.list": [],
    "plugin.approval.list": [],
    "openclaw.approval.list": [],
    "exec.approvals.get": {
        "path": "exec-approvals.json",
        "exists": False,
        "file": {"version": 1, "defaults": {}, "agents": {}},
        "hash": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",  # SHA-256 of nothing
        # The gateway itself runs no commands; nodes decide by their own files (openclaw node allow).
        "resolvedDefaults": {"security": "deny", "ask": "always", "askFallback": "deny", "autoAllowSkills": False},
    },
    "exec.approval.grants.list": {"grants": []},
    "approval.history": {"items": []},
    "question.list": {"questions": []},
    "plugins.list": {"plugins": [], "diagnostics": [], "mutationAllowed": False},
    "sessions.observer.visibility": {"ok": True},
    "update.status": {"sentinel": None, "updateAvailable": None},
    "talk.catalog": {
        "modes": [],
        "transports": [],
        "brains": [],
        "speech": {"providers": []},
        "transcription": {"ready": False, "providers": []},
        "realtime": {"ready": False, "providers": []},
    },
    "tasks.list": {"tasks": []},
    "environments.list": {"environments": []},
    "progressCard.get": {"card": None},
    "sessions.branches.list": {"branches": []},
    "sessions.companion.state": {"exchanges": []},
    "cron.list": {"jobs": [], "total": 0, "offset": 0, "limit": 0, "hasMore": False, "nextOffset": None},
    "cron.status": {"enabled": False, "triggersEnabled": False, "jobs": 0},
    "cron.runs": {"entries": [], "total": 0, "offset": 0, "limit": 0, "hasMore": False, "nextOffset": None},
}


def register(table: MethodTable) -> None:
    """Put the methods into ``table``; each gives way to whoever has the thing."""
    for name, answer in EMPTY.items():
        table.method(name, scope="operator.read", params=NoParams, lenient=True, default=True)(_answering(answer))


def _answering(answer: Any) -> Callable[[CallContext, NoParams], Any]:
    def empty(context: CallContext, params: NoParams) -> Any:
        return answer

    return empty
