from openclaw_gateway.protocol.pb import chat_pb2 as _chat_pb2
from openclaw_gateway.protocol.pb import connect_pb2 as _connect_pb2
from openclaw_gateway.protocol.pb import nodes_pb2 as _nodes_pb2
from openclaw_gateway.protocol.pb import system_pb2 as _system_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClientFrame(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: Request
    def __init__(self, request: _Optional[_Union[Request, _Mapping]] = ...) -> None: ...

class ServerFrame(_message.Message):
    __slots__ = ("response", "event")
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    response: Response
    event: Event
    def __init__(self, response: _Optional[_Union[Response, _Mapping]] = ..., event: _Optional[_Union[Event, _Mapping]] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("id", "method", "json", "connect", "chat_send", "chat_history", "node_invoke", "node_invoke_result", "node_invoke_progress", "node_event", "logs_tail")
    ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    CONNECT_FIELD_NUMBER: _ClassVar[int]
    CHAT_SEND_FIELD_NUMBER: _ClassVar[int]
    CHAT_HISTORY_FIELD_NUMBER: _ClassVar[int]
    NODE_INVOKE_FIELD_NUMBER: _ClassVar[int]
    NODE_INVOKE_RESULT_FIELD_NUMBER: _ClassVar[int]
    NODE_INVOKE_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    NODE_EVENT_FIELD_NUMBER: _ClassVar[int]
    LOGS_TAIL_FIELD_NUMBER: _ClassVar[int]
    id: str
    method: str
    json: bytes
    connect: _connect_pb2.ConnectParams
    chat_send: _chat_pb2.ChatSendParams
    chat_history: _chat_pb2.ChatHistoryParams
    node_invoke: _nodes_pb2.NodeInvokeParams
    node_invoke_result: _nodes_pb2.NodeInvokeResultParams
    node_invoke_progress: _nodes_pb2.NodeInvokeProgress
    node_event: _nodes_pb2.NodeEventParams
    logs_tail: _system_pb2.LogsTailParams
    def __init__(self, id: _Optional[str] = ..., method: _Optional[str] = ..., json: _Optional[bytes] = ..., connect: _Optional[_Union[_connect_pb2.ConnectParams, _Mapping]] = ..., chat_send: _Optional[_Union[_chat_pb2.ChatSendParams, _Mapping]] = ..., chat_history: _Optional[_Union[_chat_pb2.ChatHistoryParams, _Mapping]] = ..., node_invoke: _Optional[_Union[_nodes_pb2.NodeInvokeParams, _Mapping]] = ..., node_invoke_result: _Optional[_Union[_nodes_pb2.NodeInvokeResultParams, _Mapping]] = ..., node_invoke_progress: _Optional[_Union[_nodes_pb2.NodeInvokeProgress, _Mapping]] = ..., node_event: _Optional[_Union[_nodes_pb2.NodeEventParams, _Mapping]] = ..., logs_tail: _Optional[_Union[_system_pb2.LogsTailParams, _Mapping]] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("id", "error", "json", "hello_ok", "chat_send", "chat_history", "node_invoke", "logs_tail", "health")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    HELLO_OK_FIELD_NUMBER: _ClassVar[int]
    CHAT_SEND_FIELD_NUMBER: _ClassVar[int]
    CHAT_HISTORY_FIELD_NUMBER: _ClassVar[int]
    NODE_INVOKE_FIELD_NUMBER: _ClassVar[int]
    LOGS_TAIL_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    id: str
    error: Error
    json: bytes
    hello_ok: _connect_pb2.HelloOk
    chat_send: _chat_pb2.ChatSendResult
    chat_history: _chat_pb2.ChatHistory
    node_invoke: _nodes_pb2.NodeInvokeResult
    logs_tail: _system_pb2.LogsTail
    health: _system_pb2.Health
    def __init__(self, id: _Optional[str] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., json: _Optional[bytes] = ..., hello_ok: _Optional[_Union[_connect_pb2.HelloOk, _Mapping]] = ..., chat_send: _Optional[_Union[_chat_pb2.ChatSendResult, _Mapping]] = ..., chat_history: _Optional[_Union[_chat_pb2.ChatHistory, _Mapping]] = ..., node_invoke: _Optional[_Union[_nodes_pb2.NodeInvokeResult, _Mapping]] = ..., logs_tail: _Optional[_Union[_system_pb2.LogsTail, _Mapping]] = ..., health: _Optional[_Union[_system_pb2.Health, _Mapping]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("event", "seq", "state_version", "json", "connect_challenge", "chat", "agent", "presence", "health", "tick", "node_invoke_request", "node_invoke_progress")
    EVENT_FIELD_NUMBER: _ClassVar[int]
    SEQ_FIELD_NUMBER: _ClassVar[int]
    STATE_VERSION_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    CONNECT_CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    TICK_FIELD_NUMBER: _ClassVar[int]
    NODE_INVOKE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    NODE_INVOKE_PROGRESS_FIELD_NUMBER: _ClassVar[int]
    event: str
    seq: int
    state_version: _system_pb2.StateVersion
    json: bytes
    connect_challenge: _connect_pb2.ConnectChallenge
    chat: _chat_pb2.ChatEvent
    agent: _chat_pb2.AgentEvent
    presence: _system_pb2.PresenceList
    health: _system_pb2.Health
    tick: _system_pb2.Tick
    node_invoke_request: _nodes_pb2.NodeInvokeRequest
    node_invoke_progress: _nodes_pb2.NodeInvokeProgress
    def __init__(self, event: _Optional[str] = ..., seq: _Optional[int] = ..., state_version: _Optional[_Union[_system_pb2.StateVersion, _Mapping]] = ..., json: _Optional[bytes] = ..., connect_challenge: _Optional[_Union[_connect_pb2.ConnectChallenge, _Mapping]] = ..., chat: _Optional[_Union[_chat_pb2.ChatEvent, _Mapping]] = ..., agent: _Optional[_Union[_chat_pb2.AgentEvent, _Mapping]] = ..., presence: _Optional[_Union[_system_pb2.PresenceList, _Mapping]] = ..., health: _Optional[_Union[_system_pb2.Health, _Mapping]] = ..., tick: _Optional[_Union[_system_pb2.Tick, _Mapping]] = ..., node_invoke_request: _Optional[_Union[_nodes_pb2.NodeInvokeRequest, _Mapping]] = ..., node_invoke_progress: _Optional[_Union[_nodes_pb2.NodeInvokeProgress, _Mapping]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "details_json", "retryable", "retry_after_ms", "more")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_JSON_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    details_json: bytes
    retryable: bool
    retry_after_ms: int
    more: bytes
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., details_json: _Optional[bytes] = ..., retryable: _Optional[bool] = ..., retry_after_ms: _Optional[int] = ..., more: _Optional[bytes] = ...) -> None: ...
