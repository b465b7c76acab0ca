from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class NodeInvokeParams(_message.Message):
    __slots__ = ("node_id", "command", "params_json", "timeout_ms", "idempotency_key", "session_key", "more")
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    PARAMS_JSON_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    SESSION_KEY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    command: str
    params_json: bytes
    timeout_ms: int
    idempotency_key: str
    session_key: str
    more: bytes
    def __init__(self, node_id: _Optional[str] = ..., command: _Optional[str] = ..., params_json: _Optional[bytes] = ..., timeout_ms: _Optional[int] = ..., idempotency_key: _Optional[str] = ..., session_key: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class NodeInvokeResult(_message.Message):
    __slots__ = ("ok", "node_id", "command", "payload_json", "payload_text", "more")
    OK_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_TEXT_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    ok: bool
    node_id: str
    command: str
    payload_json: bytes
    payload_text: str
    more: bytes
    def __init__(self, ok: _Optional[bool] = ..., node_id: _Optional[str] = ..., command: _Optional[str] = ..., payload_json: _Optional[bytes] = ..., payload_text: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class NodeInvokeRequest(_message.Message):
    __slots__ = ("id", "node_id", "command", "params_text", "timeout_ms", "idempotency_key", "more")
    ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    COMMAND_FIELD_NUMBER: _ClassVar[int]
    PARAMS_TEXT_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    id: str
    node_id: str
    command: str
    params_text: str
    timeout_ms: int
    idempotency_key: str
    more: bytes
    def __init__(self, id: _Optional[str] = ..., node_id: _Optional[str] = ..., command: _Optional[str] = ..., params_text: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., idempotency_key: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class NodeInvokeResultParams(_message.Message):
    __slots__ = ("id", "node_id", "ok", "payload_json", "payload_text", "error", "more")
    ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_TEXT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    id: str
    node_id: str
    ok: bool
    payload_json: bytes
    payload_text: str
    error: NodeFailure
    more: bytes
    def __init__(self, id: _Optional[str] = ..., node_id: _Optional[str] = ..., ok: _Optional[bool] = ..., payload_json: _Optional[bytes] = ..., payload_text: _Optional[str] = ..., error: _Optional[_Union[NodeFailure, _Mapping]] = ..., more: _Optional[bytes] = ...) -> None: ...

class NodeFailure(_message.Message):
    __slots__ = ("code", "message", "more")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    more: bytes
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class NodeInvokeProgress(_message.Message):
    __slots__ = ("invoke_id", "node_id", "seq", "chunk", "idempotency_key", "more")
    INVOKE_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    invoke_id: str
    node_id: str
    seq: int
    chunk: str
    idempotency_key: str
    more: bytes
    def __init__(self, invoke_id: _Optional[str] = ..., node_id: _Optional[str] = ..., seq: _Optional[int] = ..., chunk: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class NodeEventParams(_message.Message):
    __slots__ = ("event", "payload_json", "payload_text", "more")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_TEXT_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    event: str
    payload_json: bytes
    payload_text: str
    more: bytes
    def __init__(self, event: _Optional[str] = ..., payload_json: _Optional[bytes] = ..., payload_text: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...
