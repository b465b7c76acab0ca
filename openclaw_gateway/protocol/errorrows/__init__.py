"""The rows of the error table, one module for each area; what a row is.

Owns the shape of a row and the codes that a reply may have. `protocol.errors` puts the areas together and is where
everybody else asks: nobody but it imports from here. It must not know how a row is filled in or sent.

Invariants: rows are data, without a decision in them; a row stands in exactly one area (the table refuses a name that
comes twice); each has a heading in docs/reference/errors.md (a test compares).
"""

from __future__ import annotations

from typing import Final

import attrs

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.value import Value

__all__ = ["FORBIDDEN", "INVALID_REQUEST", "NOT_PAIRED", "UNAVAILABLE", "ErrorRow"]

# The `code` of an error reply (OpenClaw's wire knows no others that its clients act on).
INVALID_REQUEST: Final = "INVALID_REQUEST"
NOT_PAIRED: Final = "NOT_PAIRED"
FORBIDDEN: Final = "FORBIDDEN"
UNAVAILABLE: Final = "UNAVAILABLE"


@attrs.frozen(eq=False, repr=False)
class ErrorRow(Value):
    """A row of the table.

    ``message`` may hold ``{blanks}``; ``detail`` is the machine code under ``details.code``; ``close`` is the close
    code that follows a handshake error, None where the connection stays; ``fix`` is the one command (or act) that mends
    it.
    """

    code: str
    message: str
    meaning: str
    fix: str
    detail: str | None = None
    retryable: bool | None = None
    retry_after_ms: int | None = None
    close: CloseCode | None = None
