"""Pending requests' rows: the SQL behind what waits for a person, as jobs for `Store.run`.

Owns how a request is kept, refreshed, widened, pushed out and ended, and what is remembered of those that ended. It
must not approve anything (`pairing.rows`, `pairing.decisions`), nor know tasks, memory views or events. Every function
may run again from the start (see `Store.run`).

Invariants: one pending row per (device, role) (PAIR-3); pending rows are capped per source and in all (PAIR-6), and so
are the resolutions.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Final

import attrs

from openclaw_gateway.pairing.columns import (
    PENDING,
    RESOLVED,
    SELECT_PENDING,
    SELECT_RESOLVED,
    pending_of,
    records_of,
    resolution_of,
)
from openclaw_gateway.pairing.records import Ask, PairedDevice, PendingRequest, Reason, Resolution, ask_hash, key_of
from openclaw_gateway.policy.addresses import limiter_key
from openclaw_gateway.value import Value

__all__ = [
    "MAX_PENDING",
    "MAX_PENDING_PER_SOURCE",
    "MAX_RESOLUTIONS",
    "Change",
    "ask_to_pair",
    "expire",
    "pending_request",
    "record_resolution",
    "resolution",
    "resolve_waiting",
    "waiting_for",
]

MAX_PENDING_PER_SOURCE: Final = 16
MAX_PENDING: Final = 256
MAX_RESOLUTIONS: Final = 256
_INSERT_PENDING: Final = (
    f"INSERT INTO pending_requests ({PENDING}, source_key) "  # noqa: S608
    f"VALUES ({', '.join(f':{name}' for name in PENDING.split(', '))}, :source_key)"
)
_INSERT_RESOLVED: Final = (
    f"INSERT OR REPLACE INTO resolved_requests ({RESOLVED}) "  # noqa: S608
    f"VALUES ({', '.join(f':{name}' for name in RESOLVED.split(', '))})"
)
_EXPIRE: Final = f"DELETE FROM pending_requests WHERE expires_at_ms <= ? RETURNING {PENDING}"  # noqa: S608
_EVICT: Final = (
    "DELETE FROM pending_requests WHERE request_id = (SELECT request_id FROM pending_requests "  # noqa: S608
    f"WHERE source_key = ? ORDER BY last_seen_ms, first_seen_ms, request_id LIMIT 1) RETURNING {PENDING}"
)


@attrs.frozen(eq=False, repr=False)
class Change(Value):
    """What a request did to the pending rows. ``gone``: rows that ended, with the decision that ended them."""

    request: PendingRequest
    created: bool
    superseded: Resolution | None = None
    gone: tuple[tuple[PendingRequest, str], ...] = ()


def ask_to_pair(db: sqlite3.Connection, ask: Ask, now: int, ttl_ms: int, new_id: Callable[[], str]) -> Change:
    """Keep, refresh, widen or make the pending row of (device, role)."""
    gone = [(old, "expired") for old in expire(db, now)]
    old = waiting_for(db, ask)
    if old is not None and old.covers(ask):
        kept = attrs.evolve(old, last_seen_ms=now, expires_at_ms=now + ttl_ms)
        db.execute(
            "UPDATE pending_requests SET last_seen_ms = ?, expires_at_ms = ? WHERE request_id = ?",
            (kept.last_seen_ms, kept.expires_at_ms, kept.request_id),
        )
        return Change(kept, created=False, gone=tuple(gone))
    request = _widened(db, ask, old, now, ttl_ms, new_id())
    superseded = None
    if old is not None:
        db.execute("DELETE FROM pending_requests WHERE request_id = ?", (old.request_id,))
        added = tuple(scope for scope in request.scopes if scope not in old.scopes)
        superseded = Resolution(
            request_id=old.request_id,
            device_id=old.device_id,
            role=old.role,
            decision="superseded",
            replaced_by=request.request_id,
            added_scopes=added,
            at_ms=now,
        )
        gone.append((old, "superseded"))
        record_resolution(db, superseded)
    else:
        gone.extend((evicted, "expired") for evicted in _make_room(db, limiter_key(ask.source_ip)))
    _insert_pending(db, request)
    return Change(request, created=True, superseded=superseded, gone=tuple(gone))


def expire(db: sqlite3.Connection, now: int) -> list[PendingRequest]:
    """Take away the rows whose time is over."""
    return [pending_of(row) for row in db.execute(_EXPIRE, (now,)).fetchall()]


def waiting_for(db: sqlite3.Connection, ask: Ask) -> PendingRequest | None:
    row = db.execute(f"{SELECT_PENDING} WHERE device_id = ? AND role = ?", (ask.device_id, ask.role)).fetchone()
    return pending_of(row) if row else None


def pending_request(db: sqlite3.Connection, request_id: str) -> PendingRequest | None:
    """The row that waits under this id, also where its time is over."""
    row = db.execute(f"{SELECT_PENDING} WHERE request_id = ?", (request_id,)).fetchone()
    return pending_of(row) if row else None


def resolution(db: sqlite3.Connection, request_id: str) -> Resolution | None:
    """What became of an id that does not wait any more, while it is remembered."""
    row = db.execute(f"{SELECT_RESOLVED} WHERE request_id = ?", (request_id,)).fetchone()
    return resolution_of(row) if row else None


def record_resolution(db: sqlite3.Connection, resolution: Resolution) -> None:
    values = {**attrs.asdict(resolution), "added_scopes": json.dumps(resolution.added_scopes)}
    db.execute(_INSERT_RESOLVED, values)
    db.execute(
        "DELETE FROM resolved_requests WHERE request_id IN "
        "(SELECT request_id FROM resolved_requests ORDER BY at_ms DESC, request_id LIMIT -1 OFFSET ?)",
        (MAX_RESOLUTIONS,),
    )


def resolve_waiting(db: sqlite3.Connection, ask: Ask, now: int) -> tuple[str | None, Resolution | None]:
    """End the request that waited for the same (device, role), unless it asks for more than was granted."""
    waiting = waiting_for(db, ask)
    if waiting is None or not set(waiting.scopes) <= set(ask.scopes):
        return None, None
    db.execute("DELETE FROM pending_requests WHERE request_id = ?", (waiting.request_id,))
    resolved = Resolution(
        request_id=waiting.request_id,
        device_id=waiting.device_id,
        role=waiting.role,
        decision="approved",
        replaced_by=None,
        added_scopes=(),
        at_ms=now,
    )
    record_resolution(db, resolved)
    return waiting.request_id, resolved


def _widened(
    db: sqlite3.Connection, ask: Ask, old: PendingRequest | None, now: int, ttl_ms: int, request_id: str
) -> PendingRequest:
    # The union of what was asked: a client that alternates between narrow asks must not mint ids for ever.
    scopes = tuple(sorted({*ask.scopes, *(old.scopes if old else ())}))
    caps = tuple(sorted({*ask.caps, *(old.caps if old else ())}))
    commands = tuple(sorted({*ask.commands, *(old.commands if old else ())}))
    widest = attrs.evolve(ask, caps=caps, commands=commands)  # clips the lists to their cap
    # Asking without the channel takes nothing back: the device said itself that it has this key.
    statement = ask.key_statement or (old.key_statement if old else None)
    return PendingRequest(
        request_id=request_id,
        device_id=ask.device_id,
        public_key=ask.public_key,
        role=ask.role,
        scopes=scopes,
        caps=widest.caps,
        commands=widest.commands,
        client_id=ask.client_id,
        client_mode=ask.client_mode,
        display_name=ask.display_name,
        platform=ask.platform,
        device_family=ask.device_family,
        version=ask.version,
        source_ip=ask.source_ip,
        reason=_reason(records_of(db, ask.device_id), ask.role),
        ask_hash=ask_hash(ask.public_key, ask.role, scopes, widest.commands, key_of(statement)),
        first_seen_ms=now,
        last_seen_ms=now,
        expires_at_ms=now + ttl_ms,
        key_statement=statement,
    )


def _reason(records: tuple[PairedDevice, ...], role: str) -> Reason:
    if not records:
        return "not-paired"
    return "scope-upgrade" if any(record.live and record.role == role for record in records) else "role-upgrade"


def _make_room(db: sqlite3.Connection, source: str) -> list[PendingRequest]:
    counts = "SELECT count(*), coalesce(sum(source_key = ?), 0) FROM pending_requests"
    total, same = db.execute(counts, (source,)).fetchone()
    if same >= MAX_PENDING_PER_SOURCE:
        return [_evict_oldest(db, source)]
    if total >= MAX_PENDING:
        # Whoever has the most rows pays, so that one crowd cannot push out everybody else.
        crowd = "SELECT source_key FROM pending_requests GROUP BY source_key ORDER BY count(*) DESC, min(last_seen_ms)"
        return [_evict_oldest(db, db.execute(crowd).fetchone()[0])]
    return []


def _evict_oldest(db: sqlite3.Connection, source: str) -> PendingRequest:
    return pending_of(db.execute(_EVICT, (source,)).fetchall()[0])


def _insert_pending(db: sqlite3.Connection, request: PendingRequest) -> None:
    values = {
        **attrs.asdict(request),
        "scopes": json.dumps(request.scopes),
        "caps": json.dumps(request.caps),
        "commands": json.dumps(request.commands),
        "source_key": limiter_key(request.source_ip),
    }
    db.execute(_INSERT_PENDING, values)
