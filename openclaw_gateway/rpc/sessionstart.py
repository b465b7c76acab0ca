"""Opening conversations, and a look at the ends of many: `sessions.create`, `sessions.preview`.

Owns their parameters and shapes (OpenClaw's). It must not know how a run works or where a transcript lies. What a
caller asks for and this gateway does not have (a conversation off the record, a copy of another one, a working
directory) is refused by name: a page that asked for "incognito" must not get a conversation that is kept.

Invariants: the same idempotency key opens one conversation however often it comes; a first message is handed to the
agent as `chat.send` hands it over, and where that fails the conversation is there and the answer says so.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

import attrs

from openclaw_gateway.agents.keys import fresh_key
from openclaw_gateway.agents.records import Session
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.asking import need_model_choice
from openclaw_gateway.rpc.chat import ChatMethods, SessionSendParams
from openclaw_gateway.rpc.sessionfaults import faults
from openclaw_gateway.rpc.sessions import MAX_LABEL, MAX_MODEL
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable, camel
from openclaw_gateway.value import Value

__all__ = ["SessionStartMethods", "register"]

MAX_PREVIEWS: Final = 64
MAX_PREVIEW_ITEMS: Final = 50
MAX_PREVIEW_CHARS: Final = 2_000
NAMESPACE: Final = uuid.UUID("5f0c7a52-8d0e-4f39-9b53-0b6f3d5f2c11")


@attrs.frozen(eq=False, repr=False)
class CreateParams(Value):
    """``task`` is another name of ``message``, ``display_name`` of ``label``."""

    key: str | None = None
    agent_id: str | None = None
    label: str | None = None
    display_name: str | None = None
    model: str | None = None
    message: str | None = None
    task: str | None = None
    attachments: list[dict[str, Any]] | None = None
    timeout_ms: int | None = None
    idempotency_key: str | None = None
    visibility: str | None = None
    incognito: bool = False
    fork: bool = False
    fork_from: str | None = None
    worktree: bool = False
    exec_node: str | None = None
    cwd: str | None = None
    catalog_id: str | None = None
    project_id: str | None = None
    project_git_url: str | None = None
    repository: dict[str, Any] | None = None


@attrs.frozen(eq=False, repr=False)
class PreviewParams(Value):
    keys: list[str]
    limit: int = 12
    max_chars: int = 240


_NOT_HERE: Final = {
    "incognito": "conversations here are kept in the store until they are deleted",
    "fork": "transcripts here cannot be copied",
    "fork_from": "transcripts here cannot be copied",
    "worktree": "agents here have no working directory",
    "exec_node": "agents here have no working directory",
    "cwd": "agents here have no working directory",
    "catalog_id": "there are no catalogues of sessions here",
    "project_id": "there are no projects here",
    "project_git_url": "there are no projects here",
    "repository": "there are no projects here",
}


class SessionStartMethods:
    """``view`` is the wire form of a session, ``clock`` gives Unix milliseconds."""

    def __init__(
        self,
        runs: AgentRuns,
        router: AgentRouter,
        chat: ChatMethods,
        *,
        view: Callable[[Session], dict[str, Any]],
        clock: Callable[[], int],
    ) -> None:
        self._sessions = runs.sessions
        self._router = router
        self._chat = chat
        self._view = view
        self._clock = clock

    async def create(self, context: CallContext, params: CreateParams) -> dict[str, Any]:
        _refuse_what_is_not_here(params)
        if params.model:
            need_model_choice(context)
        with faults("sessions.create"):
            key, owner = self._place(context, params)
            label = params.label or params.display_name
            if params.model is not None and (len(params.model) > MAX_MODEL or not params.model.isprintable()):
                raise ValueError("model is provider/model")
            session = await self._sessions.open(
                key, agent_id=owner, label=label[:MAX_LABEL] if label else None, model=params.model or None
            )
        out: dict[str, Any] = {"ok": True, "key": session.key, "sessionId": session.session_id}
        text = params.message if params.message is not None else params.task
        told: dict[str, Any] = {"runStarted": False}
        if text is not None:
            told = await self._first(context, params, session, text)
        return {**out, "entry": self._view(self._sessions.get(key) or session), **told}

    def _place(self, context: CallContext, params: CreateParams) -> tuple[str, str]:
        if params.key is not None:
            return self._router.place(params.key, params.agent_id)
        owner = params.agent_id or self._router.default_id
        self._router.entry(owner)
        if not params.idempotency_key:
            return fresh_key(owner, uuid.uuid4()), owner
        return fresh_key(owner, uuid.uuid5(NAMESPACE, f"{context.principal}\n{params.idempotency_key}")), owner

    async def _first(self, context: CallContext, params: CreateParams, session: Session, text: str) -> dict[str, Any]:
        first = SessionSendParams(
            key=session.key,
            message=text,
            agent_id=session.agent_id,
            attachments=params.attachments,
            timeout_ms=params.timeout_ms,
            idempotency_key=params.idempotency_key,
        )
        try:
            sent = await self._chat.send_to(context, first)
        except CallError as exc:
            return {"runStarted": False, "runError": exc.error.to_wire()}
        return {"runStarted": True, "runId": sent["runId"]}

    async def preview(self, context: CallContext, params: PreviewParams) -> dict[str, Any]:
        limit = max(1, min(params.limit, MAX_PREVIEW_ITEMS))
        chars = max(1, min(params.max_chars, MAX_PREVIEW_CHARS))
        previews = []
        with faults("sessions.preview"):
            for asked in [key for key in params.keys if key.strip()][:MAX_PREVIEWS]:
                key, _ = self._router.place(asked, None)
                found = (await self._sessions.page(key, limit=limit)).messages
                items = [{"role": message.role, "text": message.text[:chars]} for message in found]
                known = "empty" if self._sessions.get(key) is not None else "missing"
                previews.append({"key": asked, "status": "ok" if items else known, "items": items})
        return {"ts": self._clock(), "previews": previews}


def _refuse_what_is_not_here(params: CreateParams) -> None:
    for name, why in _NOT_HERE.items():
        if getattr(params, name):
            raise CallError(wire_error("invalid-params", method="sessions.create", fault=f"at /{camel(name)}: {why}"))
    if params.visibility not in {None, "shared"}:
        why = "every operator who may read sees every conversation here"
        raise CallError(wire_error("invalid-params", method="sessions.create", fault=f"at /visibility: {why}"))


def register(table: MethodTable, methods: SessionStartMethods) -> None:
    """Put the methods into ``table``."""
    table.method("sessions.create", scope="operator.write", params=CreateParams, lenient=True)(methods.create)
    table.method("sessions.preview", scope="operator.read", params=PreviewParams, lenient=True)(methods.preview)
