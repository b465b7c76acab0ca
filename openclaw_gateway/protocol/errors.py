"""The error table: every error a peer can be answered with, as data.

Owns the one table (its rows stand in `protocol.errorrows`, by area), the error as it goes over the wire, and how a row
becomes one. It must not know who asks: filling in the blanks is the caller's part. The texts and codes are the ones
that OpenClaw's clients match on (spec wire.md section 5); the hints are ours.

Invariants: an error leaves the gateway only as a `WireError`; a `WireError` never carries a secret; no two rows have
one name; each row of `ERRORS` has a heading in docs/reference/errors.md (a test compares).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from openclaw_gateway.protocol.errorrows import (
    FORBIDDEN,
    INVALID_REQUEST,
    NOT_PAIRED,
    UNAVAILABLE,
    ErrorRow,
    calls,
    credentials,
    handshake,
    messages,
    nodes,
    pairing,
    tokens,
)
from openclaw_gateway.value import Value

__all__ = [
    "ERRORS",
    "FORBIDDEN",
    "INVALID_REQUEST",
    "NOT_PAIRED",
    "UNAVAILABLE",
    "ErrorRow",
    "WireError",
    "assembled",
    "hinted",
    "wire_error",
]


@attrs.frozen(eq=False, repr=False)
class WireError(Value):
    """One error as it goes over the wire: ``{code, message, details?, retryable?, retryAfterMs?}``."""

    code: str
    message: str
    details: Mapping[str, Any] | None = None
    retryable: bool | None = None
    retry_after_ms: int | None = None
    key: str | None = attrs.field(default=None, eq=False)  # the row it came from; never on the wire

    def to_wire(self) -> dict[str, Any]:
        out: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details is not None:
            out["details"] = dict(self.details)
        if self.retryable is not None:
            out["retryable"] = self.retryable
        if self.retry_after_ms is not None:
            out["retryAfterMs"] = self.retry_after_ms
        return out


def assembled(*areas: Mapping[str, ErrorRow]) -> dict[str, ErrorRow]:
    """One table of all areas' rows. A name that two of them have is our bug: ValueError."""
    table: dict[str, ErrorRow] = {}
    for rows in areas:
        twice = table.keys() & rows.keys()
        if twice:
            raise ValueError(f"rows of the error table that are there twice: {', '.join(sorted(twice))}")
        table.update(rows)
    return table


ERRORS: Final = assembled(
    calls.ROWS, nodes.ROWS, messages.ROWS, pairing.ROWS, tokens.ROWS, handshake.ROWS, credentials.ROWS
)


def wire_error(key: str, /, *, details: Mapping[str, Any] | None = None, **blanks: Any) -> WireError:
    """Fill in one row of the table. Unknown keys and missing blanks are our bug: KeyError."""
    row = ERRORS[key]
    merged: dict[str, Any] | None = None
    if row.detail is not None or details:
        merged = {}
        if row.detail is not None:
            merged["code"] = row.detail
        if details:
            merged.update(details)
    return WireError(row.code, row.message.format(**blanks), merged, row.retryable, row.retry_after_ms, key)


def hinted(error: WireError) -> WireError:
    """The same error with ``details.remediationHint``: the one that it has, else the fix of its row (one with blanks is
    none)."""
    details = error.details or {}
    if error.key is None or "remediationHint" in details or "{" in ERRORS[error.key].fix:
        return error
    return attrs.evolve(error, details={**details, "remediationHint": ERRORS[error.key].fix})
