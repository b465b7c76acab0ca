"""What can go wrong with the store, and which SQLite result means which.

Owns the exceptions of the room and the translation from SQLite's result codes (sqlite.org/rescode.html). It must not
know what a job was about. Invariant: whatever the disk does to a job, its caller sees a `StoreError`; a fault in the
job itself (a broken constraint, a wrong statement) is our bug and stays what it is.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

import attrs

from openclaw_gateway.errors import GatewayError

__all__ = ["StoreCorrupt", "StoreError", "StoreTooNew", "StoreUnavailable", "translate"]


class StoreError(GatewayError):
    """Root of what the store raises."""


@attrs.define(eq=False)
class StoreUnavailable(StoreError):
    """The store could not do it now; trying again later can help.

    ``outcome_unknown`` is True where the caller was let go before its job was done (a closing or stuck store): the
    change may still be made. Otherwise nothing was changed.
    """

    reason: str
    outcome_unknown: bool = False

    def __str__(self) -> str:
        unknown = " (whether the change was made is unknown)" if self.outcome_unknown else ""
        return f"the state store is unavailable: {self.reason}{unknown}"


@attrs.define(eq=False)
class StoreCorrupt(StoreError):
    """The database is damaged and nothing good could take its place. ``fix`` is the command to run."""

    path: Path | None
    reason: str
    fix: str
    quarantine: Path | None = None

    def __str__(self) -> str:
        kept = f"; a copy is kept in {self.quarantine}" if self.quarantine else ""
        return f"the state database {self.path} is damaged: {self.reason}{kept}; fix: {self.fix}"


@attrs.define(eq=False)
class StoreTooNew(StoreError):
    """The database was written by a newer version of this program."""

    path: Path
    found: int
    known: int

    def __str__(self) -> str:
        return (
            f"the state database {self.path} has format {self.found}, this version knows up to {self.known}; "
            "fix: install the version that wrote it: pip install --upgrade openclaw-gateway"
        )


_UNAVAILABLE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "the database is locked by another process",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_READONLY: "the database cannot be written (read-only)",
    sqlite3.SQLITE_IOERR: "the disk answers with an error",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_PROTOCOL: "the database's locks are in disorder",
    sqlite3.SQLITE_PERM: "access to the database was denied",
    sqlite3.SQLITE_INTERRUPT: "the store is closing",
    sqlite3.SQLITE_TOOBIG: "the value is too big",
}
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

# After these the open connection may still be used; after any other it is opened anew.
STILL_GOOD: Final = frozenset(
    {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_TOOBIG}
)


def primary_code(error: BaseException) -> int:
    """SQLite's primary result code of an exception, 0 where it carries none."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0


def translate(error: Exception, path: Path | None = None) -> Exception:
    """The `StoreError` that stands for what the disk did; ``error`` itself where it is the job's own fault."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, sqlite3.Error):
        code = primary_code(error)
        if code in _CORRUPT:
            return StoreCorrupt(path, str(error), "restart the gateway: it restores the newest good backup")
        if code in _UNAVAILABLE:
            return StoreUnavailable(_UNAVAILABLE[code])
        return error
    if isinstance(error, OSError):
        return StoreUnavailable(error.strerror or type(error).__name__)
    return error
