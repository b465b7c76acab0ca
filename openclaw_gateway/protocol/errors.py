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

__all__ = ["ERRORS", "ErrorRow", "WireError", "hinted", "wire_error"]

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
        "The command was sent and the node did not carry it out, did not answer in time, or was lost; "
        "details.nodeError says which.",
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
    "no-handler": ErrorRow(
        UNAVAILABLE,
        "no handler is registered for {method}: an embedding program registers one with "
        'gateway.rpc.method("{method}", scope="operator.write")(handler)',
        "The method is known, but nothing on this gateway carries it out.",
        "docs/embedding.md shows how to register a handler",
        detail="NO_HANDLER",
        retryable=False,
    ),
    "sender-code-unknown": ErrorRow(
        INVALID_REQUEST,
        "no pairing request on {channel} waits under that code",
        "The code is wrong, was used, or its time is over. Ten wrong ones end what waits on the account.",
        "openclaw pairing list",
        detail="PAIRING_CODE_UNKNOWN",
    ),
    "sender-codes-expired": ErrorRow(
        INVALID_REQUEST,
        "no pairing request on {channel} waits under that code; {count} that waited ended: too many wrong codes",
        "Ten wrong codes end every request that waits on the account; the senders get new codes when they write again.",
        "let the sender write again, then: openclaw pairing list",
        detail="PAIRING_CODES_EXPIRED",
    ),
    "sender-request-unknown": ErrorRow(
        INVALID_REQUEST,
        "unknown requestId: no sender on {channel} waits under it",
        "The request was decided, expired, or belongs to another channel or account.",
        "openclaw pairing list",
        detail="UNKNOWN_REQUEST_ID",
    ),
    "sender-id-invalid": ErrorRow(
        INVALID_REQUEST,
        "{sender} is not an id of {channel}",
        "Only ids that never change hands are taken: a name is none.",
        "openclaw pairing list",
        detail="SENDER_ID_INVALID",
    ),
    "sender-limit": ErrorRow(
        UNAVAILABLE,
        "{limit} senders are remembered already",
        "There is no room for another sender; nothing was changed.",
        "openclaw pairing policy <channel> <sender> clear",
        detail="SENDER_LIMIT",
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
    "unknown-request": ErrorRow(
        INVALID_REQUEST,
        "unknown requestId{became}",
        "No request of that id waits: it was answered, took another id, or its five minutes are over.",
        "openclaw devices list (a device that still wants in asks again when it tries to connect)",
        detail="UNKNOWN_REQUEST",
    ),
    "ask-changed": ErrorRow(
        INVALID_REQUEST,
        "device pairing approval denied: the request does not ask for what was listed",
        "The askHash that was sent is not the one of what waits under this id.",
        "openclaw devices list, then approve what is listed now",
        detail="ASK_CHANGED",
    ),
    "approval-denied": ErrorRow(
        FORBIDDEN,
        "device pairing approval denied: approving this needs {scopes}",
        "Nobody approves more than he holds; the role node always needs operator.admin.",
        "openclaw devices approve <requestId> (on the gateway's host, with its token)",
        detail="APPROVAL_DENIED",
    ),
    "approval-impossible": ErrorRow(
        INVALID_REQUEST,
        "device pairing approval denied: {reason}",
        "As many devices are paired as the gateway keeps, or another key is known under this device's id.",
        "openclaw devices remove <deviceId>",
        detail="APPROVAL_IMPOSSIBLE",
    ),
    "unknown-device": ErrorRow(
        INVALID_REQUEST,
        "unknown deviceId",
        "No such device is paired; a connection that holds only a device's own token knows no other device.",
        "openclaw devices list",
        detail="UNKNOWN_DEVICE",
    ),
    "token-change-denied": ErrorRow(
        FORBIDDEN,
        "device token {action} denied: {reason}",
        "The token has no live approval in that role, or more was asked than the device or the caller holds.",
        "openclaw devices list (shows roles and scopes); more than was approved needs a new approval",
        detail="TOKEN_CHANGE_DENIED",
    ),
    "setup-code-unreachable": ErrorRow(
        INVALID_REQUEST,
        "{reason}",
        "A setup code was asked for, but it would name no address that another device can use.",
        "openclaw config set gateway.publicUrl wss://<host>, or openclaw config set gateway.bind lan",
        detail="SETUP_CODE_UNREACHABLE",
    ),
    "setup-codes-full": ErrorRow(
        UNAVAILABLE,
        "{limit} setup codes are waiting to be used already",
        "As many setup codes live as may; each ends by itself within ten minutes.",
        "use one of those that were made, or wait for the time given",
        detail="SETUP_CODES_FULL",
        retryable=True,
    ),
    # --- tokens ---
    "refresh-disabled": ErrorRow(
        INVALID_REQUEST,
        "this gateway hands out no refresh tokens",
        "gateway.auth.expiresIn is not set (tokens live until they are revoked), or gateway.auth.refresh.enabled is "
        "off.",
        "openclaw config set gateway.auth.expiresIn 24h",
        detail="REFRESH_DISABLED",
        retryable=False,
    ),
    "refresh-not-a-device": ErrorRow(
        INVALID_REQUEST,
        "auth.refresh is for the connection of a paired device",
        "The caller has no device identity on this connection, so no refresh token can be its own.",
        "POST /auth/refresh with the refresh token",
        detail="REFRESH_NOT_A_DEVICE",
        retryable=False,
    ),
    "refresh-token-malformed": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: this is no refresh token (one is ocr_ and 64 characters)",
        "What was sent cannot be a refresh token of this gateway.",
        "send hello-ok.auth.refreshToken as it came",
        detail="REFRESH_TOKEN_INVALID",
        retryable=False,
    ),
    "refresh-token-is-setup-code": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: this is a setup code, not a refresh token",
        "A setup code was given where the refresh token belongs.",
        "send hello-ok.auth.refreshToken as it came; a setup code is redeemed by the app or node that reads it",
        detail="REFRESH_TOKEN_INVALID",
        retryable=False,
    ),
    "refresh-token-wrong": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: refresh token mismatch",
        "The refresh token is none of this gateway's, or another device's.",
        "connect once with the gateway's token: the answer carries a usable device token and refresh token",
        detail="REFRESH_TOKEN_INVALID",
        retryable=False,
    ),
    "refresh-token-revoked": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: refresh token revoked",
        "The device's token was rotated, revoked or replaced since, and its refresh tokens ended with it.",
        "connect once with the gateway's token; if the device was revoked: openclaw devices approve <requestId>",
        detail="REFRESH_TOKEN_REVOKED",
        retryable=False,
    ),
    "refresh-token-expired": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: refresh token expired",
        "The refresh token was not used for seven times gateway.auth.expiresIn.",
        "connect once with the gateway's token: the answer carries a usable device token and refresh token",
        detail="REFRESH_TOKEN_EXPIRED",
        retryable=False,
    ),
    "refresh-token-reused": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: refresh token was used before; all tokens that came from it are revoked",
        "A spent refresh token came back: two parties hold it. The device's token and connections ended; its pairing "
        "stays.",
        "connect once with the gateway's token, and find out who else has the device's tokens",
        detail="REFRESH_TOKEN_REUSED",
        retryable=False,
    ),
    "refresh-token-used-up": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: refresh token was renewed as often as it may be",
        "gateway.auth.refresh.maxUses is reached; the device token in hand works until it expires.",
        "connect once with the gateway's token, or: openclaw config set gateway.auth.refresh.maxUses <number>",
        detail="REFRESH_TOKEN_USED_UP",
        retryable=False,
    ),
    "api-key-name-taken": ErrorRow(
        INVALID_REQUEST,
        "an API key of that name exists",
        "Names of keys that were not revoked are unique, expired keys included.",
        "openclaw tokens revoke <name>, or choose another name",
        detail="API_KEY_NAME_TAKEN",
    ),
    "certificate-device-mismatch": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: the client certificate belongs to another device",
        "TLS was opened with a certificate that was issued to another device than the one that signs the connect.",
        "openclaw devices cert <device> (a certificate for the device itself)",
        detail="CLIENT_CERTIFICATE_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "certificate-whose": ErrorRow(
        INVALID_REQUEST,
        "whose certificate? name the device",
        "The connection has no device of its own, and the request names none.",
        "openclaw devices list, then: openclaw devices cert <device>",
        detail="CERTIFICATE_WHOSE",
    ),
    "certificate-unknown-device": ErrorRow(
        INVALID_REQUEST,
        "no paired device {device}",
        "Only a paired device gets a client certificate.",
        "openclaw devices list",
        detail="CERTIFICATE_UNKNOWN_DEVICE",
    ),
    "certificate-request-refused": ErrorRow(
        INVALID_REQUEST,
        "certificate request refused: {fault}",
        "The request (PKCS #10, in PEM) cannot be signed.",
        "openclaw devices cert <device> (it makes key and request itself)",
        detail="CERTIFICATE_REQUEST_REFUSED",
    ),
    "api-key-limit": ErrorRow(
        INVALID_REQUEST,
        "there are {limit} API keys already",
        "The gateway keeps no more keys than that.",
        "openclaw tokens list, then: openclaw tokens revoke <name>",
        detail="API_KEY_LIMIT",
    ),
    "api-key-unknown": ErrorRow(
        INVALID_REQUEST,
        "no live API key of that name or id",
        "It never existed, or was revoked already.",
        "openclaw tokens list",
        detail="API_KEY_UNKNOWN",
    ),
    "api-key-makes-no-keys": ErrorRow(
        FORBIDDEN,
        "an API key cannot make API keys",
        "What a key made would outlive its revocation.",
        "openclaw tokens create <name> (on the gateway's host)",
        detail="API_KEY_MAKES_NO_KEYS",
    ),
    "agent-unknown": ErrorRow(
        INVALID_REQUEST,
        "there is no agent {agent}",
        "No agent of that id is configured or registered.",
        "openclaw config get agents.list",
        detail="AGENT_UNKNOWN",
    ),
    "session-limit": ErrorRow(
        UNAVAILABLE,
        "there are {limit} sessions already",
        "The gateway keeps no more conversations than that.",
        "openclaw gateway call sessions.list, then sessions.delete for those that are not needed",
        detail="SESSION_LIMIT",
    ),
    "queue-full": ErrorRow(
        UNAVAILABLE,
        "too many messages are waiting; try again later",
        "The queue has no room: nothing of this message was accepted.",
        "openclaw queue list",
        detail="QUEUE_FULL",
        retryable=True,
        retry_after_ms=5000,
    ),
    "channel-unknown": ErrorRow(
        INVALID_REQUEST,
        "unknown channel: {channel} (there are: {known})",
        "No such account is configured and enabled.",
        "openclaw channels list",
        detail="CHANNEL_UNKNOWN",
    ),
    "channel-refused": ErrorRow(
        UNAVAILABLE,
        "{channel} could not be logged out: {reason}",
        "The service was asked to forget this gateway and did not; the account goes on as before.",
        "openclaw channels status --probe",
        detail="CHANNEL_REFUSED",
        retryable=True,
        retry_after_ms=5000,
    ),
    "queue-message-unknown": ErrorRow(
        INVALID_REQUEST,
        "no message {id} that could be changed",
        "It is done or dropped already, or it is being worked on right now.",
        "openclaw queue list",
        detail="QUEUE_MESSAGE_UNKNOWN",
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
    "secure-channel-required": ErrorRow(
        INVALID_REQUEST,
        "secure channel required: this device used one before and now connects without",
        "The device has registered an end-to-end key, so somebody in between may have taken the gateway's offer away.",
        "find out what stands between the two; if the device gave it up on purpose: openclaw devices remove <deviceId>",
        detail="SECURE_CHANNEL_REQUIRED",
        close=CloseCode.POLICY,
    ),
    "secure-channel-mandatory": ErrorRow(
        INVALID_REQUEST,
        "secure channel required: this gateway takes no node without one",
        "gateway.nodes.secureChannel is required, and this node connected in the clear.",
        "openclaw config set gateway.nodes.secureChannel on   (or run the node with: openclaw node run)",
        detail="SECURE_CHANNEL_REQUIRED",
        close=CloseCode.POLICY,
    ),
    "secure-channel-device": ErrorRow(
        INVALID_REQUEST,
        "the secure channel was opened by another device",
        "The key statement in the channel's greeting and the connect in it name two devices, or two roles.",
        "connect with one identity; docs/reference/protocol.md describes the greeting",
        detail="SECURE_CHANNEL_DEVICE",
        close=CloseCode.POLICY,
    ),
    "secure-key-changed": ErrorRow(
        INVALID_REQUEST,
        "the end-to-end key of this device is not the one that it registered",
        "A paired device came with another X25519 key. It is not taken over by itself.",
        "if its key was replaced on purpose: openclaw devices remove <deviceId>, then approve it anew",
        detail="SECURE_KEY_CHANGED",
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
        "scan or paste the code in the phone's app, which redeems it; for the token: openclaw gateway auth-token "
        "--show",
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
        "unauthorized: device token mismatch (it was revoked; rotate/reissue device token)",
        "The device token was this device's once.",
        "connect once with the gateway's token, then openclaw devices approve <requestId>",
        detail="AUTH_DEVICE_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-device-token-expired": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: device token mismatch (it has expired; refresh it, or rotate/reissue device token)",
        "The device token is older than gateway.auth.expiresIn. The pairing is untouched.",
        "POST /auth/refresh with the refresh token, or connect once with the gateway's token: the answer carries a "
        "usable device token",
        detail="AUTH_DEVICE_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-api-key-wrong": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway token mismatch (no API key of this gateway is this one)",
        "What was sent has the shape of an API key, but is none of this gateway's.",
        "openclaw tokens list (on the gateway's host), then: openclaw tokens create <name>",
        detail="AUTH_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-api-key-malformed": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway token mismatch (an API key is ocg_ and 43 characters; this one is cut off or changed)",
        "What was sent begins like an API key but cannot be one.",
        "copy the key again as openclaw tokens create printed it; if it is lost: openclaw tokens create <name>",
        detail="AUTH_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-api-key-revoked": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway token mismatch (this API key was revoked)",
        "The API key was this gateway's once; somebody revoked it.",
        "openclaw tokens create <name> (on the gateway's host)",
        detail="AUTH_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-api-key-expired": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: gateway token mismatch (this API key has expired)",
        "The API key is past its own end, or past gateway.auth.expiresIn where it has none of its own.",
        "openclaw tokens revoke <name>, then: openclaw tokens create <name> --expires 30d (on the gateway's host)",
        detail="AUTH_TOKEN_MISMATCH",
        close=CloseCode.POLICY,
    ),
    "auth-proxy-identity-missing": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: trusted proxy authentication required ({reason})",
        "gateway.auth.type is trusted-proxy, the proxy is trusted, and it named nobody: a header is missing, came "
        "twice, or X-Forwarded-For does not say who the client is.",
        "sign in at the proxy's own address; on the gateway's host: openclaw config get gateway.auth.trustedProxy",
        detail="AUTH_IDENTITY_HEADER_REQUIRED",
        close=CloseCode.POLICY,
    ),
    "auth-proxy-not-believed": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: trusted proxy authentication failed ({reason})",
        "gateway.auth.type is trusted-proxy, and what came is not from a proxy that is believed, or the user it names "
        "is not in allowUsers.",
        "openclaw config get gateway.trustedProxies (on the gateway's host), or present a token or a paired device",
        detail="AUTH_UNAUTHORIZED",
        close=CloseCode.POLICY,
    ),
    "auth-api-key-role": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: an API key is for operators (a node is always a paired device)",
        "The API key is good, but the connection asked for another role than operator.",
        "connect the node with the gateway's token or a setup code (openclaw qr)",
        detail="AUTH_UNAUTHORIZED",
        close=CloseCode.POLICY,
    ),
    "auth-api-key-needs-encryption": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: an API key is taken from elsewhere only over an encrypted connection",
        "The request came over plain HTTP from another host; whoever listens in could read the key.",
        "call it over https (a proxy listed in gateway.trustedProxies that sends X-Forwarded-Proto will do), or on the "
        "gateway's own host",
        detail="AUTH_UNAUTHORIZED",
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
    "auth-setup-code-too-narrow": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: setup code does not cover this role or these scopes (it stays good for what it was made for)",
        "The setup code is good, but was made for less than was asked for; it was not used up.",
        "openclaw qr (for a phone), or openclaw devices join-code (for a node), on the gateway's host",
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
    "pairing-changed": ErrorRow(
        UNAVAILABLE,
        "pairing changed while connecting; retry shortly",
        "Something was decided about this device while its connect was looked at.",
        "retry after the time given",
        detail="PAIRING_CHANGED",
        retryable=True,
        retry_after_ms=100,
        close=CloseCode.TRY_AGAIN_LATER,
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


def hinted(error: WireError) -> WireError:
    """The same error with ``details.remediationHint``: the one that it has, else the fix of its row (one with blanks is
    none)."""
    details = error.details or {}
    if error.key is None or "remediationHint" in details or "{" in ERRORS[error.key].fix:
        return error
    return attrs.evolve(error, details={**details, "remediationHint": ERRORS[error.key].fix})
