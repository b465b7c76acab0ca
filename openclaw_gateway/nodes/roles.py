"""What removing or renaming a node does to its pairing record.

Owns two changes of `devices` rows until the device book serves them itself, and makes the book read its rows anew. It
must not know surfaces or connections. Invariants: a revoked role stays as a row, so that nothing but a new approval
revives it (V26); the device's other roles are untouched.
"""

from __future__ import annotations

import sqlite3

from openclaw_gateway.pairing.devices import DeviceBook
from openclaw_gateway.store import Store

__all__ = ["rename_device", "revoke_node_role"]


async def revoke_node_role(store: Store, book: DeviceBook, node_id: str, now: int) -> None:
    """Take the role node from a device for good. Raises `StoreError`, `DeviceBookUnreadable`."""

    def revoke(db: sqlite3.Connection) -> None:
        db.execute(
            "UPDATE device_roles SET revoked_at_ms = ? WHERE device_id = ? AND role = 'node' AND revoked_at_ms IS NULL",
            (now, node_id),
        )

    await store.run(revoke, revokes=True)
    await book.reload()


async def rename_device(store: Store, book: DeviceBook, device_id: str, label: str) -> None:
    """Set the name that an operator gave. Raises as `revoke_node_role`."""

    def rename(db: sqlite3.Connection) -> None:
        db.execute("UPDATE devices SET label = ? WHERE device_id = ?", (label, device_id))

    await store.run(rename, precious=True)
    await book.reload()
