"""`queue.list`, `queue.retry`, `queue.drop`: what waits, what was given up, and what a person does about it. And
`diagnostics.lanes`: how busy each queue is, as OpenClaw's debug page asks.

Owns their parameters and shapes (``queue.*`` is ours: OpenClaw has no such methods). It must not know what a message
means.
Invariants: operator.admin, because a lane names people and a payload holds what they wrote (V50, V51); a payload is
shown for one message that is asked for by its id; what a person drops is in the audit trail before it is acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.queues import MessageQueue, QueuedMessage, QueueFull
from openclaw_gateway.rpc.audit import recorded
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable, NoParams
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["register"]

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000
MAX_SHOWN_PAYLOAD: Final = 64 * 1024


@attrs.frozen(eq=False, repr=False)
class ListParams(Value):
    queue: str | None = None
    state: Literal["waiting", "running", "dead"] | None = None
    id: str | None = None
    limit: int | None = None


@attrs.frozen(eq=False, repr=False)
class ActParams(Value):
    """``ids``, or ``dead: true`` for every dead letter of ``queue`` (or of all queues)."""

    ids: list[str] | None = None
    dead: bool = False
    queue: str | None = None


class _Methods:
    def __init__(self, queues: Sequence[MessageQueue], at_once: Mapping[str, int], audit: AuditTrail) -> None:
        self._queues = queues
        self._at_once = at_once
        self._audit = audit

    def _chosen(self, name: str | None) -> list[MessageQueue]:
        return [queue for queue in self._queues if name in {None, queue.name}]

    def lanes(self, context: CallContext, params: NoParams) -> dict[str, Any]:
        rows = []
        for queue in self._queues:
            counts = queue.counts
            rows.append({
                "lane": queue.name,
                "activeCount": counts["running"],
                "queuedCount": counts["waiting"],
                "maxConcurrent": self._at_once[queue.name],
            })  # fmt: skip
        return {"ts": now_ms(), "lanes": rows, "dynamic": None}

    async def list_messages(self, context: CallContext, params: ListParams) -> dict[str, Any]:
        limit = params.limit if params.limit is not None else DEFAULT_LIMIT
        if not 1 <= limit <= MAX_LIMIT:
            fault = f"at /limit: must be between 1 and {MAX_LIMIT}"
            raise CallError(wire_error("invalid-params", method="queue.list", fault=fault))
        rows = [
            (queue, message)
            for queue in self._chosen(params.queue)
            for message in queue.messages(params.state)
            if params.id in {None, message.id}
        ]
        shown = [_shown(message) for _, message in rows[:limit]]
        if params.id is not None:
            if not rows:
                raise CallError(wire_error("queue-message-unknown", id=params.id[:64]))
            shown[0]["payload"] = await _payload(rows[0][0], params.id)
        return {"messages": shown, "total": len(rows), "queues": {queue.name: _counts(queue) for queue in self._queues}}

    async def retry(self, context: CallContext, params: ActParams) -> dict[str, Any]:
        _check("queue.retry", params)
        done: list[str] = []
        for queue in self._chosen(params.queue):
            try:
                done += await queue.retry(_ids(queue, params))
            except QueueFull as exc:
                if not done:
                    raise CallError(wire_error("queue-full")) from exc
        _refuse_nobody(done, params)
        await recorded(self._audit, Action.QUEUE_RETRIED, context, count=len(done))
        return {"retried": done}

    async def drop(self, context: CallContext, params: ActParams) -> dict[str, Any]:
        _check("queue.drop", params)
        done: list[str] = []
        try:
            for queue in self._chosen(params.queue):
                done += await queue.drop(_ids(queue, params))
        except StoreError as exc:
            raise CallError(wire_error("store-unavailable")) from exc
        _refuse_nobody(done, params)
        await recorded(self._audit, Action.QUEUE_DROPPED, context, count=len(done))
        return {"dropped": done}


def register(
    table: MethodTable, *, queues: Sequence[MessageQueue], at_once: Mapping[str, int], audit: AuditTrail
) -> None:
    """Put the methods into ``table``. ``at_once``: how many messages of each queue, by its name, are worked on."""
    methods = _Methods(queues, at_once, audit)
    for queue in queues:
        queue.on_discarded = partial(_note_discarded, audit, queue.name)
    table.method("diagnostics.lanes", scope="operator.read", lenient=True)(methods.lanes)
    table.method("queue.list", scope="operator.admin", params=ListParams)(methods.list_messages)
    table.method("queue.retry", scope="operator.admin", params=ActParams)(methods.retry)
    table.method("queue.drop", scope="operator.admin", params=ActParams)(methods.drop)


def _note_discarded(audit: AuditTrail, queue: str, count: int) -> None:
    reason = f"more dead letters than the {queue} queue keeps"
    audit.note(Action.QUEUE_DISCARDED, actor="gateway", reason=reason, count=count)


def _check(method: str, params: ActParams) -> None:
    if (params.ids is None) == (not params.dead):
        fault = "at root: must have one of the properties 'ids' and 'dead'"
        raise CallError(wire_error("invalid-params", method=method, fault=fault))


def _ids(queue: MessageQueue, params: ActParams) -> list[str]:
    return [one.id for one in queue.messages("dead")] if params.dead else list(params.ids or ())


def _counts(queue: MessageQueue) -> dict[str, int]:
    rules = queue.rules
    return {
        **queue.counts,
        "maxMessages": rules.max_messages,
        "maxBytes": rules.max_bytes,
        "maxDead": rules.max_dead,
        "maxDeadBytes": rules.max_dead_bytes,
    }


def _refuse_nobody(done: list[str], params: ActParams) -> None:
    if not done and params.ids:
        raise CallError(wire_error("queue-message-unknown", id=params.ids[0][:64]))


async def _payload(queue: MessageQueue, id_: str) -> str | None:
    try:
        payload = await queue.payload_of(id_)
    except StoreError as exc:
        raise CallError(wire_error("store-unavailable")) from exc
    return payload[:MAX_SHOWN_PAYLOAD].decode("utf-8", "replace") if payload is not None else None


def _shown(message: QueuedMessage) -> dict[str, Any]:
    return {
        "id": message.id,
        "queue": message.queue,
        "lane": message.lane,
        "source": message.source,
        "kind": message.kind,
        "state": message.state,
        "attempts": message.attempts,
        "acceptedAtMs": message.accepted_at_ms,
        "dueAtMs": message.due_at_ms,
        "uncertain": message.uncertain,
        "lastError": message.last_error,
    }
