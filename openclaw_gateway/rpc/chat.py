"""Talking to agents: `chat.send`, `sessions.send`, `chat.abort`, `sessions.abort`, `chat.inject`.

Owns their parameters and shapes (OpenClaw's). It must not know how an agent works or where a transcript lies. Unknown
members are left out: official clients send more than the published schema has (spec wire.md section 12).

Invariants: what `asking` holds of questions; sending needs operator.write, writing into a transcript by hand
operator.admin.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

import attrs

from openclaw_gateway.agents.records import MAX_MESSAGE, Message
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.rpc.asking import Asking
from openclaw_gateway.rpc.sessionfaults import faults
from openclaw_gateway.rpc.table import CallContext, MethodTable
from openclaw_gateway.value import Value

__all__ = ["ChatMethods", "SessionSendParams", "register"]

MAX_LABEL: Final = 200


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


class ChatMethods:
    """``clock`` gives Unix milliseconds."""

    def __init__(self, asking: Asking, runs: AgentRuns, router: AgentRouter, *, clock: Callable[[], int]) -> None:
        self._asking = asking
        self._runs = runs
        self._router = router
        self._clock = clock

    async def send(self, context: CallContext, params: SendParams) -> dict[str, Any]:
        request, status = await self._asking.ask(
            "chat.send", context, session_key=params.session_key, agent_id=params.agent_id, text=params.message,
            run_id=params.idempotency_key, attachments=params.attachments, timeout_ms=params.timeout_ms,
        )  # fmt: skip
        return {"runId": request.run_id, "status": status, "sessionKey": request.session_key}

    async def send_to(self, context: CallContext, params: SessionSendParams) -> dict[str, Any]:
        request, status = await self._asking.ask(
            "sessions.send", context, session_key=params.key, agent_id=params.agent_id, text=params.message,
            run_id=params.idempotency_key, attachments=params.attachments, timeout_ms=params.timeout_ms,
        )  # fmt: skip
        return {"runId": request.run_id, "status": status, "sessionKey": request.session_key}

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
            session = self._runs.sessions.current(key, agent_id=owner)
            _, written = await self._runs.sessions.append(session, message, interaction=False)
        return {"ok": True, "messageId": written.id}


def register(table: MethodTable, methods: ChatMethods) -> None:
    """Put the methods into ``table``."""
    write = "operator.write"
    table.method("chat.send", scope=write, params=SendParams, lenient=True)(methods.send)
    table.method("sessions.send", scope=write, params=SessionSendParams, lenient=True)(methods.send_to)
    table.method("chat.abort", scope=write, params=AbortParams, lenient=True)(methods.abort)
    table.method("sessions.abort", scope=write, params=AbortParams, lenient=True)(methods.abort)
    table.method("chat.inject", scope="operator.admin", params=InjectParams)(methods.inject)
