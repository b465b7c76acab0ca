"""A caller's question becomes a run: what `chat.send`, `sessions.send`, `agent` and `agent.send` have in common.

Owns how a question of a method becomes a `RunRequest`, and when a run id that comes again is a conflict. It must not
know the shapes of any method.

Invariants: an acknowledged message is durable (S029); a run id that comes again is the same run, with another text or
session a conflict (V44); a run is asked for in its caller's name; who may choose its model is asked in one place (V41).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, Final

from openclaw_gateway.agents.records import Attachment, RunRequest
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.agents.runstate import Ended, Past, Run, digest_of
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.protocol.scopes import ADMIN
from openclaw_gateway.rpc.sessionfaults import faults
from openclaw_gateway.rpc.table import CallContext, CallError

__all__ = ["MAX_WAIT_MS", "Asking", "need_model_choice"]

MAX_WAIT_MS: Final = 600_000


class Asking:
    """``clock`` gives Unix milliseconds."""

    def __init__(self, runs: AgentRuns, router: AgentRouter, *, clock: Callable[[], int]) -> None:
        self._runs = runs
        self._router = router
        self._clock = clock

    async def ask(
        self, method: str, context: CallContext, *, session_key: str | None, agent_id: str | None, text: str,
        run_id: str | None, attachments: list[dict[str, Any]] | None = None, timeout_ms: int | None = None,
        model: str | None = None, system: str | None = None,
    ) -> tuple[RunRequest, str]:  # fmt: skip
        """The question as it was accepted, durable, and how its run stands: ``started`` by this, ``in_flight`` or
        ``ok`` where the run id was known. Raises `CallError`."""
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
        return request, _status(run, known)


def _attachments(given: list[dict[str, Any]] | None) -> tuple[Attachment, ...]:
    found = []
    for one in given or ():
        data, mime = one.get("content"), one.get("mimeType")
        if not isinstance(data, str) or not isinstance(mime, str):
            raise ValueError("an attachment has a mimeType and its content in base64")  # noqa: TRY004 - a fault of params
        name = one.get("fileName")
        found.append(Attachment(mime=mime[:255], data=data, name=name[:255] if isinstance(name, str) else None))
    return tuple(found)


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
