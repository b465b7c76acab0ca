"""What a client says to be let in, and what it hears back. Values in, values out; no sockets.

Owns the connect parameters (spec wire.md sections 2 to 4) and the reading of hello-ok. Invariant: a secret appears in
the encoded connect request and nowhere else, no ``repr`` included."""

from __future__ import annotations

import platform as host_platform
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import attrs

from openclaw_gateway.client.errors import ConnectFailed, Stage, fix_for
from openclaw_gateway.client.identity import DeviceIdentity, v3_payload
from openclaw_gateway.policy.addresses import is_loopback

__all__ = ["Credentials", "Hello", "Introduction", "connect_params", "refusal"]

PROTOCOL: Final = 4
OLDEST_PROBE_PROTOCOL: Final = 3
DEVICE_FAMILY: Final = host_platform.system()  # Linux, Darwin, Windows
PLATFORM: Final = DEVICE_FAMILY.lower()
_INSTANCE: Final = str(uuid.uuid4())


@attrs.frozen(kw_only=True)
class Credentials:
    """What proves who we are. Several may be given; the gateway picks."""

    token: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    device_token: str | None = attrs.field(default=None, repr=False)
    bootstrap_token: str | None = attrs.field(default=None, repr=False)

    def to_wire(self) -> dict[str, str]:
        pairs = (
            ("token", self.token), ("password", self.password),
            ("deviceToken", self.device_token), ("bootstrapToken", self.bootstrap_token),
        )  # fmt: skip
        return {name: value for name, value in pairs if value}

    @property
    def signed(self) -> str:
        """The secret that a device signature covers; a password never is."""
        return self.token or self.device_token or self.bootstrap_token or ""


@attrs.frozen(kw_only=True)
class Introduction:
    """Who connects and what for."""

    auth: Credentials
    identity: DeviceIdentity | None
    role: str
    scopes: tuple[str, ...]
    client_id: str
    mode: str
    version: str
    display_name: str | None = None
    caps: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    instance_id: str | None = None  # default: the device id, else one per process


def connect_params(who: Introduction, *, nonce: str, ts_ms: int) -> dict[str, Any]:
    """The parameters of ``connect``. ``ts_ms`` is the challenge's own time, so a wrong clock here does no harm
    (AUTH-7)."""
    client: dict[str, Any] = {
        "id": who.client_id,
        "version": who.version,
        "platform": PLATFORM,
        "mode": who.mode,
        "deviceFamily": DEVICE_FAMILY,
        "instanceId": who.instance_id or (who.identity.device_id if who.identity is not None else _INSTANCE),
    }
    if who.display_name:
        client["displayName"] = who.display_name
    params: dict[str, Any] = {
        "minProtocol": OLDEST_PROBE_PROTOCOL if who.mode in {"probe", "node"} else PROTOCOL,
        "maxProtocol": PROTOCOL,
        "client": client,
        "role": who.role,
        "scopes": list(who.scopes),
        "caps": list(who.caps),
    }
    if who.commands:
        params["commands"] = list(who.commands)
    auth = who.auth.to_wire()
    if auth:
        params["auth"] = auth
    if who.identity is not None:
        payload = v3_payload(
            device_id=who.identity.device_id, client_id=who.client_id, mode=who.mode, role=who.role, scopes=who.scopes,
            signed_at_ms=ts_ms, token=who.auth.signed, nonce=nonce, platform=PLATFORM, device_family=DEVICE_FAMILY,
        )  # fmt: skip
        params["device"] = {
            "id": who.identity.device_id,
            "publicKey": who.identity.public_key,
            "signature": who.identity.sign(payload),
            "signedAt": ts_ms,
            "nonce": nonce,
        }
    return params


@attrs.frozen(kw_only=True)
class Hello:
    """What the gateway said when it let us in. ``raw`` is the whole hello-ok."""

    protocol: int
    server_version: str
    conn_id: str
    role: str
    scopes: tuple[str, ...]
    method: str | None  # how we were let in: token, password, device-token, ...
    device_token: str | None = attrs.field(default=None, repr=False)
    methods: frozenset[str]
    max_payload: int  # bytes
    tick_interval_ms: int
    raw: Mapping[str, Any] = attrs.field(repr=False)

    @classmethod
    def from_wire(cls, raw: Any) -> Hello | None:
        """None where it is not a hello-ok."""
        if not isinstance(raw, dict) or raw.get("type") != "hello-ok" or not isinstance(raw.get("protocol"), int):
            return None
        server, auth, policy = _table(raw, "server"), _table(raw, "auth"), _table(raw, "policy")
        tick = policy.get("tickIntervalMs")
        return cls(
            protocol=raw["protocol"],
            server_version=str(server.get("version", "")),
            conn_id=str(server.get("connId", "")),
            role=str(auth.get("role", "")),
            scopes=_texts(auth.get("scopes")),
            method=auth.get("method") if isinstance(auth.get("method"), str) else None,
            device_token=auth.get("deviceToken") if isinstance(auth.get("deviceToken"), str) else None,
            methods=frozenset(_texts(_table(raw, "features").get("methods"))),
            max_payload=policy["maxPayload"] if isinstance(policy.get("maxPayload"), int) else 0,
            tick_interval_ms=tick if isinstance(tick, int) and 250 <= tick <= 3_600_000 else 30_000,
            raw=raw,
        )


def _table(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key)
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, Sequence) else ()


_NOT_ABOUT_US: Final = {"UNAVAILABLE", "INTERNAL"}


def refusal(url: str, error: Mapping[str, Any]) -> ConnectFailed:
    """A refused connect as an exception; the stage says whether it was about who we are or about what we asked for."""
    found = error.get("details")
    details: dict[str, Any] = found if isinstance(found, dict) else {}
    code = str(error.get("code", ""))
    detail = details.get("code")
    stage: Stage = "auth"
    if detail == "AUTH_SCOPE_MISMATCH" or (detail == "PAIRING_REQUIRED" and details.get("reason") == "scope-upgrade"):
        stage = "scope"
    elif code in _NOT_ABOUT_US or detail == "PROTOCOL_MISMATCH":
        stage = "websocket"
    after = error.get("retryAfterMs")
    return ConnectFailed(
        stage=stage,
        url=url,
        message=str(error.get("message", "refused")),
        code=code,
        details=details,
        retryable=error.get("retryable") is True,
        retry_after_ms=after if isinstance(after, int) else None,
        fix=_said_from(url, fix_for(details, str(error.get("message", "")))),
    )


def _said_from(url: str, fix: str | None) -> str | None:
    """An approval is a command for the gateway's own host; whoever is turned away on another one is told so."""
    if fix is None or not fix.startswith("openclaw devices approve") or "gateway's host" in fix:
        return fix
    host = urlsplit(url).hostname or ""
    return fix if host == "localhost" or is_loopback(host) else f"{fix}   (on the gateway's host)"
