"""What an admission can come to, and how a refusal reads.

Owns the three verdicts and the wording of refusals: which error row, which hint for which reader, which HTTP status. It
must not decide anything: `policy.admission` does. Invariants: nothing in a verdict was a credential; every refusal
names the next command under ``details.remediationHint`` (AUTH-2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.policy.lockout import CredentialClass
from openclaw_gateway.protocol.close import Close, CloseCode
from openclaw_gateway.protocol.connect import CONTROL_UI_ID, ConnectParams
from openclaw_gateway.protocol.errors import ERRORS, WireError, wire_error
from openclaw_gateway.value import Value

__all__ = [
    "Admitted",
    "AuthMethod",
    "PairingNeeded",
    "PairingReason",
    "Refused",
    "SetupRedemption",
    "pairing_refusal",
    "reader_hint",
    "refuse",
    "setup_code_refusal",
]

AuthMethod = Literal[
    "token", "password", "device-token", "api-key", "bootstrap-token", "none", "trusted-proxy", "tailscale"
]
PairingReason = Literal["not-paired", "scope-upgrade", "role-upgrade"]

_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
_STATUS: Final = {
    "auth-api-key-needs-encryption": _FORBIDDEN,
    "certificate-device-mismatch": _FORBIDDEN,
    "auth-api-key-role": _FORBIDDEN,
    "auth-rate-limited": 429,
    "device-identity-required": _FORBIDDEN,
    "gateway-starting": 503,
    "invalid-role": 400,
    "origin-not-allowed": _FORBIDDEN,
    "pairing-unreadable": 503,
    "protocol-mismatch": 400,
}
# Who reads the message decides what helps; what the client says it is changes no more than that.
_HINTS: Final[Mapping[tuple[str, str], str]] = {
    ("token", "command line"): "use this gateway's gateway.auth.token or pair the device",
    ("token", "browser"): "open the dashboard URL and paste the token in Control UI settings",
    ("token", "node"): "provide gateway auth token",
    ("password", "command line"): "use this gateway's gateway.auth.password or pair the device",
    ("password", "browser"): "enter the password in Control UI settings",
    ("password", "node"): "provide gateway auth password",
}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SetupRedemption(Value):
    """A setup code to spend. ``handed``: the scopes of the operator's token that a phone takes along; (): none."""

    setup_id: str
    handed: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Admitted(Value):
    """Let in. With ``pair_silently`` the shell first records the pairing (device, role, ``scopes``), durable before
    hello.

    ``upgrade_scopes``: asked for but not granted; the shell registers a pending scope-upgrade and lets the client in
    all the same. Empty: nothing to register.
    """

    role: str
    scopes: tuple[str, ...]
    method: AuthMethod
    protocol: int
    device_id: str | None
    pair_silently: bool
    trail: tuple[str, ...]
    upgrade_scopes: tuple[str, ...] = ()
    setup: SetupRedemption | None = None  # the shell first spends this setup code, durable before hello
    user: str | None = None  # whom a proxy or the tailnet vouches for
    session_scopes: tuple[str, ...] = ()  # those of ``scopes`` that rest on the vouching alone, not on an approval


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PairingNeeded(Value):
    """Authenticated, but not approved: the shell registers the request (durable), then answers `pairing_refusal`."""

    reason: PairingReason
    device_id: str
    role: str
    scopes: tuple[str, ...]  # asked for, known ones only; () for nodes
    approved_roles: tuple[str, ...]
    approved_scopes: tuple[str, ...]
    keep_trying: bool  # the client may keep asking until it is approved
    trail: tuple[str, ...]
    setup_id: str | None = None  # the shell first binds this setup code to the device


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Refused(Value):
    """Turned away. Where ``counts`` is set, the shell counts one failure of that class and waits its delay first."""

    error: WireError
    close: Close
    http_status: int
    counts: CredentialClass | None
    trail: tuple[str, ...]

    @property
    def counts_as_failure(self) -> bool:
        return self.counts is not None


def reader_hint(credential: Literal["token", "password"], params: ConnectParams) -> str:
    """The words in parentheses of an authentication error, for the person who will read them."""
    reader = "node" if params.role == "node" else "command line"
    if params.client.id == CONTROL_UI_ID:
        reader = "browser"
    return _HINTS[credential, reader]


def refuse(
    key: str,
    trail: tuple[str, ...],
    *,
    details: Mapping[str, Any] | None = None,
    counts: CredentialClass | None = None,
    retry_after: float | None = None,
    http_status: int | None = None,
    **blanks: Any,
) -> Refused:
    """The refusal of one error row. ``retry_after`` is in seconds; the close reason is the message, clipped."""
    row = ERRORS[key]
    error = wire_error(key, details={"remediationHint": row.fix, **(details or {})}, **blanks)
    if retry_after is not None:
        error = attrs.evolve(error, retry_after_ms=round(retry_after * 1000))
    return Refused(
        error=error,
        close=Close(row.close if row.close is not None else CloseCode.POLICY, error.message),
        http_status=http_status if http_status is not None else _STATUS.get(key, _UNAUTHORIZED),
        counts=counts,
        trail=(*trail, f"refused: {key}"),
    )


def setup_code_refusal(trail: tuple[str, ...]) -> Refused:
    """For whoever presented a living setup code and was not the first to redeem it. Reads like a code that never was,
    and counts like one."""
    details = {
        "authReason": "bootstrap_token_invalid",
        "canRetryWithDeviceToken": False,
        "recommendedNextStep": "review_auth_configuration",
    }
    trail = (*trail, "somebody else was first")
    return refuse("auth-setup-code-invalid", trail, details=details, counts=CredentialClass.SETUP_CODE)


def pairing_refusal(needed: PairingNeeded, request_id: str) -> Refused:
    """The answer to a `PairingNeeded` whose request is durable under ``request_id``."""
    details: dict[str, Any] = {
        "reason": needed.reason,
        "requestId": request_id,
        "remediationHint": f"openclaw devices approve {request_id}",
        "deviceId": needed.device_id,
        "requestedRole": needed.role,
    }
    if needed.scopes:
        details["requestedScopes"] = list(needed.scopes)
    if needed.reason != "not-paired":
        details["approvedRoles"] = list(needed.approved_roles)
        details["approvedScopes"] = list(needed.approved_scopes)
    if needed.keep_trying:
        details.update(recommendedNextStep="wait_then_retry", retryable=True, pauseReconnect=False)
    refused = refuse(f"pairing-{needed.reason}", needed.trail, details=details, http_status=_FORBIDDEN)
    reason = f"{refused.error.message} (requestId: {request_id})"
    return attrs.evolve(refused, close=Close(refused.close.code, reason))
