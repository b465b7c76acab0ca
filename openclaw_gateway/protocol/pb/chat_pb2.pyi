from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ChatSendParams(_message.Message):
    __slots__ = ("session_key", "message", "idempotency_key", "agent_id", "session_id", "timeout_ms", "attachments", "deliver", "thinking", "more")
    SESSION_KEY_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    ATTACHMENTS_FIELD_NUMBER: _ClassVar[int]
    DELIVER_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    session_key: str
    message: str
    idempotency_key: str
    agent_id: str
    session_id: str
    timeout_ms: int
    attachments: _containers.RepeatedCompositeFieldContainer[ChatAttachment]
    deliver: bool
    thinking: str
    more: bytes
    def __init__(self, session_key: _Optional[str] = ..., message: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., agent_id: _Optional[str] = ..., session_id: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., attachments: _Optional[_Iterable[_Union[ChatAttachment, _Mapping]]] = ..., deliver: _Optional[bool] = ..., thinking: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class ChatAttachment(_message.Message):
    __slots__ = ("type", "mime_type", "file_name", "content", "more")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MIME_TYPE_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    type: str
    mime_type: str
    file_name: str
    content: bytes
    more: bytes
    def __init__(self, type: _Optional[str] = ..., mime_type: _Optional[str] = ..., file_name: _Optional[str] = ..., content: _Optional[bytes] = ..., more: _Optional[bytes] = ...) -> None: ...

class ChatSendResult(_message.Message):
    __slots__ = ("run_id", "status", "session_key", "more")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    SESSION_KEY_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    status: str
    session_key: str
    more: bytes
    def __init__(self, run_id: _Optional[str] = ..., status: _Optional[str] = ..., session_key: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class ChatEvent(_message.Message):
    __slots__ = ("run_id", "session_key", "agent_id", "seq", "state", "delta_text", "message", "stop_reason", "error_message", "error_kind", "usage", "error_detail_json", "more")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_KEY_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DELTA_TEXT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_KIND_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_DETAIL_JSON_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    session_key: str
    agent_id: str
    seq: int
    state: str
    delta_text: str
    message: ChatMessage
    stop_reason: str
    error_message: str
    error_kind: str
    usage: ChatUsage
    error_detail_json: bytes
    more: bytes
    def __init__(self, run_id: _Optional[str] = ..., session_key: _Optional[str] = ..., agent_id: _Optional[str] = ..., seq: _Optional[int] = ..., state: _Optional[str] = ..., delta_text: _Optional[str] = ..., message: _Optional[_Union[ChatMessage, _Mapping]] = ..., stop_reason: _Optional[str] = ..., error_message: _Optional[str] = ..., error_kind: _Optional[str] = ..., usage: _Optional[_Union[ChatUsage, _Mapping]] = ..., error_detail_json: _Optional[bytes] = ..., more: _Optional[bytes] = ...) -> None: ...

class ChatMessage(_message.Message):
    __slots__ = ("role", "content", "timestamp", "openclaw", "sender_label", "stop_reason", "model", "error_message", "usage", "more")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    OPENCLAW_FIELD_NUMBER: _ClassVar[int]
    SENDER_LABEL_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: _containers.RepeatedCompositeFieldContainer[ChatPart]
    timestamp: int
    openclaw: ChatMessageMark
    sender_label: str
    stop_reason: str
    model: str
    error_message: str
    usage: ChatUsage
    more: bytes
    def __init__(self, role: _Optional[str] = ..., content: _Optional[_Iterable[_Union[ChatPart, _Mapping]]] = ..., timestamp: _Optional[int] = ..., openclaw: _Optional[_Union[ChatMessageMark, _Mapping]] = ..., sender_label: _Optional[str] = ..., stop_reason: _Optional[str] = ..., model: _Optional[str] = ..., error_message: _Optional[str] = ..., usage: _Optional[_Union[ChatUsage, _Mapping]] = ..., more: _Optional[bytes] = ...) -> None: ...

class ChatPart(_message.Message):
    __slots__ = ("type", "text", "mime_type", "file_name", "more")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    MIME_TYPE_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    type: str
    text: str
    mime_type: str
    file_name: str
    more: bytes
    def __init__(self, type: _Optional[str] = ..., text: _Optional[str] = ..., mime_type: _Optional[str] = ..., file_name: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class ChatMessageMark(_message.Message):
    __slots__ = ("id", "seq", "run_id", "more")
    ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    id: str
    seq: int
    run_id: str
    more: bytes
    def __init__(self, id: _Optional[str] = ..., seq: _Optional[int] = ..., run_id: _Optional[str] = ..., more: _Optional[bytes] = ...) -> None: ...

class ChatUsage(_message.Message):
    __slots__ = ("input", "output", "cache_read", "cache_write", "total_tokens", "more")
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CACHE_READ_FIELD_NUMBER: _ClassVar[int]
    CACHE_WRITE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    input: int
    output: int
    cache_read: int
    cache_write: int
    total_tokens: int
    more: bytes
    def __init__(self, input: _Optional[int] = ..., output: _Optional[int] = ..., cache_read: _Optional[int] = ..., cache_write: _Optional[int] = ..., total_tokens: _Optional[int] = ..., more: _Optional[bytes] = ...) -> None: ...

class ChatHistoryParams(_message.Message):
    __slots__ = ("session_key", "agent_id", "limit", "offset", "max_chars", "max_bytes", "cursor", "input_run_ids", "more")
    SESSION_KEY_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    MAX_CHARS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    INPUT_RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    session_key: str
    agent_id: str
    limit: int
    offset: int
    max_chars: int
    max_bytes: int
    cursor: str
    input_run_ids: _containers.RepeatedScalarFieldContainer[str]
    more: bytes
    def __init__(self, session_key: _Optional[str] = ..., agent_id: _Optional[str] = ..., limit: _Optional[int] = ..., offset: _Optional[int] = ..., max_chars: _Optional[int] = ..., max_bytes: _Optional[int] = ..., cursor: _Optional[str] = ..., input_run_ids: _Optional[_Iterable[str]] = ..., more: _Optional[bytes] = ...) -> None: ...

class ChatHistory(_message.Message):
    __slots__ = ("session_key", "session_id", "messages", "has_more", "total_messages", "next_offset", "session_info_json", "in_flight_run", "pending_inputs_json", "input_receipts_json", "more")
    SESSION_KEY_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    HAS_MORE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MESSAGES_FIELD_NUMBER: _ClassVar[int]
    NEXT_OFFSET_FIELD_NUMBER: _ClassVar[int]
    SESSION_INFO_JSON_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_RUN_FIELD_NUMBER: _ClassVar[int]
    PENDING_INPUTS_JSON_FIELD_NUMBER: _ClassVar[int]
    INPUT_RECEIPTS_JSON_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    session_key: str
    session_id: str
    messages: _containers.RepeatedCompositeFieldContainer[ChatMessage]
    has_more: bool
    total_messages: int
    next_offset: int
    session_info_json: bytes
    in_flight_run: ChatRunInFlight
    pending_inputs_json: bytes
    input_receipts_json: bytes
    more: bytes
    def __init__(self, session_key: _Optional[str] = ..., session_id: _Optional[str] = ..., messages: _Optional[_Iterable[_Union[ChatMessage, _Mapping]]] = ..., has_more: _Optional[bool] = ..., total_messages: _Optional[int] = ..., next_offset: _Optional[int] = ..., session_info_json: _Optional[bytes] = ..., in_flight_run: _Optional[_Union[ChatRunInFlight, _Mapping]] = ..., pending_inputs_json: _Optional[bytes] = ..., input_receipts_json: _Optional[bytes] = ..., more: _Optional[bytes] = ...) -> None: ...

class ChatRunInFlight(_message.Message):
    __slots__ = ("run_id", "text", "seq", "more")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    text: str
    seq: int
    more: bytes
    def __init__(self, run_id: _Optional[str] = ..., text: _Optional[str] = ..., seq: _Optional[int] = ..., more: _Optional[bytes] = ...) -> None: ...

class AgentEvent(_message.Message):
    __slots__ = ("run_id", "session_key", "agent_id", "seq", "stream", "ts", "data_json", "more")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_KEY_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    TS_FIELD_NUMBER: _ClassVar[int]
    DATA_JSON_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    session_key: str
    agent_id: str
    seq: int
    stream: str
    ts: int
    data_json: bytes
    more: bytes
    def __init__(self, run_id: _Optional[str] = ..., session_key: _Optional[str] = ..., agent_id: _Optional[str] = ..., seq: _Optional[int] = ..., stream: _Optional[str] = ..., ts: _Optional[int] = ..., data_json: _Optional[bytes] = ..., more: _Optional[bytes] = ...) -> None: ...
