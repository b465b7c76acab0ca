"""What runs used, over the wire: `sessions.usage`, its `timeseries` and `logs`, `usage.cost`, `usage.status`.

Owns their parameters and scopes (OpenClaw's). What is counted, read and said is the agents' (`agents.counting`,
`agents.usagereading`, `agents.usage`), loaded with the first question. Unknown members of parameters are left out.

Invariants: all of it needs operator.read; no question costs more than the bounds of `agents.usagereading`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs

from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.sessions import Sessions
from openclaw_gateway.rpc.sessionfaults import faults
from openclaw_gateway.rpc.table import CallContext, MethodTable, NoParams
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from openclaw_gateway.agents.span import Span
    from openclaw_gateway.agents.usagereading import UsageReader

__all__ = ["UsageMethods", "register"]

DEFAULT_LIMIT: Final = 50
MAX_LIMIT: Final = 1_000
WAITING: Final = 16  # questions of one method that may wait; one more is told to come again


@attrs.frozen(eq=False, repr=False)
class SpanParams(Value):
    agent_id: str | None = None
    agent_scope: str | None = None
    start_date: str | None = None
    end_date: str | None = None
    mode: str | None = None
    range: str | None = None
    days: Any = None
    time_zone: str | None = None
    utc_offset: str | None = None


@attrs.frozen(eq=False, repr=False)
class SessionsParams(SpanParams):
    """``include_historical`` is the older name of ``group_by`` "family"."""

    key: str | None = None
    creator_key: str | None = None
    group_by: str | None = None
    include_historical: bool = False
    limit: int | None = None
    include_context_weight: bool = False


@attrs.frozen(eq=False, repr=False)
class OneParams(Value):
    key: str
    agent_id: str | None = None
    limit: int | None = None


class UsageMethods:
    """``clock`` gives Unix milliseconds."""

    def __init__(self, sessions: Sessions, router: AgentRouter, *, clock: Callable[[], int]) -> None:
        self._sessions = sessions
        self._router = router
        self._clock = clock
        self._made: UsageReader | None = None

    @property
    def _reader(self) -> UsageReader:
        if self._made is None:
            from openclaw_gateway.agents.usagereading import UsageReader

            self._made = UsageReader(self._sessions)
        return self._made

    async def cost(self, context: CallContext, params: SpanParams) -> dict[str, Any]:
        from openclaw_gateway.agents.usage import cost_view

        with faults("usage.cost"):
            span, agent_id = self._span(params), self._agent(params)
            view = partial(cost_view, span=span, now_ms=self._clock())
            return await self._reader.answer(span, view, agent_id=agent_id)

    async def sessions(self, context: CallContext, params: SessionsParams) -> dict[str, Any]:
        from openclaw_gateway.agents.usage import NOBODY, sessions_view

        with faults("sessions.usage"):
            span, agent_id, key = self._span(params), self._agent(params, key=params.key), None
            if params.key is not None:
                key, agent_id = self._router.place(params.key, params.agent_id)
            view = partial(
                sessions_view,
                span=span,
                now_ms=self._clock(),
                sessions={one.key: one for one in self._sessions.all()}.get,
                family=params.group_by == "family" or params.include_historical,
                limit=max(1, min(params.limit or DEFAULT_LIMIT, MAX_LIMIT)),
                context_weight=params.include_context_weight,
            )
            if params.creator_key not in {None, NOBODY}:
                return view([])  # who began a conversation is not kept: nobody else began any
            return await self._reader.answer(span, view, agent_id=agent_id, key=key)

    def status(self, context: CallContext, params: NoParams) -> dict[str, Any]:
        """What model services say of their own quotas: none is asked."""
        return {"updatedAt": self._clock(), "providers": []}

    async def points(self, context: CallContext, params: OneParams) -> dict[str, Any]:
        from openclaw_gateway.agents.usage import MAX_LOGS, points_view

        with faults("sessions.usage.timeseries"):
            key, _ = self._router.place(params.key, params.agent_id)
            session = self._sessions.get(key)
            found = (await self._sessions.page(key, limit=MAX_LOGS)).messages
        return points_view(session.session_id if session is not None else "", found)

    async def logs(self, context: CallContext, params: OneParams) -> dict[str, Any]:
        from openclaw_gateway.agents.usage import MAX_LOGS, log_view

        with faults("sessions.usage.logs"):
            key, _ = self._router.place(params.key, params.agent_id)
            limit = max(1, min(params.limit or 200, MAX_LOGS))
            return log_view((await self._sessions.page(key, limit=limit)).messages)

    def _span(self, params: SpanParams) -> Span:
        from openclaw_gateway.agents.span import read_span

        return read_span(
            self._clock(),
            mode=params.mode,
            time_zone=params.time_zone,
            utc_offset=params.utc_offset,
            start_date=params.start_date,
            end_date=params.end_date,
            range_=params.range,
            days=params.days,
        )

    def _agent(self, params: SpanParams, *, key: str | None = None) -> str | None:
        """The agent that is meant; None: all of them. An agent that is no more has its numbers still."""
        if params.agent_scope is not None and params.agent_scope != "all":
            raise ValueError("agentScope is all")
        if params.agent_scope == "all":
            if params.agent_id is not None or key is not None:
                raise ValueError("agentScope=all cannot be combined with key or agentId")
            return None
        return params.agent_id or self._router.default_id


def register(table: MethodTable, methods: UsageMethods) -> None:
    """Put the methods into ``table``."""
    read = "operator.read"
    turns: dict[str, Any] = {"concurrency": 1, "queue": WAITING}
    table.method("sessions.usage", scope=read, params=SessionsParams, lenient=True, **turns)(methods.sessions)
    table.method("sessions.usage.timeseries", scope=read, params=OneParams, lenient=True)(methods.points)
    table.method("sessions.usage.logs", scope=read, params=OneParams, lenient=True)(methods.logs)
    table.method("usage.cost", scope=read, params=SpanParams, lenient=True, **turns)(methods.cost)
    table.method("usage.status", scope=read, params=NoParams, lenient=True)(methods.status)
