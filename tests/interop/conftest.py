"""Fixtures of the interop tests: OpenClaw's own clients, and a real gateway process for each module."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import GatewayProcess, Official

ROOT = Path(__file__).parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.interop)


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Official:
    """OpenClaw's clients, installed first where they are not; scripts/test says where they are."""
    folder = os.environ.get("OPENCLAW_TEST_OFFICIAL")
    if not folder:
        installed = subprocess.run(
            [str(ROOT / "scripts" / "official")], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if installed.returncode != 0:
            pytest.skip(f"the official clients are not installed: {installed.stderr[-500:]}")  # a failure on CI
        folder = installed.stdout.strip()
    return Official(Path(folder), tmp_path_factory.mktemp("official-home"))


@pytest.fixture(scope="module")
def gateway_process(tmp_path_factory: pytest.TempPathFactory, official: Official) -> Iterator[GatewayProcess]:
    """A gateway in a process of its own, with a token and a state folder; shared by one module's tests."""
    gateway = GatewayProcess(tmp_path_factory.mktemp("gateway"), official)
    try:
        gateway.start()
        yield gateway
    finally:
        code = gateway.stop()
    assert code == 0, f"the gateway ended with {code}:\n{gateway.output()}"


@pytest.fixture
def own_gateway(tmp_path: Path, official: Official) -> Iterator[GatewayProcess]:
    """A gateway of one test's own, which it may restart."""
    gateway = GatewayProcess(tmp_path / "gateway", official)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture
def python() -> str:
    return sys.executable
