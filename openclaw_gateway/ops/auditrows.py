"""What may be recorded: the actions, the fields each may carry, and a row of them.

Owns these lists and the making of a row from what somebody has to say. Pure: no files, no clock. It must not know who
records what, nor how rows are chained (`ops.auditchain`).

Invariants: a field that is not on the list of its action is dropped and counted, never written; a value is one line and
capped (`ops.log.clean_value`); raw headers, query strings, parameters and credentials have no field.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from openclaw_gateway.ops.log import clean_value

__all__ = ["ACTIONS", "FIELDS", "Action", "compose"]


class Action(enum.StrEnum):
    """What can be recorded. The value is what stands in the file and what ``openclaw audit --action`` takes."""

    CONNECT = "connect"
    DISCONNECT = "disconnect"
    PAIRING_REQUESTED = "pairing.requested"
    PAIRING_APPROVED = "pairing.approved"
    PAIRING_REJECTED = "pairing.rejected"
    PAIRING_SUPERSEDED = "pairing.superseded"
    PAIRING_EXPIRED = "pairing.expired"
    PAIRING_REMOVED = "pairing.removed"
    PAIRING_RENAMED = "pairing.renamed"
    TOKEN_MINTED = "token.minted"  # noqa: S105 - a name
    TOKEN_ROTATED = "token.rotated"  # noqa: S105 - a name
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - a name
    API_KEY_CREATED = "apikey.created"
    API_KEY_REVOKED = "apikey.revoked"
    CHANNEL_STARTED = "channel.started"
    CHANNEL_STOPPED = "channel.stopped"
    CHANNEL_LOGGED_OUT = "channel.logged-out"
    QUEUE_RETRIED = "queue.retried"
    QUEUE_DROPPED = "queue.dropped"
    QUEUE_DISCARDED = "queue.discarded"
    SETUP_CODE_CREATED = "setup-code.created"
    SETUP_CODE_REDEEMED = "setup-code.redeemed"
    SETUP_CODE_REVOKED = "setup-code.revoked"
    KEY_REGISTERED = "key.registered"
    CHANNEL_REFUSED = "channel.refused"
    CERTIFICATE_ISSUED = "certificate.issued"
    CERTIFICATE_REVOKED = "certificate.revoked"
    CONFIG_CHANGED = "config.changed"
    CONFIG_PENDING = "config.pending"
    CONFIG_CONFIRMED = "config.confirmed"
    CONFIG_ROLLED_BACK = "config.rolled-back"
    EXPOSURE_CHANGED = "exposure.changed"
    GATEWAY_STARTED = "gateway.started"
    GATEWAY_STOPPED = "gateway.stopped"
    AUDIT_ROTATED = "audit.rotated"
    AUDIT_DROPPED = "audit.dropped"
    AUDIT_RECOVERED = "audit.recovered"


# name -> meaning, in the order in which a line holds them
FIELDS: Final[Mapping[str, str]] = {
    "seq": "number of the row, from 1, without gaps",
    "time": "when it happened, UTC",
    "action": "what happened",
    "outcome": "ok, refused or failed",
    "actor": "who did it: a principal (device:<id>:<role>, token:operator), owner (command line), gateway",
    "role": "operator or node",
    "device": "device id (SHA-256 of its public key) that the row is about",
    "address": "network address it came from",
    "client": "client id that the peer states (a claim)",
    "conn_id": "connection id",
    "request_id": "id of a pairing request",
    "code": "machine code of the refusal",
    "reason": "why, in a few words",
    "trail": "the steps that led to the verdict",
    "auth": "how the peer authenticated: token, password, device-token, none; or the gateway's own kind",
    "auth_before": "the kind of authentication until now",
    "bind": "where the gateway listens",
    "bind_before": "where it listened until now",
    "account": "account of a message channel",
    "channel": "message channel",
    "close_code": "WebSocket close code",
    "commands": "node commands that were granted or asked for",
    "count": "how many",
    "dropped": "how many rows could not be kept",
    "duration_ms": "how long the connection lasted, milliseconds",
    "expires_at": "end of life, Unix milliseconds",
    "fingerprint": "of a device's end-to-end key: the first half of its SHA-256",
    "fields_dropped": "how many fields of this row are not on the list of its action",
    "first_seq": "the oldest row that is kept from here on",
    "hash_after": "first 12 digits of the configuration's hash",
    "keys": "configuration paths that changed (never their values)",
    "key_id": "id of an API key or of a setup code",
    "label": "name that an operator gave",
    "missing_from": "first row that is missing",
    "missing_to": "last row that is missing",
    "pid": "process id",
    "port": "TCP port",
    "repeated": "how many rows like this one it stands for",
    "scopes": "scopes that were granted or asked for",
    "sender": "immutable id of a person on a message channel",
    "source": "where a change came from: file, call",
    "superseded_by": "the request that took this one's place",
    "tailscale": "tailscale mode",
    "torn_bytes": "bytes of a row that a crash left half-written",
    "transport": "websocket, http, or secure (a secure channel inside a WebSocket)",
    "version": "version of the gateway",
}
_RESERVED: Final = frozenset({"seq", "time", "action"})
_COMMON: Final = frozenset(
    {"outcome", "actor", "role", "device", "address", "client", "conn_id", "request_id", "code", "reason", "trail"}
)
_PAIRING: Final = frozenset({"scopes", "commands", "channel", "sender", "label", "superseded_by"})
_TOKEN: Final = frozenset({"scopes", "expires_at", "key_id", "label"})

# action -> the fields it may carry besides the common ones
ACTIONS: Final[Mapping[Action, frozenset[str]]] = {
    Action.CONNECT: frozenset({"auth", "scopes", "transport", "repeated"}),
    Action.DISCONNECT: frozenset({"close_code", "duration_ms", "repeated"}),
    Action.PAIRING_REQUESTED: _PAIRING,
    Action.PAIRING_APPROVED: _PAIRING,
    Action.PAIRING_REJECTED: _PAIRING,
    Action.PAIRING_SUPERSEDED: _PAIRING,
    Action.PAIRING_EXPIRED: _PAIRING,
    Action.PAIRING_REMOVED: _PAIRING,
    Action.PAIRING_RENAMED: _PAIRING,
    Action.TOKEN_MINTED: _TOKEN,
    Action.TOKEN_ROTATED: _TOKEN,
    Action.TOKEN_REVOKED: _TOKEN,
    Action.API_KEY_CREATED: _TOKEN,
    Action.API_KEY_REVOKED: _TOKEN,
    Action.CHANNEL_STARTED: frozenset({"channel", "account"}),
    Action.CHANNEL_STOPPED: frozenset({"channel", "account"}),
    Action.CHANNEL_LOGGED_OUT: frozenset({"channel", "account"}),
    Action.QUEUE_RETRIED: frozenset({"count"}),
    Action.QUEUE_DROPPED: frozenset({"count"}),
    Action.QUEUE_DISCARDED: frozenset({"count"}),
    Action.SETUP_CODE_CREATED: _TOKEN,
    Action.SETUP_CODE_REDEEMED: _TOKEN,
    Action.SETUP_CODE_REVOKED: _TOKEN,
    Action.KEY_REGISTERED: frozenset({"fingerprint"}),
    Action.CHANNEL_REFUSED: frozenset({"close_code", "repeated"}),
    Action.CERTIFICATE_ISSUED: _TOKEN,
    Action.CERTIFICATE_REVOKED: _TOKEN,
    Action.CONFIG_CHANGED: frozenset({"keys", "hash_after", "source"}),
    Action.CONFIG_PENDING: frozenset({"keys", "hash_after", "expires_at"}),
    Action.CONFIG_CONFIRMED: frozenset({"keys", "hash_after"}),
    Action.CONFIG_ROLLED_BACK: frozenset({"keys"}),
    Action.EXPOSURE_CHANGED: frozenset({"bind", "bind_before", "port", "auth", "auth_before", "tailscale", "keys"}),
    Action.GATEWAY_STARTED: frozenset({"bind", "port", "auth", "tailscale", "pid", "version"}),
    Action.GATEWAY_STOPPED: frozenset({"pid"}),
    Action.AUDIT_ROTATED: frozenset({"first_seq"}),
    Action.AUDIT_DROPPED: frozenset({"dropped"}),
    Action.AUDIT_RECOVERED: frozenset({"missing_from", "missing_to", "torn_bytes"}),
}
_ALLOWED: Final[Mapping[Action, tuple[str, ...]]] = {
    action: tuple(name for name in FIELDS if name not in _RESERVED and name in (_COMMON | more))
    for action, more in ACTIONS.items()
}


def compose(action: Action, time: str, fields: Mapping[str, object]) -> dict[str, object]:
    """A row ready to be sealed: allowed fields only, cleaned, in their order. Never raises for a strange value."""
    row: dict[str, object] = {"time": time, "action": action.value}
    taken = 0
    for name in _ALLOWED[action]:
        value = fields.get(name)
        if value is None:
            taken += name in fields
            continue
        taken += 1
        try:
            row[name] = clean_value(value)
        except Exception:  # noqa: BLE001  a broken __str__ must not take down what it describes
            row[name] = "<unprintable>"
    if taken < len(fields):
        row["fields_dropped"] = len(fields) - taken
    return row
