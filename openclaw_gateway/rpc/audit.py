"""`audit.activity.list`: the audit trail over the wire, and how other methods record what they did.

Owns the translation of a row into OpenClaw's activity record. It must not know how rows are kept. The published schema
knows runs, tools and messages of agents; what this gateway records is of a kind of its own (``kind`` and ``eventType``
``gateway``) with the members that every record has, so clients that list records show it, and a filter for another kind
finds none. Below ``operator.admin`` a record says what happened and when, not to whom or from where (V50, V51).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import attrs

from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable, camel
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["recorded", "register"]

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 500
SEARCHED_ROWS: Final = 5000  # how far back a cursor or a filter looks; the command line reads everything
KIND: Final = "gateway"
_STATUS: Final = {"ok": "succeeded", "refused": "blocked", "failed": "failed"}
_CHAIN: Final = frozenset({"seq", "time", "action", "actor", "prev", "hash"})


@attrs.frozen(eq=False, repr=False)
class ActivityParams(Value):
    agent_id: str | None = None
    session_key: str | None = None
    run_id: str | None = None
    kind: str | None = None
    status: str | None = None
    direction: str | None = None
    channel: str | None = None
    after: int | None = None
    before: int | None = None
    limit: int | None = None
    cursor: str | None = None


async def recorded(
    audit: AuditTrail, action: Action, context: CallContext, *, outcome: str = "ok", **fields: object
) -> None:
    """Commit a row about what a caller just did, before it is answered.

    Raises `CallError` (audit-unavailable) where the row is not on the disk: the change stands, the row stays queued.
    """
    try:
        await audit.commit(action, actor=context.principal, outcome=outcome, address=context.client_address, **fields)
    except StoreError as exc:
        raise CallError(wire_error("audit-unavailable")) from exc


def register(table: MethodTable, *, audit: AuditTrail) -> None:
    async def list_activity(context: CallContext, params: ActivityParams) -> dict[str, Any]:
        limit, cursor = _page(params)
        if any((params.agent_id, params.session_key, params.run_id, params.direction)) or params.kind not in {
            None,
            KIND,
        }:
            return {"events": []}
        plain = cursor is None and params == ActivityParams(limit=params.limit)
        try:
            rows = await audit.recent(limit + 1 if plain else SEARCHED_ROWS)
        except OSError as exc:
            raise CallError(wire_error("audit-unavailable")) from exc
        whole = "operator.admin" in context.scopes
        found = []
        for row in reversed(rows):
            event = _event(row, whole=whole)
            if (cursor is None or event["sequence"] < cursor) and _matches(event, row, params):
                found.append(event)
            if len(found) > limit:
                break
        out: dict[str, Any] = {"events": found[:limit]}
        if len(found) > limit:
            out["nextCursor"] = str(found[limit - 1]["sequence"])
        return out

    table.method("audit.activity.list", scope="operator.read", params=ActivityParams, concurrency=1, queue=16)(
        list_activity
    )


def _page(params: ActivityParams) -> tuple[int, int | None]:
    limit = params.limit if params.limit is not None else DEFAULT_LIMIT
    if not 1 <= limit <= MAX_LIMIT:
        raise _invalid(f"at /limit: must be between 1 and {MAX_LIMIT}")
    if params.after is not None and params.before is not None and params.after > params.before:
        raise _invalid("at /after: must not be later than before")
    if params.cursor is None:
        return limit, None
    if not (params.cursor.isascii() and params.cursor.isdigit() and len(params.cursor) <= 18 and int(params.cursor)):
        raise _invalid("at /cursor: must be a nextCursor of this method")
    return limit, int(params.cursor)


def _invalid(fault: str) -> CallError:
    return CallError(wire_error("invalid-params", method="audit.activity.list", fault=fault))


def _matches(event: dict[str, Any], row: dict[str, Any], params: ActivityParams) -> bool:
    return (
        (params.status is None or event["status"] == params.status)
        and (params.after is None or event["occurredAt"] >= params.after)
        and (params.before is None or event["occurredAt"] <= params.before)
        and (params.channel is None or row.get("channel") == params.channel)
    )


def _event(row: dict[str, Any], *, whole: bool) -> dict[str, Any]:
    seq, actor = row.get("seq", 0), str(row.get("actor", ""))
    event: dict[str, Any] = {
        "eventType": KIND,
        "schemaVersion": 1,
        "eventId": f"gateway:{seq}",
        "sequence": seq,
        "sourceSequence": seq,
        "occurredAt": _unix_ms(str(row.get("time", ""))),
        "redaction": "metadata_only",
        "actor": {"type": "system", "id": actor if whole else actor.partition(":")[0] or "unknown"},
        "kind": KIND,
        "action": row.get("action", ""),
        "status": _STATUS.get(str(row.get("outcome")), "succeeded"),
    }
    if whole:
        event["gateway"] = {camel(name): value for name, value in row.items() if name not in _CHAIN}
    return event


def _unix_ms(stamp: str) -> int:
    try:
        return round(datetime.fromisoformat(stamp).timestamp() * 1000)
    except ValueError:
        return 0
