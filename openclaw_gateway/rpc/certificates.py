"""``device.cert.*``: client certificates for paired devices.

Owns the parameters, the results and who may ask for whose: a device for itself, whoever decides about devices
(``operator.pairing``, within `rpc.pairing.own_device_of`) for others. It must not know cryptography or rows. A device
makes its own key and sends a request (PKCS #10); no private key is ever on the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import attrs

from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.auditrows import Action
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.clientcerts import CertificateRecord, DeviceNotPaired, IssuedCertificates
from openclaw_gateway.pairing.devices import DeviceBookUnreadable
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.protocol.scopes import PAIRING, READ, satisfies
from openclaw_gateway.rpc.audit import recorded
from openclaw_gateway.rpc.pairing import own_device_of
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["register"]

_CONCURRENT: Final = 4
_QUEUED: Final = 16

log = get_logger("pairing")


@attrs.frozen(eq=False, repr=False)
class IssueParams(Value):
    """``csr_pem``: a PKCS #10 request in PEM; ``device_id``: whose, default: the caller's own."""

    csr_pem: str
    device_id: str | None = None


@attrs.frozen(eq=False, repr=False)
class ListParams(Value):
    device_id: str | None = None


@attrs.frozen(eq=False, repr=False)
class RevokeParams(Value):
    device_id: str


def register(
    table: MethodTable,
    issued: IssuedCertificates,
    *,
    fingerprint: Callable[[], str | None],
    client_auth: Callable[[], str],
    audit: AuditTrail,
) -> None:
    """``fingerprint``: of the certificate that the gateway shows; ``client_auth``: gateway.tls.clientAuth."""

    def whose(context: CallContext, device_id: str | None) -> str:
        own = context.device_id
        device = device_id if device_id is not None else own
        if device is None:
            raise CallError(wire_error("certificate-whose"))
        if device == own:
            return device
        if context.role != "operator" or not satisfies(context.scopes, PAIRING):
            details = {"missingScope": PAIRING, "requiredScopes": [PAIRING]}
            raise CallError(wire_error("missing-scope", scope=PAIRING, details=details))
        if own_device_of(context) not in {None, device}:
            raise CallError(wire_error("certificate-unknown-device", device=device[:80]))
        return device

    async def issue(context: CallContext, params: IssueParams) -> dict[str, Any]:
        from openclaw_gateway.pairing.clientca import RequestRefused

        device = whose(context, params.device_id)
        try:
            pem, record = await issued.issue(params.csr_pem, device, by=context.principal, now=now_ms())
        except RequestRefused as exc:
            raise CallError(wire_error("certificate-request-refused", fault=exc.reason)) from exc
        except DeviceNotPaired as exc:
            raise CallError(wire_error("certificate-unknown-device", device=device[:80])) from exc
        except (StoreError, DeviceBookUnreadable) as exc:
            raise CallError(wire_error("store-unavailable")) from exc
        log.info("pairing: client certificate issued", device_id=device, certificate=record.fingerprint)
        await recorded(audit, Action.CERTIFICATE_ISSUED, context, **_fields(record))
        return {
            **record.to_wire(),
            "certPem": pem,
            "caPem": issued.authority.pem,
            "tlsFingerprint": fingerprint(),
            "clientAuth": client_auth(),
        }

    def list_(context: CallContext, params: ListParams) -> dict[str, Any]:
        device = params.device_id
        if context.role != "operator" or not satisfies(context.scopes, PAIRING) or own_device_of(context) is not None:
            device = whose(context, device)
        return {"certificates": [record.to_wire() for record in issued.listed(device)], "clientAuth": client_auth()}

    async def revoke(context: CallContext, params: RevokeParams) -> dict[str, Any]:
        device = whose(context, params.device_id)
        try:
            count = await issued.revoke(device)
        except StoreError as exc:
            raise CallError(wire_error("store-unavailable")) from exc
        log.info("pairing: client certificates revoked", device_id=device, count=count)
        await recorded(audit, Action.CERTIFICATE_REVOKED, context, device=device)
        return {"deviceId": device, "revoked": count}

    table.method(
        "device.cert.issue", scope=READ, also_nodes=True, params=IssueParams, concurrency=_CONCURRENT,
        queue=_QUEUED,
    )(issue)  # fmt: skip
    table.method("device.cert.list", scope=READ, also_nodes=True, params=ListParams)(list_)
    table.method("device.cert.revoke", scope=PAIRING, params=RevokeParams)(revoke)


def _fields(record: CertificateRecord) -> dict[str, Any]:
    return {"device": record.device_id, "expires_at": record.not_after_ms, "key_id": record.fingerprint[:16]}
