"""Pairing's rows: the SQL behind the device book, as jobs for `Store.run`.

Owns how records become rows and back, and each durable change as one function of the database that decides and writes
in the same transaction: two tasks that ask at once are put in order by the store, not by a lock. It must not know
tasks, memory views or events. Every function may run again from the start (see `Store.run`).

Invariants: one pending row per (device, role) (PAIR-3); pending rows are capped per source and in all (PAIR-6); no
function here turns a revoked role live or widens a live one: that takes a person's approval (V11, V26).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.pairing.records import Ask, PairedDevice, PendingRequest, Reason, Resolution, ask_hash, key_of
from openclaw_gateway.pairing.tokens import DeviceTokens, TokenSeed
from openclaw_gateway.policy.addresses import limiter_key
from openclaw_gateway.value import Value

__all__ = [
    "MAX_DEVICES",
    "MAX_PENDING",
    "MAX_PENDING_PER_SOURCE",
    "MAX_REMOVED",
    "MAX_RESOLUTIONS",
    "Approval",
    "ApprovalRefused",
    "Change",
    "Snapshot",
]

MAX_PENDING_PER_SOURCE: Final = 16
MAX_PENDING: Final = 256
MAX_RESOLUTIONS: Final = 256
MAX_DEVICES: Final = 20_000
MAX_REMOVED: Final = 20_000

_PENDING: Final = (
    "request_id, device_id, public_key, role, scopes, caps, commands, client_id, client_mode, display_name, platform, "
    "device_family, version, source_ip, reason, ask_hash, first_seen_ms, last_seen_ms, expires_at_ms, key_statement"
)
_PAIRED: Final = (
    "device_id, public_key, role, scopes, client_id, client_mode, display_name, label, platform, device_family, "
    "created_at_ms, approved_at_ms, approved_via, last_seen_at_ms, last_ip, token_generation, token_issued_at_ms, "
    "token_salt, token_digest, revoked_at_ms, key_statement"
)
_RESOLVED: Final = "request_id, device_id, role, decision, replaced_by, added_scopes, at_ms"
# S608: all that is put together here are the constants above; values travel as parameters.
_SELECT_PENDING: Final = f"SELECT {_PENDING} FROM pending_requests"  # noqa: S608
_SELECT_PAIRED: Final = f"SELECT {_PAIRED} FROM device_roles JOIN devices USING (device_id)"  # noqa: S608
_SELECT_RESOLVED: Final = f"SELECT {_RESOLVED} FROM resolved_requests"  # noqa: S608
_INSERT_PENDING: Final = (
    f"INSERT INTO pending_requests ({_PENDING}, source_key) "  # noqa: S608
    f"VALUES ({', '.join(f':{name}' for name in _PENDING.split(', '))}, :source_key)"
)
_INSERT_RESOLVED: Final = (
    f"INSERT OR REPLACE INTO resolved_requests ({_RESOLVED}) "  # noqa: S608
    f"VALUES ({', '.join(f':{name}' for name in _RESOLVED.split(', '))})"
)
_EXPIRE: Final = f"DELETE FROM pending_requests WHERE expires_at_ms <= ? RETURNING {_PENDING}"  # noqa: S608
_EVICT: Final = (
    "DELETE FROM pending_requests WHERE request_id = (SELECT request_id FROM pending_requests "  # noqa: S608
    f"WHERE source_key = ? ORDER BY last_seen_ms, first_seen_ms, request_id LIMIT 1) RETURNING {_PENDING}"
)


@attrs.define(eq=False, repr=False)
class ApprovalRefused(GatewayError):
    """What was asked cannot be approved: ``reason`` is revoked, removed or scope-upgrade (a person has to decide), key
    or limit.
    """

    device_id: str
    role: str
    reason: str

    def __str__(self) -> str:
        return f"{self.role} of device {self.device_id[:12]} cannot be approved: {self.reason}"


@attrs.frozen(eq=False, repr=False)
class Snapshot(Value):
    """Everything the book keeps in memory, as read at one moment."""

    paired: list[PairedDevice]
    pending: list[PendingRequest]
    resolved: list[Resolution]
    removed: list[str]


@attrs.frozen(eq=False, repr=False)
class Change(Value):
    """What a request did to the pending rows. ``gone``: rows that ended, with the decision that ended them."""

    request: PendingRequest
    created: bool
    superseded: Resolution | None = None
    gone: tuple[tuple[PendingRequest, str], ...] = ()


@attrs.frozen(eq=False, repr=False)
class Approval(Value):
    """A device's records after an approval. ``request_id`` names what was approved; ``fresh`` is False for a no-op."""

    device: PairedDevice
    records: tuple[PairedDevice, ...]
    request_id: str
    fresh: bool
    resolved: Resolution | None = None


def load(db: sqlite3.Connection) -> Snapshot:
    """Raises `ValueError` or `TypeError` where a row cannot be read: nothing is left out silently (V60)."""
    devices: dict[str, list[PairedDevice]] = {}
    for row in db.execute(f"{_SELECT_PAIRED} ORDER BY role"):
        devices.setdefault(row[0], []).append(_paired(row))
    paired = [record for records in devices.values() for record in _with_roles(records)]
    pending = [_pending(row) for row in db.execute(_SELECT_PENDING)]
    resolved = [_resolution(row) for row in db.execute(f"{_SELECT_RESOLVED} ORDER BY at_ms")]
    removed = [row[0] for row in db.execute("SELECT device_id FROM removed_devices ORDER BY removed_at_ms")]
    return Snapshot(paired, pending, resolved, removed)


def records_of(db: sqlite3.Connection, device_id: str) -> tuple[PairedDevice, ...]:
    """All records of one device, revoked ones too."""
    rows = db.execute(f"{_SELECT_PAIRED} WHERE device_id = ? ORDER BY role", (device_id,))
    return tuple(_with_roles([_paired(row) for row in rows]))


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
    return [_pending(row) for row in db.execute(_EXPIRE, (now,)).fetchall()]


def approve_silently(
    db: sqlite3.Connection, ask: Ask, via: str, now: int, tokens: DeviceTokens, new_id: Callable[[], str]
) -> Approval:
    """Pair (device, role) with what it asks, where nothing was decided about it before. Raises `ApprovalRefused`."""
    before = records_of(db, ask.device_id)
    if any(record.public_key != ask.public_key for record in before) or other_key(before, ask.key_statement):
        raise ApprovalRefused(ask.device_id, ask.role, "key")
    same = next((record for record in before if record.role == ask.role), None)
    if same is not None:
        if not same.live:
            raise ApprovalRefused(ask.device_id, ask.role, "revoked")
        if not set(ask.scopes) <= set(same.scopes):
            raise ApprovalRefused(ask.device_id, ask.role, "scope-upgrade")
        if ask.key_statement is not None:
            register_key(db, ask.device_id, ask.key_statement)
            before = records_of(db, ask.device_id)
            same = next(record for record in before if record.role == ask.role)
        return Approval(same, before, "", fresh=False)
    if is_removed(db, ask.device_id):
        raise ApprovalRefused(ask.device_id, ask.role, "removed")
    if not before and db.execute("SELECT count(*) FROM devices").fetchone()[0] >= MAX_DEVICES:
        raise ApprovalRefused(ask.device_id, ask.role, "limit")
    _insert_approved(db, ask, via, now, tokens.seed(ask.device_id, ask.role, 1))
    request_id, resolved = _resolve_waiting(db, ask, now)
    records = records_of(db, ask.device_id)
    device = next(record for record in records if record.role == ask.role)
    return Approval(device, records, request_id or new_id(), fresh=True, resolved=resolved)


def reissue(
    db: sqlite3.Connection, device_id: str, role: str, now: int, tokens: DeviceTokens
) -> tuple[PairedDevice, ...]:
    """Give a live (device, role) a new token; the old one is worthless from then on. Empty where nothing is live."""
    records = records_of(db, device_id)
    old = next((record for record in records if record.role == role and record.live), None)
    if old is None:
        return ()
    seed = tokens.seed(device_id, role, old.token_generation + 1)
    db.execute(
        "UPDATE device_roles SET token_generation = ?, token_salt = ?, token_digest = ?, token_issued_at_ms = ? "
        "WHERE device_id = ? AND role = ?",
        (seed.generation, seed.salt, seed.digest, now, device_id, role),
    )
    return records_of(db, device_id)


def other_key(records: tuple[PairedDevice, ...], statement: str | None) -> bool:
    """True where ``statement`` is about another X25519 key than the one that the device registered."""
    wanted = key_of(statement)
    return wanted is not None and any(record.secure_key not in {None, wanted} for record in records)


def register_key(db: sqlite3.Connection, device_id: str, statement: str) -> tuple[PairedDevice, ...]:
    """Keep a device's first key statement; the same key again changes nothing. All records of the device.

    Raises `ApprovalRefused` where another key is registered, or nothing is known of the device any more.
    """
    records = records_of(db, device_id)
    if not records or other_key(records, statement):
        raise ApprovalRefused(device_id, "", "key")
    db.execute(
        "UPDATE devices SET key_statement = ? WHERE device_id = ? AND key_statement IS NULL", (statement, device_id)
    )
    return records_of(db, device_id)


def is_removed(db: sqlite3.Connection, device_id: str) -> bool:
    """True where a person removed the device and nobody approved it since."""
    return db.execute("SELECT 1 FROM removed_devices WHERE device_id = ?", (device_id,)).fetchone() is not None


def pending_request(db: sqlite3.Connection, request_id: str) -> PendingRequest | None:
    """The row that waits under this id, also where its time is over."""
    row = db.execute(f"{_SELECT_PENDING} WHERE request_id = ?", (request_id,)).fetchone()
    return _pending(row) if row else None


def resolution(db: sqlite3.Connection, request_id: str) -> Resolution | None:
    """What became of an id that does not wait any more, while it is remembered."""
    row = db.execute(f"{_SELECT_RESOLVED} WHERE request_id = ?", (request_id,)).fetchone()
    return _resolution(row) if row else None


def save_seen(db: sqlite3.Connection, seen: Iterable[tuple[str, str, int, str]]) -> None:
    """``(device_id, role, Unix milliseconds, address)``; a time never goes back."""
    db.executemany(
        "UPDATE device_roles SET last_seen_at_ms = ?3, last_ip = ?4 "
        "WHERE device_id = ?1 AND role = ?2 AND last_seen_at_ms <= ?3",
        list(seen),
    )


# --- inside


def waiting_for(db: sqlite3.Connection, ask: Ask) -> PendingRequest | None:
    row = db.execute(f"{_SELECT_PENDING} WHERE device_id = ? AND role = ?", (ask.device_id, ask.role)).fetchone()
    return _pending(row) if row else None


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
    return _pending(db.execute(_EVICT, (source,)).fetchall()[0])


def _insert_pending(db: sqlite3.Connection, request: PendingRequest) -> None:
    values = {
        **attrs.asdict(request),
        "scopes": json.dumps(request.scopes),
        "caps": json.dumps(request.caps),
        "commands": json.dumps(request.commands),
        "source_key": limiter_key(request.source_ip),
    }
    db.execute(_INSERT_PENDING, values)


def _insert_approved(db: sqlite3.Connection, ask: Ask, via: str, now: int, seed: TokenSeed) -> None:
    values = {
        **attrs.asdict(ask),
        "scopes": json.dumps(ask.scopes),
        "now": now,
        "via": via,
        "generation": seed.generation,
        "salt": seed.salt,
        "digest": seed.digest,
    }
    db.execute(
        "INSERT INTO devices VALUES (:device_id, :public_key, :display_name, NULL, :platform, :device_family, "
        ":client_id, :client_mode, :now, :key_statement) ON CONFLICT (device_id) DO UPDATE SET "
        "key_statement = coalesce(devices.key_statement, excluded.key_statement)",
        values,
    )
    db.execute(
        "INSERT INTO device_roles VALUES (:device_id, :role, :scopes, :now, :via, :generation, :salt, :digest, :now, "
        "NULL, :now, :source_ip)",
        values,
    )


def _resolve_waiting(db: sqlite3.Connection, ask: Ask, now: int) -> tuple[str | None, Resolution | None]:
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


def record_resolution(db: sqlite3.Connection, resolution: Resolution) -> None:
    values = {**attrs.asdict(resolution), "added_scopes": json.dumps(resolution.added_scopes)}
    db.execute(_INSERT_RESOLVED, values)
    db.execute(
        "DELETE FROM resolved_requests WHERE request_id IN "
        "(SELECT request_id FROM resolved_requests ORDER BY at_ms DESC, request_id LIMIT -1 OFFSET ?)",
        (MAX_RESOLUTIONS,),
    )


def _strings(text: str) -> tuple[str, ...]:
    values = json.loads(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("a list of strings was expected in the database")
    return tuple(values)


_LISTS: Final = frozenset({"scopes", "caps", "commands", "added_scopes"})


def _fields(columns: str, row: tuple[Any, ...]) -> dict[str, Any]:
    named = dict(zip(columns.split(", "), row, strict=True))
    key_of(named.get("key_statement"))  # a key that cannot be read is not "no key" (V60)
    return {name: _strings(value) if name in _LISTS else value for name, value in named.items()}


def _pending(row: tuple[Any, ...]) -> PendingRequest:
    return PendingRequest(**_fields(_PENDING, row))


def _paired(row: tuple[Any, ...]) -> PairedDevice:
    return PairedDevice(**_fields(_PAIRED, row), roles=())


def _resolution(row: tuple[Any, ...]) -> Resolution:
    return Resolution(**_fields(_RESOLVED, row))


def _with_roles(records: list[PairedDevice]) -> list[PairedDevice]:
    live = tuple(record.role for record in records if record.live)
    return [attrs.evolve(record, roles=live) for record in records]
