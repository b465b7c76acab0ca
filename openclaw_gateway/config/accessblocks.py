"""The blocks of openclaw.json about who may come in and what for: ``gateway.auth``, ``gateway.pairing``,
``gateway.nodes`` and the ``dm`` block of a channel.

Owns names, types and defaults, as `config.schema` does for the others. Times are in the unit their name says (``_ms``)
or seconds. Secrets never show in a repr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from openclaw_gateway.config.hookblocks import OidcConfig
from openclaw_gateway.value import Value

__all__ = [
    "AuthConfig",
    "AuthType",
    "AutoApproveConfig",
    "DirectMessageConfig",
    "NodeCommandsConfig",
    "NodesConfig",
    "PairingConfig",
    "PasswordPolicy",
    "RefreshConfig",
    "TrustedProxyConfig",
]

AuthType = Literal["token", "password", "none", "trusted-proxy"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RefreshConfig(Value):
    enabled: bool = True
    max_uses: int = 1000


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PasswordPolicy(Value):
    min_length: int = 12
    require_uppercase: bool = False
    require_lowercase: bool = False
    require_numbers: bool = False
    require_symbols: bool = False
    max_age: float | None = None  # seconds; "90d" in the file


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TrustedProxyConfig(Value):
    """Which words of a trusted proxy name a person. Header names are lower case."""

    user_header: str | None = None  # None: nobody is named, and nobody is let in by name
    required_headers: tuple[str, ...] = ()
    allow_users: tuple[str, ...] = ()  # (): everybody whom the proxy let through
    allow_loopback: bool = False  # a proxy on this very host; it needs `secret` too
    secret: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AuthConfig(Value):
    type: AuthType = "token"
    token: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    password_hash: str | None = attrs.field(default=None, repr=False)
    password_changed_at: float | None = None  # Unix seconds; max_age counts from here
    policy: PasswordPolicy | None = None
    expires_in: float | None = None  # seconds; "24h" in the file
    refresh: RefreshConfig = attrs.field(factory=RefreshConfig)
    allow_tailscale: bool | None = None
    allow_query_token: bool = True
    trusted_proxy: TrustedProxyConfig = attrs.field(factory=TrustedProxyConfig)
    identity_scopes: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)  # a verified user -> operator scopes
    oidc: OidcConfig = attrs.field(factory=OidcConfig)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AutoApproveConfig(Value):
    loopback: bool = True
    own_tailnet: bool = True
    lan: tuple[str, ...] = ()  # CIDRs
    shared_secret: Literal["off", "baseline"] = "off"  # noqa: S105 - a word, not a secret


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PairingConfig(Value):
    auto_approve: AutoApproveConfig = attrs.field(factory=AutoApproveConfig)
    request_ttl_ms: int = 300_000
    setup_code_ttl_ms: int = 600_000
    sender_code_ttl_ms: int = 3_600_000  # how long a code for a direct-message sender is good


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NodeCommandsConfig(Value):
    allow: tuple[str, ...] = ()  # exact command names
    deny: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NodesConfig(Value):
    invoke_timeout_ms: int = 30_000
    secure_channel: Literal["off", "on", "required"] = "on"
    commands: NodeCommandsConfig = attrs.field(factory=NodeCommandsConfig)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DirectMessageConfig(Value):
    policy: Literal["open", "pairing", "closed", "allowlist"] = "pairing"
    allow_from: tuple[str, ...] = ()
