"""Errors of any call, whatever the method: the frame, the right to call, limits, the gateway's state and settings.

Owns the rows of the error table that dispatch and the sessions answer with after hello; the connection stays open
unless a row has a close code. It must not know what a method does: a family's own errors stand in `nodes`,
`messages`, `pairing` and `tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.errorrows import FORBIDDEN, INVALID_REQUEST, UNAVAILABLE, ErrorRow

__all__ = ["ROWS"]

ROWS: Final[Mapping[str, ErrorRow]] = {
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
    "listener-ceiling": ErrorRow(
        FORBIDDEN,
        "not on this listener: {method}",
        "The listener that the connection came in through does not carry this method (gateway.listeners[].methods).",
        "connect through another listener: openclaw gateway status names them",
        detail="LISTENER_CEILING",
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
    "audit-unavailable": ErrorRow(
        UNAVAILABLE,
        "the audit trail cannot be written or read right now",
        "What was asked for was done, but its audit row is not on the disk yet; the gateway keeps trying to write it.",
        "openclaw doctor",
        detail="AUDIT_UNAVAILABLE",
        retryable=False,
    ),
    "unknown-connection": ErrorRow(
        INVALID_REQUEST,
        "unknown connection: {conn}",
        "No connection of that id was decided on since the start, or it is not among the last 512.",
        "openclaw audit --action connect",
        detail="UNKNOWN_CONNECTION",
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
    "config-invalid": ErrorRow(
        INVALID_REQUEST,
        "invalid config: {fault}",
        "The change would leave a configuration with new faults; nothing was written.",
        "openclaw config validate",
        detail="CONFIG_INVALID",
    ),
    "config-conflict": ErrorRow(
        INVALID_REQUEST,
        "config changed since last load; re-run config.get and retry",
        "The file is not the one that the change was made from; nothing was written.",
        "openclaw config get gateway",
        detail="CONFIG_CONFLICT",
        retryable=True,
    ),
    "config-path-unknown": ErrorRow(
        INVALID_REQUEST,
        "config schema path not found",
        "No setting that this gateway reads has that path; a file made for the whole of OpenClaw may hold others.",
        "openclaw config schema",
        detail="CONFIG_PATH_UNKNOWN",
    ),
    "config-nothing-pending": ErrorRow(
        INVALID_REQUEST,
        "no change of the configuration waits for a confirmation",
        "It was confirmed, taken back, or its time ran out; or it was set without --confirm.",
        "openclaw audit --action config.rolled-back",
        detail="CONFIG_NOTHING_PENDING",
    ),
    "config-not-in-use": ErrorRow(
        UNAVAILABLE,
        "the change is not in use yet, so nothing is known about it",
        "The gateway looks at its file once a second; a change that it cannot use is in its log.",
        "openclaw config confirm (again, in a moment), or: openclaw logs",
        detail="CONFIG_NOT_IN_USE",
        retryable=True,
        retry_after_ms=1000,
    ),
    "config-old-connection": ErrorRow(
        INVALID_REQUEST,
        "confirm over a WebSocket connection that was made after the change",
        "A connection from before says nothing about whether anybody can get in now.",
        "openclaw config confirm",
        detail="CONFIG_OLD_CONNECTION",
    ),
    "no-config-file": ErrorRow(
        UNAVAILABLE,
        "this gateway was not started from a configuration file",
        "An embedding program passed its configuration directly.",
        "load it with openclaw_gateway.load_config and pass loaded= to open_gateway",
        detail="NO_CONFIG_FILE",
        retryable=False,
    ),
}
