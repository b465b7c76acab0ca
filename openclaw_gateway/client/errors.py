"""What can go wrong for a client, as types with fields.

Owns the stages of a connection attempt, so that a caller can say how far it came (requirement OBS-1), and the one
command that mends each refusal (requirement AUTH-2). Pure data: knows no sockets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.errors import GatewayError

__all__ = ["CLIENT_CERTIFICATE", "STAGES", "CallTimedOut", "ClientClosed", "ConnectFailed", "Stage", "fix_for"]

Stage = Literal["address", "resolve", "tcp", "tls", "http", "websocket", "auth", "scope"]
STAGES: Final[tuple[Stage, ...]] = ("address", "resolve", "tcp", "tls", "http", "websocket", "auth", "scope")

# details.code of a refused connect -> the one command that mends it
_FIXES: Final[Mapping[str, str]] = {
    "AUTH_REQUIRED": "openclaw gateway status   (shows which secret this side has, and from where)",
    "AUTH_TOKEN_MISSING": "pass --token, or set OPENCLAW_GATEWAY_TOKEN",
    "AUTH_TOKEN_MISMATCH": "openclaw doctor   (compares the fingerprints of the secrets that each side has)",
    "AUTH_TOKEN_NOT_CONFIGURED": "openclaw config set gateway.auth.token <token>",
    "AUTH_TOKEN_MALFORMED": "openclaw doctor   (the token has characters that no token has)",
    "AUTH_LOOKS_LIKE_SETUP_CODE": (
        "that is a setup code, not a token: paste it in the phone's app; the token: openclaw gateway auth-token --show"
    ),
    "AUTH_PASSWORD_MISSING": "pass --password, or set OPENCLAW_GATEWAY_PASSWORD",
    "AUTH_PASSWORD_MISMATCH": "pass the gateway's password with --password",
    "AUTH_PASSWORD_EXPIRED": "openclaw config set gateway.auth.password <new password>   (on the gateway's host)",
    "AUTH_DEVICE_TOKEN_MISMATCH": "connect once with the gateway's token: pass --token",
    "AUTH_DEVICE_TOKEN_REVOKED": "connect once with --token, then: openclaw devices approve <requestId>",
    "AUTH_BOOTSTRAP_TOKEN_INVALID": "openclaw qr   (makes a fresh setup code on the gateway's host)",
    "AUTH_SCOPE_MISMATCH": "openclaw devices approve <requestId>   (on the gateway's host)",
    "AUTH_RATE_LIMITED": "wait for the time given, then use the right secret",
    "DEVICE_IDENTITY_REQUIRED": "pass --token, or set OPENCLAW_GATEWAY_TOKEN",
    "DEVICE_AUTH_SIGNATURE_EXPIRED": "set the clock of this host (timedatectl set-ntp true)",
    "PAIRING_REQUIRED": "openclaw devices approve {requestId}   (on the gateway's host)",
    "PROTOCOL_MISMATCH": "update the older side: the client and the gateway share no protocol version",
    "CONNECTION_LIMIT": "openclaw config set gateway.transports.websocket.concurrentConnections <number>",
    "MISSING_SCOPE": "openclaw devices approve <requestId>, or connect from the gateway's host",
}


def fix_for(details: Mapping[str, Any] | None, message: str = "") -> str | None:
    """The command that mends an error: what the gateway itself says, else this client's own table, else None.

    ``message`` tells apart what has no code of its own."""
    if message.startswith("unknown method:"):
        return "openclaw gateway call status   (one that there is; docs/reference/methods.md lists them all)"
    if message == "connection limit":  # gateways that give no hint
        details = {"code": "CONNECTION_LIMIT", **(details or {})}
    if not details:
        return None
    for key in ("remediationHint", "fix", "hint"):
        said = details.get(key)
        if isinstance(said, str) and said:
            return said
    known = _FIXES.get(str(details.get("code")))
    if known is None:
        return None
    return known.replace("{requestId}", str(details.get("requestId") or "<requestId>"))


# ``code`` of a connection that ended over our client certificate; no gateway says this: it is TLS that does.
CLIENT_CERTIFICATE: Final = "CLIENT_CERTIFICATE"


@attrs.define(eq=False, kw_only=True)
class ConnectFailed(GatewayError):
    """A connection attempt ended at ``stage``; every stage before it succeeded.

    ``code``/``details``/``retryable``/``retry_after_ms`` are the gateway's own where it answered; ``close_code`` and
    ``close_reason`` are those of the Close frame, ``http_status`` that of a refused upgrade. ``fix`` is the one
    command that mends it. No field holds a secret."""

    stage: Stage
    message: str
    url: str
    code: str | None = None
    details: dict[str, Any] | None = None
    close_code: int | None = None
    close_reason: str | None = None
    http_status: int | None = None
    retryable: bool = False
    retry_after_ms: int | None = None
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.url}: {self.message} (at {self.stage})"


@attrs.define(eq=False)
class ClientClosed(GatewayError):
    """The connection is gone. ``by_us`` tells our own closing from the peer's or the network's (code 1006)."""

    code: int
    reason: str
    by_us: bool = False

    def __str__(self) -> str:
        return f"connection closed: {self.code} {self.reason}".rstrip()


@attrs.define(eq=False)
class CallTimedOut(GatewayError):
    """No answer within ``seconds``. The gateway may have carried out the request all the same."""

    method: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.method}: no answer within {self.seconds:g} s"
