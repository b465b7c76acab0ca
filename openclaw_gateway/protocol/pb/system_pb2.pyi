from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StateVersion(_message.Message):
    __slots__ = ("presence", "health", "more")
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    presence: int
    health: int
    more: bytes
    def __init__(self, presence: _Optional[int] = ..., health: _Optional[int] = ..., more: _Optional[bytes] = ...) -> None: ...

class PresenceList(_message.Message):
    __slots__ = ("presence", "more")
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    presence: _containers.RepeatedCompositeFieldContainer[PresenceEntry]
    more: bytes
    def __init__(self, presence: _Optional[_Iterable[_Union[PresenceEntry, _Mapping]]] = ..., more: _Optional[bytes] = ...) -> None: ...

class PresenceEntry(_message.Message):
    __slots__ = ("host", "client_id", "version", "platform", "mode", "roles", "instance_id", "text", "device_family", "device_id", "reason", "ts", "ip", "model_identifier", "more", "tags")
    HOST_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ROLES_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FAMILY_FIELD_NUMBER: _ClassVar[int]
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDENTIFIER_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    host: str
    client_id: str
    version: str
    platform: str
    mode: str
    roles: _containers.RepeatedScalarFieldContainer[str]
    instance_id: str
    text: str
    device_family: str
    device_id: str
    reason: str
    ts: int
    ip: str
    model_identifier: str
    more: bytes
    tags: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, host: _Optional[str] = ..., client_id: _Optional[str] = ..., version: _Optional[str] = ..., platform: _Optional[str] = ..., mode: _Optional[str] = ..., roles: _Optional[_Iterable[str]] = ..., instance_id: _Optional[str] = ..., text: _Optional[str] = ..., device_family: _Optional[str] = ..., device_id: _Optional[str] = ..., reason: _Optional[str] = ..., ts: _Optional[int] = ..., ip: _Optional[str] = ..., model_identifier: _Optional[str] = ..., more: _Optional[bytes] = ..., tags: _Optional[_Iterable[str]] = ...) -> None: ...

class Health(_message.Message):
    __slots__ = ("ok", "ts", "duration_ms", "heartbeat_seconds", "default_agent_id", "channels_json", "channel_order", "event_loop_json", "more")
    OK_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_JSON_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_ORDER_FIELD_NUMBER: _ClassVar[int]
    EVENT_LOOP_JSON_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    ts: int
    duration_ms: float
    heartbeat_seconds: int
    default_agent_id: str
    channels_json: bytes
    channel_order: _containers.RepeatedScalarFieldContainer[str]
    event_loop_json: bytes
    more: bytes
    def __init__(self, ok: _Optional[bool] = ..., ts: _Optional[int] = ..., duration_ms: _Optional[float] = ..., heartbeat_seconds: _Optional[int] = ..., default_agent_id: _Optional[str] = ..., channels_json: _Optional[bytes] = ..., channel_order: _Optional[_Iterable[str]] = ..., event_loop_json: _Optional[bytes] = ..., more: _Optional[bytes] = ...) -> None: ...

class Tick(_message.Message):
    __slots__ = ("ts", "more")
    TS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    ts: int
    more: bytes
    def __init__(self, ts: _Optional[int] = ..., more: _Optional[bytes] = ...) -> None: ...

class LogsTailParams(_message.Message):
    __slots__ = ("cursor", "limit", "max_bytes", "more")
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    cursor: int
    limit: int
    max_bytes: int
    more: bytes
    def __init__(self, cursor: _Optional[int] = ..., limit: _Optional[int] = ..., max_bytes: _Optional[int] = ..., more: _Optional[bytes] = ...) -> None: ...

class LogsTail(_message.Message):
    __slots__ = ("file", "cursor", "size", "lines", "truncated", "reset", "more")
    FILE_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    file: str
    cursor: int
    size: int
    lines: _containers.RepeatedScalarFieldContainer[str]
    truncated: bool
    reset: bool
    more: bytes
    def __init__(self, file: _Optional[str] = ..., cursor: _Optional[int] = ..., size: _Optional[int] = ..., lines: _Optional[_Iterable[str]] = ..., truncated: _Optional[bool] = ..., reset: _Optional[bool] = ..., more: _Optional[bytes] = ...) -> None: ...
