"""Errors of the handshake before any credential counts: order, protocol, role, origin, device proof, secure channel.

Owns the rows that answer a ``connect`` that gets no further; each is followed by a close, so each has a close code. The
texts and detail codes are those that OpenClaw's clients match on (spec wire.md section 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.errorrows import INVALID_REQUEST, NOT_PAIRED, UNAVAILABLE, ErrorRow

__all__ = ["ROWS"]

ROWS: Final[Mapping[str, ErrorRow]] = {
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
    "certificate-device-mismatch": ErrorRow(
        INVALID_REQUEST,
        "unauthorized: the client certificate belongs to another device",
        "TLS was opened with a certificate that was issued to another device than the one that signs the connect.",
        "openclaw devices cert <device> (a certificate for the device itself)",
        detail="CLIENT_CERTIFICATE_MISMATCH",
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
}
