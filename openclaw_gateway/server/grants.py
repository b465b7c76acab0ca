"""What admission hands around: the credential as it came, the rules in force, and what came of it.

Owns the values between the gatekeeper, sessions and HTTP. It must not know how a verdict comes about. Invariant: no
secret shows in a repr, and a `Grant` names its principal without being one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from openclaw_gateway.pairing.apikeys import ApiKey
from openclaw_gateway.policy.admission import (
    AdmissionRules,
    ApiKeyOutcome,
)
from openclaw_gateway.policy.locality import PeerRules
from openclaw_gateway.policy.network import OPEN, Arrival, NetworkRules
from openclaw_gateway.policy.origin import OriginRules
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.policy.tokenlife import LifeRules
from openclaw_gateway.policy.vouching import VouchRules
from openclaw_gateway.protocol.close import Close
from openclaw_gateway.protocol.connect import (
    ConnectParams,
)
from openclaw_gateway.protocol.errors import WireError
from openclaw_gateway.protocol.hello import HandedToken
from openclaw_gateway.value import Value

__all__ = ["GatekeeperRules", "Grant", "IssuedToken", "Presented", "Rejection", "TransportCredential"]


@attrs.frozen(eq=False, repr=False)
class TransportCredential(Value):
    """A credential that came with the HTTP request: ``?token=`` (C11) or ``Authorization: Bearer``."""

    query_token: str | None = attrs.field(default=None, repr=False)
    bearer: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(eq=False, repr=False)
class IssuedToken(Value):
    """What hello-ok hands a device. Unix milliseconds; None: no end, no refresh token."""

    token: str = attrs.field(repr=False)
    issued_at_ms: int
    expires_at_ms: int | None = None
    refresh_token: str | None = attrs.field(default=None, repr=False)
    refresh_expires_at_ms: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Presented(Value):
    """What came of the one text that was presented as a shared secret or as an API key."""

    secret: SecretOutcome = SecretOutcome.MISSING
    via: Any = None
    locked_for: float = 0.0
    api_key: ApiKeyOutcome = ApiKeyOutcome.NONE
    key: ApiKey | None = None  # with api_key == MATCH

    @property
    def scopes(self) -> tuple[str, ...]:
        return self.key.scopes if self.key is not None else ()

    @property
    def nothing(self) -> bool:
        """Whether no secret and no key was presented at all, good or bad."""
        return self.secret is SecretOutcome.MISSING and self.api_key is ApiKeyOutcome.NONE and self.via is None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Grant(Value):
    """An admitted peer. ``principal`` names whoever authenticated; it is never a secret."""

    role: str
    scopes: tuple[str, ...]
    method: str
    protocol: int
    params: ConnectParams
    device_id: str | None
    principal: str
    device_token: IssuedToken | None = None
    api_key_id: str | None = None  # who came in with an API key stays no longer than the key lives
    handed: tuple[HandedToken, ...] = ()  # tokens for other roles of the same device, with a setup code
    user: str | None = None  # whom a proxy or the tailnet vouched for


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Rejection(Value):
    """A refused peer. ``delay`` (seconds) is waited before the answer goes out."""

    error: WireError
    close: Close
    http_status: int = 401
    delay: float = 0.0


@attrs.frozen(kw_only=True, eq=False, repr=False)
class GatekeeperRules(Value):
    """Everything about admission that configuration decides; replaced as a whole on reload."""

    admission: AdmissionRules
    origins: OriginRules
    peers: PeerRules
    token: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    password_hash: str | None = attrs.field(default=None, repr=False)
    password_expires_at: float | None = None  # Unix seconds
    life: LifeRules = attrs.field(factory=LifeRules)
    listeners: Mapping[str, GatekeeperRules] = attrs.field(factory=dict)  # those with an authentication of their own

    def on(self, arrival: Arrival) -> GatekeeperRules:
        """The rules for whoever came in like this."""
        return self.listeners.get(arrival.listener, self) if self.listeners else self
    vouch: VouchRules | None = None  # who may name people; None: nobody
    tailnet: bool = False  # whether tailscaled may (gateway.auth.allowTailscale, and never behind the funnel)
    identity_scopes: Mapping[str, tuple[str, ...]] = attrs.field(factory=dict)
    network: NetworkRules = OPEN  # the address lists, for whom a trusted proxy speaks for
    networks: Mapping[str, NetworkRules] = attrs.field(factory=dict)  # of further listeners, by name

    def network_on(self, arrival: Arrival) -> NetworkRules:
        """The address lists that hold for whoever came in like this."""
        return self.networks.get(arrival.listener, self.network)
