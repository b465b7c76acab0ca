"""What pairing knows, as values: a paired device, a pending request, what became of one; and their wire shapes.

Owns the records and how they look in `device.pair.list` and in the `device.pair.*` events (spec wire.md section 11 and
method-shapes). Pure: no clock, no randomness, no files. It must not know how records are stored.

Invariants: what a peer says about itself is clipped and free of control characters before it becomes part of a record;
a record's repr holds no secret; the hash of a request covers exactly what an approval grants (key, role, scopes,
commands, and the X25519 key where the device registers one).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.protocol.scopes import grantable
from openclaw_gateway.value import Value

__all__ = [
    "CHANGED",
    "Ask",
    "BookEvent",
    "PairedDevice",
    "PendingRequest",
    "Reason",
    "Resolution",
    "ask_hash",
    "key_of",
    "paired_to_wire",
    "pending_to_wire",
    "requested_event",
    "resolved_event",
    "statement_to_wire",
]

Reason = Literal["not-paired", "scope-upgrade", "role-upgrade"]

MAX_TEXT: Final = 128
MAX_NAMES: Final = 256


def _plain(text: str | None) -> str:
    """At most 128 printable characters: names end up on terminals and in logs."""
    return "".join(c for c in (text or "")[: 4 * MAX_TEXT] if c.isprintable())[:MAX_TEXT].strip()


def _name(text: str | None) -> str | None:
    return _plain(text) or None


def _names(values: Iterable[str]) -> tuple[str, ...]:
    """Each once, sorted, at most 256 of them; a name that is too long or not printable is left out, not changed."""
    kept = {value for value in values if 0 < len(value) <= MAX_TEXT and value.isprintable()}
    return tuple(sorted(kept))[:MAX_NAMES]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Ask(Value):
    """What a peer asks for at one connect, after its signature was found good.

    ``device_id`` is the lowercase hex SHA-256 of the raw key, ``public_key`` base64url of the raw key. Scopes that this
    gateway does not know fall away here; a node is granted no operator scope.
    """

    device_id: str
    public_key: str
    role: str
    scopes: tuple[str, ...] = ()
    client_id: str = attrs.field(default="", converter=_plain)
    client_mode: str = attrs.field(default="", converter=_plain)
    display_name: str | None = attrs.field(default=None, converter=_name)
    platform: str = attrs.field(default="", converter=_plain)
    device_family: str = attrs.field(default="", converter=_plain)
    version: str = attrs.field(default="", converter=_plain)
    source_ip: str = ""
    caps: tuple[str, ...] = attrs.field(default=(), converter=_names)
    commands: tuple[str, ...] = attrs.field(default=(), converter=_names)
    key_statement: str | None = None  # as in `PairedDevice`

    def __attrs_post_init__(self) -> None:
        wanted = grantable(self.scopes) if self.role == "operator" else ()
        object.__setattr__(self, "scopes", tuple(sorted(wanted)))


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PairedDevice(Value):
    """One approved (device, role). Times are Unix milliseconds; ``roles`` are all live roles of the same device."""

    device_id: str
    public_key: str
    role: str
    roles: tuple[str, ...]
    scopes: tuple[str, ...]
    client_id: str
    client_mode: str
    display_name: str | None
    label: str | None  # the name an operator gave it
    platform: str
    device_family: str
    created_at_ms: int
    approved_at_ms: int
    approved_via: str  # "local", "operator:<id>", ...
    last_seen_at_ms: int
    last_ip: str
    token_generation: int
    token_issued_at_ms: int
    token_salt: bytes = attrs.field(repr=False)
    token_digest: bytes = attrs.field(repr=False)
    revoked_at_ms: int | None = None
    key_statement: str | None = None  # JSON of a verified `protocol.keystatement.KeyStatement`, the device's own

    @property
    def secure_key(self) -> str | None:
        """The registered X25519 key (base64url): a device that has one connects through a secure channel only."""
        return key_of(self.key_statement)

    @property
    def live(self) -> bool:
        """False where this record grants nothing: revoked, or without a token (V26)."""
        return self.revoked_at_ms is None and self.token_generation > 0


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PendingRequest(Value):
    """What waits for a person. One per (device key, role); ``scopes`` and ``commands`` are the widest asked so far."""

    request_id: str
    device_id: str
    public_key: str
    role: str
    scopes: tuple[str, ...]
    caps: tuple[str, ...]
    commands: tuple[str, ...]
    client_id: str
    client_mode: str
    display_name: str | None
    platform: str
    device_family: str
    version: str
    source_ip: str
    reason: Reason
    ask_hash: str
    first_seen_ms: int
    last_seen_ms: int
    expires_at_ms: int
    key_statement: str | None = None

    def covers(self, ask: Ask) -> bool:
        """True where ``ask`` is the same or narrower (PAIR-3). Names, versions and addresses do not count (PAIR-9)."""
        return (
            key_of(ask.key_statement) in {None, key_of(self.key_statement)}
            and set(ask.scopes) <= set(self.scopes)
            and set(ask.caps) <= set(self.caps)
            and set(ask.commands) <= set(self.commands)
        )


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Resolution(Value):
    """What became of a request id that is pending no longer."""

    request_id: str
    device_id: str
    role: str
    decision: str  # approved | rejected | superseded
    replaced_by: str | None
    added_scopes: tuple[str, ...]
    at_ms: int


@attrs.frozen(eq=False, repr=False)
class BookEvent(Value):
    """An event for the shell to publish: its name and payload."""

    name: str
    payload: dict[str, Any]


CHANGED: Final = BookEvent("device.pair.changed", {})  # a paired device is not what it was: ask for the list again


def ask_hash(
    public_key: str, role: str, scopes: Sequence[str], commands: Sequence[str], secure_key: str | None = None
) -> str:
    """SHA-256 (hex) over what an approval grants, so that it can be bound to what the operator saw (PAIR-5)."""
    granted = [public_key, role, sorted(scopes), sorted(commands), *([secure_key] if secure_key is not None else [])]
    canonical = json.dumps(granted, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def key_of(statement: str | None) -> str | None:
    """The X25519 key (base64url) in the text of a key statement. ValueError where it is none."""
    if statement is None:
        return None
    value = json.loads(statement)
    key = value.get("key") if isinstance(value, dict) else None
    if not isinstance(key, str):
        raise ValueError("not a key statement")  # noqa: TRY004  damaged data, not a mistake of the caller
    return key


def statement_to_wire(statement: str | None) -> dict[str, Any] | None:
    """A key statement as it stands in rows of devices and nodes; whoever relies on it verifies it."""
    value = json.loads(statement) if statement is not None else None
    return value if isinstance(value, dict) else None


def pending_to_wire(request: PendingRequest, *, is_repair: bool = False) -> dict[str, Any]:
    """A row of ``pending`` in `device.pair.list`. ``ts`` is when it was first asked: retries do not move it."""
    return {
        **requested_event(request, is_repair=is_repair).payload,
        "version": request.version,
        "reason": request.reason,
        "caps": list(request.caps),
        "commands": list(request.commands),
        "askHash": request.ask_hash,
        **_key_to_wire(request.key_statement),
        "lastSeenAtMs": request.last_seen_ms,
        "expiresAtMs": request.expires_at_ms,
    }


def requested_event(request: PendingRequest, *, is_repair: bool) -> BookEvent:
    """`device.pair.requested`; ``is_repair``: the device is known already. Members without a value are left out."""
    payload: dict[str, Any] = {
        "requestId": request.request_id,
        "deviceId": request.device_id,
        "publicKey": request.public_key,
        "displayName": request.display_name,
        "platform": request.platform,
        "deviceFamily": request.device_family,
        "clientId": request.client_id,
        "clientMode": request.client_mode,
        "role": request.role,
        "roles": [request.role],
        "scopes": list(request.scopes),
        "remoteIp": request.source_ip,
        "silent": False,
        "isRepair": is_repair,
        "ts": request.first_seen_ms,
    }
    return BookEvent("device.pair.requested", {k: v for k, v in payload.items() if v is not None and v != ""})


def resolved_event(request_id: str, device_id: str, decision: str, now: int) -> BookEvent:
    """`device.pair.resolved`: approved, rejected, superseded or expired."""
    payload = {"requestId": request_id, "deviceId": device_id, "decision": decision, "ts": now}
    return BookEvent("device.pair.resolved", payload)


def paired_to_wire(records: Sequence[PairedDevice]) -> dict[str, Any]:
    """A row of ``paired`` in `device.pair.list`: all records of one device. Holds no token, digest or salt."""
    newest = max(records, key=lambda record: record.approved_at_ms)
    live = [record for record in records if record.live]
    row: dict[str, Any] = {
        "deviceId": newest.device_id,
        "publicKey": newest.public_key,
        "displayName": newest.label or newest.display_name,
        "operatorLabel": newest.label,
        "platform": newest.platform,
        "deviceFamily": newest.device_family,
        "clientId": newest.client_id,
        "clientMode": newest.client_mode,
        "role": newest.role,
        "roles": [record.role for record in live],
        "scopes": sorted({scope for record in live for scope in record.scopes}),
        "approvedVia": newest.approved_via,
        "createdAtMs": newest.created_at_ms,
        "approvedAtMs": newest.approved_at_ms,
        "lastSeenAtMs": max(record.last_seen_at_ms for record in records),
        "remoteIp": newest.last_ip,
        "tokens": [_token_to_wire(record) for record in records],
        **_key_to_wire(newest.key_statement),
    }
    return {key: value for key, value in row.items() if value is not None and value != ""}


def _key_to_wire(statement: str | None) -> dict[str, Any]:
    wire = statement_to_wire(statement)
    return {} if wire is None else {"keyStatement": wire}


def _token_to_wire(record: PairedDevice) -> dict[str, Any]:
    token: dict[str, Any] = {
        "role": record.role,
        "scopes": list(record.scopes),
        "createdAtMs": record.approved_at_ms,
        "lastUsedAtMs": record.last_seen_at_ms,
    }
    if record.token_issued_at_ms > record.approved_at_ms:
        token["rotatedAtMs"] = record.token_issued_at_ms
    if record.revoked_at_ms is not None:
        token["revokedAtMs"] = record.revoked_at_ms
    return token
