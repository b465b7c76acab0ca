"""Both caps of the door (C14, V46): every map has a limit, and the oldest stranger makes room."""

from __future__ import annotations

from typing import cast

from openclaw_gateway.config.schema import WebSocketConfig
from openclaw_gateway.server.registry import MAX_STRANGERS, SessionRegistry, Strangers
from openclaw_gateway.server.session import Session
from openclaw_gateway.server.wire import Wire


class FakeWire:
    aborted = False

    def abort(self) -> None:
        self.aborted = True


def _wires(count: int) -> list[FakeWire]:
    return [FakeWire() for _ in range(count)]


def _add(strangers: Strangers, wires: list[FakeWire], key: str) -> None:
    for wire in wires:
        strangers.add(cast("Wire", wire), key)


def test_v46_the_oldest_of_the_same_address_makes_room() -> None:
    assert WebSocketConfig().unauthenticated_per_address == 32
    strangers = Strangers(32)
    honest, flood = _wires(1), _wires(100)
    _add(strangers, honest, "192.0.2.1")
    _add(strangers, flood, "198.51.100.7")
    assert [wire.aborted for wire in flood] == [True] * 68 + [False] * 32
    assert not honest[0].aborted
    assert (len(strangers), strangers.count("198.51.100.7"), strangers.evicted) == (33, 32, 68)


def test_v46_there_is_a_cap_over_all_addresses() -> None:
    strangers = Strangers(32)
    wires = _wires(MAX_STRANGERS + 10)
    for index, wire in enumerate(wires):
        _add(strangers, [wire], f"10.0.{index // 250}.{index % 250}")
    assert len(strangers) == MAX_STRANGERS
    assert [wire.aborted for wire in wires] == [True] * 10 + [False] * MAX_STRANGERS


def test_mem1_nothing_is_kept_of_those_that_went() -> None:
    strangers = Strangers(4)
    for _ in range(1000):
        [wire] = _wires(1)
        _add(strangers, [wire], "192.0.2.1")
        strangers.discard(cast("Wire", wire))
        strangers.discard(cast("Wire", wire))
    assert len(strangers) == 0
    assert strangers._by_key == {}
    strangers = Strangers(1)
    _add(strangers, _wires(5), "192.0.2.1")
    assert (len(strangers), strangers.count("192.0.2.1"), len(strangers._by_key)) == (1, 1, 1)


def test_c14_the_limit_of_admitted_connections() -> None:
    registry = SessionRegistry(limit=2, strangers=Strangers(1))

    class FakeSession:
        wire = FakeWire()
        device_id = "d"
        role = "operator"

    sessions = [cast("Session", FakeSession()) for _ in range(3)]
    for session in sessions:
        registry.add(session)
    for session in sessions[:2]:
        assert registry.refuse_admission(session) is None
        registry.admitted(session)
    error = registry.refuse_admission(sessions[2])
    assert error is not None
    assert (error.message, error.retryable) == ("connection limit", True)
    assert (len(registry), len(registry.live)) == (2, 3)
    assert registry.of_device("d") == sessions[:2]
    assert registry.of_device("d", "node") == []
    for session in registry:  # a copy: a session may end while one looks
        registry.remove(session)
    assert (len(registry), registry.live) == (0, (sessions[2],))
    assert registry.refuse_admission(sessions[2]) is None
