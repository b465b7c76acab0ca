"""Which credentials a peer presented, and why none of them did.

Owns which text is compared with what, what a failure counts as, and the refusal that says what was wrong and what to do
next. It must not let anybody in. Invariants: no credential appears in a refusal; a wrong shared secret counts as one
whatever else was sent along (V14); what cannot be read is never called wrong (V60).
"""

from __future__ import annotations

from typing import Any, Final, Literal

import attrs

from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.lockout import CredentialClass
from openclaw_gateway.policy.question import (
    UNREADABLE,
    WRONG_SECRETS,
    AdmissionQuestion,
    AdmissionRules,
    DeviceTokenOutcome,
    SecretSource,
    rests_on_setup_code,
)
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.policy.tokenlife import ApiKeyOutcome
from openclaw_gateway.policy.verdicts import Refused, reader_hint, refuse
from openclaw_gateway.protocol.connect import ConnectAuth
from openclaw_gateway.value import Value

__all__ = [
    "PresentedSecret",
    "auth_details",
    "device_token_candidates",
    "failure_class",
    "other_credential",
    "presented_secret",
    "unauthenticated",
    "way_in",
]

_NO_IDENTITY: Final = frozenset(
    {
        "proxy_attribution_required",
        "trusted_proxy_missing_header",
        "trusted_proxy_user_ambiguous",
        "trusted_proxy_user_missing",
    }
)
_BAD_KEYS: Final = frozenset(
    {ApiKeyOutcome.WRONG, ApiKeyOutcome.MALFORMED, ApiKeyOutcome.REVOKED, ApiKeyOutcome.EXPIRED}
)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PresentedSecret(Value):
    """What to compare with the gateway's shared secret. ``note`` (constant text) says why something was left out."""

    value: str | None = attrs.field(repr=False)
    via: SecretSource | None
    note: str | None = None


def presented_secret(
    auth: ConnectAuth, rules: AdmissionRules, peer: Peer, *, query_token: str | None = None
) -> PresentedSecret:
    """Pick the one text to compare: the field that fits the auth type, else the other one, else ``?token=`` (C11).

    Call it only after the origin was allowed: a page of somebody else's never gets as far as a comparison.
    """
    fields: list[tuple[SecretSource, str | None]] = [("token", auth.token), ("password", auth.password)]
    if rules.auth_type == "password":
        fields.reverse()
    for via, value in fields:
        if value:
            return PresentedSecret(value=value, via=via)
    if not query_token:
        return PresentedSecret(value=None, via=None)
    if not rules.allow_query_token:
        return PresentedSecret(value=None, via=None, note="URL token ignored: gateway.auth.allowQueryToken is off")
    if not (peer.direct_loopback or peer.encrypted):
        return PresentedSecret(value=None, via=None, note="URL token ignored: neither on this host nor encrypted")
    return PresentedSecret(value=query_token, via="query")


def device_token_candidates(auth: ConnectAuth) -> tuple[str, ...]:
    """The texts that may be this device's token, in the order to try (at most two)."""
    return tuple(dict.fromkeys(text for text in (auth.device_token, auth.token) if text))


def other_credential(auth: ConnectAuth) -> bool:
    return bool(auth.device_token or auth.bootstrap_token)


def failure_class(q: AdmissionQuestion) -> CredentialClass | None:
    """What a refusal is counted as: a wrong shared secret counts as one whatever else was sent along (V14)."""
    if q.rules.auth_type == "none":
        return None
    if q.secret in WRONG_SECRETS:
        return CredentialClass.SHARED_SECRET
    if q.secret is SecretOutcome.MATCH or q.secret is SecretOutcome.LOCKED:
        return None
    if q.api_key in _BAD_KEYS:
        return CredentialClass.API_KEY
    if q.api_key is not ApiKeyOutcome.NONE:
        return None
    if q.params.auth.device_token and q.device_token is not DeviceTokenOutcome.MATCH:
        return CredentialClass.DEVICE_TOKEN
    return CredentialClass.SETUP_CODE if q.params.auth.bootstrap_token else None


def unauthenticated(q: AdmissionQuestion, trail: tuple[str, ...]) -> Refused:
    counts = failure_class(q)
    auth = q.params.auth
    proven = q.device is not None and q.device.ok
    if q.secret is SecretOutcome.LOCKED:
        details = {"authReason": "rate_limited", "recommendedNextStep": "wait_then_retry"}
        return refuse("auth-rate-limited", trail, details=details, retry_after=q.locked_for)
    if proven and q.pairing is UNREADABLE and device_token_candidates(auth):
        return refuse("pairing-unreadable", (*trail, "the device token cannot be checked"), counts=counts)
    if proven and q.pairing is UNREADABLE and auth.bootstrap_token and rests_on_setup_code(q):
        return refuse("pairing-unreadable", (*trail, "the setup code cannot be checked"))
    if q.api_key is not ApiKeyOutcome.NONE and q.secret is not SecretOutcome.MATCH:
        return _api_key_refused(q, trail, counts)
    if q.secret is SecretOutcome.MISSING and (auth.device_token or q.device_token is DeviceTokenOutcome.EXPIRED):
        gone = q.device_token in {DeviceTokenOutcome.REVOKED, DeviceTokenOutcome.EXPIRED}
        word = q.device_token if gone else DeviceTokenOutcome.MISMATCH
        # An expired token was this device's own a moment ago, its key is proven: nobody guesses here.
        counts = None if word is DeviceTokenOutcome.EXPIRED else counts
        details = auth_details(f"device_token_{word.value}", "update_auth_credentials")
        return refuse(f"auth-device-token-{word.value}", trail, details=details, counts=counts)
    vouched = q.peer.vouched
    missing = q.secret is SecretOutcome.MISSING and not other_credential(auth)
    if missing and q.rules.auth_type == "trusted-proxy" and q.params.role == "operator":
        return _nobody_vouches(vouched.reason if vouched is not None else "trusted_proxy_untrusted_source", trail)
    if q.secret is SecretOutcome.MISSING and auth.bootstrap_token:
        details = auth_details("bootstrap_token_invalid", "review_auth_configuration")
        return refuse("auth-setup-code-invalid", trail, details=details, counts=counts)
    return _secret_refused(q, trail, counts=counts, proven=proven)


def _nobody_vouches(reason: str, trail: tuple[str, ...]) -> Refused:
    """Unauthenticated, not forbidden (PROXY-1): a token or a paired device is still a way in."""
    details = auth_details(reason, "review_auth_configuration")
    key = "auth-proxy-identity-missing" if reason in _NO_IDENTITY else "auth-proxy-not-believed"
    return refuse(key, (*trail, f"nobody vouches: {reason}"), details=details, reason=reason)


def _api_key_refused(q: AdmissionQuestion, trail: tuple[str, ...], counts: CredentialClass | None) -> Refused:
    if q.api_key is ApiKeyOutcome.UNREADABLE:
        return refuse("pairing-unreadable", (*trail, "the API keys cannot be read"), counts=counts)
    word = q.api_key if q.api_key in _BAD_KEYS else ApiKeyOutcome.WRONG
    details = auth_details(f"api_key_{word.value}", "update_auth_credentials")
    return refuse(f"auth-api-key-{word.value}", trail, details=details, counts=counts)


def _secret_refused(
    q: AdmissionQuestion, trail: tuple[str, ...], *, counts: CredentialClass | None, proven: bool
) -> Refused:
    kind: Literal["token", "password"] = "password" if q.rules.auth_type == "password" else "token"
    hint = reader_hint(kind, q.params)
    match q.secret:
        case SecretOutcome.UNRESOLVABLE:
            details = auth_details(f"{kind}_missing_config", "update_auth_configuration")
            return refuse(f"auth-{kind}-unresolvable", trail, details=details)
        case SecretOutcome.EXPIRED:
            details = auth_details("password_expired", "update_auth_credentials")
            return refuse("auth-password-expired", trail, details=details)
        case SecretOutcome.MISSING:
            details = auth_details(f"{kind}_missing", "update_auth_configuration")
            if q.transport == "http" and kind == "token":
                details |= way_in(q)
            return refuse(f"auth-{kind}-missing", trail, details=details, hint=hint)
        case SecretOutcome.MALFORMED if kind == "token":
            details = auth_details("token_malformed", "update_auth_credentials")
            return refuse("auth-token-malformed", trail, details=details, counts=counts)
        case SecretOutcome.LOOKS_LIKE_SETUP_CODE if kind == "token":
            details = auth_details("token_is_setup_code", "update_auth_credentials")
            return refuse("auth-token-is-setup-code", trail, details=details, counts=counts)
        case _:
            # An official client that sent the shared token alone may hold a device token of its own to try once.
            retry = kind == "token" and proven and not q.params.auth.password and not q.params.auth.device_token
            step = "retry_with_device_token" if retry else "update_auth_credentials"
            details = auth_details(f"{kind}_mismatch", step, retry_with_device_token=retry)
            return refuse(f"auth-{kind}-mismatch", trail, details=details, counts=counts, hint=hint)


def auth_details(reason: str, step: str, *, retry_with_device_token: bool = False) -> dict[str, Any]:
    return {"authReason": reason, "canRetryWithDeviceToken": retry_with_device_token, "recommendedNextStep": step}


def way_in(q: AdmissionQuestion) -> dict[str, str]:
    """The hint for a caller without a device that he can follow from where he is; {}: the row's own."""
    if q.params.role == "node":
        return {"remediationHint": "openclaw devices join-code (on the gateway's host): a node is a paired device"}
    if q.transport == "http":
        if q.peer.direct_loopback:
            return {"remediationHint": "openclaw gateway auth-token --show, then send it as Authorization: Bearer"}
        made = "openclaw tokens create <name> (on the gateway's host)"
        return {"remediationHint": f"{made}, then present that key over https"}
    if q.peer.direct_loopback and q.rules.auth_type == "password":
        return {"remediationHint": "pass --password, or set OPENCLAW_GATEWAY_PASSWORD"}
    if q.peer.direct_loopback:
        return {"remediationHint": "openclaw gateway auth-token --show, then connect with that token"}
    return {}
