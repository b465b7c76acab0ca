"""All that a page needs to open a conversation, in one answer: `chat.startup`, and `chat.metadata` of it alone.

Owns their parameters and shapes (OpenClaw's), and which session the tail of an address means. It must not know how a
transcript is read (`history`) or which models there are.

Invariants: an address that means no session or several is answered with what was found, never with a guess; reading
needs operator.read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from openclaw_gateway.agents.references import resolution_view, with_short_id
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.sessions import Sessions
from openclaw_gateway.rpc.history import HistoryMethods, HistoryParams
from openclaw_gateway.rpc.sessionfaults import faults
from openclaw_gateway.rpc.table import CallContext, MethodTable
from openclaw_gateway.value import Value

__all__ = ["StartupMethods", "register"]


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
class MetadataParams(Value):
    session_key: str | None = None
    agent_id: str | None = None


class StartupMethods:
    """``models()`` lists the models that there are, as `models.list` does."""

    def __init__(
        self,
        history: HistoryMethods,
        sessions: Sessions,
        router: AgentRouter,
        *,
        models: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self._history = history
        self._sessions = sessions
        self._router = router
        self._models = models

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
        owner, body = await self._history.page("chat.startup", page)
        return {**body, "defaults": self._defaults(owner), "metadata": self._metadata(owner), **resolution}

    async def metadata(self, context: CallContext, params: MetadataParams) -> dict[str, Any]:
        with faults("chat.metadata"):
            _, owner = self._router.place(params.session_key, params.agent_id)
        return self._metadata(owner)

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


def register(table: MethodTable, methods: StartupMethods) -> None:
    """Put the methods into ``table``."""
    read = "operator.read"
    table.method("chat.startup", scope=read, params=StartupParams, lenient=True)(methods.startup)
    table.method("chat.metadata", scope=read, params=MetadataParams, lenient=True)(methods.metadata)
