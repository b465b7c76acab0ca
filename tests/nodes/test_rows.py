"""Surfaces and waiting work on a real database: caps, expiry, and rows that go with their device."""

from __future__ import annotations

import sqlite3

import attrs
import pytest

from openclaw_gateway.nodes import queue as queue_module
from openclaw_gateway.nodes import rows
from openclaw_gateway.nodes.hub import NodeHub
from openclaw_gateway.nodes.queue import DEFAULT_TTL_MS, MAX_TTL_MS, WorkQueue
from openclaw_gateway.nodes.records import Declaration, names
from openclaw_gateway.store import Store

from .conftest import START_MS, Clock, Pair


def declaration(node_id: str, *commands: str) -> Declaration:
    return Declaration(
        node_id=node_id,
        paired_at_ms=START_MS,
        caps=(),
        commands=commands,
        client_id="node-host",
        client_mode="node",
        display_name="n",
        platform="linux",
        version="1",
        device_family="",
        remote_ip="192.0.2.1",
    )


async def test_rule8_requests_are_capped_and_the_oldest_gives_way(
    hub: NodeHub, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_REQUESTS", 3)
    ids = [await pair(f"n{index}") for index in range(5)]
    ended = []
    for index, node_id in enumerate(ids):
        change = await hub.surfaces.declare(declaration(node_id, "system.which"), START_MS + index)
        ended += [(request.node_id, decision) for request, decision in change.ended]
    assert [one.node_id for one in hub.surfaces.requests()] == ids[2:]
    assert ended == [(ids[0], "superseded"), (ids[1], "superseded")]


async def test_pair5_an_approval_is_of_exactly_what_was_listed(hub: NodeHub, pair: Pair) -> None:
    node_id = await pair()
    listed = (await hub.surfaces.declare(declaration(node_id, "system.notify"), START_MS)).request
    assert listed is not None
    swapped = attrs.evolve(listed, commands=("system.notify", "system.run"))
    assert await hub.surfaces.approve(swapped, "operator:x", START_MS) is None
    assert hub.surfaces.surface(node_id, START_MS) is None
    assert await hub.surfaces.approve(listed, "operator:x", START_MS) is not None
    assert await hub.surfaces.approve(listed, "operator:x", START_MS) is None


async def test_what_is_no_longer_asked_is_cleared(hub: NodeHub, pair: Pair) -> None:
    node_id = await pair()
    await hub.surfaces.declare(declaration(node_id, "system.notify"), START_MS)
    change = await hub.surfaces.declare(declaration(node_id), START_MS)
    assert [decision for _, decision in change.ended] == ["superseded"]
    assert hub.surfaces.requests() == ()


async def test_rows_go_with_their_device(hub: NodeHub, store: Store, pair: Pair, clock: Clock) -> None:
    node_id = await pair()
    request = (await hub.surfaces.declare(declaration(node_id, "system.notify"), START_MS)).request
    assert request is not None
    await hub.surfaces.approve(request, "operator:x", START_MS)
    hub.facts.note(node_id, last_seen_at_ms=START_MS)
    await hub.facts.flush()
    assert await hub.queue.put(node_id, START_MS, "status.request", rank=0, ttl_ms=None, now=START_MS) is not None

    def drop(db: sqlite3.Connection) -> None:
        db.execute("DELETE FROM devices WHERE device_id = ?", (node_id,))

    await store.run(drop)
    await hub.load()
    assert hub.surfaces.surface(node_id, START_MS) is None
    assert len(hub.queue) == 0
    hub.facts.note(node_id, last_seen_at_ms=START_MS)  # of a node that is gone: not written, no error
    await hub.facts.flush()


async def test_rule8_the_queue_is_capped_per_node_and_in_all(
    store: Store, hub: NodeHub, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await pair("one"), await pair("two")
    queue: WorkQueue = hub.queue

    async def put(node_id: str, pairing: int) -> bool:
        return await queue.put(node_id, pairing, "status.request", rank=0, ttl_ms=None, now=START_MS) is not None

    monkeypatch.setattr(queue_module, "MAX_PER_NODE", 2)
    monkeypatch.setattr(queue_module, "MAX_TOTAL", 3)
    assert [await put(one, pairing) for pairing in range(3)] == [True, True, False]
    assert [await put(two, pairing) for pairing in range(2)] == [True, False]
    assert len(queue) == 3


async def test_work_ends_with_its_time_and_never_lives_longer_than_a_day(hub: NodeHub, pair: Pair) -> None:
    node_id = await pair()
    item = await hub.queue.put(node_id, START_MS, "status.request", rank=0, ttl_ms=10**12, now=START_MS)
    assert item is not None
    assert item.expires_at_ms == START_MS + MAX_TTL_MS
    urgent = await hub.queue.put(node_id, START_MS, "status.request", rank=1, ttl_ms=None, now=START_MS)
    assert urgent is not None
    assert urgent.expires_at_ms == START_MS + DEFAULT_TTL_MS
    assert [one.id for one in hub.queue.of(node_id, START_MS)] == [urgent.id, item.id]
    assert hub.queue.of(node_id, START_MS + MAX_TTL_MS) == []
    await hub.queue.expire(START_MS + MAX_TTL_MS)
    assert len(hub.queue) == 0


async def test_another_nodes_work_cannot_be_taken(hub: NodeHub, pair: Pair) -> None:
    one, two = await pair("one"), await pair("two")
    item = await hub.queue.put(one, START_MS, "status.request", rank=0, ttl_ms=None, now=START_MS)
    assert item is not None
    assert await hub.queue.take(two, [item.id]) == ()
    assert await hub.queue.take(one, [item.id]) == (item.id,)


def test_names_are_bounded_and_printable() -> None:
    assert names(["b", "a", "a", "", "x\n", "y" * 129]) == ("a", "b")
    assert len(names(f"n{index}" for index in range(1000))) == 256
