"""Fixtures of the namespace tests: a cable with a gateway on its left end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import official
from tests.network.cable import Cable, CableImpossible
from tests.network.machines import GatewayMachine

__all__ = ["official"]  # OpenClaw's own programs, as the interop tests use them


@pytest.fixture
def cable() -> Iterator[Cable]:
    """A cable of this test's own. Needs root, which CI has: there a skip is a failure."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    made = Cable()
    try:
        made.open()
        yield made
    except CableImpossible as error:
        pytest.skip(f"no network namespace here: {error}")
    finally:
        made.close()


@pytest.fixture
def gateway_machine(cable: Cable, tmp_path: Path) -> Iterator[GatewayMachine]:
    """A gateway on the left end of the cable, not started yet: a test says how often it pings."""
    machine = GatewayMachine(cable, tmp_path / "gateway")
    try:
        yield machine
    finally:
        machine.end()
