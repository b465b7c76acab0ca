"""Who gets in without a device identity.

Whoever holds the secret on this very host has what it asks for, whatever program it says it is. Anywhere else a device
identity is required, even with the right secret.

Whoever a trusted proxy (or the tailnet) vouches for has exactly what ``gateway.auth.identityScopes`` says: as an
operator, never as a node, and not beside an API key, which then is the narrower principal. An API key works on this
host, and for HTTP from anywhere over an encrypted connection.

Owns these three ways in. It must not know a pairing: nothing here makes one. Invariants: a node is always a device; a
probe has no scopes; a grant is within what was asked and within what vouches for it.
"""

from __future__ import annotations

from openclaw_gateway.policy.credentials import auth_details, other_credential, unauthenticated, way_in
from openclaw_gateway.policy.question import (
    AdmissionQuestion,
    secret_method,
    under_cap,
    vouched_person,
    within_key,
)
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.policy.tokenlife import ApiKeyOutcome
from openclaw_gateway.policy.verdicts import Admitted, Refused, refuse
from openclaw_gateway.policy.vouching import Vouched
from openclaw_gateway.protocol.scopes import grantable, satisfies

__all__ = ["admit_without_device"]


def admit_without_device(q: AdmissionQuestion, protocol: int, trail: tuple[str, ...]) -> Admitted | Refused:
    if q.api_key is ApiKeyOutcome.MATCH:
        return _admit_api_key(q, protocol, trail)
    person = vouched_person(q)
    if person is not None:
        return _admit_person(q, person, protocol, trail)
    open_door = q.rules.auth_type == "none"
    if not open_door and q.secret is not SecretOutcome.MATCH:
        nothing = q.secret is SecretOutcome.MISSING and q.api_key is ApiKeyOutcome.NONE
        if nothing and q.rules.auth_type == "trusted-proxy" and q.params.role == "operator":
            return unauthenticated(q, trail)
        if nothing and q.transport == "websocket" and not other_credential(q.params.auth):
            return refuse("device-identity-required", trail, details=way_in(q))
        return unauthenticated(q, trail)
    if q.params.role == "node":
        return refuse("device-identity-required", (*trail, "a node is always a device"), details=way_in(q))
    if not q.peer.direct_loopback:
        return refuse("device-identity-required", (*trail, "not on this host"), details=way_in(q))
    scopes = grantable(q.params.scopes)
    if q.params.client.mode == "probe":
        scopes = ()  # spec wire.md section 2: a probe without a device sees that we are here, and no more
    return Admitted(
        role=q.params.role,
        scopes=scopes,
        method=secret_method(q.rules),
        protocol=protocol,
        device_id=None,
        pair_silently=False,
        trail=(*trail, "admitted: on this host without a device"),
    )


def _admit_person(q: AdmissionQuestion, person: Vouched, protocol: int, trail: tuple[str, ...]) -> Admitted | Refused:
    if not person.scopes:
        hint = "pair this device, or: openclaw config set gateway.auth.identityScopes (on the gateway's host)"
        reason = "no gateway.auth.identityScopes for this user"
        return refuse("device-identity-required", (*trail, reason), details={"remediationHint": hint})
    held = frozenset(person.scopes)
    scopes = tuple(scope for scope in grantable(q.params.scopes) if satisfies(held, scope))
    if q.params.client.mode == "probe":
        scopes = ()
    scopes = under_cap(person, scopes)
    return Admitted(
        role=q.params.role,
        scopes=scopes,
        method=person.source,
        protocol=protocol,
        device_id=None,
        pair_silently=False,
        trail=(*trail, "admitted: vouched for"),
        user=person.user,
        session_scopes=scopes,
    )


def _admit_api_key(q: AdmissionQuestion, protocol: int, trail: tuple[str, ...]) -> Admitted | Refused:
    if q.params.role != "operator":
        return refuse("auth-api-key-role", trail, details=auth_details("api_key_role", "review_auth_configuration"))
    if not q.peer.direct_loopback:
        if q.transport != "http":
            return refuse("device-identity-required", (*trail, "not on this host"))
        if not q.peer.encrypted:
            details = auth_details("api_key_needs_encryption", "review_auth_configuration")
            return refuse("auth-api-key-needs-encryption", trail, details=details)
    scopes = within_key(q, grantable(q.params.scopes))
    if q.params.client.mode == "probe":
        scopes = ()
    return Admitted(
        role=q.params.role,
        scopes=scopes,
        method="api-key",
        protocol=protocol,
        device_id=None,
        pair_silently=False,
        trail=(*trail, "admitted: API key"),
    )
