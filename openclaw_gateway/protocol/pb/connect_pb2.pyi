from openclaw_gateway.protocol.pb import system_pb2 as _system_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ConnectChallenge(_message.Message):
    __slots__ = ("nonce", "ts", "more")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    nonce: str
    ts: int
    more: bytes
    def __init__(self, nonce: _Optional[str] = ..., ts: _Optional[int] = ..., more: _Optional[bytes] = ...) -> None: ...

class ConnectParams(_message.Message):
    __slots__ = ("min_protocol", "max_protocol", "client", "role", "scopes", "caps", "commands", "permissions_json", "path_env", "device", "auth", "locale", "user_agent", "more")
    MIN_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MAX_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    CAPS_FIELD_NUMBER: _ClassVar[int]
    COMMANDS_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_JSON_FIELD_NUMBER: _ClassVar[int]
    PATH_ENV_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    AUTH_FIELD_NUMBER: _ClassVar[int]
    LOCALE_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    min_protocol: int
    max_protocol: int
    client: ClientInfo
    role: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    caps: _containers.RepeatedScalarFieldContainer[str]
    commands: _containers.RepeatedScalarFieldContainer[str]
    permissions_json: bytes
    path_env: str
    device: DeviceProof
    auth: ConnectAuth
    locale: str
    user_agent: str
    more: bytes
    def __init__(self, min_protocol: _Optional[int] = ..., max_protocol: _Optional[int] = ..., client: _Optional[_Union[ClientInfo, _Mapping]] = ..., role: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., caps: _Optional[_Iterable[str]] = ..., commands: _Optional[_Iterable[str]] = ..., permissions_json: _Optional[bytes] = ..., path_env: _Optional[str] = ..., device: _Optional[_Union[DeviceProof, _Mapping]] = ..., auth: _Optional[_Union[ConnectAuth, _Mapping]] = ..., locale: _Optional[str] = ..., user_agent: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class ClientInfo(_message.Message):
    __slots__ = ("id", "version", "platform", "mode", "display_name", "build_id", "device_family", "model_identifier", "time_zone", "instance_id", "more")
    ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    DISPLAY_NAME_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FAMILY_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    TIME_ZONE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    id: str
    version: str
    platform: str
    mode: str
    display_name: str
    build_id: str
    device_family: str
    model_identifier: str
    time_zone: str
    instance_id: str
    more: bytes
    def __init__(self, id: _Optional[str] = ..., version: _Optional[str] = ..., platform: _Optional[str] = ..., mode: _Optional[str] = ..., display_name: _Optional[str] = ..., build_id: _Optional[str] = ..., device_family: _Optional[str] = ..., model_identifier: _Optional[str] = ..., time_zone: _Optional[str] = ..., instance_id: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class DeviceProof(_message.Message):
    __slots__ = ("id", "public_key", "signature", "signed_at", "nonce", "more")
    ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SIGNED_AT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    id: str
    public_key: str
    signature: str
    signed_at: int
    nonce: str
    more: bytes
    def __init__(self, id: _Optional[str] = ..., public_key: _Optional[str] = ..., signature: _Optional[str] = ..., signed_at: _Optional[int] = ..., nonce: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class ConnectAuth(_message.Message):
    __slots__ = ("token", "password", "device_token", "bootstrap_token", "more")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    PASSWORD_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    BOOTSTRAP_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    token: str
    password: str
    device_token: str
    bootstrap_token: str
    more: bytes
    def __init__(self, token: _Optional[str] = ..., password: _Optional[str] = ..., device_token: _Optional[str] = ..., bootstrap_token: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class HelloOk(_message.Message):
    __slots__ = ("type", "protocol", "server", "features", "snapshot", "auth", "policy", "more")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    AUTH_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    type: str
    protocol: int
    server: HelloServer
    features: HelloFeatures
    snapshot: HelloSnapshot
    auth: HelloAuth
    policy: HelloPolicy
    more: bytes
    def __init__(self, type: _Optional[str] = ..., protocol: _Optional[int] = ..., server: _Optional[_Union[HelloServer, _Mapping]] = ..., features: _Optional[_Union[HelloFeatures, _Mapping]] = ..., snapshot: _Optional[_Union[HelloSnapshot, _Mapping]] = ..., auth: _Optional[_Union[HelloAuth, _Mapping]] = ..., policy: _Optional[_Union[HelloPolicy, _Mapping]] = ..., more: _Optional[bytes] = ...) -> None: ...

class HelloServer(_message.Message):
    __slots__ = ("version", "conn_id", "boot_id", "control_ui_build_source", "more")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONN_ID_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    CONTROL_UI_BUILD_SOURCE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    version: str
    conn_id: str
    boot_id: str
    control_ui_build_source: str
    more: bytes
    def __init__(self, version: _Optional[str] = ..., conn_id: _Optional[str] = ..., boot_id: _Optional[str] = ..., control_ui_build_source: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class HelloFeatures(_message.Message):
    __slots__ = ("methods", "events", "capabilities", "more")
    METHODS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    methods: _containers.RepeatedScalarFieldContainer[str]
    events: _containers.RepeatedScalarFieldContainer[str]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    more: bytes
    def __init__(self, methods: _Optional[_Iterable[str]] = ..., events: _Optional[_Iterable[str]] = ..., capabilities: _Optional[_Iterable[str]] = ..., more: _Optional[bytes] = ...) -> None: ...

class HelloSnapshot(_message.Message):
    __slots__ = ("presence", "health", "state_version", "uptime_ms", "config_path", "state_dir", "auth_mode", "applied_config_hash", "more")
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    STATE_VERSION_FIELD_NUMBER: _ClassVar[int]
    UPTIME_MS_FIELD_NUMBER: _ClassVar[int]
    CONFIG_PATH_FIELD_NUMBER: _ClassVar[int]
    STATE_DIR_FIELD_NUMBER: _ClassVar[int]
    AUTH_MODE_FIELD_NUMBER: _ClassVar[int]
    APPLIED_CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    presence: _containers.RepeatedCompositeFieldContainer[_system_pb2.PresenceEntry]
    health: _system_pb2.Health
    state_version: _system_pb2.StateVersion
    uptime_ms: int
    config_path: str
    state_dir: str
    auth_mode: str
    applied_config_hash: str
    more: bytes
    def __init__(self, presence: _Optional[_Iterable[_Union[_system_pb2.PresenceEntry, _Mapping]]] = ..., health: _Optional[_Union[_system_pb2.Health, _Mapping]] = ..., state_version: _Optional[_Union[_system_pb2.StateVersion, _Mapping]] = ..., uptime_ms: _Optional[int] = ..., config_path: _Optional[str] = ..., state_dir: _Optional[str] = ..., auth_mode: _Optional[str] = ..., applied_config_hash: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class HelloAuth(_message.Message):
    __slots__ = ("method", "role", "scopes", "device_token", "issued_at_ms", "expires_at_ms", "refresh_token", "refresh_expires_at_ms", "device_tokens", "more")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REFRESH_EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    method: str
    role: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    device_token: str
    issued_at_ms: int
    expires_at_ms: int
    refresh_token: str
    refresh_expires_at_ms: int
    device_tokens: _containers.RepeatedCompositeFieldContainer[HelloDeviceToken]
    more: bytes
    def __init__(self, method: _Optional[str] = ..., role: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., device_token: _Optional[str] = ..., issued_at_ms: _Optional[int] = ..., expires_at_ms: _Optional[int] = ..., refresh_token: _Optional[str] = ..., refresh_expires_at_ms: _Optional[int] = ..., device_tokens: _Optional[_Iterable[_Union[HelloDeviceToken, _Mapping]]] = ..., more: _Optional[bytes] = ...) -> None: ...

class HelloDeviceToken(_message.Message):
    __slots__ = ("role", "scopes", "device_token", "issued_at_ms", "expires_at_ms", "refresh_token", "refresh_expires_at_ms", "more")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    SCOPES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    REFRESH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    REFRESH_EXPIRES_AT_MS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    role: str
    scopes: _containers.RepeatedScalarFieldContainer[str]
    device_token: str
    issued_at_ms: int
    expires_at_ms: int
    refresh_token: str
    refresh_expires_at_ms: int
    more: bytes
    def __init__(self, role: _Optional[str] = ..., scopes: _Optional[_Iterable[str]] = ..., device_token: _Optional[str] = ..., issued_at_ms: _Optional[int] = ..., expires_at_ms: _Optional[int] = ..., refresh_token: _Optional[str] = ..., refresh_expires_at_ms: _Optional[int] = ..., more: _Optional[bytes] = ...) -> None: ...

class HelloPolicy(_message.Message):
    __slots__ = ("max_payload", "max_buffered_bytes", "tick_interval_ms", "more")
    MAX_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    MAX_BUFFERED_BYTES_FIELD_NUMBER: _ClassVar[int]
    TICK_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    max_payload: int
    max_buffered_bytes: int
    tick_interval_ms: int
    more: bytes
    def __init__(self, max_payload: _Optional[int] = ..., max_buffered_bytes: _Optional[int] = ..., tick_interval_ms: _Optional[int] = ..., more: _Optional[bytes] = ...) -> None: ...
