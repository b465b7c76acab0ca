"""Errors of pairing: devices, setup codes, direct-message senders, and a connect that needs an approval first.

Owns the rows about what a person approved, has to approve, or cannot approve. It must not know how a credential was
checked (`credentials`). Invariant: every row that a person can mend names the command that lists or approves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.errorrows import FORBIDDEN, INVALID_REQUEST, NOT_PAIRED, UNAVAILABLE, ErrorRow

__all__ = ["ROWS"]

ROWS: Final[Mapping[str, ErrorRow]] = {
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
