"""What server/upgrade.py overrides and reads inside hypercorn: if a release moves it, this fails first."""

from __future__ import annotations

import inspect
from importlib.metadata import version

import hypercorn.protocol.h11 as h11_module
from hypercorn.config import Config
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext

from openclaw_gateway.server import upgrade


def _parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_v57_hypercorn_is_the_release_that_was_read() -> None:
    assert version("hypercorn").startswith("0.18.")


def test_v57_overridden_members_exist_with_their_signatures() -> None:
    assert _parameters(H11Protocol._create_stream) == ["self", "request"]
    assert _parameters(H11Protocol._check_protocol) == ["self", "event"]
    assert _parameters(TCPServer._read_data) == ["self"]
    assert _parameters(TCPServer._close) == ["self"]
    assert _parameters(TCPServer._idle_timeout) == ["self"]
    assert _parameters(H11Protocol._send_h11_event) == ["self", "event"]
    assert _parameters(H11Protocol._send_error_response) == ["self", "status_code"]
    for function in (
        H11Protocol._create_stream, H11Protocol._send_h11_event, H11Protocol._send_error_response,
        H11Protocol._check_protocol, TCPServer._read_data, TCPServer._close, TCPServer._idle_timeout,
        TCPServer._initiate_server_close,
    ):  # fmt: skip
        assert inspect.iscoroutinefunction(function)


def test_v57_what_is_called_exists_with_its_signatures() -> None:
    expected = [
        "self",
        "app",
        "config",
        "context",
        "task_group",
        "connection_state",
        "ssl",
        "client",
        "server",
        "send",
    ]
    assert _parameters(H11Protocol.__init__) == expected
    assert _parameters(H11Protocol._send_error_response) == ["self", "status_code"]
    assert _parameters(TCPServer.__init__) == ["self", "app", "config", "context", "state", "stream"]
    assert _parameters(WorkerContext.__init__) == ["self", "max_requests"]
    assert hasattr(ProtocolWrapper, "handle")
    assert inspect.iscoroutinefunction(TrioSingleTask.stop)
    assert "self.idle_task = TrioSingleTask()" in inspect.getsource(TCPServer.__init__)


def test_v57_every_request_passes_our_check_before_hypercorn_can_switch_protocols() -> None:
    """`_check_protocol` (h2c) runs first and is empty here; `_create_stream` decides."""
    handle = inspect.getsource(H11Protocol._handle_events)
    assert handle.index("_check_protocol") < handle.index("_create_stream")
    assert upgrade._HeadProtocol._check_protocol is not H11Protocol._check_protocol
    assert "h2c" in inspect.getsource(h11_module)


def test_v46_what_the_idle_task_does_is_what_ours_does() -> None:
    source = inspect.getsource(TCPServer._idle_timeout)
    assert "move_on_after(self.config.keep_alive_timeout)" in source
    assert "await self.context.terminated.wait()" in source
    assert "await self._initiate_server_close()" in source


def test_v46_the_configuration_keys_that_bound_a_connection_exist() -> None:
    config = Config()
    for name in ("keep_alive_timeout", "h11_max_incomplete_size", "include_server_header", "errorlog", "accesslog"):
        assert hasattr(config, name), name
