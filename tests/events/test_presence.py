"""Presence: the gateway first, a cap, a version that grows with every change."""

from __future__ import annotations

import msgspec

from openclaw_gateway.events.presence import MAX_ENTRIES, Presence


def _presence() -> tuple[Presence, list[list[str]]]:
    told: list[list[str]] = []
    presence = Presence(
        {"host": "gw"},
        now_ms=lambda: 1000,
        on_change=lambda: told.append([entry["reason"] for entry in presence.entries()]),
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
    presence.remove("n")
    presence.remove("n")
    presence.remove("never here")
    assert told == [["self", "connect"], ["self", "disconnect"]]
    assert len(presence.entries()) == 1
    assert len(msgspec.json.decode(presence.encoded())) == 1


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
