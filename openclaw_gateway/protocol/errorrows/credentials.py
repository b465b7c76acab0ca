"""Errors of authentication: why a token, password, device token, API key, identity or setup code did not do.

Owns the ``auth-`` rows; each is followed by a close with the policy code. OpenClaw's clients match on their texts and
detail codes (spec wire.md section 5), so a row of ours that they have no word for takes the code of the nearest one
that they have. Invariant: no row says how near a wrong secret was.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.errorrows import INVALID_REQUEST, ErrorRow

__all__ = ["ROWS"]

ROWS: Final[Mapping[str, ErrorRow]] = {
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
}
