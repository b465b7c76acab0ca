"""Records as values: what peers say is tamed, what is hashed is what is granted, what is shown holds no secret."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.pairing import Ask, DeviceBook
from openclaw_gateway.pairing.records import MAX_NAMES, MAX_TEXT, ask_hash
from tests.pairing.conftest import START_MS, MakeAsk


@given(st.text(), st.lists(st.text(), max_size=20))
def test_v52_what_a_peer_says_is_short_and_printable(text: str, names: list[str]) -> None:
    commands = tuple(names)
    ask = Ask(
        device_id="d", public_key="k", role="node", display_name=text, platform=text, commands=commands, caps=(text,)
    )
    for said in (ask.display_name or "", ask.platform, *ask.commands, *ask.caps):
        assert len(said) <= MAX_TEXT
        assert said.isprintable()
    assert set(ask.commands) <= set(names)  # left out, never changed into another name


def test_lists_are_capped(make_ask: MakeAsk) -> None:
    ask = make_ask("a", role="node", commands=tuple(str(n) for n in range(5000)))
    assert len(ask.commands) == MAX_NAMES


def test_unknown_scopes_and_roles_ask_for_nothing(make_ask: MakeAsk) -> None:
    assert make_ask("a", "read", "emperor").scopes == ("operator.read",)
    assert make_ask("a", "read", role="node").scopes == ()
    assert make_ask("a", "read", role="emperor").scopes == ()


def test_pair5_the_hash_covers_key_role_scopes_and_commands_and_nothing_else(make_ask: MakeAsk) -> None:
    base = ask_hash("k", "operator", ["a", "b"], ["c"])
    assert base == ask_hash("k", "operator", ["b", "a"], ["c"])
    others = {
        ask_hash("k2", "operator", ["a", "b"], ["c"]),
        ask_hash("k", "node", ["a", "b"], ["c"]),
        ask_hash("k", "operator", ["a"], ["c"]),
        ask_hash("k", "operator", ["a", "b", "c"], []),
        ask_hash("k", "operator", ["a,b"], ["c"]),
    }
    assert len(others) == 5
    assert base not in others


async def test_the_wire_shapes(book: DeviceBook, make_ask: MakeAsk) -> None:
    outcome = await book.request_pairing(make_ask("new", "read"), START_MS)
    device = (await book.approve_silently(make_ask("old", "write"), "local", START_MS)).device
    await book.approve_silently(make_ask("old", role="node"), "local", START_MS + 1)
    wire = book.to_wire()
    (pending,) = wire["pending"]
    assert pending == {
        "requestId": "request-1",
        "deviceId": outcome.request.device_id,
        "publicKey": "key-of-new",
        "displayName": "new",
        "platform": "linux",
        "deviceFamily": "Linux",
        "clientId": "cli",
        "clientMode": "cli",
        "role": "operator",
        "roles": ["operator"],
        "scopes": ["operator.read"],
        "remoteIp": "192.0.2.1",
        "silent": False,
        "isRepair": False,
        "ts": START_MS,
        "version": "1",
        "reason": "not-paired",
        "caps": [],
        "commands": [],
        "askHash": outcome.request.ask_hash,
        "lastSeenAtMs": START_MS,
        "expiresAtMs": START_MS + 300_000,
    }
    (event,) = outcome.events
    assert event.name == "device.pair.requested"
    extra = {"version", "reason", "caps", "commands", "askHash", "lastSeenAtMs", "expiresAtMs"}
    assert event.payload == {key: value for key, value in pending.items() if key not in extra}
    (paired,) = wire["paired"]
    assert paired == {
        "deviceId": device.device_id,
        "publicKey": "key-of-old",
        "displayName": "old",
        "platform": "linux",
        "deviceFamily": "Linux",
        "clientId": "cli",
        "clientMode": "cli",
        "role": "node",
        "roles": ["node", "operator"],
        "scopes": ["operator.write"],
        "approvedVia": "local",
        "createdAtMs": START_MS,
        "approvedAtMs": START_MS + 1,
        "lastSeenAtMs": START_MS + 1,
        "remoteIp": "192.0.2.1",
        "tokens": [
            {"role": "node", "scopes": [], "createdAtMs": START_MS + 1, "lastUsedAtMs": START_MS + 1},
            {"role": "operator", "scopes": ["operator.write"], "createdAtMs": START_MS, "lastUsedAtMs": START_MS},
        ],
    }


async def test_v51_no_view_of_a_device_holds_its_token(book: DeviceBook, make_ask: MakeAsk) -> None:
    device = (await book.approve_silently(make_ask("a", "read"), "local", START_MS)).device
    token = book.tokens.issue(device)
    assert token is not None
    for view in (repr(device), repr(book.to_wire()), repr(attrs.evolve(device, role="node"))):
        assert token not in view
        assert device.token_digest.hex() not in view
        assert repr(device.token_digest) not in view
        assert repr(device.token_salt) not in view


def test_records_cannot_be_changed(make_ask: MakeAsk) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        make_ask().role = "admin"  # type: ignore[misc]
