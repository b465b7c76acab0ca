"""Methods that make setup codes: `device.pair.setupCode`, `device.pair.setupStatus` (spec wire.md section 7).

Owns the parameters, the results and the choice of profile. What a code may name is `policy.setupurls`', what it grants
`policy.setup`'s. Both methods need ``operator.admin``, and the caller must hold what the profile gives away (V24).
Invariant: the text of a code leaves in the answer and nowhere else.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final, Literal

import attrs
import trio

from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.devices import DeviceBookUnreadable
from openclaw_gateway.pairing.setupcodes import MAX_LIVE, SetupCodes, SetupCodesFull
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.setup import PROFILES, Access, encode_setup_code, missing_to_issue, setup_payload
from openclaw_gateway.policy.setupurls import (
    Reachability,
    SetupUrls,
    Unreachable,
    join_base,
    proxied_origin,
    setup_urls,
)
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.audit import recorded
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["SetupSituation", "register"]

MAX_QR_CHARS: Final = 16_384  # what OpenClaw's clients take

log = get_logger("pairing")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SetupSituation(Value):
    """What the gateway knows of itself at the moment of a call. ``auth``: the kind of its shared secret."""

    reach: Reachability
    ttl_ms: int
    auth: Literal["token", "password"] = "token"
    http: bool = True
    tls_fingerprint: str | None = None
    gateway_id: str | None = None  # where secure channels are offered


@attrs.frozen(eq=False, repr=False)
class SetupCodeParams(Value):
    """``bootstrap_profile`` None: everything a phone can be given, as far as the way to it is safe."""

    public_url: str | None = None
    prefer_remote_url: bool = False
    include_qr: bool = True
    bootstrap_profile: Literal["limited", "node"] | None = None
    join_url: bool = False


@attrs.frozen(eq=False, repr=False)
class SetupStatusParams(Value):
    setup_id: str


def register(
    table: MethodTable,
    *,
    codes: SetupCodes,
    situation: Callable[[], SetupSituation],
    audit: AuditTrail | None = None,
) -> None:
    one = trio.CapacityLimiter(1)

    async def setup_code(context: CallContext, params: SetupCodeParams) -> dict[str, Any]:
        now = situation()
        urls = _urls(context, params, now.reach)
        access: Access = params.bootstrap_profile or "full"
        downgraded = access == "full" and urls.exposed
        if downgraded:
            access = "limited"
        elif access == "full":
            urls = urls.sheltered()
        missing = missing_to_issue(PROFILES[access], context.scopes)
        if missing:
            details = {"missingScope": missing[0], "requiredScopes": list(missing)}
            raise CallError(wire_error("missing-scope", scope=missing[0], details=details))
        base = _join_base(urls, now) if params.join_url else None
        try:
            issued = await codes.issue(
                access,
                urls=urls.urls,
                issuer=context.principal,
                ttl_ms=now.ttl_ms,
                join=base is not None,
                tls_fingerprint=now.tls_fingerprint,
            )
        except SetupCodesFull as exc:
            error = wire_error("setup-codes-full", limit=MAX_LIVE)
            raise CallError(attrs.evolve(error, retry_after_ms=exc.wait_ms)) from exc
        except (StoreError, DeviceBookUnreadable) as exc:
            raise CallError(wire_error("store-unavailable")) from exc
        log.info("pairing: a setup code was made", subject=issued.setup_id, mode=access, peer=context.client_address)
        if audit is not None:
            await recorded(
                audit, Action.SETUP_CODE_CREATED, context, key_id=issued.setup_id, label=access,
                scopes=PROFILES[access].operator_scopes, expires_at=issued.expires_at_ms,
            )  # fmt: skip
        payload = setup_payload(
            urls.urls, issued.token, issued.expires_at_ms, tls_fingerprint=now.tls_fingerprint,
            gateway_id=now.gateway_id if access == "node" else None,  # phones do not speak the secure channel
        )  # fmt: skip
        code = encode_setup_code(payload)
        answer: dict[str, Any] = {
            "setupId": issued.setup_id,
            "expiresAtMs": issued.expires_at_ms,
            "setupCode": code,
            "gatewayUrl": urls.urls[0],
            "auth": now.auth,
            "urlSource": urls.source,
            "access": access,
        }
        if len(urls.urls) > 1:
            answer["gatewayUrls"] = list(urls.urls)
        if downgraded:
            answer["accessDowngraded"] = True
        if base is not None:
            answer["joinUrl"] = f"{base}/j/{issued.join_code}"
        if params.include_qr:
            # Drawing takes some 20 ms, loading the library three times that: too long for the loop.
            picture = await trio.to_thread.run_sync(_qr_data_url, code, limiter=one, abandon_on_cancel=True)
            if len(picture) <= MAX_QR_CHARS:
                answer["qrDataUrl"] = picture
        return answer

    def setup_status(context: CallContext, params: SetupStatusParams) -> dict[str, Any]:
        done = codes.completion(params.setup_id)
        return {} if done is None else {"completion": done.to_wire()}

    # Not advertised, as OpenClaw's gateway has it: whoever may call them knows them.
    table.method(
        "device.pair.setupCode", scope="operator.admin", params=SetupCodeParams, concurrency=4, queue=16,
        advertised=False,
    )(setup_code)  # fmt: skip
    table.method("device.pair.setupStatus", scope="operator.admin", params=SetupStatusParams, advertised=False)(
        setup_status
    )


def _urls(context: CallContext, params: SetupCodeParams, reach: Reachability) -> SetupUrls:
    peer = getattr(context, "peer", None)  # sessions and HTTP requests have one; other callers came over no network
    found = setup_urls(
        reach,
        written=params.public_url,
        proxied=proxied_origin(peer if isinstance(peer, Peer) else None),
        prefer_remote=params.prefer_remote_url,
    )
    if isinstance(found, Unreachable):
        raise _unreachable(found.reason, found.fix)
    return found


def _join_base(urls: SetupUrls, now: SetupSituation) -> str:
    if not now.http:
        fix = "openclaw config set gateway.transports.http.enabled true"
        raise _unreachable("no join URL can be served while gateway.transports.http.enabled is false", fix)
    base = join_base(urls.urls)
    if base is None:
        reason = f"a join URL would send its secret in plaintext to {urls.urls[0]}: it needs an https address"
        raise _unreachable(reason, "openclaw config set gateway.publicUrl https://<host>, or openclaw qr --node")
    return base


def _unreachable(reason: str, fix: str) -> CallError:
    return CallError(wire_error("setup-code-unreachable", reason=reason, details={"remediationHint": fix}))


def _qr_data_url(code: str) -> str:
    import segno

    picture = BytesIO()
    segno.make(code, error="l", micro=False).save(picture, kind="png", scale=4, border=4)
    return "data:image/png;base64," + base64.b64encode(picture.getvalue()).decode("ascii")
