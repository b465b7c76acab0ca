"""Errors of what is handed out and presented later: refresh tokens, API keys, client certificates.

Owns the rows of issuing, listing, refreshing and ending them. How a token or key fares in a connect stands in
`credentials`. Invariant: no row tells more about a secret than its shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openclaw_gateway.protocol.errorrows import FORBIDDEN, INVALID_REQUEST, ErrorRow

__all__ = ["ROWS"]

ROWS: Final[Mapping[str, ErrorRow]] = {
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
}
