"""Asking an agent, as programs do, and waiting for it: `agent`, `agent.send`, `agent.wait`.

Owns their parameters and shapes (OpenClaw's; `agent.send` is the seed's name of `chat.send`). It must not know how an
agent works. Unknown members are left out: official clients send more than the published schema has (spec wire.md
section 12).

Invariants: what `asking` holds of questions; another model than the agent's is an administrator's choice (V41); a wait
has an end.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.agents.runstate import Ended
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.asking import MAX_WAIT_MS, Asking, need_model_choice
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable
from openclaw_gateway.value import Value

__all__ = ["AgentMethods", "register"]

DEFAULT_WAIT_MS: Final = 30_000


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


class AgentMethods:
    """The three methods; `register` names them."""

    def __init__(self, asking: Asking, runs: AgentRuns) -> None:
        self._asking = asking
        self._runs = runs

    async def send(self, context: CallContext, params: AgentSendParams) -> dict[str, Any]:
        text = params.message if params.message is not None else params.text
        if text is None:
            fault = "at root: must have required property 'message'"
            raise CallError(wire_error("invalid-params", method="agent.send", fault=fault))
        request, status = await self._asking.ask(
            "agent.send", context, session_key=params.session_key, agent_id=params.agent_id, text=text,
            run_id=params.idempotency_key, attachments=params.attachments, timeout_ms=params.timeout_ms,
        )  # fmt: skip
        return {"runId": request.run_id, "status": status, "sessionKey": request.session_key}

    async def agent(self, context: CallContext, params: AgentParams) -> dict[str, Any]:
        """``timeout`` is in seconds, as OpenClaw has it."""
        if params.model is not None:
            need_model_choice(context)
        request, status = await self._asking.ask(
            "agent", context, session_key=params.session_key, agent_id=params.agent_id, text=params.message,
            run_id=params.idempotency_key, attachments=params.attachments, model=params.model,
            timeout_ms=params.timeout * 1000 if params.timeout else None, system=params.extra_system_prompt,
        )  # fmt: skip
        return {
            "runId": request.run_id,
            "status": "accepted" if status == "started" else status,
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


def register(table: MethodTable, methods: AgentMethods) -> None:
    """Put the methods into ``table``. `agent.send` gives way to an embedding program's own."""
    write = "operator.write"
    table.method("agent", scope=write, params=AgentParams, lenient=True)(methods.agent)
    wait_seconds = MAX_WAIT_MS / 1000 + 5
    table.method("agent.wait", scope=write, params=WaitParams, lenient=True, deadline=wait_seconds)(methods.wait)
    table.method("agent.send", scope=write, params=AgentSendParams, lenient=True, default=True)(methods.send)
