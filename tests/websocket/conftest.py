"""A gateway of our own in the test's process, on a free port of 127.0.0.1, with limits small enough to reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest

from openclaw_gateway import GatewayConfig, open_gateway
from openclaw_gateway.config.schema import AuthConfig, TransportsConfig, WebSocketConfig

TOKEN = "token-of-the-websocket-tests-0123456789"
MAX_MESSAGE = 300_000

OpenServer = Callable[..., AbstractAsyncContextManager[int]]


@asynccontextmanager
async def _open_server(**limits: Any) -> AsyncIterator[int]:
    websocket = attrs.evolve(WebSocketConfig(max_message_size=MAX_MESSAGE), **limits)
    config = GatewayConfig(
        port=0, auth=AuthConfig(type="token", token=TOKEN), transports=TransportsConfig(websocket=websocket)
    )
    async with open_gateway(config) as gateway:
        yield gateway.port


@pytest.fixture
def open_server() -> OpenServer:
    """``async with open_server(handshake_timeout_ms=300) as port``: keyword arguments are `WebSocketConfig`'s."""
    return _open_server


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with _open_server() as port:
        yield port
