"""The doctor looks into the queues: is there something that was given up, or a queue that is nearly full?

Reads the database beside a running gateway, or without one. It must not change anything, and tells no lane or payload:
those name people and hold what they wrote."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Final

from openclaw_gateway.ops.doctor_checks import found

if TYPE_CHECKING:
    from openclaw_gateway.ops.doctor import Finding, Patient

__all__ = ["queues"]

NEARLY: Final = 0.8
_QUERY: Final = (
    "SELECT queue, sum(state <> 'dead'), sum(state = 'dead'), "
    "total(CASE WHEN state <> 'dead' THEN length(payload) END) FROM queue_messages GROUP BY queue ORDER BY queue"
)


def queues(patient: Patient) -> list[Finding]:
    """Dead letters, and how full each queue is. What is wrong with the database itself is the check of the store."""
    from openclaw_gateway.queues.records import QueueRules

    path = patient.state_dir / "gateway.db"
    if not path.exists():
        return [found("queues", "ok", "there is no store yet")]
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
        try:
            rows = db.execute(_QUERY).fetchall()
        finally:
            db.close()
    except sqlite3.Error as error:
        return [found("queues", "warn", f"the queues cannot be read: {error}", "openclaw doctor")]
    rules = QueueRules()
    findings, told = [], []
    for name, waiting, dead, size in rows:
        told.append(f"{name}: {waiting} waiting")
        if dead:
            text = f"{dead} messages of the {name} queue were given up (the newest {rules.max_dead} are kept)"
            findings.append(found("queues", "warn", text, "openclaw queue list --dead"))
        if waiting >= NEARLY * rules.max_messages or size >= NEARLY * rules.max_bytes:
            text = f"the {name} queue is nearly full: {waiting} messages, {int(size) // 1024} KiB"
            findings.append(found("queues", "warn", text, "openclaw queue list"))
    return findings or [found("queues", "ok", ", ".join(told) or "nothing waits")]
