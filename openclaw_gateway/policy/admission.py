"""Who gets in, as what, and why: one pure decision for WebSocket and HTTP.

`admit` takes everything the shell measured (`AdmissionQuestion`) and returns a verdict with its trail. The shell
compares secrets, verifies the signature, looks the device up, waits the failure delay and registers pending requests;
nothing is measured or done here.

Order of checks (spec wire.md section 3): protocol, role, origin, missing device, device proof, secure channel, shared
secret or device token, pairing. Invariants: client id, mode and name never open a door (V12; a mode can only make less
of a grant, and an old probe or node may speak protocol 3); a grant is within what was asked and within what the server
grants (V10, V22); a wrong credential is never outweighed by a self-made key (V59); what cannot be read is not
"unpaired" (V60); no credential appears in a verdict.

Without a device: whoever holds the secret on this very host has what it asks for, whatever program it says it is.
Anywhere else a device identity is required, even with the right secret.

Whoever a trusted proxy (or the tailnet) vouches for is authenticated without a secret: as an operator, never as a
node, and not beside an API key, which then is the narrower principal. Without a device such a person has exactly what
``gateway.auth.identityScopes`` says; with a paired device that much more, for the session only, so that nothing of it
outlives the vouching.

An API key is a principal of its own: it gives at most its own scopes, to operators only, pairs no device by itself and
hands out no device token, so that nothing outlives its revocation (V26). Without a device it works on this host, and
for HTTP from anywhere over an encrypted connection.
"""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Any, Final, Literal, Protocol

import attrs

from openclaw_gateway.policy.autoapprove import Applicant, AutoApproveRules, baseline, judge
from openclaw_gateway.policy.channel import SecureMode, judge_channel
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.lockout import CredentialClass
from openclaw_gateway.policy.origin import OriginVerdict
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
    pairing_refusal,
    reader_hint,
    refuse,
)
from openclaw_gateway.policy.vouching import Vouched
from openclaw_gateway.protocol.connect import CONTROL_UI_ID, ConnectAuth, ConnectParams, bearer_params
from openclaw_gateway.protocol.device import DeviceVerdict
from openclaw_gateway.protocol.errors import ERRORS
from openclaw_gateway.protocol.keystatement import KeyStatement
from openclaw_gateway.protocol.scopes import KNOWN_OPERATOR_SCOPES, ROLES, grantable, satisfies
from openclaw_gateway.value import Value

__all__ = [
    "UNREADABLE",
    "AdmissionQuestion",
    "AdmissionRules",
    "Admitted",
    "ApiKeyOutcome",
    "AutoApproveRules",
    "DeviceTokenOutcome",
    "PairedDevice",
    "PairingNeeded",
    "PresentedSecret",
    "Refused",
    "SecretSource",
    "admit",
    "admit_http",
    "device_token_candidates",
    "pairing_refusal",
    "presented_secret",
]

AuthType = Literal["token", "password", "none", "trusted-proxy"]
SecretSource = Literal["token", "password", "query", "bearer"]

PROTOCOL: Final = 4
LEGACY_PROTOCOL: Final = 3
_WRONG: Final = frozenset({SecretOutcome.MISMATCH, SecretOutcome.MALFORMED, SecretOutcome.LOOKS_LIKE_SETUP_CODE})
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


class PairedDevice(Protocol):
    """What is approved for one device in one role; `pairing.records` has the real thing."""

    @property
    def device_id(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def scopes(self) -> Collection[str]: ...


class Unreadable(enum.Enum):
    """The type of `UNREADABLE`."""

    UNREADABLE = "unreadable"


UNREADABLE: Final = Unreadable.UNREADABLE  # the look-up failed: not the same as "not paired" (V60)


class DeviceTokenOutcome(enum.Enum):
    """What came of looking for this device's token among `device_token_candidates`."""

    NONE = "none"  # no candidate was presented, or the device is not known
    MATCH = "match"
    MISMATCH = "mismatch"
    REVOKED = "revoked"
    EXPIRED = "expired"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AdmissionRules(Value):
    """What the configuration says about who may come in."""

    auth_type: AuthType
    allow_query_token: bool = True
    legacy_v3: bool = True  # PROTO-1: any client whose newest protocol is 3
    auto_approve: AutoApproveRules = attrs.field(factory=AutoApproveRules)
    own_tailnet_addresses: frozenset[str] = frozenset()  # canonical texts
    secure_channel: SecureMode = "on"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AdmissionQuestion(Value):
    """Everything that was measured about one ``connect`` (or one HTTP request)."""

    params: ConnectParams
    peer: Peer
    rules: AdmissionRules
    origin: OriginVerdict
    secret: SecretOutcome  # of `presented_secret` against the gateway's own
    secret_via: SecretSource | None = None  # where it was found
    locked_for: float = 0.0  # seconds left, with secret == LOCKED
    device: DeviceVerdict | None = None  # verdict on params.device; None where there was none
    device_token: DeviceTokenOutcome = DeviceTokenOutcome.NONE
    api_key: ApiKeyOutcome = ApiKeyOutcome.NONE  # of the same text as `secret`, which is then not compared with it
    api_key_scopes: Collection[str] = ()  # with api_key == MATCH
    pairing: PairedDevice | Unreadable | None = None  # what is approved for (device, role)
    approved_roles: Collection[str] = ()  # roles this device is approved for
    revoked: bool = False  # this (device, role) was approved once and revoked: only a new approval restores it (V26)
    removed: bool = False  # this device was removed by a person; otherwise as revoked
    known: bool = False  # something was decided about this device before, in whatever role
    setup: SetupStanding | None = None  # the living setup code that auth.bootstrapToken is
    opened_by: KeyStatement | None = None  # who opened the secure channel this came through; None: in the clear
    registered_key: str | None = None  # the X25519 key that this device registered before
    transport: Literal["websocket", "http"] = "websocket"


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


def admit(question: AdmissionQuestion) -> Admitted | PairingNeeded | Refused:
    """Decide. Never raises for anything a peer can send."""
    q = _under_ceiling(question)
    protocol = _protocol(q.params, q.rules)
    if protocol is None:
        return _protocol_mismatch(q)
    if q.params.role not in ROLES:
        return refuse("invalid-role", (f"protocol {protocol}", "role: unknown"))
    trail: tuple[str, ...] = (
        f"protocol {protocol}",
        f"role {q.params.role}",
        f"peer: {_whereabouts(q.peer)}",
        f"origin: {q.origin.reason}",
    )
    if not q.origin.ok:
        return _origin_refused(q, trail)
    trail = (*trail, *_evidence(q))
    if q.params.device is None or q.device is None:
        return _admit_without_device(q, protocol, trail)
    certified = q.peer.arrival.certificate
    if q.device.ok and certified is not None and certified != q.device.device_id:
        return refuse("certificate-device-mismatch", (*trail, "client certificate: of another device"))
    if not q.device.ok or q.device.device_id is None:
        fault = q.device.fault or "device-signature"
        details = {"reason": fault, **q.device.details}
        return refuse(fault, trail, details=details, counts=_failure_class(q))
    fault_of_channel = judge_channel(
        q.rules.secure_channel, role=q.params.role, device_id=q.device.device_id, opened_by=q.opened_by,
        registered=q.registered_key,
    )  # fmt: skip
    if fault_of_channel is not None:
        fix = ERRORS[fault_of_channel].fix.replace("<deviceId>", q.device.device_id)
        return refuse(fault_of_channel, trail, details={"remediationHint": fix})
    return _admit_device(q, q.device.device_id, protocol, trail)


def admit_http(
    *,
    peer: Peer,
    rules: AdmissionRules,
    origin: OriginVerdict,
    secret: SecretOutcome,
    locked_for: float = 0.0,
    api_key: ApiKeyOutcome = ApiKeyOutcome.NONE,
    api_key_scopes: Collection[str] = (),
) -> Admitted | Refused:
    """``POST /rpc`` with ``Authorization: Bearer``: the same decision for a caller without a device."""
    verdict = admit(
        AdmissionQuestion(
            params=bearer_params(protocol=PROTOCOL, scopes=tuple(sorted(KNOWN_OPERATOR_SCOPES))),
            peer=peer,
            rules=rules,
            origin=origin,
            secret=secret,
            secret_via="bearer",  # noqa: S106 - where it was found
            locked_for=locked_for,
            api_key=api_key,
            api_key_scopes=api_key_scopes,
            transport="http",
        )
    )
    if isinstance(verdict, PairingNeeded):  # only a device can need pairing; default-deny all the same
        return refuse("device-identity-required", verdict.trail)
    return verdict


# --- the steps, in order ---


def _under_ceiling(q: AdmissionQuestion) -> AdmissionQuestion:
    """Whoever came in through a listener with a ceiling asks for no more than lies under it, whatever it asked for."""
    ceiling = q.peer.arrival.ceiling
    if ceiling.scopes is None:
        return q
    return attrs.evolve(q, params=attrs.evolve(q.params, scopes=ceiling.clip(q.params.scopes)))


def _protocol(params: ConnectParams, rules: AdmissionRules) -> int | None:
    low, high = params.min_protocol, params.max_protocol
    if low <= PROTOCOL <= high:
        return PROTOCOL
    always_legacy = params.client.mode == "probe" or (params.role == "node" and params.client.mode == "node")
    if low <= LEGACY_PROTOCOL <= high and (rules.legacy_v3 or always_legacy):
        return LEGACY_PROTOCOL
    return None


def _protocol_mismatch(q: AdmissionQuestion) -> Refused:
    low, high = q.params.min_protocol, q.params.max_protocol
    ours = LEGACY_PROTOCOL if q.rules.legacy_v3 else PROTOCOL
    details: dict[str, Any] = {
        "clientMinProtocol": low,
        "clientMaxProtocol": high,
        "expectedProtocol": PROTOCOL,
        "minimumProbeProtocol": LEGACY_PROTOCOL,
        "serverMinProtocol": ours,
        "serverMaxProtocol": PROTOCOL,
        "remediationHint": f"client speaks {low} to {high}, this gateway {ours} to {PROTOCOL}: update the older one",
    }
    return refuse("protocol-mismatch", ("protocol: no common version",), details=details)


def _origin_refused(q: AdmissionQuestion, trail: tuple[str, ...]) -> Refused:
    details: dict[str, Any] = {"reason": q.origin.reason}
    hint = q.origin.reason
    if q.origin.fix is not None:
        details["remediationHint"] = q.origin.fix
        hint = f"run: {q.origin.fix}"
    return refuse("origin-not-allowed", trail, details=details, hint=hint)


def _admit_without_device(q: AdmissionQuestion, protocol: int, trail: tuple[str, ...]) -> Admitted | Refused:
    if q.api_key is ApiKeyOutcome.MATCH:
        return _admit_api_key(q, protocol, trail)
    person = _person(q)
    if person is not None:
        return _admit_person(q, person, protocol, trail)
    open_door = q.rules.auth_type == "none"
    if not open_door and q.secret is not SecretOutcome.MATCH:
        nothing = q.secret is SecretOutcome.MISSING and q.api_key is ApiKeyOutcome.NONE
        if nothing and q.rules.auth_type == "trusted-proxy" and q.params.role == "operator":
            return _unauthenticated(q, trail)
        if nothing and q.transport == "websocket" and not _other_credential(q.params.auth):
            return refuse("device-identity-required", trail, details=_way_in(q))
        return _unauthenticated(q, trail)
    if q.params.role == "node":
        return refuse("device-identity-required", (*trail, "a node is always a device"), details=_way_in(q))
    if not q.peer.direct_loopback:
        return refuse("device-identity-required", (*trail, "not on this host"), details=_way_in(q))
    scopes = grantable(q.params.scopes)
    if q.params.client.mode == "probe":
        scopes = ()  # spec wire.md section 2: a probe without a device sees that we are here, and no more
    return Admitted(
        role=q.params.role,
        scopes=scopes,
        method=_method(q.rules),
        protocol=protocol,
        device_id=None,
        pair_silently=False,
        trail=(*trail, "admitted: on this host without a device"),
    )


def _person(q: AdmissionQuestion) -> Vouched | None:
    """Who is vouched for, where that counts."""
    vouched = q.peer.vouched
    if vouched is None or not vouched.ok or q.params.role != "operator" or q.api_key is not ApiKeyOutcome.NONE:
        return None
    # A secret that was compared and found wrong is not outweighed by anybody's word (V59).
    return None if q.secret in _WRONG or q.secret is SecretOutcome.LOCKED else vouched


def _under_cap(person: Vouched | None, scopes: tuple[str, ...]) -> tuple[str, ...]:
    """What the proxy lets through of ``scopes``."""
    if person is None or person.cap is None:
        return scopes
    cap = frozenset(person.cap)
    return tuple(scope for scope in scopes if satisfies(cap, scope))


def _admit_person(
    q: AdmissionQuestion, person: Vouched, protocol: int, trail: tuple[str, ...]
) -> Admitted | Refused:
    if not person.scopes:
        hint = "pair this device, or: openclaw config set gateway.auth.identityScopes (on the gateway's host)"
        reason = "no gateway.auth.identityScopes for this user"
        return refuse("device-identity-required", (*trail, reason), details={"remediationHint": hint})
    held = frozenset(person.scopes)
    scopes = tuple(scope for scope in grantable(q.params.scopes) if satisfies(held, scope))
    if q.params.client.mode == "probe":
        scopes = ()
    scopes = _under_cap(person, scopes)
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


def _way_in(q: AdmissionQuestion) -> dict[str, str]:
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


def _admit_api_key(q: AdmissionQuestion, protocol: int, trail: tuple[str, ...]) -> Admitted | Refused:
    if q.params.role != "operator":
        return refuse("auth-api-key-role", trail, details=_advice("api_key_role", "review_auth_configuration"))
    if not q.peer.direct_loopback:
        if q.transport != "http":
            return refuse("device-identity-required", (*trail, "not on this host"))
        if not q.peer.encrypted:
            details = _advice("api_key_needs_encryption", "review_auth_configuration")
            return refuse("auth-api-key-needs-encryption", trail, details=details)
    scopes = _within_key(q, grantable(q.params.scopes))
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


def _within_key(q: AdmissionQuestion, asked: tuple[str, ...]) -> tuple[str, ...]:
    """What of ``asked`` an API key may have; everything where the credential is another one."""
    if q.api_key is not ApiKeyOutcome.MATCH:
        return asked
    held = frozenset(q.api_key_scopes)
    return tuple(scope for scope in asked if satisfies(held, scope))


def _admit_device(
    q: AdmissionQuestion, device_id: str, protocol: int, trail: tuple[str, ...]
) -> Admitted | PairingNeeded | Refused:
    method: AuthMethod
    paired = _approved(q, device_id)
    person = _person(q)
    if q.setup is not None and _rests_on_setup_code(q):
        return _redeem(q, q.setup, device_id, protocol, trail, paired)
    if q.api_key is ApiKeyOutcome.MATCH:
        if q.params.role != "operator":
            return refuse("auth-api-key-role", trail, details=_advice("api_key_role", "review_auth_configuration"))
        method = "api-key"
    elif person is not None:
        method = person.source
    elif q.rules.auth_type == "none" or q.secret is SecretOutcome.MATCH:
        method = _method(q.rules)
    elif q.device_token is DeviceTokenOutcome.MATCH and paired is not None:
        method = "device-token"
    else:
        return _unauthenticated(q, trail)
    if q.pairing is UNREADABLE:
        return refuse("pairing-unreadable", trail)

    asked = _within_key(q, grantable(q.params.scopes)) if q.params.role == "operator" else ()
    approved = frozenset(paired.scopes) if paired is not None else frozenset[str]()

    def let_in(scopes: tuple[str, ...], why: str, *, pair: bool = False, upgrade: tuple[str, ...] = ()) -> Admitted:
        scopes = _under_cap(person, scopes)
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
            session_scopes=_beyond(approved, scopes) if person is not None else (),
        )

    if paired is None:
        row, granted = judge(_applicant(q, asked))
        if granted is not None and method != "api-key":  # a pairing would outlive the key (V26)
            return let_in(granted, f"paired by itself: {row.why}", pair=True, upgrade=_beyond(granted, asked))
        reason: PairingReason = "role-upgrade" if q.approved_roles or q.revoked else "not-paired"
        why = "an API key pairs no device" if method == "api-key" else row.why
        return _pairing_needed(q, device_id, reason, asked, (*trail, f"a person is asked: {why}"))
    held = approved | frozenset(person.scopes) if person is not None else approved
    beyond = _beyond(held, asked)
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


def _rests_on_setup_code(q: AdmissionQuestion) -> bool:
    """A setup code counts where nothing else was presented: a wrong secret is not outweighed by it (V59)."""
    nothing_else = q.secret is SecretOutcome.MISSING and q.api_key is ApiKeyOutcome.NONE
    return nothing_else and q.device_token is DeviceTokenOutcome.NONE


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
        return _unauthenticated(q, (*trail, "it belongs to another device"))
    if judgement == "too-wide":
        details = _advice("bootstrap_scope_mismatch", "review_auth_configuration")
        return refuse("auth-setup-code-too-narrow", trail, details=details)
    if q.pairing is UNREADABLE:
        return refuse("pairing-unreadable", trail)
    asked = grantable(q.params.scopes) if role == "operator" else ()
    approved = paired is not None and not _beyond(paired.scopes, asked)
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


# --- what the steps ask ---


def _whereabouts(peer: Peer) -> str:
    if peer.direct_loopback:
        return "on this host"
    if peer.proxied_untrusted:
        return "remote, behind a proxy that is not trusted"
    return "remote, through a trusted proxy" if peer.forwarded else "remote"


def _evidence(q: AdmissionQuestion) -> tuple[str, ...]:
    device = "none"
    if q.params.device is not None and q.device is not None:
        device = f"verified {q.device.payload_version}" if q.device.ok else str(q.device.fault)
    secret = f"secret: {q.secret.value}" + (f" (from {q.secret_via})" if q.secret_via is not None else "")
    if q.api_key is not ApiKeyOutcome.NONE:
        secret += f", API key: {q.api_key.value}"
    vouched = q.peer.vouched
    if vouched is not None:
        secret += f", {vouched.source}: {vouched.reason}"
    standing = "unreadable" if q.pairing is UNREADABLE else "none" if q.pairing is None else "on record"
    return (f"device: {device}", secret, f"device token: {q.device_token.value}", f"pairing: {standing}")


def _method(rules: AdmissionRules) -> AuthMethod:
    if rules.auth_type == "none":
        return "none"
    return "password" if rules.auth_type == "password" else "token"


def _approved(q: AdmissionQuestion, device_id: str) -> PairedDevice | None:
    """The approval on record, if it is this device's in this role: a record of another one is no approval."""
    if q.pairing is None or q.pairing is UNREADABLE or q.revoked:
        return None
    return q.pairing if q.pairing.device_id == device_id and q.pairing.role == q.params.role else None


def _beyond(held: Collection[str], asked: tuple[str, ...]) -> tuple[str, ...]:
    granted = frozenset(held)
    return tuple(scope for scope in asked if not satisfies(granted, scope))


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


# --- why a credential did not do ---


def _other_credential(auth: ConnectAuth) -> bool:
    return bool(auth.device_token or auth.bootstrap_token)


def _failure_class(q: AdmissionQuestion) -> CredentialClass | None:
    """What a refusal is counted as: a wrong shared secret counts as one whatever else was sent along (V14)."""
    if q.rules.auth_type == "none":
        return None
    if q.secret in _WRONG:
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


def _unauthenticated(q: AdmissionQuestion, trail: tuple[str, ...]) -> Refused:
    counts = _failure_class(q)
    auth = q.params.auth
    proven = q.device is not None and q.device.ok
    if q.secret is SecretOutcome.LOCKED:
        details = {"authReason": "rate_limited", "recommendedNextStep": "wait_then_retry"}
        return refuse("auth-rate-limited", trail, details=details, retry_after=q.locked_for)
    if proven and q.pairing is UNREADABLE and device_token_candidates(auth):
        return refuse("pairing-unreadable", (*trail, "the device token cannot be checked"), counts=counts)
    if proven and q.pairing is UNREADABLE and auth.bootstrap_token and _rests_on_setup_code(q):
        return refuse("pairing-unreadable", (*trail, "the setup code cannot be checked"))
    if q.api_key is not ApiKeyOutcome.NONE and q.secret is not SecretOutcome.MATCH:
        return _api_key_refused(q, trail, counts)
    if q.secret is SecretOutcome.MISSING and (auth.device_token or q.device_token is DeviceTokenOutcome.EXPIRED):
        gone = q.device_token in {DeviceTokenOutcome.REVOKED, DeviceTokenOutcome.EXPIRED}
        word = q.device_token if gone else DeviceTokenOutcome.MISMATCH
        # An expired token was this device's own a moment ago, its key is proven: nobody guesses here.
        counts = None if word is DeviceTokenOutcome.EXPIRED else counts
        details = _advice(f"device_token_{word.value}", "update_auth_credentials")
        return refuse(f"auth-device-token-{word.value}", trail, details=details, counts=counts)
    vouched = q.peer.vouched
    missing = q.secret is SecretOutcome.MISSING and not _other_credential(auth)
    if missing and q.rules.auth_type == "trusted-proxy" and q.params.role == "operator":
        return _nobody_vouches(vouched.reason if vouched is not None else "trusted_proxy_untrusted_source", trail)
    if q.secret is SecretOutcome.MISSING and auth.bootstrap_token:
        details = _advice("bootstrap_token_invalid", "review_auth_configuration")
        return refuse("auth-setup-code-invalid", trail, details=details, counts=counts)
    return _secret_refused(q, trail, counts=counts, proven=proven)


def _nobody_vouches(reason: str, trail: tuple[str, ...]) -> Refused:
    """Unauthenticated, not forbidden (PROXY-1): a token or a paired device is still a way in."""
    details = _advice(reason, "review_auth_configuration")
    key = "auth-proxy-identity-missing" if reason in _NO_IDENTITY else "auth-proxy-not-believed"
    return refuse(key, (*trail, f"nobody vouches: {reason}"), details=details, reason=reason)


def _api_key_refused(q: AdmissionQuestion, trail: tuple[str, ...], counts: CredentialClass | None) -> Refused:
    if q.api_key is ApiKeyOutcome.UNREADABLE:
        return refuse("pairing-unreadable", (*trail, "the API keys cannot be read"), counts=counts)
    word = q.api_key if q.api_key in _BAD_KEYS else ApiKeyOutcome.WRONG
    details = _advice(f"api_key_{word.value}", "update_auth_credentials")
    return refuse(f"auth-api-key-{word.value}", trail, details=details, counts=counts)


def _advice(reason: str, step: str, *, retry_with_device_token: bool = False) -> dict[str, Any]:
    return {"authReason": reason, "canRetryWithDeviceToken": retry_with_device_token, "recommendedNextStep": step}


def _secret_refused(
    q: AdmissionQuestion, trail: tuple[str, ...], *, counts: CredentialClass | None, proven: bool
) -> Refused:
    kind: Literal["token", "password"] = "password" if q.rules.auth_type == "password" else "token"
    hint = reader_hint(kind, q.params)
    match q.secret:
        case SecretOutcome.UNRESOLVABLE:
            details = _advice(f"{kind}_missing_config", "update_auth_configuration")
            return refuse(f"auth-{kind}-unresolvable", trail, details=details)
        case SecretOutcome.EXPIRED:
            details = _advice("password_expired", "update_auth_credentials")
            return refuse("auth-password-expired", trail, details=details)
        case SecretOutcome.MISSING:
            details = _advice(f"{kind}_missing", "update_auth_configuration")
            if q.transport == "http" and kind == "token":
                details |= _way_in(q)
            return refuse(f"auth-{kind}-missing", trail, details=details, hint=hint)
        case SecretOutcome.MALFORMED if kind == "token":
            details = _advice("token_malformed", "update_auth_credentials")
            return refuse("auth-token-malformed", trail, details=details, counts=counts)
        case SecretOutcome.LOOKS_LIKE_SETUP_CODE if kind == "token":
            details = _advice("token_is_setup_code", "update_auth_credentials")
            return refuse("auth-token-is-setup-code", trail, details=details, counts=counts)
        case _:
            # An official client that sent the shared token alone may hold a device token of its own to try once.
            retry = kind == "token" and proven and not q.params.auth.password and not q.params.auth.device_token
            step = "retry_with_device_token" if retry else "update_auth_credentials"
            details = _advice(f"{kind}_mismatch", step, retry_with_device_token=retry)
            return refuse(f"auth-{kind}-mismatch", trail, details=details, counts=counts, hint=hint)
