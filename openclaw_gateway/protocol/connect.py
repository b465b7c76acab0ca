"""The parameters of ``connect``: what a client says about itself before anything of it is believed.

Owns the shape of ``connect.params`` (spec wire.md section 2; enum values are facts of OpenClaw's published
protocol.schema.json) and the texts of schema faults. It must not know what any of it grants: client ids, modes, names
and versions are claims (V12).

Invariants: any bytes give `ConnectParams` or a fault text, never an exception; every list and string is capped before
it is kept; secrets never appear in a ``repr``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.value import Value

__all__ = [
    "CLIENT_IDS",
    "CLIENT_MODES",
    "CONTROL_UI_ID",
    "ClientInfo",
    "ConnectAuth",
    "ConnectParams",
    "DeviceProof",
    "bearer_params",
    "decode_connect",
]

CONTROL_UI_ID: Final = "openclaw-control-ui"
CLIENT_IDS: Final = frozenset(
    {
        "cli",
        "fingerprint",
        "gateway-client",
        "node-host",
        "openclaw-android",
        "openclaw-browser-copilot",
        CONTROL_UI_ID,
        "openclaw-ios",
        "openclaw-linux",
        "openclaw-macos",
        "openclaw-probe",
        "openclaw-tui",
        "openclaw-watchos",
        "openclaw-worker",
        "test",
        "webchat",
        "webchat-ui",
    }
)
CLIENT_MODES: Final = frozenset({"backend", "cli", "node", "probe", "test", "ui", "webchat", "worker"})

MAX_SCOPES: Final = 64
MAX_LIST: Final = 512  # caps, commands, permissions
MAX_TEXT: Final = 256
MAX_SECRET: Final = 4096
MAX_PATH_ENV: Final = 32_768
MAX_USER_AGENT: Final = 1024

# `modelCatalog` is outside the published schema; the Control UI sends it (spec wire.md section 12).
_ROOT_KEYS: Final = frozenset(
    {
        "auth",
        "caps",
        "client",
        "commands",
        "computerUse",
        "device",
        "locale",
        "maxProtocol",
        "minProtocol",
        "modelCatalog",
        "pathEnv",
        "permissions",
        "role",
        "scopes",
        "userAgent",
        "workerRuns",
    }
)
_CLIENT_KEYS: Final = frozenset(
    {
        "buildId",
        "deviceFamily",
        "displayName",
        "id",
        "instanceId",
        "mode",
        "modelIdentifier",
        "platform",
        "timeZone",
        "version",
    }
)
_AUTH_KEYS: Final = frozenset(
    {"agentRuntimeIdentityToken", "approvalRuntimeToken", "bootstrapToken", "deviceToken", "password", "token"}
)
_DEVICE_KEYS: Final = frozenset({"id", "nonce", "publicKey", "signature", "signedAt"})


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ClientInfo(Value):
    """``params.client``. Everything here is claimed, nothing is proved."""

    id: str
    mode: str
    version: str
    platform: str
    display_name: str | None = None
    build_id: str | None = None
    device_family: str | None = None
    model_identifier: str | None = None
    time_zone: str | None = None
    instance_id: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConnectAuth(Value):
    """``params.auth``: the credentials as presented. None: absent; the empty string is kept (it is what was signed)."""

    token: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    device_token: str | None = attrs.field(default=None, repr=False)
    bootstrap_token: str | None = attrs.field(default=None, repr=False)

    @property
    def signed_token(self) -> str:
        """The credential that device signatures cover; a password is never signed (spec wire.md section 3)."""
        for value in (self.token, self.device_token, self.bootstrap_token):
            if value is not None:
                return value
        return ""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeviceProof(Value):
    """``params.device``: an Ed25519 identity and its signature over the challenge, as sent and not yet verified.

    ``signed_at`` is in Unix milliseconds. A nonce that is absent is the empty string: `verify_device` answers for both.
    """

    id: str
    public_key: str
    signature: str = attrs.field(repr=False)
    signed_at: int
    nonce: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConnectParams(Value):
    """``connect.params``, well-formed and capped."""

    min_protocol: int
    max_protocol: int
    client: ClientInfo
    role: str = "operator"
    scopes: tuple[str, ...] = ()
    caps: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    permissions: Mapping[str, bool] = attrs.field(factory=dict)
    path_env: str | None = attrs.field(default=None, repr=False)
    device: DeviceProof | None = None
    auth: ConnectAuth = attrs.field(factory=ConnectAuth)
    locale: str | None = None
    user_agent: str | None = None


def bearer_params(*, protocol: int, scopes: tuple[str, ...]) -> ConnectParams:
    """What a caller that sends no ``connect`` is taken to have said: ``POST /rpc``, and JSON-RPC with ``?token=``.

    The credential is not in here: the shell compares it and puts the outcome into the question.
    """
    client = ClientInfo(id="gateway-client", mode="backend", version="0", platform="unknown")
    return ConnectParams(min_protocol=protocol, max_protocol=protocol, client=client, scopes=scopes)


def decode_connect(params: msgspec.Raw) -> ConnectParams | str:
    """Read ``connect.params``. A ``str`` is the fault for ``invalid connect params: <fault>`` (error row
    "invalid-connect-params"), such as ``at /client/id: must be equal to one of the allowed values``.
    """
    try:
        root = _Node("", msgspec.json.decode(params))
        return _connect(root)
    except _SchemaFaultError as fault:
        return str(fault)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "at root: must be object"


class _SchemaFaultError(Exception):
    """The first fault found, as text."""


class _Node:
    """An object at a JSON pointer; reads its members or raises `_SchemaFaultError` naming the place."""

    __slots__ = ("_members", "_path")

    def __init__(self, path: str, value: object) -> None:
        self._path = path
        if not isinstance(value, dict):
            raise _SchemaFaultError(f"at {path or 'root'}: must be object")
        self._members: dict[str, Any] = value

    def fault(self, key: str, text: str) -> _SchemaFaultError:
        return _SchemaFaultError(f"at {self._path}/{key}: {text}")

    def only(self, known: frozenset[str], *required: str) -> None:
        for key in required:
            if key not in self._members:
                raise _SchemaFaultError(f"at {self._path or 'root'}: must have required property '{key}'")
        for key in self._members:
            if key not in known:
                raise _SchemaFaultError(f"at {self._path or 'root'}: unexpected property '{_shown(key)}'")

    def has(self, key: str) -> bool:
        return key in self._members

    def child(self, key: str) -> _Node:
        return _Node(f"{self._path}/{key}", self._members[key])

    def text(self, key: str, limit: int = MAX_TEXT, *, least: int = 1) -> str:
        return self._text(key, self._members[key], limit, least)

    def optional(self, key: str, limit: int = MAX_TEXT, *, least: int = 1) -> str | None:
        return self._text(key, self._members[key], limit, least) if key in self._members else None

    def _text(self, key: str, value: object, limit: int, least: int) -> str:
        if not isinstance(value, str):
            raise self.fault(key, "must be string")
        if len(value) < least:
            raise self.fault(key, f"must NOT have fewer than {least} characters")
        if len(value) > limit:
            raise self.fault(key, f"must NOT have more than {limit} characters")
        return value

    def choice(self, key: str, allowed: frozenset[str]) -> str:
        value = self._members[key]
        if not isinstance(value, str) or value not in allowed:
            raise self.fault(key, "must be equal to one of the allowed values")
        return value

    def integer(self, key: str, least: int) -> int:
        value = self._members[key]
        # A JSON number such as 4.0 is an integer to the schema language, and 1e999 is no number at all.
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.fault(key, "must be integer")
        if value < least:
            raise self.fault(key, f"must be >= {least}")
        return value

    def texts(self, key: str, most: int) -> tuple[str, ...]:
        if key not in self._members:
            return ()
        value = self._members[key]
        if not isinstance(value, list):
            raise self.fault(key, "must be array")
        if len(value) > most:
            raise self.fault(key, f"must NOT have more than {most} items")
        return tuple(self._text(f"{key}/{index}", item, MAX_TEXT, 1) for index, item in enumerate(value))

    def flags(self, key: str) -> dict[str, bool]:
        if key not in self._members:
            return {}
        value = self._members[key]
        if not isinstance(value, dict):
            raise self.fault(key, "must be object")
        if len(value) > MAX_LIST:
            raise self.fault(key, f"must NOT have more than {MAX_LIST} properties")
        for name, flag in value.items():
            if len(name) > MAX_TEXT:
                raise self.fault(key, f"property names must NOT have more than {MAX_TEXT} characters")
            if not isinstance(flag, bool):
                raise self.fault(f"{key}/{_shown(name)}", "must be boolean")
        return value


def _shown(name: str) -> str:
    """A peer's own key in a text that goes back to it and into a close reason: short and printable."""
    return "".join(char if char.isprintable() else "?" for char in name[:64])


def _connect(root: _Node) -> ConnectParams:
    root.only(_ROOT_KEYS, "minProtocol", "maxProtocol", "client")
    return ConnectParams(
        min_protocol=root.integer("minProtocol", 1),
        max_protocol=root.integer("maxProtocol", 1),
        client=_client(root.child("client")),
        role=root.optional("role") or "operator",
        scopes=root.texts("scopes", MAX_SCOPES),
        caps=root.texts("caps", MAX_LIST),
        commands=root.texts("commands", MAX_LIST),
        permissions=root.flags("permissions"),
        path_env=root.optional("pathEnv", MAX_PATH_ENV, least=0),
        device=_device(root.child("device")) if root.has("device") else None,
        auth=_auth(root.child("auth")) if root.has("auth") else ConnectAuth(),
        locale=root.optional("locale", least=0),
        user_agent=root.optional("userAgent", MAX_USER_AGENT, least=0),
    )


def _client(node: _Node) -> ClientInfo:
    node.only(_CLIENT_KEYS, "id", "version", "platform", "mode")
    return ClientInfo(
        id=node.choice("id", CLIENT_IDS),
        mode=node.choice("mode", CLIENT_MODES),
        version=node.text("version"),
        platform=node.text("platform"),
        display_name=node.optional("displayName"),
        build_id=node.optional("buildId", 96),
        device_family=node.optional("deviceFamily"),
        model_identifier=node.optional("modelIdentifier"),
        time_zone=node.optional("timeZone", 64),
        instance_id=node.optional("instanceId"),
    )


def _auth(node: _Node) -> ConnectAuth:
    node.only(_AUTH_KEYS)
    for unused in ("approvalRuntimeToken", "agentRuntimeIdentityToken"):
        node.optional(unused, MAX_SECRET, least=0)
    return ConnectAuth(
        token=node.optional("token", MAX_SECRET, least=0),
        password=node.optional("password", MAX_SECRET, least=0),
        device_token=node.optional("deviceToken", MAX_SECRET, least=0),
        bootstrap_token=node.optional("bootstrapToken", MAX_SECRET, least=0),
    )


def _device(node: _Node) -> DeviceProof:
    node.only(_DEVICE_KEYS, "id", "publicKey", "signature", "signedAt")
    return DeviceProof(
        id=node.text("id"),
        public_key=node.text("publicKey"),
        signature=node.text("signature"),
        signed_at=node.integer("signedAt", 0),
        nonce=node.optional("nonce", least=0) or "",
    )
