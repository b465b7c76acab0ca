"""Presence: the gateway first, a cap, a version that grows with every change, changes told together."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

import msgspec
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from openclaw_gateway import GatewayConfig
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.events.presence import MAX_ENTRIES, WINDOW_SECONDS, Presence
from openclaw_gateway.testing import connect_peer, open_memory_gateway


def _presence() -> tuple[Presence, list[list[str]]]:
    told: list[list[str]] = []
    presence = Presence(
        {"host": "gw"},
        now_ms=lambda: 1000,
        on_change=lambda entries: told.append([entry["reason"] for entry in entries]),
    )
    return presence, told


def test_the_gateways_own_entry_is_first() -> None:
    presence, _ = _presence()
    presence.update("n", {"host": "node"}, reason="connect")
    assert presence.entries() == [
        {"host": "gw", "mode": "gateway", "reason": "self", "ts": 1000},
        {"host": "node", "reason": "connect", "ts": 1000},
    ]


def test_a_departure_is_told_once_and_forgotten() -> None:
    presence, told = _presence()
    presence.update("n", {"host": "node"}, reason="connect")
    presence.tell()
    presence.remove("n")
    presence.remove("n")
    presence.remove("never here")
    assert len(presence.entries()) == 1
    assert len(msgspec.json.decode(presence.encoded())) == 1
    presence.tell()
    presence.tell()
    assert told == [["self", "connect"], ["self", "disconnect"]]


def test_who_comes_back_before_the_departure_was_told_is_here() -> None:
    presence, told = _presence()
    presence.update("n", {}, reason="connect")
    presence.remove("n")
    presence.update("n", {}, reason="back")
    presence.tell()
    assert told == [["self", "back"]]


def test_the_version_grows_and_the_encoding_follows() -> None:
    presence, _ = _presence()
    versions = [presence.version]
    for index in range(3):
        presence.update("n", {"n": index}, reason="connect")
        versions.append(presence.version)
        assert msgspec.json.decode(presence.encoded()) == presence.entries()
    assert versions == sorted(set(versions))
    assert presence.encoded() is presence.encoded()


def test_rule8_over_the_cap_the_one_untouched_for_longest_goes() -> None:
    presence, _ = _presence()
    for index in range(MAX_ENTRIES):
        presence.update(f"n{index}", {"n": index}, reason="connect")
    presence.update("n0", {"n": 0}, reason="again")
    for index in range(5):
        presence.update(f"new{index}", {}, reason="connect")
    numbers = [entry.get("n") for entry in presence.entries()[1:]]
    assert len(numbers) == MAX_ENTRIES == 512
    assert 0 in numbers
    assert set(range(1, 6)).isdisjoint(numbers)


def test_rule8_those_who_went_untold_are_capped_too() -> None:
    presence, told = _presence()
    for index in range(MAX_ENTRIES + 30):
        presence.update(f"n{index}", {}, reason="connect")
        presence.remove(f"n{index}")
    presence.tell()
    assert [len(entries) for entries in told] == [1 + MAX_ENTRIES]


@given(st.lists(st.tuples(st.sampled_from("cdt"), st.integers(0, 5)), max_size=60))
def test_what_is_told_last_is_what_is_and_versions_never_go_back(steps: list[tuple[str, int]]) -> None:
    seen: list[tuple[int, dict[str, str]]] = []
    presence = Presence(
        {"id": "gw"}, now_ms=lambda: 1,
        on_change=lambda rows: seen.append((presence.version, {row["id"]: row["reason"] for row in rows[1:]})),
    )  # fmt: skip
    here: set[str] = set()
    for action, number in steps:
        key = str(number)
        if action == "c":
            presence.update(key, {"id": key}, reason="connect")
            here.add(key)
        elif action == "d":
            presence.remove(key)
            here.discard(key)
        else:
            presence.tell()
    presence.tell()
    assert [version for version, _ in seen] == sorted({version for version, _ in seen})
    if seen:
        version, rows = seen[-1]
        assert version == presence.version
        assert {key for key, reason in rows.items() if reason == "connect"} == here
    assert {row["id"] for row in presence.entries()[1:]} == here


async def test_after_a_quiet_time_a_change_is_told_at_once_and_what_follows_together(
    autojump_clock: MockClock,
) -> None:
    told: list[tuple[float, int]] = []
    presence = Presence(
        {}, now_ms=lambda: 1, on_change=lambda entries: told.append((trio.current_time(), len(entries)))
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        nursery.start_soon(presence.serve)
        await wait_all_tasks_blocked()
        presence.update("first", {}, reason="connect")
        await wait_all_tasks_blocked()
        assert told == [(trio.current_time(), 2)]
        for number in range(100):
            presence.update(f"n{number}", {}, reason="connect")
            await trio.sleep(WINDOW_SECONDS / 40)
        await trio.sleep(WINDOW_SECONDS)
        nursery.cancel_scope.cancel()
    # A hundred arrivals within two windows and a half: told in a few lists, the last of which has them all.
    assert told[-1][1] == 102
    assert 3 <= len(told) - 1 <= 4
    assert all(later - sooner >= WINDOW_SECONDS * 0.99 for (sooner, _), (later, _) in itertools.pairwise(told))


def _unread(events: trio.MemoryReceiveChannel[tuple[str, Any]]) -> list[Any]:
    payloads = []
    with suppress(trio.WouldBlock):
        while True:
            payloads.append(events.receive_nowait()[1])
    return payloads


async def test_many_arrivals_do_not_cost_the_square_of_them() -> None:
    """What one listener is sent while 500 arrive, each in a turn of its own: 500 lists had 125,750 rows."""
    config = GatewayConfig(port=0, auth=AuthConfig(type="none"))
    async with open_memory_gateway(config) as gateway, gateway.events.subscribe("presence", capacity=1000) as events:
        for number in range(500):
            gateway.presence.update(f"n{number}", {"instanceId": f"n{number}"}, reason="connect")
            await trio.lowlevel.checkpoint()
        gateway.presence.tell()
        told = _unread(events)
    rows = [row for payload in reversed(told) for row in payload["presence"]]
    assert len(rows) < 20 * 500
    assert [row["instanceId"] for row in rows[1:501]] == [f"n{number}" for number in range(500)]


async def test_every_connection_that_was_here_is_told_as_gone() -> None:
    config = GatewayConfig(port=0, auth=AuthConfig(type="none"))
    async with open_memory_gateway(config) as gateway, gateway.events.subscribe("presence", capacity=1000) as events:
        for number in range(30):
            async with connect_peer(gateway, client_id="webchat", mode="webchat", client={"instanceId": f"i{number}"}):
                pass
        gateway.presence.tell()
        rows = [row for payload in _unread(events) for row in payload["presence"]]
    gone = [row["instanceId"] for row in rows if row["reason"] == "disconnect"]
    assert gone == [f"i{number}" for number in range(30)]


async def test_a_health_event_never_names_a_version_of_presence_that_was_not_told() -> None:
    config = GatewayConfig(port=0, auth=AuthConfig(type="none"))
    async with open_memory_gateway(config) as gateway, connect_peer(gateway) as peer:
        for number in range(3):
            gateway.presence.update(f"n{number}", {}, reason="connect")
            gateway._parts.news.health_changed()
        seen: list[tuple[str, int]] = []
        while len(seen) < 6:
            message = await peer.receive()
            if message.get("event") in {"presence", "health"}:
                seen.append((message["event"], message["stateVersion"]["presence"]))
        first = seen[0][1]
        assert seen == [(name, first + number) for number in range(3) for name in ("presence", "health")]


async def test_an_entry_stays_until_its_last_connection_goes() -> None:
    config = GatewayConfig(port=0, auth=AuthConfig(type="none"))
    who: dict[str, Any] = {"client_id": "webchat", "mode": "webchat", "client": {"instanceId": "same"}}
    async with open_memory_gateway(config) as gateway:
        async with connect_peer(gateway, **who):
            async with connect_peer(gateway, **who):
                assert len(gateway.presence.entries()) == 2
            assert len(gateway.presence.entries()) == 2
        assert len(gateway.presence.entries()) == 1
        assert gateway._core._present == {}
