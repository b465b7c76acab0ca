"""The blocks of openclaw.json about webhooks and the operator login: ``hooks`` and ``gateway.auth.oidc``.

Owns names, types and defaults, as `config.schema` does for the others. Sizes and times are in the unit their name says.
Both are off unless the file switches them on.
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

from openclaw_gateway.value import Value

# What outbound webhooks may be told: ends and requests, never pieces of an answer, parameters or setup codes.
WEBHOOK_EVENTS: Final = (
    "chat",
    "device.pair.requested",
    "device.pair.resolved",
    "node.pair.requested",
    "node.pair.resolved",
    "channel.pairing.requested",
    "channel.pairing.resolved",
    "shutdown",
)

__all__ = [
    "WEBHOOK_EVENTS",
    "HookMapping",
    "HookMatch",
    "HookSignature",
    "HooksConfig",
    "OidcConfig",
    "OutboundHook",
]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HookMatch(Value):
    path: str | None = None  # what follows hooks.path; None: every path that no other mapping takes
    source: str | None = None  # the text that the payload's ``source`` must be


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HookSignature(Value):
    """How a sender signs its requests with the mapping's secret (HMAC-SHA256); ``none``: it sends the secret itself."""

    scheme: Literal["none", "body", "timestamped", "standard", "slack", "stripe"] = "none"
    header: str | None = None  # where the signature is; default: the scheme's own
    timestamp_header: str | None = None
    id_header: str | None = None
    tolerance_seconds: int = 300


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HookMapping(Value):
    id: str | None = None
    match: HookMatch = attrs.field(factory=HookMatch)
    action: Literal["agent", "wake"] = "agent"
    name: str | None = None
    agent_id: str | None = None
    session_mode: Literal["isolated", "persistent"] = "isolated"
    message_template: str | None = None
    text_template: str | None = None
    secret: str | None = attrs.field(default=None, repr=False)
    signature: HookSignature = attrs.field(factory=HookSignature)
    deliver: bool = True  # counts where channel and to are given
    channel: str | None = None
    account_id: str | None = None
    to: str | None = None
    model: str | None = None
    timeout_seconds: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class OutboundHook(Value):
    """Where events of this gateway are sent to."""

    name: str
    url: str
    secret: str = attrs.field(repr=False)
    events: tuple[str, ...] = ()
    enabled: bool = True
    allow_private: bool = False  # whether the address may be one of this host, this network or a tailnet


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HooksConfig(Value):
    enabled: bool = False  # the inbound side
    token: str | None = attrs.field(default=None, repr=False)
    path: str = "/hooks"
    allowed_agent_ids: tuple[str, ...] = ("*",)
    mappings: tuple[HookMapping, ...] = ()
    outbound: tuple[OutboundHook, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class OidcConfig(Value):
    """Operator login at an OpenID provider; off without an issuer."""

    issuer: str | None = None
    client_id: str | None = None
    client_secret: str | None = attrs.field(default=None, repr=False)
    allow_users: tuple[str, ...] = ()  # subjects, or e-mail addresses that the provider verified
    scopes: tuple[str, ...] = ("operator.read",)
    redirect_uri: str | None = None  # default: gateway.publicUrl (on loopback: this port) and /auth/callback
