"""A gateway reached over memory streams, and one on a real port, for the tests of the shell around a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.testing import open_memory_gateway

TOKEN = "token-of-the-server-tests-0123456789"
CONFIG = GatewayConfig(port=0, auth=AuthConfig(type="token", token=TOKEN))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with open_memory_gateway(CONFIG) as gateway:
        yield gateway


@pytest.fixture
async def listening() -> AsyncIterator[Gateway]:
    async with open_gateway(CONFIG, env={}) as gateway:
        yield gateway
