"""Conversations and agents as lists: `sessions.*`, `agents.list`, `agent.identity.get`.

Owns their parameters and shapes (OpenClaw's, as much of them as clients read). It must not know runs' insides or where
transcripts lie. Unknown members of parameters are left out (spec wire.md section 12).

Invariants: reading needs operator.read, changing a label operator.write, choosing a model or throwing a transcript
away operator.admin; subscriptions belong to a WebSocket connection and end with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from openclaw_gateway.agents.broadcast import Broadcast, TooManySubscriptions
from openclaw_gateway.agents.records import Session
from openclaw_gateway.agents.references import resolution_view, with_short_id
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.agents.runstate import Run
from openclaw_gateway.agents.sessions import Sessions
from openclaw_gateway.rpc.asking import need_model_choice
from openclaw_gateway.rpc.sessionfaults import faults
from openclaw_gateway.rpc.table import CallContext, MethodTable, NoParams
from openclaw_gateway.value import Value

__all__ = ["ListParams", "PatchParams", "SessionMethods", "register", "session_view"]

MAX_LIMIT: Final = 1_000
MAX_LABEL: Final = 200
MAX_MODEL: Final = 256


@attrs.frozen(eq=False, repr=False)
class ListParams(Value):
    limit: int | None = None
    offset: int | None = None
    active_minutes: int | None = None
    agent_id: str | None = None
    search: str | None = None
    archived: bool | str | None = None


@attrs.frozen(eq=False, repr=False)
class KeyParams(Value):
    key: str
    agent_id: str | None = None


@attrs.frozen(eq=False, repr=False)
class PatchParams(Value):
    """What is absent stays; ``label`` and ``model`` null: none. ``expected_session_id``: the transcript that the caller
    saw, so that nothing is done to another one that a reset began meanwhile."""

    key: str
    agent_id: str | None = None
    expected_session_id: str | None = None
    label: str | None = ""
    model: str | None = ""
    archived: bool | None = None
    pinned: bool | None = None
    unread: bool | None = None


@attrs.frozen(eq=False, repr=False)
class ResolveParams(Value):
    key: str | None = None
    session_id: str | None = None
    label: str | None = None
    agent_id: str | None = None
    short_id: str | None = None
    slug_hint: str | None = None


@attrs.frozen(eq=False, repr=False)
class IdentityParams(Value):
    agent_id: str | None = None
    session_key: str | None = None


def session_view(session: Session) -> dict[str, Any]:
    """A session as clients read it."""
    parts = session.key.split(":")
    kind = "group" if session.chat_type == "group" else "direct"
    return {
        "key": session.key,
        "sessionId": session.session_id or None,  # none before its first message is in a transcript
        "agentId": session.agent_id,
        "kind": kind,
        "chatType": session.chat_type,
        "classification": "main" if parts[-1] == "main" else kind,
        "displayName": session.label or session.key.split(":", 2)[-1],
        "isMain": parts[-1] == "main",
        "isBackground": False,
        "visibility": "shared",  # every operator who may read sees it
        "createdAt": session.created_at_ms,
        "sessionStartedAt": session.started_at_ms,
        "updatedAt": session.updated_at_ms,
        "lastInteractionAt": session.last_interaction_ms,
        "lastReadAt": session.last_read_ms,
        "unread": session.last_read_ms < session.updated_at_ms,
        "archived": session.archived,
        "pinned": session.pinned,
        "messageCount": session.messages,
        "inputTokens": session.usage.input,
        "outputTokens": session.usage.output,
        "totalTokens": session.usage.total,
        "totalTokensFresh": True,
        "systemSent": True,
        "abortedLastRun": False,
        "permissionModePending": False,
        "participants": [],
        "participantCount": 0,
        **({"channel": session.channel} if session.channel is not None else {}),
        **({"label": session.label} if session.label is not None else {}),
        **({"modelOverride": session.model} if session.model is not None else {}),
    }


class SessionMethods:
    def __init__(self, runs: AgentRuns, router: AgentRouter, broadcast: Broadcast, *, clock: Callable[[], int]) -> None:
        self._sessions: Sessions = runs.sessions
        self._runs = runs
        self._router = router
        self._broadcast = broadcast
        self._clock = clock

    def shown(self, session: Session, running: Mapping[str, list[str]] | None = None) -> dict[str, Any]:
        """A session with its runs."""
        view = session_view(session)
        active = (_running(self._runs.active(session.key)) if running is None else running).get(session.key, [])
        told = {**view, "hasActiveRun": bool(active), "activeRunIds": active}
        return {**told, "status": "running"} if active else told

    def _unwritten(self, active: Sequence[Run]) -> list[Session]:
        """Sessions that are only in questions which wait: nothing of them is in a transcript yet."""
        found: dict[str, Session] = {}
        for run in active:
            request, at = run.request, run.request.accepted_at_ms
            if run.state == "queued" and not run.aborted and self._sessions.get(request.session_key) is None:
                found[request.session_key] = Session(
                    key=request.session_key, session_id="", agent_id=request.agent_id, created_at_ms=at,
                    started_at_ms=at, updated_at_ms=at, last_interaction_ms=at,
                    channel=request.reply.channel if request.reply is not None else None,
                )  # fmt: skip
        return sorted(found.values(), key=lambda session: -session.updated_at_ms)

    async def list_sessions(self, context: CallContext, params: ListParams) -> dict[str, Any]:
        limit = max(1, min(params.limit or 100, MAX_LIMIT))
        offset = max(0, params.offset or 0)
        active = self._runs.active()
        known = [*self._unwritten(active), *self._sessions.all()]
        found = [session for session in known if self.wanted(session, params)]
        page = found[offset : offset + limit]
        more = offset + limit < len(found)
        running = _running(active)
        with faults("sessions.list"):
            summary = self._router.summary(params.agent_id or self._router.default_id)
        provider, _, model = summary.get("model", {}).get("primary", "").partition("/")
        return {
            "ts": self._clock(),
            "path": "",
            "count": len(page),
            "totalCount": len(found),
            "limitApplied": limit,
            "nextOffset": offset + limit if more else None,
            "hasMore": more,
            "owners": [],
            "defaults": {
                "modelProvider": provider,
                "model": model,
                "contextTokens": self._router.agents.defaults.context_tokens,
            },
            "sessions": [self.shown(session, running) for session in page],
        }

    def wanted(self, session: Session, params: ListParams) -> bool:
        """Whether a session is among those that a list is asked for."""
        if params.archived != "all" and session.archived != (params.archived in {True, "only", "true"}):
            return False
        if params.agent_id is not None and session.agent_id != params.agent_id:
            return False
        if params.active_minutes and session.updated_at_ms < self._clock() - params.active_minutes * 60_000:
            return False
        text = f"{session.key} {session.label or ''}".lower()
        return params.search is None or params.search.lower() in text

    async def describe(self, context: CallContext, params: KeyParams) -> dict[str, Any]:
        with faults("sessions.describe"):
            key, _ = self._router.place(params.key, params.agent_id)
        session = self._sessions.get(key) or next(iter(self._unwritten(self._runs.active(key))), None)
        return {"session": self.shown(session) if session is not None else None}

    async def resolve(self, context: CallContext, params: ResolveParams) -> dict[str, Any]:
        wanted = None
        if params.short_id is not None:
            with faults("sessions.resolve"):
                found = with_short_id(
                    self._sessions.all(), params.short_id, agent_id=params.agent_id, slug_hint=params.slug_hint
                )
            return resolution_view(found)
        if params.key:
            with faults("sessions.resolve"):
                wanted, _ = self._router.place(params.key, params.agent_id)
        for session in self._sessions.all():
            if session.key == wanted or params.session_id == session.session_id:
                break
            if params.label is not None and session.label == params.label:
                break
        else:
            return {"ok": False}
        return {"ok": True, "key": session.key, "agentId": session.agent_id}

    async def patch(self, context: CallContext, params: PatchParams) -> dict[str, Any]:
        changes: dict[str, object] = {}
        if params.model:
            need_model_choice(context)
        with faults("sessions.patch"):
            key, _ = self._router.place(params.key, params.agent_id)
            if params.label != "":
                changes["label"] = params.label[:MAX_LABEL] if params.label is not None else None
            if params.model is not None and (len(params.model) > MAX_MODEL or not params.model.isprintable()):
                raise ValueError("model is provider/model")
            if params.model != "":
                changes["model"] = params.model
            for name in ("archived", "pinned"):
                if getattr(params, name) is not None:
                    changes[name] = getattr(params, name)
            if params.unread is not None:
                changes["last_read_ms"] = 0 if params.unread else self._clock()
            session = await self._sessions.change(key, only=params.expected_session_id, **changes)
            if session is None and self._sessions.get(key) is not None:
                raise ValueError(f"the session {key} was begun anew meanwhile; look at it again")
            if session is None:
                raise ValueError(f"there is no session {key}")
        return {"ok": True, "path": "", "key": key, "entry": self.shown(session)}

    async def reset(self, context: CallContext, params: KeyParams) -> dict[str, Any]:
        with faults("sessions.reset"):
            key, owner = self._router.place(params.key, params.agent_id)
            await self._runs.abort(key, forget=True)
            session = await self._sessions.reset(key, agent_id=owner)
        return {"ok": True, "key": key, "entry": self.shown(session)}

    async def delete(self, context: CallContext, params: KeyParams) -> dict[str, Any]:
        with faults("sessions.delete"):
            key, _ = self._router.place(params.key, params.agent_id)
            await self._runs.abort(key, forget=True)
            deleted = await self._sessions.delete(key)
        return {"ok": True, "key": key, "deleted": deleted, "archived": []}

    # --- following

    async def subscribe(self, context: CallContext, params: NoParams) -> dict[str, Any]:
        live = hasattr(context, "offer")
        if live:
            self._broadcast.follow_list(context.conn_id)
        return {"subscribed": live}

    async def unsubscribe(self, context: CallContext, params: NoParams) -> dict[str, Any]:
        self._broadcast.follow_list(context.conn_id, follow=False)
        return {"subscribed": False}

    async def follow(self, context: CallContext, params: KeyParams) -> dict[str, Any]:
        live = hasattr(context, "offer")
        with faults("sessions.messages.subscribe"):
            key, _ = self._router.place(params.key, params.agent_id)
            if live:
                try:
                    self._broadcast.follow(context.conn_id, key)
                except TooManySubscriptions as exc:
                    raise ValueError(str(exc)) from exc
        replay = {"sessionKey": key, "updatedAtMs": self._clock(), "approvals": [], "truncated": False}
        return {"subscribed": live, "key": key, "approvalReplay": replay}

    async def unfollow(self, context: CallContext, params: KeyParams) -> dict[str, Any]:
        with faults("sessions.messages.unsubscribe"):
            key, _ = self._router.place(params.key, params.agent_id)
        self._broadcast.unfollow(context.conn_id, key)
        return {"subscribed": False, "key": key}

    # --- agents

    async def agents(self, context: CallContext, params: NoParams) -> dict[str, Any]:
        return self._router.listed()

    async def identity(self, context: CallContext, params: IdentityParams) -> dict[str, Any]:
        with faults("agent.identity.get"):
            _, owner = self._router.place(params.session_key, params.agent_id)
        name = self._router.summary(owner)["name"]
        return {"agentId": owner, "name": name, "nameSource": "config", "avatar": name[:1].upper()}


def _running(active: Sequence[Run]) -> dict[str, list[str]]:
    """Session keys with the ids of their runs: looked up once for a whole list."""
    found: dict[str, list[str]] = {}
    for run in active:
        if run.state != "queued" or not run.aborted:
            found.setdefault(run.request.session_key, []).append(run.request.run_id)
    return found


def register(table: MethodTable, methods: SessionMethods) -> None:
    """Put the methods into ``table``."""
    read, write, admin = "operator.read", "operator.write", "operator.admin"
    table.method("sessions.list", scope=read, params=ListParams, lenient=True)(methods.list_sessions)
    table.method("sessions.describe", scope=read, params=KeyParams, lenient=True)(methods.describe)
    table.method("sessions.resolve", scope=read, params=ResolveParams, lenient=True)(methods.resolve)
    table.method("sessions.patch", scope=write, params=PatchParams, lenient=True)(methods.patch)
    table.method("sessions.reset", scope=admin, params=KeyParams, lenient=True)(methods.reset)
    table.method("sessions.delete", scope=admin, params=KeyParams, lenient=True)(methods.delete)
    table.method("sessions.subscribe", scope=read, params=NoParams, lenient=True)(methods.subscribe)
    table.method("sessions.unsubscribe", scope=read, params=NoParams, lenient=True)(methods.unsubscribe)
    table.method("sessions.messages.subscribe", scope=read, params=KeyParams, lenient=True)(methods.follow)
    table.method("sessions.messages.unsubscribe", scope=read, params=KeyParams, lenient=True)(methods.unfollow)
    table.method("agents.list", scope=read, params=NoParams, lenient=True)(methods.agents)
    table.method("agent.identity.get", scope=read, params=IdentityParams, lenient=True)(methods.identity)
