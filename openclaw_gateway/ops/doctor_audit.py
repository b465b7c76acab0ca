"""The doctor's check of the audit trail: is it whole, and does it go as far as the store knows?

Reads the files and, read-only, the store; writes nothing. About 4 µs a row, so a full trail (60 MB) takes a second.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from openclaw_gateway.ops.doctor_checks import found

if TYPE_CHECKING:
    from openclaw_gateway.ops.auditwalk import Report
    from openclaw_gateway.ops.doctor import Finding, Patient

__all__ = ["audit", "examine_trail"]


def examine_trail(state_dir: Path) -> Report | None:
    """Check every row of every generation; None where no trail was ever begun. Raises OSError and `sqlite3.Error`
    where the files or the store are there and cannot be read."""
    from openclaw_gateway.ops.audit import audit_folder, read_head
    from openclaw_gateway.ops.auditfile import opened, read_lines
    from openclaw_gateway.ops.auditwalk import verify

    # The head first: while a gateway writes, the files may be ahead of it and never behind.
    anchor = read_head(state_dir)
    with opened(audit_folder(state_dir)) as files:
        if not files and (anchor is None or anchor.seq == 0):
            return None
        return verify(((name, read_lines(fd)) for name, fd in files), anchor)


def audit(patient: Patient) -> list[Finding]:
    """The audit trail holds together (AUDIT-1)."""
    from openclaw_gateway.ops.audit import audit_folder

    folder = audit_folder(patient.state_dir)
    try:
        report = examine_trail(patient.state_dir)
    except (OSError, sqlite3.Error) as error:
        return [found("audit", "fail", f"the audit trail cannot be read: {error}", f"ls -l '{folder}'")]
    if report is None:
        return [found("audit", "ok", "there is no audit trail yet")]
    if report.fault is not None:
        fix = f"keep a copy for whoever looks into it, then begin a new trail: mv '{folder}' '{folder}.tampered'"
        return [found("audit", "fail", f"the audit trail was changed: {folder}/{report.fault}", fix)]
    if report.begins_late is not None:
        text = f"the audit trail begins at row {report.begins_late}: what was before was taken away"
        return [found("audit", "warn", text, f"openclaw audit --verify; look for a copy of '{folder}'")]
    return [found("audit", "ok", f"{report.rows} rows, up to {report.head.seq} ({report.head.hash[:12]}), unbroken")]
