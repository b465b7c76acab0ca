"""Who gets in, as what, and why: one pure decision for WebSocket and HTTP.

`admit` takes everything the shell measured (`question.AdmissionQuestion`) and returns a verdict with its trail. The
shell compares secrets, verifies the signature, looks the device up, waits the failure delay and registers pending
requests; nothing is measured or done here.

Owns the order of checks (spec wire.md section 3): protocol, role, origin, missing device (`deviceless`), device proof,
secure channel, then shared secret or device token and pairing (`devices`); `credentials` says why none of them did.
Invariants: client id, mode and name never open a door (V12; a mode can only make less of a grant, and an old probe or
node may speak protocol 3); a grant is within what was asked and within what the server grants (V10, V22); a wrong
credential is never outweighed by a self-made key (V59); what cannot be read is not "unpaired" (V60); no credential
appears in a verdict.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import attrs

from openclaw_gateway.policy.autoapprove import AutoApproveRules
from openclaw_gateway.policy.channel import judge_channel
from openclaw_gateway.policy.credentials import (
    PresentedSecret,
    device_token_candidates,
    failure_class,
    presented_secret,
)
from openclaw_gateway.policy.deviceless import admit_without_device
from openclaw_gateway.policy.devices import admit_device
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.origin import OriginVerdict
from openclaw_gateway.policy.question import (
    UNREADABLE,
    AdmissionQuestion,
    AdmissionRules,
    DeviceTokenOutcome,
    PairedDevice,
    SecretSource,
    Unreadable,
)
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.policy.tokenlife import ApiKeyOutcome
from openclaw_gateway.policy.verdicts import Admitted, PairingNeeded, Refused, pairing_refusal, refuse
from openclaw_gateway.protocol.connect import ConnectParams, bearer_params
from openclaw_gateway.protocol.errors import ERRORS
from openclaw_gateway.protocol.scopes import KNOWN_OPERATOR_SCOPES, ROLES

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
    "Unreadable",
    "admit",
    "admit_http",
    "device_token_candidates",
    "pairing_refusal",
    "presented_secret",
]

PROTOCOL: Final = 4
LEGACY_PROTOCOL: Final = 3


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
        return admit_without_device(q, protocol, trail)
    certified = q.peer.arrival.certificate
    if q.device.ok and certified is not None and certified != q.device.device_id:
        return refuse("certificate-device-mismatch", (*trail, "client certificate: of another device"))
    if not q.device.ok or q.device.device_id is None:
        fault = q.device.fault or "device-signature"
        details = {"reason": fault, **q.device.details}
        return refuse(fault, trail, details=details, counts=failure_class(q))
    fault_of_channel = judge_channel(
        q.rules.secure_channel, role=q.params.role, device_id=q.device.device_id, opened_by=q.opened_by,
        registered=q.registered_key,
    )  # fmt: skip
    if fault_of_channel is not None:
        fix = ERRORS[fault_of_channel].fix.replace("<deviceId>", q.device.device_id)
        return refuse(fault_of_channel, trail, details={"remediationHint": fix})
    return admit_device(q, q.device.device_id, protocol, trail)


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
