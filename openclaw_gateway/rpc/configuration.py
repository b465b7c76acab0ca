"""The configuration over the wire: `config.get`, `config.set`, `config.patch`, `config.schema` and its `lookup`; for a
change on probation `config.pending`, `config.confirm`, `config.rollback`.

Owns parameters and the translation of faults into wire errors. Reading, redaction, checking and writing are config/'s;
taking a new file over is the watcher's. Invariants: nothing that leaves holds a secret (AUTH-4, V51); a write needs the
hash it was made from, or means what is there now; an embedded gateway without a file says so instead of inventing one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from openclaw_gateway.config.issues import ConfigError
from openclaw_gateway.config.load import LoadedConfig, load_config
from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.audit import recorded
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable, NoParams
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from openclaw_gateway.server.probation import Probation

__all__ = ["register"]


@attrs.frozen(eq=False, repr=False)
class SetParams(Value):
    raw: str
    base_hash: str | None = None


@attrs.frozen(eq=False, repr=False)
class PatchParams(Value):
    raw: str
    base_hash: str | None = None
    session_key: str | None = None
    delivery_context: dict[str, Any] | None = None
    note: str | None = None
    restart_delay_ms: int | None = None
    replace_paths: tuple[str, ...] = ()


@attrs.frozen(eq=False, repr=False)
class LookupParams(Value):
    path: str


def register(
    table: MethodTable,
    *,
    current: Callable[[], LoadedConfig | None],
    env: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    audit: AuditTrail | None = None,
    probation: Callable[[], Probation | None] = lambda: None,
) -> None:
    """``current`` is the configuration the gateway runs with; None where it was not loaded from a file.

    ``env`` and ``overrides`` are those it was loaded with; ``probation`` is asked when a change may be on it.
    """
    load = partial(load_config, env=env, overrides=overrides)
    trail = audit if audit is not None else AuditTrail()

    def running() -> LoadedConfig:
        loaded = current()
        if loaded is None:
            raise CallError(wire_error("no-config-file"))
        return loaded

    def get_config(context: CallContext, params: NoParams) -> dict[str, Any]:
        from openclaw_gateway.config.view import snapshot

        applied = running()
        try:
            fresh = load(path=applied.path)
        except ConfigError as exc:
            broken = snapshot(applied, applied_hash=applied.hash)
            issues = [issue.to_wire() for issue in exc.issues]
            return _for_scopes({**broken, "valid": False, "issues": issues}, context)
        return _for_scopes(snapshot(fresh, applied_hash=applied.hash), context)

    async def written(context: CallContext, change: Callable[[LoadedConfig], Any]) -> dict[str, Any]:
        out, keys = _write(running(), load, change)
        if keys is not None:  # None: the file was what was asked for already
            after = str(out["hash"])[:12]
            await recorded(trail, Action.CONFIG_CHANGED, context, keys=keys, hash_after=after, source="call")
        return out

    async def set_config(context: CallContext, params: SetParams) -> dict[str, Any]:
        from openclaw_gateway.config.writing import apply_raw

        return await written(context, lambda now: apply_raw(now, params.raw, env=env, base_hash=params.base_hash))

    async def patch_config(context: CallContext, params: PatchParams) -> dict[str, Any]:
        from openclaw_gateway.config.writing import apply_patch

        patch = _read_patch(params.raw)
        return await written(context, lambda now: apply_patch(now, patch, env=env, base_hash=params.base_hash))

    @cache
    def encoded_schema() -> msgspec.Raw:
        made = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = {"schema": whole_schema(), "uiHints": {}, "version": "1", "generatedAt": made}
        return msgspec.Raw(msgspec.json.encode(told))

    @cache
    def whole_schema() -> dict[str, Any]:
        from openclaw_gateway.config.jsonschema import json_schema

        return json_schema()

    def look_up(context: CallContext, params: LookupParams) -> dict[str, Any]:
        from openclaw_gateway.config.lookup import look_up
        from openclaw_gateway.config.settings import SECRETS

        found = look_up(whole_schema(), params.path, SECRETS)
        if found is None:
            raise CallError(wire_error("config-path-unknown"))
        return found

    def get_schema(context: CallContext, params: NoParams) -> msgspec.Raw:
        return encoded_schema()

    table.method("config.get", scope="operator.read")(get_config)
    table.method("config.set", scope="operator.admin", params=SetParams)(set_config)
    table.method("config.patch", scope="operator.admin", params=PatchParams)(patch_config)
    table.method("config.schema", scope="operator.read")(get_schema)
    table.method("config.schema.lookup", scope="operator.read", params=LookupParams)(look_up)
    _register_probation(table, probation)


def _register_probation(table: MethodTable, probation: Callable[[], Probation | None]) -> None:
    def tried() -> Probation:
        found = probation()
        if found is None:
            raise CallError(wire_error("no-config-file"))
        return found

    def pending(context: CallContext, params: NoParams) -> dict[str, Any]:
        return {"pending": tried().view()}

    async def confirm(context: CallContext, params: NoParams) -> dict[str, Any]:
        return await tried().confirm(context)

    async def roll_back(context: CallContext, params: NoParams) -> dict[str, Any]:
        return await tried().roll_back(context)

    table.method("config.pending", scope="operator.read")(pending)
    table.method("config.confirm", scope="operator.admin")(confirm)
    table.method("config.rollback", scope="operator.admin")(roll_back)


def _read_patch(raw: str) -> dict[str, Any]:
    from openclaw_gateway.config.json5 import Json5Error, loads

    try:
        patch = loads(raw)
    except Json5Error as exc:
        raise CallError(wire_error("config-invalid", fault=f"patch: {exc}")) from exc
    if not isinstance(patch, dict):
        raise CallError(wire_error("config-invalid", fault="patch: must be an object"))
    return patch


def _write(
    applied: LoadedConfig, load: Callable[..., LoadedConfig], change: Callable[[LoadedConfig], Any]
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """Run one change against the file as it is now, and translate what can go wrong. Gives the answer and the paths
    that changed; None where nothing was written.
    """
    from openclaw_gateway.config.edit import EditError
    from openclaw_gateway.config.redact import MarkerRefusedError
    from openclaw_gateway.config.view import snapshot
    from openclaw_gateway.config.watch import changed_paths
    from openclaw_gateway.config.writing import ConfigConflictError

    try:
        fresh = load(path=applied.path)
    except ConfigError:
        fresh = applied  # the file is broken; a whole new text may mend it
    try:
        written, issues = change(fresh)
    except ConfigError as exc:
        details = {"issues": [issue.to_wire() for issue in exc.issues]}
        raise CallError(wire_error("config-invalid", details=details, fault=str(exc))) from exc
    except ConfigConflictError as exc:
        raise CallError(wire_error("config-conflict", details={"hash": exc.present_hash})) from exc
    except (EditError, MarkerRefusedError) as exc:
        raise CallError(wire_error("config-invalid", fault=str(exc))) from exc
    out: dict[str, Any] = {"ok": True, "path": str(applied.path), "issues": [issue.to_wire() for issue in issues]}
    if written is None:
        return out, None
    out |= {"hash": written.hash, "config": snapshot(written, applied_hash=applied.hash)["config"]}
    return out, changed_paths(fresh, written)


def _for_scopes(shown: dict[str, Any], context: CallContext) -> dict[str, Any]:
    """Where the file lies is for administrators (V50); the official UI reads ``path`` only to show it."""
    if "operator.admin" not in context.scopes:
        return {**shown, "path": "openclaw.json"}
    return shown
