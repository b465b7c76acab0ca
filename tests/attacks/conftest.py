"""Victims that most attacks need: a gateway with a token, and one that only others' addresses reach."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from openclaw_gateway import Gateway

from .attacker import open_victim, remote_door


@pytest.fixture
async def victim() -> AsyncIterator[Gateway]:
    """A gateway that asks for `attacker.TOKEN`, in the test's own Trio run."""
    async with open_victim() as gateway:
        yield gateway


@pytest.fixture
async def far_port(victim: Gateway) -> AsyncIterator[int]:
    """A port where the same gateway sees every peer as 192.0.2.7."""
    async with remote_door(victim) as port:
        yield port
