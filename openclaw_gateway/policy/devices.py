"""What a device that proved its identity comes to: let in, paired by itself, asked a person about, or refused.

Owns the way from a credential that did and an approval on record to a verdict, and the redemption of setup codes. It
must not register a request or spend a code: the verdict says so, the shell does it.

Whoever a trusted proxy vouches for has, with a paired device, so much more for the session only, so that nothing of it
outlives the vouching. An API key pairs no device by itself and hands out no device token, so that nothing outlives its
revocation (V26).

Invariants: what was approved is what there is, not even the secret on this host widens it (V11); what cannot be read is
not "unpaired" (V60); a setup code gives no more than its maker approved, and only to one device (V24).
"""

from __future__ import annotations

import attrs

from openclaw_gateway.policy.autoapprove import Applicant, baseline, judge
from openclaw_gateway.policy.credentials import auth_details, unauthenticated
from openclaw_gateway.policy.question import (
    UNREADABLE,
    AdmissionQuestion,
    DeviceTokenOutcome,
    PairedDevice,
    approval_on_record,
    not_covered,
    rests_on_setup_code,
    secret_method,
    under_cap,
    vouched_person,
    within_key,
)
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.policy.setup import SetupStanding, handed_scopes, judge_redemption
from openclaw_gateway.policy.tokenlife import ApiKeyOutcome
from openclaw_gateway.policy.verdicts import (
    Admitted,
    AuthMethod,
    PairingNeeded,
    PairingReason,
    Refused,
    SetupRedemption,
    refuse,
)
from openclaw_gateway.protocol.connect import CONTROL_UI_ID
from openclaw_gateway.protocol.scopes import KNOWN_OPERATOR_SCOPES, grantable

__all__ = ["admit_device"]


def admit_device(
    q: AdmissionQuestion, device_id: str, protocol: int, trail: tuple[str, ...]
) -> Admitted | PairingNeeded | Refused:
    method: AuthMethod
    paired = approval_on_record(q, device_id)
    person = vouched_person(q)
    if q.setup is not None and rests_on_setup_code(q):
        return _redeem(q, q.setup, device_id, protocol, trail, paired)
    if q.api_key is ApiKeyOutcome.MATCH:
        if q.params.role != "operator":
            return refuse("auth-api-key-role", trail, details=auth_details("api_key_role", "review_auth_configuration"))
        method = "api-key"
    elif person is not None:
        method = person.source
    elif q.rules.auth_type == "none" or q.secret is SecretOutcome.MATCH:
        method = secret_method(q.rules)
    elif q.device_token is DeviceTokenOutcome.MATCH and paired is not None:
        method = "device-token"
    else:
        return unauthenticated(q, trail)
    if q.pairing is UNREADABLE:
        return refuse("pairing-unreadable", trail)

    asked = within_key(q, grantable(q.params.scopes)) if q.params.role == "operator" else ()
    approved = frozenset(paired.scopes) if paired is not None else frozenset[str]()

    def let_in(scopes: tuple[str, ...], why: str, *, pair: bool = False, upgrade: tuple[str, ...] = ()) -> Admitted:
        scopes = under_cap(person, scopes)
        return Admitted(
            role=q.params.role,
            scopes=scopes,
            method=method,
            protocol=protocol,
            device_id=device_id,
            pair_silently=pair,
            trail=(*trail, f"admitted: {why}"),
            upgrade_scopes=upgrade,
            user=person.user if person is not None else None,
            session_scopes=not_covered(approved, scopes) if person is not None else (),
        )

    if paired is None:
        row, granted = judge(_applicant(q, asked))
        if granted is not None and method != "api-key":  # a pairing would outlive the key (V26)
            return let_in(granted, f"paired by itself: {row.why}", pair=True, upgrade=not_covered(granted, asked))
        reason: PairingReason = "role-upgrade" if q.approved_roles or q.revoked else "not-paired"
        why = "an API key pairs no device" if method == "api-key" else row.why
        return _pairing_needed(q, device_id, reason, asked, (*trail, f"a person is asked: {why}"))
    held = approved | frozenset(person.scopes) if person is not None else approved
    beyond = not_covered(held, asked)
    if not beyond:
        return let_in(asked, "paired")
    if method == "device-token":
        details = {
            "authReason": "scope_mismatch",
            "canRetryWithDeviceToken": False,
            "recommendedNextStep": "review_auth_configuration",
            "approvedScopes": sorted(approved & KNOWN_OPERATOR_SCOPES),
        }
        return refuse("auth-scope-mismatch", trail, details=details)
    if method != "api-key" and _baseline_applies(q) and set(baseline(asked)) <= approved:
        # Let in once at the baseline, such a device asks for as much again; it must not be turned away for that.
        return let_in(baseline(asked), "paired, at the baseline", upgrade=beyond)
    # Not even on this host, not even with the secret: what was approved is what there is (V11).
    return _pairing_needed(q, device_id, "scope-upgrade", asked, trail, tuple(sorted(approved)))


def _redeem(
    q: AdmissionQuestion,
    setup: SetupStanding,
    device_id: str,
    protocol: int,
    trail: tuple[str, ...],
    paired: PairedDevice | None,
) -> Admitted | PairingNeeded | Refused:
    """Whoever made the code has approved what its profile grants; no more than that, and only for one device (V24)."""
    role, client_id = q.params.role, q.params.client.id
    trail = (*trail, f"setup code: {setup.access}")
    judgement = judge_redemption(setup, device_id=device_id, role=role, scopes=q.params.scopes, client_id=client_id)
    if judgement == "taken":
        return unauthenticated(q, (*trail, "it belongs to another device"))
    if judgement == "too-wide":
        details = auth_details("bootstrap_scope_mismatch", "review_auth_configuration")
        return refuse("auth-setup-code-too-narrow", trail, details=details)
    if q.pairing is UNREADABLE:
        return refuse("pairing-unreadable", trail)
    asked = grantable(q.params.scopes) if role == "operator" else ()
    approved = paired is not None and not not_covered(paired.scopes, asked)
    if judgement == "ask" and not approved:
        reason: PairingReason = "role-upgrade" if q.approved_roles or q.revoked else "not-paired"
        needed = _pairing_needed(q, device_id, reason, asked, (*trail, "a person is asked: no phone app"))
        return attrs.evolve(needed, keep_trying=True, setup_id=setup.setup_id)
    # A token that is taken along is good on other listeners too: it is no way round this one's ceiling.
    handed = q.peer.arrival.ceiling.clip(handed_scopes(setup, role=role, client_id=client_id))
    return Admitted(
        role=role,
        scopes=asked,
        method="bootstrap-token",
        protocol=protocol,
        device_id=device_id,
        pair_silently=False,
        trail=(*trail, "admitted: with a setup code"),
        setup=SetupRedemption(setup_id=setup.setup_id, handed=handed),
    )


def _baseline_applies(q: AdmissionQuestion) -> bool:
    opted_in = q.rules.auto_approve.shared_secret == "baseline"  # noqa: S105 - a setting's value
    return opted_in and q.secret is SecretOutcome.MATCH and q.params.role == "operator" and q.rules.auth_type != "none"


def _applicant(q: AdmissionQuestion, asked: tuple[str, ...]) -> Applicant:
    return Applicant(
        rules=q.rules.auto_approve,
        own_tailnet_addresses=q.rules.own_tailnet_addresses,
        role=q.params.role,
        asked=asked,
        scopeless=not q.params.scopes,
        address=q.peer.address,
        loopback=q.peer.direct_loopback,
        forwarded=q.peer.forwarded,
        secret=q.secret is SecretOutcome.MATCH and q.rules.auth_type != "none",
        fresh=not (q.known or q.approved_roles or q.revoked or q.removed),
        decided_against=q.revoked or q.removed,
    )


def _pairing_needed(
    q: AdmissionQuestion,
    device_id: str,
    reason: PairingReason,
    asked: tuple[str, ...],
    trail: tuple[str, ...],
    approved: tuple[str, ...] = (),
) -> PairingNeeded:
    return PairingNeeded(
        reason=reason,
        device_id=device_id,
        role=q.params.role,
        scopes=asked,
        approved_roles=tuple(sorted(q.approved_roles)),
        approved_scopes=approved,
        # These two stay on the screen or in the background until somebody approves; a command line does not.
        keep_trying=q.params.client.id == CONTROL_UI_ID or q.params.role == "node",
        trail=(*trail, f"pairing needed: {reason}"),
    )
