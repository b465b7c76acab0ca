"""Many conversations at once: `sessions.search` looks through what was said, `sessions.patchMany` changes them.

Owns their parameters and shapes (OpenClaw's). It must not know how a search goes through transcripts, nor what a change
of one conversation is: that is `sessions.patch`. Unknown members of parameters are left out.

Invariants: a search needs operator.read, a change operator.write; one target that cannot be changed keeps no other one
from it, and each has its own outcome, in the order of asking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from openclaw_gateway.agents.records import Session
from openclaw_gateway.agents.router import AgentRouter
from openclaw_gateway.agents.sessions import Sessions
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.sessionfaults import faults
from openclaw_gateway.rpc.sessions import ListParams, PatchParams, SessionMethods
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable, ParamsReader
from openclaw_gateway.rpc.usage import WAITING
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from openclaw_gateway.agents.search import TranscriptSearch

__all__ = ["SessionManyMethods", "register"]

MAX_TARGETS: Final = 100
MAX_QUERY: Final = 4_096
MAX_KEYS: Final = 200
MAX_HITS: Final = 25
DEFAULT_HITS: Final = 10
# What official clients may expect of a conversation and none here has: null is right, anything else is not.
_NOT_HERE: Final = (
    "expectedLifecycleRevision", "expectedSandboxMode", "expectedPermissionMode", "expectedNativeRuntimeConsent",
)  # fmt: skip


@attrs.frozen(eq=False, repr=False)
class SearchParams(Value):
    """``scope`` has the filters of `sessions.list`; without it one agent's conversations are looked through."""

    query: str
    agent_id: str | None = None
    session_keys: list[str] | None = None
    scope: dict[str, Any] | None = None
    limit: int | None = None


@attrs.frozen(eq=False, repr=False)
class PatchManyParams(Value):
    """``targets``: objects with ``key``, ``agentId``, ``expectedSessionId``; ``patch``: the changes of
    `sessions.patch`."""

    targets: list[dict[str, Any]]
    patch: dict[str, Any]


class SessionManyMethods:
    def __init__(self, sessions: Sessions, router: AgentRouter, one: SessionMethods) -> None:
        self._sessions = sessions
        self._router = router
        self._one = one
        self._list = ParamsReader(ListParams, lenient=True)
        self._patch = ParamsReader(PatchParams, lenient=True)
        self._made: TranscriptSearch | None = None

    async def search(self, context: CallContext, params: SearchParams) -> dict[str, Any]:
        if self._made is None:
            from openclaw_gateway.agents.search import TranscriptSearch

            self._made = TranscriptSearch(self._sessions)
        with faults("sessions.search"):
            query = params.query.strip()
            if not query or len(query) > MAX_QUERY:
                raise ValueError(f"query has 1 to {MAX_QUERY} characters")
            among = self._among(params)
            limit = max(1, min(params.limit or DEFAULT_HITS, MAX_HITS))
            hits, more = await self._made.search(among, query, limit)
        results = [
            {
                "sessionKey": hit.session.key,
                "sessionId": hit.session.session_id,
                "messageId": hit.message_id,
                "role": hit.role,
                "timestamp": hit.at_ms,
                "snippet": hit.snippet,
                "score": hit.score,
            }
            for hit in hits
        ]
        out: dict[str, Any] = {"results": results, **({"truncated": True} if more else {})}
        if params.scope is not None:
            found = {hit.session.key: self._sessions.get(hit.session.key) or hit.session for hit in hits}
            out["sessions"] = [self._one.shown(session) for session in found.values()]
        return out

    def _among(self, params: SearchParams) -> list[Session]:
        known = self._sessions.all()
        if params.scope is not None:
            wanted = self._list.convert("sessions.search", params.scope)
            return [session for session in known if self._one.wanted(session, wanted)]
        if params.session_keys is not None:
            if len(params.session_keys) > MAX_KEYS:
                raise ValueError(f"sessionKeys has at most {MAX_KEYS} keys")
            keys = {self._router.place(key, params.agent_id)[0] for key in params.session_keys}
            return [session for session in known if session.key in keys]
        owner = params.agent_id or self._router.default_id
        self._router.entry(owner)
        return [session for session in known if session.agent_id == owner]

    async def patch(self, context: CallContext, params: PatchManyParams) -> dict[str, Any]:
        if not 1 <= len(params.targets) <= MAX_TARGETS:
            raise _fault(f"at /targets: has 1 to {MAX_TARGETS} entries")
        for number, target in enumerate(params.targets):
            if not isinstance(target.get("key"), str) or not target["key"]:
                raise _fault(f"at /targets/{number}/key: must be a key")
        # What is wrong with the changes themselves is wrong for every target.
        self._patch.convert("sessions.patchMany", {**params.patch, "key": "main"})
        outcomes: list[dict[str, Any]] = [{}] * len(params.targets)

        async def change(number: int, target: dict[str, Any]) -> None:
            named = {name: target[name] for name in ("key", "agentId") if isinstance(target.get(name), str)}
            try:
                await self._change(context, target, params.patch)
            except CallError as exc:
                outcomes[number] = {"ok": False, **named, "error": exc.error.to_wire()}
            else:
                outcomes[number] = {"ok": True, **named}

        async with trio.open_nursery() as nursery:  # together: the store writes them with one commit
            for number, target in enumerate(params.targets):
                nursery.start_soon(change, number, target)
        return {"outcomes": outcomes}

    async def _change(self, context: CallContext, target: dict[str, Any], patch: dict[str, Any]) -> None:
        for name in _NOT_HERE:
            if target.get(name) is not None:
                raise _fault(f"at /{name}: no conversation here has that")
        meant = {name: target.get(name) for name in ("key", "agentId", "expectedSessionId")}
        await self._one.patch(context, self._patch.convert("sessions.patchMany", {**patch, **meant}))


def _fault(fault: str) -> CallError:
    return CallError(wire_error("invalid-params", method="sessions.patchMany", fault=fault))


def register(table: MethodTable, methods: SessionManyMethods) -> None:
    """Put the methods into ``table``."""
    read: dict[str, Any] = {"scope": "operator.read", "concurrency": 1, "queue": WAITING}
    table.method("sessions.search", params=SearchParams, lenient=True, **read)(methods.search)
    table.method("sessions.patchMany", scope="operator.write", params=PatchManyParams, lenient=True)(methods.patch)
