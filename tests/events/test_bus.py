"""The event bus: who hears what, encoded once, and subscribers in this process."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.events import bus as bus_module
from openclaw_gateway.events.bus import EventBus, OutgoingEvent
from openclaw_gateway.protocol import frames
from openclaw_gateway.protocol.frames import splice_seq


@attrs.define(eq=False)
class Ear:
    role: str = "operator"
    scopes: frozenset[str] = frozenset({"operator.read"})
    room: bool = True
    heard: list[OutgoingEvent] = attrs.field(factory=list)

    def offer(self, event: OutgoingEvent) -> bool:
        if self.room:
            self.heard.append(event)
        return self.room


def test_default_deny_an_event_goes_to_those_who_hold_its_scope() -> None:
    bus = EventBus()
    reader, admin, bare = Ear(), Ear(scopes=frozenset({"operator.admin"})), Ear(scopes=frozenset())
    node = Ear(role="node", scopes=frozenset())
    forged = Ear(role="node", scopes=frozenset({"operator.admin"}))  # scopes mean nothing on a node
    for ear in (reader, admin, bare, node, forged):
        bus.add(ear)
    assert bus.publish_nowait("read", {}) == 2
    assert bus.publish_nowait("pairing", {}, scope="operator.pairing") == 1
    assert bus.publish_nowait("everybody", {}, scope=None) == 5
    assert bus.publish_nowait("nodes", {}, scope=None, role="node") == 2
    assert bus.publish_nowait("one", {}, scope=None, only=[bare]) == 1
    names = [[event.name for event in ear.heard] for ear in (reader, admin, bare, node, forged)]
    assert names == [
        ["read", "everybody"],
        ["read", "pairing", "everybody"],
        ["everybody", "one"],
        ["everybody", "nodes"],
        ["everybody", "nodes"],
    ]


def test_an_event_is_encoded_once_whoever_hears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    encodings: list[str] = []
    real = frames.encode_event

    def counted(event: str, payload: Any, **more: Any) -> bytes:
        encodings.append(event)
        return real(event, payload, **more)

    monkeypatch.setattr(bus_module, "encode_event", counted)
    bus = EventBus()
    ears = [Ear() for _ in range(500)]
    for ear in ears:
        bus.add(ear)
    assert bus.publish_nowait("x", {"n": 1}) == 500
    assert encodings == ["x"]
    assert {id(ear.heard[0].body) for ear in ears} == {id(ears[0].heard[0].body)}


def test_a_listener_without_room_does_not_count_and_does_not_stop_others() -> None:
    bus = EventBus()
    full, free = Ear(room=False), Ear()
    bus.add(full)
    bus.add(free)
    assert bus.publish_nowait("x", {}, droppable=True) == 1
    assert free.heard[0].droppable
    bus.discard(free)
    bus.discard(free)
    assert bus.publish_nowait("x", {}) == 0


@pytest.mark.expect_error_log("listener failed")
def test_rob1_a_listener_that_fails_does_not_keep_the_others_from_hearing() -> None:
    class Broken(Ear):
        def offer(self, event: OutgoingEvent) -> bool:
            raise RuntimeError("a bug of ours")

    bus, other = EventBus(), Ear()
    bus.add(Broken())
    bus.add(other)
    assert bus.publish_nowait("x", {}) == 1
    assert [event.name for event in other.heard] == ["x"]


def test_a_listener_may_leave_while_an_event_is_told() -> None:
    bus = EventBus()
    last = Ear()

    class Leaver(Ear):
        def offer(self, event: OutgoingEvent) -> bool:
            bus.discard(last)
            return True

    bus.add(Leaver())
    bus.add(last)
    assert bus.publish_nowait("x", {}) == 2


def test_a_payload_that_is_no_json_is_the_publishers_error() -> None:
    with pytest.raises(TypeError):
        EventBus().publish_nowait("x", object())


@given(
    st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(), lambda inner: st.lists(inner, max_size=3)),
    st.integers(1, 10**12),
)
def test_ws3_splicing_a_number_into_an_encoded_event_is_encoding_it_with_one(payload: Any, seq: int) -> None:
    outgoing = bus_module.make_event("e", payload, state_version={"presence": 1, "health": 2})
    assert json.loads(splice_seq(outgoing.body, seq)) == {
        "type": "event",
        "event": "e",
        "payload": payload,
        "stateVersion": {"presence": 1, "health": 2},
        "seq": seq,
    }


async def test_subscribers_in_this_process_hear_what_they_named() -> None:
    bus = EventBus()
    async with bus.subscribe("a") as some, bus.subscribe() as everything:
        bus.publish_nowait("a", {"n": 1}, scope="operator.admin")
        bus.publish_nowait("b", {"n": 2})
        bus.publish_nowait("a", {"n": 3}, only=[])  # meant for somebody else
        assert await some.receive() == ("a", {"n": 1})
        assert [await everything.receive(), await everything.receive()] == [("a", {"n": 1}), ("b", {"n": 2})]
        for channel in (some, everything):
            with pytest.raises(trio.WouldBlock):
                channel.receive_nowait()
    assert bus._subscriptions == set()


async def test_rule8_a_subscriber_that_does_not_read_is_bounded() -> None:
    bus = EventBus()
    async with bus.subscribe(capacity=3) as events:
        for index in range(10):
            bus.publish_nowait("x", index)
        [subscription] = bus._subscriptions
        assert subscription.missed == 7
        assert [(await events.receive())[1] for _ in range(3)] == [0, 1, 2]


async def test_a_subscriber_that_closed_its_end_does_not_hurt_publishers() -> None:
    bus = EventBus()
    async with bus.subscribe("x") as events:
        await events.aclose()
        assert bus.publish_nowait("x", 1) == 0


async def test_publish_is_a_checkpoint() -> None:
    bus = EventBus()
    with trio.testing.assert_checkpoints():
        assert await bus.publish("x", {}) == 0


def test_declared_names_are_kept_in_order_once() -> None:
    bus = EventBus()
    bus.declare(["b", "a"])
    bus.declare(["a", "c"])
    assert list(bus.names) == ["b", "a", "c"]
