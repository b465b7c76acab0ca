"""What a person is shown: every name that would be granted, and nothing a device says in the gateway's voice."""

from __future__ import annotations

from typing import Any

import pytest

from openclaw_gateway.approvals.review import Moment, digits, review_of_device, review_of_surface, span
from openclaw_gateway.pairing.records import PendingRequest, ask_hash, pending_to_wire

NOW = 1_700_000_000_000
DEVICE = "0123456789abcdef" * 4


def waiting(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": "r1", "device_id": DEVICE, "public_key": "k", "role": "node", "scopes": (), "caps": ("exec",),
        "commands": ("camera.list", "system.run"), "client_id": "node-host", "client_mode": "node",
        "display_name": "shed", "platform": "linux", "device_family": "", "version": "1.2", "source_ip": "192.0.2.7",
        "reason": "not-paired", "first_seen_ms": NOW - 65_000, "last_seen_ms": NOW, "expires_at_ms": NOW + 235_000,
    }  # fmt: skip
    fields |= changes
    fields["ask_hash"] = ask_hash("k", fields["role"], fields["scopes"], fields["commands"])
    return pending_to_wire(PendingRequest(**fields))


def surface(**changes: Any) -> dict[str, Any]:
    return {
        "requestId": "s1", "nodeId": DEVICE, "clientId": "node-host", "clientMode": "node", "displayName": "shed",
        "platform": "linux", "version": "1", "deviceFamily": "", "remoteIp": "192.0.2.7", "caps": [],
        "commands": ["camera.list", "fs.listDir"], "ts": NOW, **changes,
    }  # fmt: skip


def test_s091_a_node_that_asks_is_shown_with_all_that_tells_it_from_another() -> None:
    shown = review_of_device(waiting(), NOW)
    assert (shown.kind, shown.request_id, shown.name, shown.role) == ("device", "r1", "shed", "node")
    assert shown.ask_hash == ask_hash("k", "node", (), ("camera.list", "system.run"))
    facts = dict(shown.facts)
    assert facts["Platform"] == "linux"
    assert facts["Program"] == "node-host 1.2"
    assert facts["Address"] == "192.0.2.7"
    assert facts["Device id"] == DEVICE
    assert facts["Fingerprint"] == digits(DEVICE) == "0123:4567:89AB:CDEF:0123:4567:89AB:CDEF"
    assert facts["Asked"] == Moment(NOW - 65_000, "1 minute ago")
    assert facts["Expires"] == Moment(NOW + 235_000, "in 3 minutes")
    assert dict(shown.grants) == {"Commands": ("system.run", "camera.list"), "Abilities": ("exec",)}
    assert shown.far == {"system.run"}
    assert "lends none" in shown.warning


def test_pair5_an_operator_is_shown_its_rights() -> None:
    row = waiting(role="operator", scopes=("operator.admin", "operator.read"), commands=(), caps=())
    shown = review_of_device(row, NOW)
    assert dict(shown.grants) == {"Rights": ("operator.admin", "operator.read")}
    assert "full control" in shown.warning
    assert shown.far == {"operator.admin"}
    less = review_of_device(waiting(role="operator", scopes=("operator.read",), commands=(), caps=()), NOW)
    assert "full control" not in less.warning
    assert "operator" in less.warning


def test_pair5_every_command_is_there_and_what_reaches_far_comes_first() -> None:
    harmless = [f"a.harmless{number:03}" for number in range(255)]
    shown = review_of_surface(surface(commands=[*harmless, "system.run"]), NOW)
    commands = dict(shown.grants)["Commands"]
    assert len(commands) == 256
    assert commands[0] == "system.run"
    assert shown.far == {"system.run"}


def test_a_surface_is_shown_as_an_offer_of_commands() -> None:
    shown = review_of_surface(surface(), NOW)
    assert (shown.kind, shown.request_id, shown.device_id, shown.title) == ("surface", "s1", DEVICE, "offers commands")
    assert dict(shown.grants) == {"Commands": ("fs.listDir", "camera.list")}
    assert "Expires" not in dict(shown.facts)


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({}, ""),
        ({"reason": "scope-upgrade"}, "It is paired already and asks for more than was approved."),
        ({"reason": "role-upgrade"}, "It is paired already and asks for another role."),
    ],
)
def test_why_it_asks_again_is_said(changes: dict[str, Any], note: str) -> None:
    assert review_of_device(waiting(**changes), NOW).note == note


def test_a_device_without_a_name_has_one_here() -> None:
    assert review_of_device(waiting(display_name=None), NOW).name == "node-host"
    assert review_of_device(waiting(display_name=None, client_id=""), NOW).name == "A device without a name"


@pytest.mark.parametrize(
    ("milliseconds", "words"),
    [
        (-5, "less than a minute"), (59_999, "less than a minute"), (60_000, "1 minute"), (7_199_000, "1 hour"),
        (7_200_000, "2 hours"), (86_400_000, "1 day"), (400 * 86_400_000, "400 days"),
    ],
)  # fmt: skip
def test_time_is_told_in_words(milliseconds: int, words: str) -> None:
    assert span(milliseconds) == words
