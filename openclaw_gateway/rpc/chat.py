"""Talking to agents: `chat.send`, `chat.history` and their kin, `agent`, `agent.send`, `agent.wait`.

Owns their parameters and shapes (OpenClaw's; `agent.send` is the seed's name of the same act). It must not know how an
agent works or where a transcript lies. Unknown members are left out: official clients send more than the published
schema has (spec wire.md section 12).

Invariants: an acknowledged message is durable (S029); a run id that comes again is the same run, with another text or
session a conflict (V44); what is not asked for by scope is not shown: reading needs operator.read, sending
operator.write, writing into a transcript by hand operator.admin.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs

from openclaw_gateway.agents.records import MAX_MESSAGE, Attachment, Message, RunRequest, Session
from openclaw_gateway.agents.references import resolution_view, with_short_id
from openclaw_gateway.agents.router import AgentRouter, UnknownAgent
from openclaw_gateway.agents.rows import Page
from openclaw_gateway.agents.runs import AgentRuns, Ended, Past, Run, digest_of
from openclaw_gateway.agents.sessions import TooManySessions
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.queues import QueueFull
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["ChatMethods", "faults", "register"]

DEFAULT_PAGE: Final = 200
MAX_PAGE: Final = 1_000
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
MAX_SHOWN_CHARS: Final = 200_000
MAX_RECEIPTS: Final = 50
MAX_LABEL: Final = 200
MAX_PENDING_CHARS: Final = 20_000
ADMIN: Final = "operator.admin"
MAX_WAIT_MS: Final = 600_000
DEFAULT_WAIT_MS: Final = 30_000
_OMITTED: Final = "[chat.history omitted: message too large]"

SessionView = Callable[[Session], dict[str, Any]]


@attrs.frozen(eq=False, repr=False)
class SendParams(Value):
    message: str
    session_key: str | None = None
    agent_id: str | None = None
    session_id: str | None = None
    attachments: list[dict[str, Any]] | None = None
    timeout_ms: int | None = None
    idempotency_key: str | None = None


@attrs.frozen(eq=False, repr=False)
class SessionSendParams(Value):
    key: str
    message: str
    agent_id: str | None = None
    attachments: list[dict[str, Any]] | None = None
    timeout_ms: int | None = None
    idempotency_key: str | None = None


@attrs.frozen(eq=False, repr=False)
class AgentSendParams(Value):
    """``text`` is another name of ``message``."""

    message: str | None = None
    text: str | None = None
    session_key: str | None = None
    agent_id: str | None = None
    attachments: list[dict[str, Any]] | None = None
    timeout_ms: int | None = None
    idempotency_key: str | None = None


@attrs.frozen(eq=False, repr=False)
class AgentParams(Value):
    message: str
    idempotency_key: str
    agent_id: str | None = None
    session_key: str | None = None
    model: str | None = None
    timeout: int | None = None
    extra_system_prompt: str | None = None
    attachments: list[dict[str, Any]] | None = None


@attrs.frozen(eq=False, repr=False)
class WaitParams(Value):
    run_id: str
    timeout_ms: int | None = None


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
class StartupParams(Value):
    """``session_key``, or ``short_id`` (the tail of a Control UI address) with ``agent_id``."""

    session_key: str | None = None
    agent_id: str | None = None
    limit: int | None = None
    offset: int | None = None
    max_chars: int | None = None
    max_bytes: int | None = None
    cursor: str | None = None
    input_run_ids: list[str] | None = None
    short_id: str | None = None
    slug_hint: str | None = None


@attrs.frozen(eq=False, repr=False)
class MessageParams(Value):
    session_key: str
    message_id: str
    agent_id: str | None = None


@attrs.frozen(eq=False, repr=False)
class AbortParams(Value):
    session_key: str | None = None
    key: str | None = None
    agent_id: str | None = None
    run_id: str | None = None


@attrs.frozen(eq=False, repr=False)
class InjectParams(Value):
    session_key: str
    message: str
    agent_id: str | None = None
    label: str | None = None


@attrs.frozen(eq=False, repr=False)
class MetadataParams(Value):
    session_key: str | None = None
    agent_id: str | None = None


@contextmanager
def faults(method: str) -> Iterator[None]:
    """What can go wrong on the way into a session, as wire errors."""
    try:
        yield
    except QueueFull as exc:
        raise CallError(wire_error("queue-full")) from exc
    except TooManySessions as exc:
        raise CallError(wire_error("session-limit", limit=exc.limit)) from exc
    except StoreError as exc:
        raise CallError(wire_error("store-unavailable")) from exc
    except UnknownAgent as exc:
        raise CallError(wire_error("agent-unknown", agent=exc.agent_id[:64])) from exc
    except ValueError as exc:
        raise CallError(wire_error("invalid-params", method=method, fault=f"at root: {exc}")) from exc


def _attachments(given: list[dict[str, Any]] | None) -> tuple[Attachment, ...]:
    found = []
    for one in given or ():
        data, mime = one.get("content"), one.get("mimeType")
        if not isinstance(data, str) or not isinstance(mime, str):
            raise ValueError("an attachment has a mimeType and its content in base64")  # noqa: TRY004 - a fault of params
        name = one.get("fileName")
        found.append(Attachment(mime=mime[:255], data=data, name=name[:255] if isinstance(name, str) else None))
    return tuple(found)


class ChatMethods:
    """``models()`` lists the models that there are, as `models.list` does."""

    def __init__(
        self,
        runs: AgentRuns,
        router: AgentRouter,
        *,
        view: SessionView,
        clock: Callable[[], int],
        models: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self._models = models
        self._runs = runs
        self._sessions = runs.sessions
        self._router = router
        self._view = view
        self._clock = clock

    # --- sending

    async def _start(
        self, method: str, context: CallContext, *, session_key: str | None, agent_id: str | None, text: str,
        run_id: str | None, attachments: list[dict[str, Any]] | None = None, timeout_ms: int | None = None,
        model: str | None = None, system: str | None = None,
    ) -> tuple[RunRequest, Run | Ended | Past, bool]:  # fmt: skip
        with faults(method):
            key, owner = self._router.place(session_key, agent_id)
            request = RunRequest(
                run_id=run_id or str(uuid.uuid4()),
                agent_id=owner,
                session_key=key,
                text=text,
                source=f"rpc:{context.principal}"[:256],
                accepted_at_ms=self._clock(),
                attachments=_attachments(attachments),
                timeout_ms=max(1, min(timeout_ms, MAX_WAIT_MS)) if timeout_ms is not None else None,
                model=model,
                system=system,
                interactive=True,
            )
            run, known = await self._runs.start(request, audience=context.conn_id)
        if known and _differs(run, request):
            raise CallError(wire_error("idempotency-conflict"))
        return request, run, known

    async def send(self, context: CallContext, params: SendParams) -> dict[str, Any]:
        request, run, known = await self._start(
            "chat.send", context, session_key=params.session_key, agent_id=params.agent_id, text=params.message,
            run_id=params.idempotency_key, attachments=params.attachments, timeout_ms=params.timeout_ms,
        )  # fmt: skip
        return {"runId": request.run_id, "status": _status(run, known), "sessionKey": request.session_key}

    async def send_to(self, context: CallContext, params: SessionSendParams) -> dict[str, Any]:
        request, run, known = await self._start(
            "sessions.send", context, session_key=params.key, agent_id=params.agent_id, text=params.message,
            run_id=params.idempotency_key, attachments=params.attachments, timeout_ms=params.timeout_ms,
        )  # fmt: skip
        return {"runId": request.run_id, "status": _status(run, known), "sessionKey": request.session_key}

    async def agent_send(self, context: CallContext, params: AgentSendParams) -> dict[str, Any]:
        text = params.message if params.message is not None else params.text
        if text is None:
            fault = "at root: must have required property 'message'"
            raise CallError(wire_error("invalid-params", method="agent.send", fault=fault))
        request, run, known = await self._start(
            "agent.send", context, session_key=params.session_key, agent_id=params.agent_id, text=text,
            run_id=params.idempotency_key, attachments=params.attachments, timeout_ms=params.timeout_ms,
        )  # fmt: skip
        return {"runId": request.run_id, "status": _status(run, known), "sessionKey": request.session_key}

    async def agent(self, context: CallContext, params: AgentParams) -> dict[str, Any]:
        """``timeout`` is in seconds, as OpenClaw has it."""
        if params.model is not None:
            need_model_choice(context)
        request, run, known = await self._start(
            "agent", context, session_key=params.session_key, agent_id=params.agent_id, text=params.message,
            run_id=params.idempotency_key, attachments=params.attachments, model=params.model,
            timeout_ms=params.timeout * 1000 if params.timeout else None, system=params.extra_system_prompt,
        )  # fmt: skip
        status = "accepted" if _status(run, known) == "started" else _status(run, known)
        return {
            "runId": request.run_id,
            "status": status,
            "sessionKey": request.session_key,
            "acceptedAt": request.accepted_at_ms,
        }

    async def wait(self, context: CallContext, params: WaitParams) -> dict[str, Any]:
        wanted = params.timeout_ms if params.timeout_ms is not None else DEFAULT_WAIT_MS
        found = await self._runs.wait(params.run_id, max(0, min(wanted, MAX_WAIT_MS)) / 1000)
        out: dict[str, Any] = {"runId": params.run_id}
        if isinstance(found, Ended):
            status = "ok" if found.state == "ok" else "error"
            out |= {"status": status, "startedAt": found.started_at_ms, "endedAt": found.ended_at_ms}
            if found.state == "aborted":
                out |= {"stopReason": "aborted", "error": "the run was aborted"}
            elif found.error is not None:
                out["error"] = found.error
            return out
        return {**out, "status": "timeout"}

    async def abort(self, context: CallContext, params: AbortParams) -> dict[str, Any]:
        with faults("chat.abort"):
            key, _ = self._router.place(params.session_key or params.key, params.agent_id)
            told = await self._runs.abort(key, params.run_id)
        return {"ok": True, "aborted": bool(told), "runIds": told}

    async def inject(self, context: CallContext, params: InjectParams) -> dict[str, Any]:
        with faults("chat.inject"):
            key, owner = self._router.place(params.session_key, params.agent_id)
            if len(params.message) > MAX_MESSAGE or len(params.label or "") > MAX_LABEL:
                raise ValueError(f"a message has at most {MAX_MESSAGE} characters, its label {MAX_LABEL}")
            message = Message(
                id=str(uuid.uuid4()),
                role="assistant",
                text=params.message if params.label is None else f"[{params.label}]\n\n{params.message}",
                at_ms=self._clock(),
                model="gateway-injected",
            )
            session = self._sessions.current(key, agent_id=owner)
            _, written = await self._sessions.append(session, message, interaction=False)
        return {"ok": True, "messageId": written.id}

    # --- reading

    async def _page(self, method: str, params: HistoryParams) -> tuple[str, str, Page, dict[str, Any]]:
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
        return key, owner, page, body

    async def history(self, context: CallContext, params: HistoryParams) -> dict[str, Any]:
        if params.cursor is not None:
            return {"kind": "reset"}  # no delta cursors are given out: the client reads the page afresh
        return (await self._page("chat.history", params))[3]

    async def startup(self, context: CallContext, params: StartupParams) -> dict[str, Any]:
        resolution: dict[str, Any] = {}
        key = params.session_key
        if key is None:
            with faults("chat.startup"):
                if params.short_id is None:
                    raise ValueError("must have required property 'sessionKey'")
                found = with_short_id(
                    self._sessions.all(), params.short_id, agent_id=params.agent_id, slug_hint=params.slug_hint
                )
            resolution = {"resolution": resolution_view(found)}
            if len(found) != 1:
                return resolution
            key = found[0].key
        page = HistoryParams(
            session_key=key, agent_id=params.agent_id, limit=params.limit, offset=params.offset,
            max_chars=params.max_chars, max_bytes=params.max_bytes, cursor=params.cursor,
            input_run_ids=params.input_run_ids,
        )  # fmt: skip
        _, owner, _, body = await self._page("chat.startup", page)
        return {**body, "defaults": self._defaults(owner), "metadata": self._metadata(owner), **resolution}

    async def metadata(self, context: CallContext, params: MetadataParams) -> dict[str, Any]:
        with faults("chat.metadata"):
            _, owner = self._router.place(params.session_key, params.agent_id)
        return self._metadata(owner)

    async def message(self, context: CallContext, params: MessageParams) -> dict[str, Any]:
        with faults("chat.message.get"):
            key, _ = self._router.place(params.session_key, params.agent_id)
            found = await self._sessions.message(key, params.message_id)
        if found is None:
            return {"ok": False, "unavailableReason": "not_found"}
        return {"ok": True, "message": found.to_wire()}

    def _defaults(self, agent_id: str) -> dict[str, Any]:
        summary = self._router.summary(agent_id)
        provider, _, model = summary.get("model", {}).get("primary", "").partition("/")
        return {
            "modelProvider": provider,
            "model": model,
            "contextTokens": self._router.agents.defaults.context_tokens,
        }

    def _metadata(self, agent_id: str) -> dict[str, Any]:
        return {
            "models": self._models(),
            "commands": [],
            "swarmEnabled": False,
            "accountSelection": {"kind": "none", "label": ""},
            "runtimeSelectionLocked": False,
        }

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


def need_model_choice(context: CallContext) -> None:
    """Another model than the agent's is an administrator's choice, for a run or a conversation, here as over HTTP
    (``x-openclaw-model``; V41). Raises the refusal."""
    if ADMIN not in context.scopes:
        details = {"missingScope": ADMIN, "requiredScopes": [ADMIN]}
        raise CallError(wire_error("missing-scope", scope=ADMIN, details=details))


def _differs(run: Run | Ended | Past, request: RunRequest) -> bool:
    if isinstance(run, Run):
        return (run.request.session_key, run.request.text) != (request.session_key, request.text)
    if isinstance(run, Past):
        return not run.same
    return (run.session_key, run.asked) != (request.session_key, digest_of(request))


def _status(run: Run | Ended | Past, known: bool) -> str:
    if not known:
        return "started"
    return "in_flight" if isinstance(run, Run) else "ok"


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


def register(table: MethodTable, methods: ChatMethods) -> None:
    """Put the methods into ``table``. `agent.send` gives way to an embedding program's own."""
    read, write = "operator.read", "operator.write"
    table.method("chat.send", scope=write, params=SendParams, lenient=True)(methods.send)
    table.method("sessions.send", scope=write, params=SessionSendParams, lenient=True)(methods.send_to)
    table.method("chat.abort", scope=write, params=AbortParams, lenient=True)(methods.abort)
    table.method("sessions.abort", scope=write, params=AbortParams, lenient=True)(methods.abort)
    table.method("chat.inject", scope="operator.admin", params=InjectParams)(methods.inject)
    table.method("chat.history", scope=read, params=HistoryParams, lenient=True)(methods.history)
    table.method("chat.startup", scope=read, params=StartupParams, lenient=True)(methods.startup)
    table.method("chat.metadata", scope=read, params=MetadataParams, lenient=True)(methods.metadata)
    table.method("chat.message.get", scope=read, params=MessageParams, lenient=True)(methods.message)
    table.method("agent", scope=write, params=AgentParams, lenient=True)(methods.agent)
    wait_seconds = MAX_WAIT_MS / 1000 + 5
    table.method("agent.wait", scope=write, params=WaitParams, lenient=True, deadline=wait_seconds)(methods.wait)
    table.method("agent.send", scope=write, params=AgentSendParams, lenient=True, default=True)(methods.agent_send)
