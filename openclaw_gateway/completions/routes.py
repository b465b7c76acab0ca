"""``/v1/models`` and ``/v1/chat/completions``: agents for programs that speak OpenAI's API.

Owns the routes, what a request means in sessions and runs, and that a run ends with its client. It must not know how
an agent answers, nor who is admitted: the gatekeeper does, and the routes are twins of `agents.list` and `chat.send`
(V41).

Invariants: a request runs as any other question does, durable and in the order of its session; without ``user`` and
without a session key its session lives as long as the request; a client that leaves takes its run with it; a
credential that ends while an answer streams ends the stream (AUTH-5); choosing another model than the agent's needs
operator.admin.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import attrs
import trio

from openclaw_gateway.agents.keys import caller_key
from openclaw_gateway.agents.records import AgentFailed, Message, RunRequest, Usage
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.agents.watching import RunWatch, watched_events
from openclaw_gateway.completions.wire import (
    DONE,
    Asked,
    BadAsk,
    agent_of_model,
    answer,
    chunk,
    error_body,
    event,
    model_entry,
    read_ask,
)
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.rpc.sessionfaults import faults
from openclaw_gateway.rpc.table import CallError
from openclaw_gateway.server.gatekeeper import Grant
from openclaw_gateway.server.http import HttpApp, HttpReply, HttpRequest, Route, json_reply
from openclaw_gateway.server.routes import Write
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["CHAT", "MODELS", "Completions", "add_completions", "remove_completions"]

CHAT: Final = "/v1/chat/completions"
MODELS: Final = "/v1/models"
MAX_BODY: Final = 12 * 1024 * 1024  # pictures come in base64; all of them together have `MAX_ATTACHMENT_CHARS`
PING_SECONDS: Final = 15.0
TIDY_SECONDS: Final = 3.0
SWEEP_EVERY: Final = 256  # requests, from one look for left-over sessions to the next
_ONCE: Final = "openai"  # agent:<id>:openai:<uuid> is the session of one request
_RESERVED: Final = (f"{_ONCE}:", "subagent:", "cron:", "acp:")
_STATUS: Final = {
    "queue-full": 429,
    "session-limit": 429,
    "store-unavailable": 503,
    "agent-unknown": 404,
    "invalid-params": 400,
}

log = get_logger("completions")


@attrs.frozen(eq=False, repr=False)
class _Job(Value):
    """A request on its way. ``once``: its session is forgotten afterwards."""

    asked: Asked
    request: RunRequest
    created: int
    once: bool


class Completions:
    """``clock`` gives Unix milliseconds; ``lapsed(grant)`` says why a credential is no longer good."""

    def __init__(
        self, runs: AgentRuns, router: AgentRouter, *, clock: Callable[[], int], lapsed: Callable[[Grant], str | None]
    ) -> None:
        self._runs = runs
        self._events = watched_events(runs)
        self._router = router
        self._clock = clock
        self._lapsed = lapsed
        self._asked = 0

    # --- models

    async def models(self, request: HttpRequest, grant: Grant | None) -> HttpReply:
        names = ["openclaw", "openclaw/default", *(f"openclaw/{agent_id}" for agent_id in self._router.ids)]
        return json_reply(200, {"object": "list", "data": [model_entry(name, 0) for name in names]})

    async def model(self, request: HttpRequest, grant: Grant | None) -> HttpReply:
        name = request.path.removeprefix(f"{MODELS}/")
        try:
            agent_id = agent_of_model(name)
        except BadAsk:
            agent_id = ""
        if agent_id is not None and agent_id not in self._router.ids:
            body = error_body(f"there is no model {name[:80]}", "invalid_request_error", code="model_not_found")
            return json_reply(404, body)
        return json_reply(200, model_entry(name, 0))

    # --- chat

    async def complete(self, request: HttpRequest, grant: Grant | None) -> HttpReply:
        assert grant is not None
        try:
            job = self._job(request, read_ask(await request.body()), grant)
        except BadAsk as bad:
            body = error_body(bad.message, "invalid_request_error", param=bad.param, code=bad.code)
            return json_reply(bad.status, body)
        if job.asked.stream:
            return HttpReply(
                status=200,
                content_type=b"text/event-stream; charset=utf-8",
                headers=_told_unused(job.asked),
                stream=lambda write: self._stream(job, grant, write),
            )
        try:
            async with self._started(job) as watch:
                text = ""
                while not watch.over:
                    text += await watch.next_text()
                message = watch.message
        except CallError as exc:
            return self._refused(exc)
        reason = self._lapsed(grant)
        if reason is not None:
            return json_reply(401, error_body(f"the credential ended: {reason}", "unauthorized"))
        assert message is not None
        trouble = _trouble(watch)
        if trouble is not None:
            return trouble
        done = answer(
            id_=job.request.run_id,
            created=job.created,
            model=job.asked.model,
            text=message.text,
            finish=_finish(message),
            usage=message.usage,
        )
        return json_reply(200, done, *_told_unused(job.asked))

    async def _stream(self, job: _Job, grant: Grant, write: Write) -> None:
        head: dict[str, Any] = {"id_": job.request.run_id, "created": job.created, "model": job.asked.model}
        try:
            async with self._started(job) as watch:
                await write(chunk(**head, delta={"role": "assistant", "content": ""}))
                while True:
                    text = None
                    with trio.move_on_after(PING_SECONDS):
                        text = await watch.next_text()
                    reason = self._lapsed(grant)
                    if reason is not None:
                        await write(event(error_body(f"the credential ended: {reason}", "unauthorized")))
                        return
                    if text is None:
                        await write(b": still here\n\n")
                    elif text:
                        await write(chunk(**head, delta={"content": text}))
                    elif watch.over:
                        break
        except CallError as exc:
            await write(event(self._fault(exc)) + DONE)
            return
        assert watch.message is not None
        if watch.error is not None or watch.aborted:
            await write(event(_failure(watch)) + DONE)
            return
        await write(chunk(**head, finish=_finish(watch.message)))
        if job.asked.include_usage:
            await write(chunk(**head, usage=watch.message.usage or Usage()))
        await write(DONE)

    def _job(self, request: HttpRequest, asked: Asked, grant: Grant) -> _Job:
        """What a request means here. Raises `BadAsk`."""
        agent_id = _header(request, b"x-openclaw-agent-id") or asked.agent_id
        key = _header(request, b"x-openclaw-session-key")
        model = _header(request, b"x-openclaw-model")
        if model is not None and "operator.admin" not in grant.scopes:
            raise BadAsk("missing scope: operator.admin (x-openclaw-model)", status=403)
        if key is not None and key.removeprefix("agent:").partition(":")[2].startswith(_RESERVED):
            raise BadAsk(f"{key[:80]} is in a namespace of OpenClaw's own", "x-openclaw-session-key")
        if key is not None and key.startswith(_RESERVED):
            raise BadAsk(f"{key[:80]} is in a namespace of OpenClaw's own", "x-openclaw-session-key")
        run_id = f"chatcmpl-{uuid.uuid4().hex}"
        try:
            with faults("chat.send"):
                placed, owner = self._router.place(key, agent_id)
                once = key is None and asked.user is None
                if once:
                    placed = f"agent:{owner}:{_ONCE}:{run_id}"
                elif key is None and asked.user is not None:
                    placed = caller_key(owner, asked.user)
                run = RunRequest(
                    run_id=run_id,
                    agent_id=owner,
                    session_key=placed,
                    text=asked.text,
                    source=f"http:{grant.principal}"[:256],
                    accepted_at_ms=self._clock(),
                    attachments=asked.attachments,
                    model=model,
                    system=asked.system,
                    interactive=True,
                    # A session has its own transcript; without one the request tells what was said.
                    history=asked.history if once else None,
                    sampling=asked.sampling,
                )
        except CallError as exc:
            error = exc.error
            code = "model_not_found" if error.key == "agent-unknown" else None
            raise BadAsk(error.message, status=_STATUS.get(error.key or "", 400), code=code) from exc
        return _Job(asked, run, int(time.time()), once)

    @asynccontextmanager
    async def _started(self, job: _Job) -> AsyncIterator[RunWatch]:
        """The run of a request; over when this is left, whichever way. Raises `CallError`."""
        request = job.request
        await self._sweep()
        with self._events.watch(request.run_id) as watch:
            try:
                with faults("chat.send"):
                    await self._runs.start(request)
                yield watch
            finally:
                await self._tidy(job)

    async def _tidy(self, job: _Job) -> None:
        key, run_id = job.request.session_key, job.request.run_id
        self._runs.abort_nowait(key, run_id)
        if not job.once:
            return
        with trio.CancelScope(shield=True, deadline=trio.current_time() + TIDY_SECONDS):
            await self._runs.wait(run_id, TIDY_SECONDS)
            await self._forget(key)

    async def _forget(self, key: str) -> None:
        if self._runs.active(key):
            return  # a later sweep finds it
        try:
            await self._runs.sessions.delete(key)
        except StoreError as exc:
            log.error("a session of one request cannot be removed", error=str(exc))

    async def _sweep(self) -> None:
        """Remove sessions of requests that a process before this one did not end."""
        self._asked += 1
        if self._asked % SWEEP_EVERY != 1:
            return
        for session in self._runs.sessions.all():
            if session.key.split(":")[2:3] == [_ONCE]:
                await self._forget(session.key)

    def _refused(self, exc: CallError) -> HttpReply:
        after = exc.error.retry_after_ms
        headers = [(b"retry-after", b"%d" % max(1, after // 1000))] if after else []
        return json_reply(_STATUS.get((exc.error.key or ""), 500), self._fault(exc), *headers)

    @staticmethod
    def _fault(exc: CallError) -> dict[str, Any]:
        status = _STATUS.get((exc.error.key or ""), 500)
        kind = {429: "rate_limit_error", 400: "invalid_request_error", 404: "invalid_request_error"}
        return error_body(exc.error.message, kind.get(status, "server_error"))


def _header(request: HttpRequest, name: bytes) -> str | None:
    value = request.headers.get(name, b"").decode("latin-1").strip()
    return value[:512] or None


def _told_unused(asked: Asked) -> list[tuple[bytes, bytes]]:
    return [(b"x-openclaw-ignored", ", ".join(asked.unused).encode())] if asked.unused else []


def _finish(message: Message) -> Literal["stop", "length"]:
    return "length" if message.stop == "length" else "stop"


def _failure(watch: RunWatch) -> dict[str, Any]:
    error = watch.error
    if error is None:
        return error_body("the run was aborted", "aborted")
    kind = "rate_limit_error" if error.kind == "rate_limit" else "server_error"
    return error_body(error.message, kind, code=error.kind)


def _trouble(watch: RunWatch) -> HttpReply | None:
    """The answer to a request whose run failed."""
    error: AgentFailed | None = watch.error
    if error is None:
        return json_reply(409, _failure(watch)) if watch.aborted else None
    status = {"rate_limit": 429, "timeout": 504, "context_length": 400, "refusal": 400}.get(error.kind, 502)
    headers = [(b"retry-after", b"%d" % max(1, error.after_ms // 1000))] if error.after_ms else []
    return json_reply(status, _failure(watch), *headers)


def add_completions(app: HttpApp, completions: Completions) -> None:
    """Serve the routes on ``app``."""
    app.routes[MODELS] = Route(methods=("GET",), handler=completions.models, twin="agents.list")
    app.prefixes[f"{MODELS}/"] = Route(methods=("GET",), handler=completions.model, twin="agents.list")
    app.routes[CHAT] = Route(
        methods=("POST",), handler=completions.complete, twin="chat.send", max_body=MAX_BODY, leaving_cancels=True
    )


def remove_completions(app: HttpApp) -> None:
    """Serve them no longer; what is under way goes on."""
    for path in (MODELS, CHAT):
        app.routes.pop(path, None)
    app.prefixes.pop(f"{MODELS}/", None)
