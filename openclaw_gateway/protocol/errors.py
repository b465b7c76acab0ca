"""The error table: every error a peer can be answered with, as data.

Owns the codes, the detail codes, the texts, whether a retry can help, the close code that follows (if any) and the
command that a person runs next. It must not know who asks: filling in the blanks is the caller's part. The texts and
codes are the ones that OpenClaw's clients match on (spec wire.md section 5); the hints are ours.

Invariants: an error leaves the gateway only as a `WireError`; a `WireError` never carries a secret; each row of
`ERRORS` has a heading in docs/reference/errors.md (a test compares).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.value import Value

__all__ = ["ERRORS", "ErrorRow", "WireError", "wire_error"]

# The `code` of an error reply (OpenClaw's wire knows no others that its clients act on).
INVALID_REQUEST: Final = "INVALID_REQUEST"
NOT_PAIRED: Final = "NOT_PAIRED"
FORBIDDEN: Final = "FORBIDDEN"
UNAVAILABLE: Final = "UNAVAILABLE"


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


ERRORS: dict[str, ErrorRow] = {
    # --- after hello: the connection stays open ---
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
    "unknown-node": ErrorRow(
        INVALID_REQUEST,
        "unknown node: {node}",
        "No node of that id is paired or connected.",
        "openclaw nodes status",
        detail="UNKNOWN_NODE",
    ),
    "node-not-connected": ErrorRow(
        UNAVAILABLE,
        "node not connected",
        "The node is paired, but has no connection now; nothing was sent.",
        "openclaw nodes status",
        detail="NOT_CONNECTED",
    ),
    "node-pairing-changed": ErrorRow(
        UNAVAILABLE,
        "node is not paired, or its commands are not approved",
        "Nothing is known to be allowed on a node of that id at this moment; nothing was sent.",
        "openclaw nodes pending, then: openclaw nodes approve <requestId>",
        detail="PAIRING_CHANGED",
        retryable=True,
    ),
    "node-command-refused": ErrorRow(
        INVALID_REQUEST,
        "node command not allowed: {command}",
        "The node does not declare the command, nobody approved it, or gateway.nodes.commands does not allow it.",
        "openclaw nodes describe --node <id> lists what it may be asked",
    ),
    "node-reserved-field": ErrorRow(
        INVALID_REQUEST,
        "params of {command} hold a field that only the gateway may set: {field}",
        "Approvals and run ids come from the gateway's own state, never from a caller.",
        "leave the field out",
        detail="RESERVED_FIELD",
    ),
    "node-failed": ErrorRow(
        UNAVAILABLE,
        "{node_code}: {node_message}",
        "The command was sent and the node did not carry it out, did not answer in time, or was lost; details.nodeError "
        "says which.",
        "openclaw logs --follow (here), and the node's own log",
    ),
    "node-busy": ErrorRow(
        UNAVAILABLE,
        "node has {limit} commands in flight",
        "As many invokes of this node, or of all nodes, are open as may be.",
        "wait for answers before sending more",
        detail="NODE_BUSY",
        retryable=True,
        retry_after_ms=250,
    ),
    "unknown-surface-request": ErrorRow(
        INVALID_REQUEST,
        "unknown requestId",
        "No node's request of that id waits: it was answered, or the node asked for something else since.",
        "openclaw nodes pending",
        detail="UNKNOWN_REQUEST",
    ),
    "node-queue-full": ErrorRow(
        UNAVAILABLE,
        "{limit} items wait for this node already",
        "As much work waits for the node, or for all nodes, as is kept.",
        "connect the node, or wait until items expire",
        detail="NODE_QUEUE_FULL",
        retryable=True,
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
    "no-config-file": ErrorRow(
        UNAVAILABLE,
        "this gateway was not started from a configuration file",
        "An embedding program passed its configuration directly.",
        "load it with openclaw_gateway.load_config and pass loaded= to open_gateway",
        detail="NO_CONFIG_FILE",
        retryable=False,
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
    # --- during the handshake: the answer is followed by a close ---
    "first-not-connect": ErrorRow(
        INVALID_REQUEST,
        "invalid handshake: first request must be connect",
        "A request came before the handshake was done.",
        "send connect first, and wait for hello-ok",
        close=CloseCode.POLICY,
    ),
    "invalid-connect-params": ErrorRow(
        INVALID_REQUEST,
        "invalid connect params: {fault}",
        "The parameters of connect do not have the shape that the protocol gives them.",
        "docs/reference/protocol.md describes connect; update the client if it is an older one",
        close=CloseCode.POLICY,
    ),
    "gateway-starting": ErrorRow(
        UNAVAILABLE,
        "gateway starting; retry shortly",
        "The gateway is up, but not ready for connections yet.",
        "retry after the time given",
        retryable=True,
        retry_after_ms=500,
        close=CloseCode.TRY_AGAIN_LATER,
    ),
    "connection-limit": ErrorRow(
        UNAVAILABLE,
        "connection limit",
        "As many clients are connected as the gateway takes.",
        "openclaw config set gateway.transports.websocket.concurrentConnections <number>",
        detail="CONNECTION_LIMIT",
        retryable=True,
        retry_after_ms=1000,
        close=CloseCode.TRY_AGAIN_LATER,
    ),
    "protocol-mismatch": ErrorRow(
        INVALID_REQUEST,
        "protocol mismatch",
        "The client and this gateway share no version of the protocol; the details name both ranges.",
        "update the client (or this gateway) until the ranges in the details meet",
        detail="PROTOCOL_MISMATCH",
        close=CloseCode.PROTOCOL_ERROR,
    ),
    "invalid-role": ErrorRow(
        INVALID_REQUEST,
        "invalid role",
        "The role is neither operator nor node.",
        "connect with role operator or node",
        close=CloseCode.POLICY,
    ),
    "origin-not-allowed": ErrorRow(
        INVALID_REQUEST,
        "origin not allowed ({hint})",
        "A web page asked that is not on the list of pages that may; no credential was looked at.",
        "openclaw config set gateway.controlUi.allowedOrigins '[\"https://the.page\"]'",
        detail="CONTROL_UI_ORIGIN_NOT_ALLOWED",
        close=CloseCode.POLICY,
    ),
    "device-identity-required": ErrorRow(
        NOT_PAIRED,
        "device identity required",
        "Only a holder of the gateway's secret on this very host may connect without a device identity.",
        "connect from the gateway's own host over 127.0.0.1, or with a device identity "
        "(any openclaw command against another host makes one)",
        detail="DEVICE_IDENTITY_REQUIRED",
        close=CloseCode.POLICY,
    ),
    "device-id-mismatch": ErrorRow(
        INVALID_REQUEST,
        "device identity mismatch",
        "The device id is not the SHA-256 of the public key, or the key is not an Ed25519 key.",
        "let the client make a new identity: remove its device identity file and pair again",
        detail="DEVICE_AUTH_DEVICE_ID_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "device-signature-stale": ErrorRow(
        INVALID_REQUEST,
        "device signature expired",
        "The time that was signed is too far from ours; the details give the difference and the limit.",
        "sign the ts of connect.challenge, or set the device's clock (timedatectl set-ntp true)",
        detail="DEVICE_AUTH_SIGNATURE_EXPIRED",
        close=CloseCode.POLICY,
    ),
    "device-nonce-missing": ErrorRow(
        INVALID_REQUEST,
        "device nonce required",
        "The device signed no nonce.",
        "wait for connect.challenge and sign its nonce; update the client if it cannot",
        detail="DEVICE_AUTH_NONCE_REQUIRED",
        close=CloseCode.POLICY,
    ),
    "device-nonce-mismatch": ErrorRow(
        INVALID_REQUEST,
        "device nonce mismatch",
        "The nonce is not the one of this connection's challenge.",
        "sign the nonce of this connection's connect.challenge",
        detail="DEVICE_AUTH_NONCE_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "device-signature": ErrorRow(
        INVALID_REQUEST,
        "device signature invalid",
        "The signature fits neither the v3 nor the v2 payload of this connect.",
        "docs/reference/protocol.md gives the payload to sign",
        detail="DEVICE_AUTH_SIGNATURE_INVALID",
        close=CloseCode.POLICY,
    ),
    "auth-token-missing": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway token missing ({hint})",
        "A device was there, but no credential.",
        "openclaw config set gateway.remote.token <the gateway's token> (on the client's host)",
        detail="AUTH_TOKEN_MISSING",
        close=CloseCode.POLICY,
    ),
    "auth-token-mismatch": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway token mismatch ({hint})",
        "The token is not this gateway's.",
        "openclaw gateway auth-token --show (on the gateway's host), then give the client that one",
        detail="AUTH_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-token-malformed": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway token mismatch (it holds white space, an unset ${{VARIABLE}} or the redaction marker)",
        "What was sent cannot be a token: it was pasted or expanded wrongly.",
        "copy the token again, without quotes, spaces and line ends",
        detail="AUTH_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-token-is-setup-code": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway token mismatch (this is a setup code, not the gateway's token)",
        "A setup code was given where the token belongs.",
        "openclaw connect <setup code>",
        detail="AUTH_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-token-unresolvable": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway token not configured on gateway",
        "The gateway's own secret cannot be resolved, so nothing can match it.",
        "openclaw config validate (on the gateway's host)",
        detail="AUTH_TOKEN_NOT_CONFIGURED",
        close=CloseCode.POLICY,
    ),
    "auth-password-missing": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway password missing ({hint})",
        "A device was there, but no password.",
        "openclaw config set gateway.remote.password <the password> (on the client's host)",
        detail="AUTH_PASSWORD_MISSING",
        close=CloseCode.POLICY,
    ),
    "auth-password-mismatch": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway password mismatch ({hint})",
        "The password is not this gateway's.",
        "give the client the password of gateway.auth.password",
        detail="AUTH_PASSWORD_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-password-expired": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway password expired (set a new one on the gateway's host)",
        "The password is right, but older than gateway.auth.policy.maxAge.",
        "openclaw config set gateway.auth.password <new password> (on the gateway's host)",
        detail="AUTH_PASSWORD_EXPIRED",
        close=CloseCode.POLICY,
    ),
    "auth-password-unresolvable": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway password not configured on gateway",
        "The gateway's own password cannot be resolved, so nothing can match it.",
        "openclaw config validate (on the gateway's host)",
        detail="AUTH_PASSWORD_NOT_CONFIGURED",
        close=CloseCode.POLICY,
    ),
    "auth-device-token-mismatch": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: device token mismatch (rotate/reissue device token)",
        "The device token is not the one that this device has for this role. Nothing was deleted.",
        "connect once with the gateway's token: the answer carries a usable device token",
        detail="AUTH_DEVICE_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-device-token-revoked": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: device token mismatch (it was revoked or has expired; rotate/reissue device token)",
        "The device token was this device's once.",
        "connect once with the gateway's token, then openclaw devices approve <requestId>",
        detail="AUTH_DEVICE_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-scope-mismatch": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: device token scope mismatch (re-pair or approve scope upgrade)",
        "The device token is good, but more was asked than is approved for it.",
        "ask for the scopes in details.approvedScopes, or connect with the gateway's token and approve the upgrade",
        detail="AUTH_SCOPE_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-setup-code-invalid": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: setup code invalid, expired, revoked, or already used (get a fresh one on the gateway's host)",
        "The setup code cannot be redeemed.",
        "openclaw qr (on the gateway's host)",
        detail="AUTH_BOOTSTRAP_TOKEN_INVALID",
        close=CloseCode.POLICY,
    ),
    "auth-rate-limited": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: too many failed authentication attempts (retry later)",
        "This client gave too many wrong secrets. A paired device with its own token is never held up.",
        "wait for the time given; retrying does not make it longer",
        detail="AUTH_RATE_LIMITED",
        retryable=True,
        close=CloseCode.POLICY,
    ),
    "pairing-not-paired": ErrorRow(
        NOT_PAIRED,
        "pairing required: device is not approved yet",
        "The device is unknown; a request is waiting for an operator.",
        "openclaw devices approve <requestId>",
        detail="PAIRING_REQUIRED",
        close=CloseCode.POLICY,
    ),
    "pairing-scope-upgrade": ErrorRow(
        NOT_PAIRED,
        "pairing required: device asks for more scopes than were approved",
        "The device is paired with fewer scopes; what it holds is unchanged and a request for more is waiting.",
        "openclaw devices approve <requestId>",
        detail="PAIRING_REQUIRED",
        close=CloseCode.POLICY,
    ),
    "pairing-role-upgrade": ErrorRow(
        NOT_PAIRED,
        "pairing required: device asks for a role that was not approved",
        "The device is known, but not in this role; a request is waiting.",
        "openclaw devices approve <requestId>",
        detail="PAIRING_REQUIRED",
        close=CloseCode.POLICY,
    ),
    "pairing-unreadable": ErrorRow(
        UNAVAILABLE,
        "pairing state cannot be read right now",
        "Whether the device is paired cannot be known, so it is not let in.",
        "openclaw doctor",
        detail="STORE_UNAVAILABLE",
        retryable=True,
        retry_after_ms=1000,
        close=CloseCode.TRY_AGAIN_LATER,
    ),
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
    return WireError(row.code, row.message.format(**blanks), merged, row.retryable, row.retry_after_ms, key)
