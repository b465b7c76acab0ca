"""The hub: what a node may be asked at this moment, and that nothing is known means nothing is lent."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from openclaw_gateway.nodes import rows
from openclaw_gateway.nodes.hub import UPKEEP_SECONDS, NodeHub
from openclaw_gateway.nodes.surfaces import SurfaceBook, SurfacesUnreadable
from openclaw_gateway.store import Store, StoreUnavailable

from .conftest import Clock, Link, Pair, device_id, make_link


@pytest.fixture
async def served(hub: NodeHub) -> AsyncIterator[NodeHub]:
    """The hub with its task running."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.serve)
        yield hub
        nursery.cancel_scope.cancel()


async def approved(hub: NodeHub, node_id: str) -> None:
    await wait_all_tasks_blocked()
    [request] = [one for one in hub.surfaces.requests() if one.node_id == node_id]
    assert await hub.approve(request, "operator:test") is not None


async def test_node2_only_a_live_node_that_lends_is_a_default(served: NodeHub, pair: Pair) -> None:
    one, two = await pair("one"), await pair("two")
    link = make_link("one")
    served.joined(link)
    assert served.default_node() is None  # paired and live, but nothing is approved
    await approved(served, one)
    assert served.default_node() == one
    served.joined(make_link("two"))
    await approved(served, two)
    assert served.default_node() is None  # two could: nobody guesses
    served.left(link)
    assert served.default_node() == two


async def test_a_setup_code_of_an_administrator_brings_the_first_surface_only(served: NodeHub, pair: Pair) -> None:
    node_id = await pair()
    served.joined(make_link(method="bootstrap-token"))
    await wait_all_tasks_blocked()
    node = served.registry.get(node_id)
    assert node is not None
    assert served.lends(node) == {"system.which"}
    served.joined(make_link(commands=("system.which", "system.run"), method="bootstrap-token"))
    await wait_all_tasks_blocked()
    wider = served.registry.get(node_id)
    assert wider is not None
    assert served.lends(wider) == {"system.which"}
    assert [one.commands for one in served.surfaces.requests()] == [("system.run", "system.which")]


async def test_v60_what_cannot_be_read_lends_nothing_until_it_can(
    served: NodeHub, store: Store, pair: Pair, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    node_id = await pair()
    served.joined(make_link())
    await approved(served, node_id)
    node = served.registry.get(node_id)
    assert node is not None
    await store.run(lambda db: db.execute("UPDATE node_surfaces SET commands = 'nonsense'"))
    with pytest.raises(SurfacesUnreadable):
        await served.surfaces.reload()
    assert served.lends(node) == frozenset()
    with pytest.raises(SurfacesUnreadable):
        served.surfaces.requests()
    await store.run(lambda db: db.execute("UPDATE node_surfaces SET commands = '[\"system.which\"]'"))
    await trio.sleep(3 * UPKEEP_SECONDS)  # the task tries again by itself
    assert served.lends(node) == {"system.which"}


async def test_a_declaration_that_cannot_be_written_is_written_later(
    served: NodeHub, pair: Pair, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_id = await pair()
    real: Callable[..., Any] = rows.declare

    def full(db: sqlite3.Connection, *args: Any, **more: Any) -> Any:
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(rows, "declare", full)
    served.joined(make_link())
    await wait_all_tasks_blocked()
    assert served.surfaces.requests() == ()
    monkeypatch.setattr(rows, "declare", real)
    await trio.sleep(3 * UPKEEP_SECONDS)
    assert [one.node_id for one in served.surfaces.requests()] == [node_id]


async def test_rule1_a_node_that_goes_while_its_declaration_is_written_is_told_nothing(
    served: NodeHub, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_id = await pair()
    link = make_link()
    real = SurfaceBook.declare

    async def declare(*args: Any, **more: Any) -> Any:
        found = await real(*args, **more)
        served.left(link)
        return found

    monkeypatch.setattr(SurfaceBook, "declare", declare)
    served.joined(link)
    await wait_all_tasks_blocked()
    assert [one.node_id for one in served.surfaces.requests()] == [node_id]
    assert link.offered == []  # its connection's nursery takes no tasks any more: a word to it would break this one


async def test_v33_pairing_anew_does_not_revive_a_surface(
    served: NodeHub, store: Store, pair: Pair, clock: Clock
) -> None:
    node_id = await pair()
    served.joined(make_link())
    await approved(served, node_id)
    node = served.registry.get(node_id)
    assert node is not None
    assert served.may_invoke(node, "system.which")
    clock.now += 1000

    def pair_anew(db: sqlite3.Connection) -> None:
        db.execute("UPDATE device_roles SET approved_at_ms = ?", (clock.now,))

    await store.run(pair_anew)
    await served.book.reload()
    assert not served.may_invoke(node, "system.which")
    assert served.lends(node) == frozenset()


async def test_live1_the_end_of_a_retired_connection_takes_nobody_along(served: NodeHub, pair: Pair) -> None:
    node_id = await pair()
    old, new = make_link(), make_link()
    served.joined(old)
    first = served.registry.get(node_id)
    served.joined(new)
    second = served.registry.get(node_id)
    assert first is not None
    assert second is not None
    assert second.generation > first.generation
    assert old.scope.closing
    served.left(old)
    assert served.registry.get(node_id) is second
    assert served.registry.of(old) is None
    served.left(new)
    assert len(served.registry) == 0


async def test_operators_and_connections_without_a_device_are_no_nodes(served: NodeHub) -> None:
    served.joined(Link(None, make_link().grant))
    served.joined(Link(device_id("x"), None))
    assert len(served.registry) == 0


async def test_a_node_that_declares_nothing_asks_for_nothing(served: NodeHub, pair: Pair) -> None:
    await pair()
    served.joined(make_link(commands=()))
    await wait_all_tasks_blocked()
    assert served.surfaces.requests() == ()
