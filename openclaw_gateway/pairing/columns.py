"""How pairing's records become rows and back.

Owns the columns of paired roles, pending requests and what became of requests, and their reading. It must not write or
decide (`pairing.rows`, `pairing.requestrows`). Invariant: a row that cannot be read raises `ValueError` or `TypeError`;
nothing is left out silently (V60).
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

import attrs

from openclaw_gateway.pairing.records import PairedDevice, PendingRequest, Resolution, key_of

__all__ = [
    "PENDING",
    "RESOLVED",
    "SELECT_PAIRED",
    "SELECT_PENDING",
    "SELECT_RESOLVED",
    "paired_of",
    "pending_of",
    "records_of",
    "resolution_of",
    "with_roles",
]

PENDING: Final = (
    "request_id, device_id, public_key, role, scopes, caps, commands, client_id, client_mode, display_name, platform, "
    "device_family, version, source_ip, reason, ask_hash, first_seen_ms, last_seen_ms, expires_at_ms, key_statement"
)
_PAIRED: Final = (
    "device_id, public_key, role, scopes, client_id, client_mode, display_name, label, platform, device_family, "
    "created_at_ms, approved_at_ms, approved_via, last_seen_at_ms, last_ip, token_generation, token_issued_at_ms, "
    "token_salt, token_digest, revoked_at_ms, key_statement"
)
RESOLVED: Final = "request_id, device_id, role, decision, replaced_by, added_scopes, at_ms"

# S608: all that is put together here are the constants above; values travel as parameters.
SELECT_PENDING: Final = f"SELECT {PENDING} FROM pending_requests"  # noqa: S608
SELECT_PAIRED: Final = f"SELECT {_PAIRED} FROM device_roles JOIN devices USING (device_id)"  # noqa: S608
SELECT_RESOLVED: Final = f"SELECT {RESOLVED} FROM resolved_requests"  # noqa: S608
_LISTS: Final = frozenset({"scopes", "caps", "commands", "added_scopes"})


def records_of(db: sqlite3.Connection, device_id: str) -> tuple[PairedDevice, ...]:
    """All records of one device, revoked ones too."""
    rows = db.execute(f"{SELECT_PAIRED} WHERE device_id = ? ORDER BY role", (device_id,))
    return tuple(with_roles([paired_of(row) for row in rows]))


def pending_of(row: tuple[Any, ...]) -> PendingRequest:
    return PendingRequest(**_fields(PENDING, row))


def paired_of(row: tuple[Any, ...]) -> PairedDevice:
    return PairedDevice(**_fields(_PAIRED, row), roles=())


def resolution_of(row: tuple[Any, ...]) -> Resolution:
    return Resolution(**_fields(RESOLVED, row))


def with_roles(records: list[PairedDevice]) -> list[PairedDevice]:
    live = tuple(record.role for record in records if record.live)
    return [attrs.evolve(record, roles=live) for record in records]


def _fields(columns: str, row: tuple[Any, ...]) -> dict[str, Any]:
    named = dict(zip(columns.split(", "), row, strict=True))
    key_of(named.get("key_statement"))  # a key that cannot be read is not "no key" (V60)
    return {name: _strings(value) if name in _LISTS else value for name, value in named.items()}


def _strings(text: str) -> tuple[str, ...]:
    values = json.loads(text)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("a list of strings was expected in the database")
    return tuple(values)
