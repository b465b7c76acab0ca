"""What a setting is while what was written for it cannot be used: the closed door, or no start at all.

Owns these two lists. It must not know why a value cannot be used. Invariant: a setting that decides who may come in
stands in one of the two, and never takes an older value instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from openclaw_gateway.config.settings import SECRETS

__all__ = ["CLOSED", "FATAL", "NOBODY", "UNREADABLE_HEADER"]

# Wrong here, nothing may be guessed.
FATAL: Final = SECRETS | {
    "gateway.auth.type",
    "gateway.network.allow",  # without the bad entry, either list would let somebody in
    "gateway.network.deny",
    "gateway.tls.enabled",
}

# A list that cannot be read must not turn into an empty one, which would ask for nothing or let everybody in: a header
# that no proxy sends, a user that no proxy can name (a comma names nobody, policy.vouching).
UNREADABLE_HEADER: Final = "x-openclaw-required-headers-unreadable"
NOBODY: Final = "(nobody, unreadable)"

# Wrong here, the door is closed.
CLOSED: Final[Mapping[str, Any]] = {
    "gateway.nodes.secureChannel": "required",
    "gateway.bind": "loopback",
    "gateway.customBindHost": None,
    "gateway.auth.allowTailscale": False,
    "gateway.auth.allowQueryToken": False,
    "gateway.auth.expiresIn": 86_400.0,
    "gateway.auth.passwordChangedAt": 0.0,
    "gateway.auth.policy.maxAge": 7_776_000.0,
    "gateway.auth.refresh.enabled": False,
    "gateway.auth.policy.requireUppercase": True,
    "gateway.auth.policy.requireLowercase": True,
    "gateway.auth.policy.requireNumbers": True,
    "gateway.auth.policy.requireSymbols": True,
    "gateway.tailscale.mode": "off",
    "gateway.controlUi.allowedOrigins": (),
    "gateway.trustedProxies": (),
    "gateway.clientAddressHeader": "x-forwarded-for",
    "gateway.auth.trustedProxy.userHeader": None,
    "gateway.auth.trustedProxy.requiredHeaders": (UNREADABLE_HEADER,),
    "gateway.auth.trustedProxy.allowUsers": (NOBODY,),
    "gateway.auth.trustedProxy.allowLoopback": False,
    "gateway.auth.identityScopes": {},
    "gateway.proxyProtocol": False,
    "gateway.tls.clientAuth": "required",
    "gateway.pairing.autoApprove.loopback": False,
    "gateway.pairing.autoApprove.ownTailnet": False,
    "gateway.pairing.autoApprove.lan": (),
    "gateway.pairing.autoApprove.sharedSecret": "off",
    "gateway.transports.http.cors.enabled": False,
    "gateway.transports.http.cors.origins": (),
    "discovery.mdns.mode": "off",
    "discovery.wideArea.domain": None,
    "gateway.auth.oidc.allowUsers": (),
    "gateway.auth.oidc.scopes": (),
    "hooks.enabled": False,
    "hooks.allowedAgentIds": (),
    "channels.*.dm.policy": "pairing",
    "channels.*.dm.allowFrom": (),
}
