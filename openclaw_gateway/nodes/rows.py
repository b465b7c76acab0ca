"""Rows of nodes: the SQL behind surfaces, facts and waiting work, as jobs for `Store.run`.

Owns how records become rows and back, each durable change as one function that decides and writes in the same
transaction. It must not know tasks, memory or events. Every function may run again from the start (see `Store.run`).

Invariants: one approved surface and one waiting surface per node; what waits is capped in all, work per node and in
all; rows go with the device they belong to (foreign keys).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from openclaw_gateway.nodes.records import Declaration, NodeFacts, QueuedItem, Surface, SurfaceRequest
from openclaw_gateway.value import Value

__all__ = ["MAX_REQUESTS", "Snapshot", "SurfaceChange"]

MAX_REQUESTS: Final = 1024

_SURFACE: Final = "node_id, paired_at_ms, caps, commands, approved_at_ms, approved_via"
_REQUEST: Final = (
    "request_id, node_id, paired_at_ms, caps, commands, client_id, client_mode, display_name, platform, version, "
    "device_family, remote_ip, requested_at_ms"
)
_FACTS: Final = "node_id, last_connected_at_ms, last_seen_at_ms, last_seen_reason, version, host_stats"
_ITEM: Final = "id, node_id, paired_at_ms, type, rank, created_at_ms, expires_at_ms"


def _insert(table: str, columns: str) -> str:
    values = ", ".join(f":{name}" for name in columns.split(", "))
    return f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({values})"  # noqa: S608 - constants of this module


_PUT_SURFACE: Final = _insert("node_surfaces", _SURFACE)
_PUT_REQUEST: Final = _insert("node_surface_requests", _REQUEST)
_PUT_FACTS: Final = _insert("node_facts", _FACTS)
_PUT_ITEM: Final = _insert("node_pending_items", _ITEM)
_SELECT_SURFACES: Final = f"SELECT {_SURFACE} FROM node_surfaces"  # noqa: S608
_SELECT_REQUESTS: Final = f"SELECT {_REQUEST} FROM node_surface_requests"  # noqa: S608
_SELECT_FACTS: Final = f"SELECT {_FACTS} FROM node_facts"  # noqa: S608
_SELECT_ITEMS: Final = f"SELECT {_ITEM} FROM node_pending_items"  # noqa: S608


@attrs.frozen(eq=False, repr=False)
class Snapshot(Value):
    """Everything this room keeps in memory, as read at one moment."""

    surfaces: list[Surface]
    requests: list[SurfaceRequest]
    facts: list[NodeFacts]
    items: list[QueuedItem]


@attrs.frozen(eq=False, repr=False)
class SurfaceChange(Value):
    """What a declaration or a decision left of one node, and which request ended how (``""``: none did)."""

    node_id: str
    surface: Surface | None
    request: SurfaceRequest | None
    created: bool = False
    ended: tuple[tuple[SurfaceRequest, str], ...] = ()


def load(db: sqlite3.Connection) -> Snapshot:
    """Raises `ValueError` or `TypeError` where a row cannot be read: nothing is left out silently (V60)."""
    return Snapshot(
        [_read(Surface, _SURFACE, row) for row in db.execute(_SELECT_SURFACES)],
        [_read(SurfaceRequest, _REQUEST, row) for row in db.execute(_SELECT_REQUESTS)],
        [_read(NodeFacts, _FACTS, row) for row in db.execute(_SELECT_FACTS)],
        [_read(QueuedItem, _ITEM, row) for row in db.execute(f"{_SELECT_ITEMS} ORDER BY rank DESC, created_at_ms, id")],
    )


def declare(
    db: sqlite3.Connection, declaration: Declaration, now: int, new_id: Callable[[], str], *, via: str | None = None
) -> SurfaceChange:
    """Hold a declaration against what was approved: nothing to ask, the same request as before, or a new one.

    A narrower or equal declaration keeps the request's id; a wider one supersedes it. With ``via`` (a setup code that
    an administrator made) a node that was never decided about gets exactly this surface at once. Raises
    `sqlite3.IntegrityError` where the device is not paired any more.
    """
    node_id = declaration.node_id
    surface = surface_of(db, node_id, declaration.paired_at_ms)
    old = _request_of(db, "node_id", node_id)
    if surface is None and via is not None:
        surface = Surface(
            node_id=node_id,
            paired_at_ms=declaration.paired_at_ms,
            caps=declaration.caps,
            commands=declaration.commands,
            approved_at_ms=now,
            approved_via=via,
        )
        _put(db, _PUT_SURFACE, surface)
    asks_nothing = not declaration.caps and not declaration.commands
    if asks_nothing or (surface is not None and surface.covers(declaration.caps, declaration.commands)):
        _drop_request(db, node_id)
        return SurfaceChange(node_id, surface, None, ended=((old, "superseded"),) if old is not None else ())
    same_pairing = old is not None and old.paired_at_ms == declaration.paired_at_ms
    if old is not None and same_pairing and old.covers(declaration.caps, declaration.commands):
        shown = ("client_id", "client_mode", "display_name", "platform", "version", "device_family", "remote_ip")
        kept = attrs.evolve(old, **{name: getattr(declaration, name) for name in shown})
        _put(db, _PUT_REQUEST, kept)
        return SurfaceChange(node_id, surface, kept)
    ended = []
    if old is not None:
        _drop_request(db, node_id)
        ended.append((old, "superseded"))
    elif db.execute("SELECT count(*) FROM node_surface_requests").fetchone()[0] >= MAX_REQUESTS:
        oldest = db.execute(f"{_SELECT_REQUESTS} ORDER BY requested_at_ms, request_id LIMIT 1").fetchone()
        evicted = _read(SurfaceRequest, _REQUEST, oldest)
        _drop_request(db, evicted.node_id)
        ended.append((evicted, "superseded"))
    request = SurfaceRequest(
        request_id=new_id(),
        requested_at_ms=now,
        **{field.name: getattr(declaration, field.name) for field in attrs.fields(Declaration)},
    )
    _put(db, _PUT_REQUEST, request)
    return SurfaceChange(node_id, surface, request, created=True, ended=tuple(ended))


def approve(
    db: sqlite3.Connection, request_id: str, commands: tuple[str, ...], via: str, now: int
) -> SurfaceChange | None:
    """Make a waiting surface the node's; ``commands`` are those that were checked. None: no such request, or other."""
    request = _request_of(db, "request_id", request_id)
    if request is None or request.commands != commands:
        return None
    surface = Surface(
        node_id=request.node_id,
        paired_at_ms=request.paired_at_ms,
        caps=request.caps,
        commands=request.commands,
        approved_at_ms=now,
        approved_via=via,
    )
    _put(db, _PUT_SURFACE, surface)
    _drop_request(db, request.node_id)
    return SurfaceChange(request.node_id, surface, None, ended=((request, "approved"),))


def reject(db: sqlite3.Connection, request_id: str) -> SurfaceChange | None:
    """End a waiting surface; what was approved before stays. None: no such request."""
    request = _request_of(db, "request_id", request_id)
    if request is None:
        return None
    _drop_request(db, request.node_id)
    surface = surface_of(db, request.node_id, request.paired_at_ms)
    return SurfaceChange(request.node_id, surface, None, ended=((request, "rejected"),))


def remove(db: sqlite3.Connection, node_id: str) -> SurfaceChange:
    """Forget everything of a node that its device's row does not hold."""
    request = _request_of(db, "node_id", node_id)
    for table in ("node_surfaces", "node_surface_requests", "node_facts", "node_pending_items"):
        db.execute(f"DELETE FROM {table} WHERE node_id = ?", (node_id,))  # noqa: S608 - constants
    return SurfaceChange(node_id, None, None, ended=((request, "removed"),) if request is not None else ())


def surface_of(db: sqlite3.Connection, node_id: str, paired_at_ms: int) -> Surface | None:
    row = db.execute(f"{_SELECT_SURFACES} WHERE node_id = ? AND paired_at_ms = ?", (node_id, paired_at_ms)).fetchone()
    return None if row is None else _read(Surface, _SURFACE, row)


def save_facts(db: sqlite3.Connection, facts: Sequence[NodeFacts]) -> None:
    """Write facts of those nodes that are still paired."""
    for fact in facts:
        if db.execute("SELECT 1 FROM devices WHERE device_id = ?", (fact.node_id,)).fetchone() is not None:
            stats = None if fact.host_stats is None else json.dumps(fact.host_stats)
            db.execute(_PUT_FACTS, {**attrs.asdict(fact), "host_stats": stats})


def put_item(
    db: sqlite3.Connection, item: QueuedItem, now: int, *, per_node: int, total: int
) -> tuple[bool, tuple[str, ...]]:
    """Queue work. ``(False, expired)`` where there is no room; ``expired`` are ids whose time was over."""
    expired = expire_items(db, now)
    mine, everything = db.execute(
        "SELECT coalesce(sum(node_id = ?), 0), count(*) FROM node_pending_items", (item.node_id,)
    ).fetchone()
    if mine >= per_node or everything >= total:
        return False, expired
    _put(db, _PUT_ITEM, item)
    return True, expired


def take_items(db: sqlite3.Connection, node_id: str, ids: Sequence[str]) -> tuple[str, ...]:
    """Delete these of the node's items; the ids that were there."""
    marks = ", ".join("?" * len(ids))
    rows = db.execute(
        f"DELETE FROM node_pending_items WHERE node_id = ? AND id IN ({marks}) RETURNING id",  # noqa: S608 - marks
        (node_id, *ids),
    )
    return tuple(row[0] for row in rows.fetchall())


def expire_items(db: sqlite3.Connection, now: int) -> tuple[str, ...]:
    rows = db.execute("DELETE FROM node_pending_items WHERE expires_at_ms <= ? RETURNING id", (now,))
    return tuple(row[0] for row in rows.fetchall())


def _request_of(db: sqlite3.Connection, column: str, value: str) -> SurfaceRequest | None:
    row = db.execute(f"{_SELECT_REQUESTS} WHERE {column} = ?", (value,)).fetchone()
    return None if row is None else _read(SurfaceRequest, _REQUEST, row)


def _drop_request(db: sqlite3.Connection, node_id: str) -> None:
    db.execute("DELETE FROM node_surface_requests WHERE node_id = ?", (node_id,))


def _put(db: sqlite3.Connection, statement: str, record: Any) -> None:
    values = attrs.asdict(record)
    for name in ("caps", "commands"):
        if name in values:
            values[name] = json.dumps(values[name])
    db.execute(statement, values)


def _read(cls: Any, columns: str, row: tuple[Any, ...]) -> Any:
    values = dict(zip(columns.split(", "), row, strict=True))
    for name in ("caps", "commands"):
        if name in values:
            listed = json.loads(values[name])
            if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
                raise ValueError("a list of strings was expected in the database")
            values[name] = tuple(listed)
    if values.get("host_stats") is not None:
        values["host_stats"] = json.loads(values["host_stats"])
    return cls(**values)
