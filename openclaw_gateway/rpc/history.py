"""Reading transcripts: `chat.history`, `chat.message.get`.

Owns their parameters and shapes (OpenClaw's), and how much one answer holds. It must not know where a transcript lies
or how an agent works. Unknown members are left out: official clients send more than the published schema has (spec
wire.md section 12).

Invariants: a page has at most `MAX_PAGE` messages and about `MAX_PAGE_BYTES`; what waits and what is being said is
shown beside what was written; reading needs operator.read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from openclaw_gateway.agents.records import Session
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.rows import Page
from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.agents.runstate import Run
from openclaw_gateway.rpc.sessionfaults import faults
from openclaw_gateway.rpc.table import CallContext, MethodTable
from openclaw_gateway.value import Value

__all__ = ["HistoryMethods", "HistoryParams", "register"]

DEFAULT_PAGE: Final = 200
MAX_PAGE: Final = 1_000
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
MAX_SHOWN_CHARS: Final = 200_000
MAX_RECEIPTS: Final = 50
MAX_PENDING_CHARS: Final = 20_000
_OMITTED: Final = "[chat.history omitted: message too large]"


@attrs.frozen(eq=False, repr=False)
class HistoryParams(Value):
    session_key: str
    agent_id: str | None = None
    limit: int | None = None
    offset: int | None = None
    max_chars: int | None = None
    max_bytes: int | None = None
    cursor: str | None = None
    input_run_ids: list[str] | None = None


@attrs.frozen(eq=False, repr=False)
class MessageParams(Value):
    session_key: str
    message_id: str
    agent_id: str | None = None


class HistoryMethods:
    """``view`` is the wire form of a session."""

    def __init__(self, runs: AgentRuns, router: AgentRouter, *, view: Callable[[Session], dict[str, Any]]) -> None:
        self._runs = runs
        self._sessions = runs.sessions
        self._router = router
        self._view = view

    async def page(self, method: str, params: HistoryParams) -> tuple[str, dict[str, Any]]:
        """The agent of the session, and the page that ``method`` answers with. Raises `CallError`."""
        with faults(method):
            key, owner = self._router.place(params.session_key, params.agent_id)
            limit = max(1, min(params.limit or DEFAULT_PAGE, MAX_PAGE))
            session = self._sessions.get(key)
            before = None
            if params.offset and session is not None:
                before = max(1, session.messages - params.offset + 1)
            page = await self._sessions.page(key, limit=limit, before=before)
        shown, oldest = _fitting(page, params)
        body: dict[str, Any] = {
            "sessionKey": key,
            "sessionId": session.session_id if session is not None else None,
            "messages": shown,
            "pendingInputs": self._pending(key),
            "hasMore": oldest > page.first,
            "totalMessages": page.total,
        }
        if page.first > 1:
            body["cutMessages"] = page.first - 1  # over the limits of transcripts: they are gone
        if oldest > page.first:
            newest = session.messages if session is not None else page.total  # more than there are, once some are gone
            body["nextOffset"] = newest - oldest + 1
        if session is not None:
            body["sessionInfo"] = self._view(session)
        else:
            body["sessionInfo"] = {"key": key, "agentId": owner, "kind": "direct", "isMain": key.endswith(":main")}
        if params.input_run_ids is not None:
            body["inputReceipts"] = self._receipts(page, params.input_run_ids[:MAX_RECEIPTS])
        running = next((run for run in self._runs.active(key) if run.state == "running"), None)
        if running is not None:
            body["inFlightRun"] = {"runId": running.request.run_id, "text": running.text, "seq": running.seq}
        return owner, body

    async def history(self, context: CallContext, params: HistoryParams) -> dict[str, Any]:
        if params.cursor is not None:
            return {"kind": "reset"}  # no delta cursors are given out: the client reads the page afresh
        return (await self.page("chat.history", params))[1]

    async def message(self, context: CallContext, params: MessageParams) -> dict[str, Any]:
        with faults("chat.message.get"):
            key, _ = self._router.place(params.session_key, params.agent_id)
            found = await self._sessions.message(key, params.message_id)
        if found is None:
            return {"ok": False, "unavailableReason": "not_found"}
        return {"ok": True, "message": found.to_wire()}

    def _receipts(self, page: Page, run_ids: list[str]) -> list[dict[str, Any]]:
        """What became of messages that a client sent: they wait, or stand in the transcript."""
        written = {message.run_id: message.id for message in page.messages if message.role == "user"}
        receipts: list[dict[str, Any]] = []
        for run_id in run_ids:
            if run_id in written:
                receipts.append({"runId": run_id, "state": "consumed", "consumedByEventId": written[run_id]})
            elif isinstance(self._runs.get(run_id), Run):
                receipts.append({"runId": run_id, "state": "pending"})
        return receipts

    def _pending(self, key: str) -> dict[str, Any]:
        waiting = [run.request for run in self._runs.active(key) if run.state == "queued" and not run.aborted]
        items = [
            {
                "id": request.run_id,
                "runId": request.run_id,
                "message": {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": request.text if len(request.text) <= MAX_PENDING_CHARS else _OMITTED}
                    ],
                    "timestamp": request.accepted_at_ms,
                },
                "acceptedAt": request.accepted_at_ms,
                "state": "queued",
            }
            for request in waiting[:20]
        ]
        return {"items": items, "total": len(waiting)}


def _fitting(page: Page, params: HistoryParams) -> tuple[list[dict[str, Any]], int]:
    """The newest messages that fit the page's bytes, oldest first, and the place of the first of them."""
    room = max(1, min(params.max_bytes or MAX_PAGE_BYTES, MAX_PAGE_BYTES))
    most = max(1, min(params.max_chars or MAX_SHOWN_CHARS, MAX_SHOWN_CHARS))
    shown: list[dict[str, Any]] = []
    oldest = 0
    for message in reversed(page.messages):
        cut = attrs.evolve(message, text=_OMITTED) if len(message.text) > most else message
        size = 4 * len(cut.text) + 512
        if shown and size > room:
            break
        room -= size
        shown.append(cut.to_wire())
        oldest = message.seq
    return shown[::-1], oldest


def register(table: MethodTable, methods: HistoryMethods) -> None:
    """Put the methods into ``table``."""
    read = "operator.read"
    table.method("chat.history", scope=read, params=HistoryParams, lenient=True)(methods.history)
    table.method("chat.message.get", scope=read, params=MessageParams, lenient=True)(methods.message)
