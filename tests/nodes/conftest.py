"""A hub on a store in memory, devices that are paired by hand, and connections that only remember what was offered."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import attrs
import msgspec
import pytest

from openclaw_gateway.events.bus import OutgoingEvent
from openclaw_gateway.nodes.hub import NodeHub, open_node_hub
from openclaw_gateway.pairing import Ask, DeviceBook, load_device_tokens, open_device_book
from openclaw_gateway.protocol.connect import ClientInfo, ConnectParams
from openclaw_gateway.server.closing import CloseScope
from openclaw_gateway.server.gatekeeper import Grant
from openclaw_gateway.store import Store, open_store

START_MS = 1_800_000_000_000


class Clock:
    """Unix milliseconds that move when a test says so."""

    def __init__(self) -> None:
        self.now = START_MS

    def __call__(self) -> int:
        return self.now


@attrs.define(eq=False)
class Link:
    """A node's connection as the hub sees it."""

    device_id: str | None
    grant: Grant | None
    conn_id: str = "conn"
    client_address: str = "192.0.2.4"
    scope: CloseScope = attrs.field(factory=CloseScope)
    offered: list[tuple[str, Any]] = attrs.field(factory=list)
    open: bool = True
    secure: bool = False

    def offer(self, event: OutgoingEvent) -> bool:
        self.offered.append((event.name, msgspec.json.decode(event.payload)))
        return self.open

    def last(self, name: str) -> Any:
        return [payload for offered, payload in self.offered if offered == name][-1]


def device_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def make_link(
    name: str = "node", commands: tuple[str, ...] = ("system.which",), *, method: str = "device-token", **more: Any
) -> Link:
    client = ClientInfo(id="node-host", mode="node", version="1", platform="linux", display_name=name)
    params = ConnectParams(min_protocol=4, max_protocol=4, client=client, role="node", commands=commands, **more)
    id_ = device_id(name)
    grant = Grant(role="node", scopes=(), method=method, protocol=4, params=params, device_id=id_, principal="p")
    return Link(id_, grant)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store(None) as opened:
        yield opened


@pytest.fixture
async def book(store: Store, clock: Clock) -> AsyncIterator[DeviceBook]:
    async with open_device_book(store, clock=clock, tokens=load_device_tokens(None)) as opened:
        yield opened


@pytest.fixture
async def hub(store: Store, book: DeviceBook, clock: Clock) -> AsyncIterator[NodeHub]:
    async with open_node_hub(store, book, clock=clock) as opened:
        yield opened


Pair = Callable[..., Awaitable[str]]


@pytest.fixture
def pair(book: DeviceBook, clock: Clock) -> Pair:
    async def pair(name: str = "node", *, role: str = "node", platform: str = "linux") -> str:
        ask = Ask(
            device_id=device_id(name),
            public_key=f"key-of-{name}",
            role=role,
            client_id="node-host",
            client_mode="node",
            display_name=name,
            platform=platform,
            device_family="",
            source_ip="192.0.2.9",
        )
        return (await book.approve_silently(ask, "local", clock.now)).device.device_id

    return pair
