"""Rows that stand for pairings in the store's own tests."""

from __future__ import annotations

import sqlite3


def pair(db: sqlite3.Connection, name: str) -> None:
    """Add one paired operator device."""
    db.execute("INSERT INTO devices VALUES (?, 'key', NULL, NULL, 'linux', 'Linux', 'cli', 'cli', 1, NULL)", (name,))
    db.execute(
        "INSERT INTO device_roles VALUES (?, 'operator', '[]', 1, 'local', 1, x'00', x'00', 1, NULL, 1, '127.0.0.1')",
        (name,),
    )


def names(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT device_id FROM device_roles ORDER BY device_id")]
