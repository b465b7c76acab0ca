"""A book on a real store, a clock moved by hand, and asks from devices that exist only by name."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from openclaw_gateway.pairing import Ask, DeviceBook, load_device_tokens, open_device_book
from openclaw_gateway.store import Store, open_store

MakeAsk = Callable[..., Ask]
START_MS = 1_800_000_000_000


class Clock:
    """Unix milliseconds that move when a test says so."""

    def __init__(self) -> None:
        self.now = START_MS

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def new_id() -> Callable[[], str]:
    numbers = itertools.count(1)
    return lambda: f"request-{next(numbers)}"


@pytest.fixture
def make_ask() -> MakeAsk:
    def make(name: str = "phone", *scopes: str, role: str = "operator", ip: str = "192.0.2.1", **more: object) -> Ask:
        device_id = hashlib.sha256(name.encode()).hexdigest()
        given: dict[str, object] = {
            "device_id": device_id,
            "public_key": f"key-of-{name}",
            "role": role,
            "scopes": tuple(f"operator.{scope}" for scope in scopes),
            "client_id": "cli",
            "client_mode": "cli",
            "display_name": name,
            "platform": "linux",
            "device_family": "Linux",
            "version": "1",
            "source_ip": ip,
        }
        return Ask(**{**given, **more})  # type: ignore[arg-type]

    return make


@pytest.fixture
async def store(state_dir: Path) -> AsyncIterator[Store]:
    async with open_store(state_dir) as opened:
        yield opened


@pytest.fixture
async def book(
    store: Store, clock: Clock, new_id: Callable[[], str], state_dir: Path
) -> AsyncIterator[DeviceBook]:
    tokens = load_device_tokens(state_dir)
    async with open_device_book(store, clock=clock, tokens=tokens, new_id=new_id) as opened:
        yield opened
