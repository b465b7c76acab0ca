"""`auth.refresh`, and the API keys: `tokens.create`, `tokens.list`, `tokens.revoke`.

Owns their parameters, scopes and wire errors. Rotation is `pairing.issued`'s, keys are `pairing.apikeys`'. Invariants:
a refresh answers to the device that owns the token and to nobody else (V51); a new key gets no scope that its maker
lacks (V18); no key makes keys, or its work would outlive its revocation (V26); a key's text leaves once, in the answer
to the call that made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import attrs

from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.apikeys import MAX_KEYS, ApiKey, ApiKeyRefused, ApiKeys, ApiKeysUnreadable
from openclaw_gateway.pairing.devices import DeviceBookUnreadable
from openclaw_gateway.pairing.issued import IssuedTokens, RefreshRefused
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.protocol.scopes import KNOWN_OPERATOR_SCOPES, READ, satisfies
from openclaw_gateway.rpc.table import ANY_OPERATOR, CallContext, CallError, MethodTable, NoParams
from openclaw_gateway.server.gatekeeper import refresh_refusal
from openclaw_gateway.server.recording import record_refreshed
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["register", "register_keys"]

MAX_LIFE_MS: Final = 3650 * 86_400_000
_ROWS: Final = {"name-taken": "api-key-name-taken", "limit": "api-key-limit", "unknown": "api-key-unknown"}

log = get_logger("tokens")


@attrs.frozen(eq=False, repr=False)
class RefreshParams(Value):
    refresh_token: str


@attrs.frozen(eq=False, repr=False)
class CreateParams(Value):
    """``expires_in_ms``: the key's own life from now on; without it, it lives as long as every issued token."""

    name: str
    scopes: list[str] = attrs.field(factory=lambda: [READ])
    expires_in_ms: int | None = None


@attrs.frozen(eq=False, repr=False)
class RevokeParams(Value):
    """``name`` is a key's name or id."""

    name: str


def register(table: MethodTable, *, issued: IssuedTokens, keys: ApiKeys, audit: AuditTrail) -> None:
    """Add the methods. What they do to API keys is in the audit trail before it is acknowledged."""
    _register_refresh(table, issued, audit)
    register_keys(table, keys, audit)


def _register_refresh(table: MethodTable, issued: IssuedTokens, audit: AuditTrail) -> None:
    async def refresh(context: CallContext, params: RefreshParams) -> dict[str, Any]:
        if context.device_id is None:
            raise CallError(refresh_refusal(RefreshRefused("not-a-device")))
        try:
            handout = await issued.refresh(params.refresh_token, now_ms(), caller=(context.device_id, context.role))
        except RefreshRefused as refused:
            log.warning("auth refresh refused", device_id=context.device_id, role=context.role, reason=refused.reason)
            raise CallError(refresh_refusal(refused)) from refused
        except (StoreError, DeviceBookUnreadable) as exc:
            raise CallError(wire_error("store-unavailable")) from exc
        log.info("auth token refreshed", device_id=context.device_id, role=context.role, peer=context.client_address)
        record_refreshed(audit, handout, context.client_address)
        return handout.to_wire()

    table.method("auth.refresh", scope=ANY_OPERATOR, also_nodes=True, params=RefreshParams)(refresh)


def register_keys(table: MethodTable, keys: ApiKeys, audit: AuditTrail) -> None:
    """Add `tokens.*` alone: what the command line needs while no gateway runs."""

    async def create(context: CallContext, params: CreateParams) -> dict[str, Any]:
        if context.auth_method == "api-key":
            raise CallError(wire_error("api-key-makes-no-keys"))
        missing = [scope for scope in params.scopes if not satisfies(context.scopes, scope)]
        if missing:
            held = ", ".join(sorted(scope for scope in KNOWN_OPERATOR_SCOPES if satisfies(context.scopes, scope)))
            fault = f"at /scopes: {missing[0][:80]!r} is unknown or more than the caller holds ({held})"
            raise _bad("tokens.create", fault)
        now, ends = now_ms(), None
        if params.expires_in_ms is not None:
            if not 0 < params.expires_in_ms <= MAX_LIFE_MS:
                raise _bad("tokens.create", f"at /expiresInMs: must be 1 to {MAX_LIFE_MS}")
            ends = now + params.expires_in_ms
        with _faults("tokens.create"):
            key, text = await keys.create(params.name, params.scopes, by=context.principal, now=now, expires_at_ms=ends)
        await _record(Action.API_KEY_CREATED, audit, context, key)
        return {"key": text, **key.to_wire(keys.rules, now)}

    def listed(context: CallContext, params: NoParams) -> dict[str, Any]:
        now = now_ms()
        with _faults("tokens.list"):
            return {"ts": now, "keys": [key.to_wire(keys.rules, now) for key in keys.listed()]}

    async def revoke(context: CallContext, params: RevokeParams) -> dict[str, Any]:
        now = now_ms()
        with _faults("tokens.revoke"):
            key = await keys.revoke(params.name, now)
        await _record(Action.API_KEY_REVOKED, audit, context, key)
        return key.to_wire(keys.rules, now)

    table.method("tokens.create", scope="operator.admin", params=CreateParams)(create)
    table.method("tokens.list", scope="operator.admin")(listed)
    table.method("tokens.revoke", scope="operator.admin", params=RevokeParams)(revoke)


async def _record(action: Action, audit: AuditTrail, context: CallContext, key: ApiKey) -> None:
    if action is Action.API_KEY_CREATED:
        log.info("auth: API key created", name=key.name, subject=key.key_id, scopes=key.scopes)
    else:
        log.info("auth: API key revoked", name=key.name, subject=key.key_id)
    with suppress(StoreError):  # the change stands; the row stays queued
        await audit.commit(
            action,
            actor=context.principal,
            address=context.client_address,
            key_id=key.key_id,
            label=key.name,
            scopes=key.scopes,
            expires_at=key.expires_at_ms,
        )


@contextmanager
def _faults(method: str) -> Iterator[None]:
    """What the keys raise, as errors of the wire."""
    try:
        yield
    except ApiKeyRefused as refused:
        raise _refused(method, refused) from refused
    except (StoreError, ApiKeysUnreadable) as exc:
        raise CallError(wire_error("store-unavailable")) from exc


def _bad(method: str, fault: str) -> CallError:
    return CallError(wire_error("invalid-params", method=method, fault=fault))


def _refused(method: str, refused: ApiKeyRefused) -> CallError:
    row = _ROWS.get(refused.reason)
    if row is not None:
        return CallError(wire_error(row, limit=MAX_KEYS))
    if refused.reason == "name":
        return _bad(method, "at /name: must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit")
    return _bad(method, "at /scopes: must name at least one scope")
