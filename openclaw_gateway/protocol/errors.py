"""The error table: every error a peer can be answered with, as data.

Owns the codes, the detail codes, the texts, whether a retry can help, the close code that follows (if any) and the command
that a person runs next. It must not know who asks: filling in the blanks is the caller's part. The texts and codes are the ones
that OpenClaw's clients match on (spec wire.md section 5); the hints are ours.

Invariants: an error leaves the gateway only as a `WireError`; a `WireError` never carries a secret; each row of `ERRORS` has a
heading in docs/reference/errors.md (a test compares).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from openclaw_gateway.protocol.close import CloseCode

__all__ = ["ERRORS", "ErrorRow", "WireError", "wire_error"]

# The `code` of an error reply (OpenClaw's wire knows no others that its clients act on).
INVALID_REQUEST: Final = "INVALID_REQUEST"
NOT_PAIRED: Final = "NOT_PAIRED"
FORBIDDEN: Final = "FORBIDDEN"
UNAVAILABLE: Final = "UNAVAILABLE"


@attrs.frozen
class WireError:
    """One error as it goes over the wire: ``{code, message, details?, retryable?, retryAfterMs?}``."""

    code: str
    message: str
    details: Mapping[str, Any] | None = None
    retryable: bool | None = None
    retry_after_ms: int | None = None

    def to_wire(self) -> dict[str, Any]:
        out: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details is not None:
            out["details"] = dict(self.details)
        if self.retryable is not None:
            out["retryable"] = self.retryable
        if self.retry_after_ms is not None:
            out["retryAfterMs"] = self.retry_after_ms
        return out


@attrs.frozen
class ErrorRow:
    """A row of the table.

    ``message`` may hold ``{blanks}``; ``detail`` is the machine code under ``details.code``; ``close`` is the close code that
    follows a handshake error, None where the connection stays; ``fix`` is the one command (or act) that mends it.
    """

    code: str
    message: str
    meaning: str
    fix: str
    detail: str | None = None
    retryable: bool | None = None
    retry_after_ms: int | None = None
    close: CloseCode | None = None


ERRORS: dict[str, ErrorRow] = {
    # --- after hello: the connection stays open ------------------------------------------------------------------------
    "unknown-method": ErrorRow(
        INVALID_REQUEST,
        "unknown method: {method}",
        "No method of that name is registered on this gateway.",
        "openclaw gateway call --help; hello-ok.features.methods lists what there is",
    ),
    "missing-scope": ErrorRow(
        FORBIDDEN,
        "missing scope: {scope}",
        "The connection was not granted the scope that the method asks for.",
        "openclaw devices approve <requestId>, or connect with the gateway's token from this host",
        detail="MISSING_SCOPE",
    ),
    "unauthorized-role": ErrorRow(
        INVALID_REQUEST,
        "unauthorized role: {role}",
        "The method belongs to another role (node methods to nodes, operator methods to operators).",
        "connect with the role that the method belongs to",
    ),
    "invalid-params": ErrorRow(
        INVALID_REQUEST,
        "invalid {method} params: {fault}",
        "The parameters do not have the shape that the method takes.",
        "docs/reference/methods.md lists every method's parameters",
    ),
    "invalid-frame": ErrorRow(
        INVALID_REQUEST,
        "invalid request frame: {fault}",
        "The message is JSON but not a request frame.",
        'send {"type":"req","id":"...","method":"...","params":{...}}',
    ),
    "too-big": ErrorRow(
        INVALID_REQUEST,
        "message too big: over {limit} bytes",
        "The message is over the limit in hello-ok.policy.maxPayload.",
        "openclaw config set gateway.transports.websocket.maxMessageSize <bytes>",
        detail="PAYLOAD_TOO_LARGE",
        retryable=False,
        close=CloseCode.TOO_BIG,
    ),
    "too-many-calls": ErrorRow(
        UNAVAILABLE,
        "too many calls in flight on this connection (limit {limit})",
        "The connection has more unanswered requests than it may have.",
        "wait for answers before sending more",
        detail="TOO_MANY_CALLS",
        retryable=True,
        retry_after_ms=100,
    ),
    "method-busy": ErrorRow(
        UNAVAILABLE,
        "{method} is busy (limit {limit} at once)",
        "The method's own concurrency limit is reached.",
        "retry after the time given",
        detail="METHOD_BUSY",
        retryable=True,
        retry_after_ms=250,
    ),
    "deadline": ErrorRow(
        UNAVAILABLE,
        "{method} did not finish within {seconds:g} s",
        "The handler passed the method's deadline and was cancelled.",
        "openclaw logs --follow",
        detail="DEADLINE_EXCEEDED",
        retryable=True,
    ),
    "no-handler": ErrorRow(
        UNAVAILABLE,
        "no handler is registered for {method}: an embedding program registers one with "
        'gateway.rpc.method("{method}", scope="operator.write")(handler)',
        "The method is known, but nothing on this gateway carries it out.",
        "docs/embedding.md shows how to register a handler",
        detail="NO_HANDLER",
        retryable=False,
    ),
    "internal": ErrorRow(
        UNAVAILABLE,
        "internal error (logged as {incident})",
        "A bug on this side; the log has the stack under the same id.",
        "openclaw logs | grep {incident}",
        detail="INTERNAL",
        retryable=True,
    ),
    "idempotency-conflict": ErrorRow(
        INVALID_REQUEST,
        "idempotency key was used before with other parameters",
        "The same idempotencyKey came with a different method or parameters within five minutes.",
        "use a fresh key for a different request",
        detail="IDEMPOTENCY_CONFLICT",
    ),
    "store-unavailable": ErrorRow(
        UNAVAILABLE,
        "the state store cannot be written right now",
        "A write that must be durable could not be made; nothing was changed.",
        "openclaw doctor",
        detail="STORE_UNAVAILABLE",
        retryable=True,
        retry_after_ms=1000,
    ),
    "shutting-down": ErrorRow(
        UNAVAILABLE,
        "gateway stopping",
        "The gateway is going down and takes no new work.",
        "wait for the restart",
        detail="SHUTTING_DOWN",
        retryable=True,
        retry_after_ms=1000,
    ),
    # --- during the handshake: the answer is followed by a close -------------------------------------------------------
}


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
    return WireError(row.code, row.message.format(**blanks), merged, row.retryable, row.retry_after_ms)
