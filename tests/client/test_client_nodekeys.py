"""The pins of nodes' keys (S095): made once, changed by a person only."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.client.nodekeys import MAX_PINS, NodeKeyRefused, NodeKeys, PinnedNode
from openclaw_gateway.ops.statickey import make_static_key
from openclaw_gateway.protocol.keystatement import KeyStatement, fingerprint, make_key_statement


def statement_of(identity: DeviceIdentity, key: bytes | None = None) -> KeyStatement:
    return make_key_statement(
        lambda payload: base64.urlsafe_b64decode(identity.sign(payload) + "=="),
        public_key=base64.urlsafe_b64decode(identity.public_key + "="),
        key=key or make_static_key().public,
        subject="node",
        created_at_ms=1,
    )


def test_s095_a_key_is_pinned_once_and_another_is_refused_with_the_command_that_accepts_it(tmp_path: Path) -> None:
    keys, node = NodeKeys(tmp_path / "operator"), DeviceIdentity.generate()
    first, second = statement_of(node), statement_of(node)
    assert keys.check(first, "Desk")
    keys.trust(first, "Desk")
    assert not NodeKeys(tmp_path / "operator").check(first, "Desk")
    assert not keys.check(first, node.device_id)  # by whatever name
    with pytest.raises(NodeKeyRefused) as refused:
        keys.check(second, "Desk")
    assert f"openclaw nodes trust --node {node.device_id}" in refused.value.fix
    assert fingerprint(second.raw_key) in refused.value.fix
    keys.trust(second, "Desk")
    assert not keys.check(second, "Desk")
    assert oct((tmp_path / "operator" / "node-keys.json").stat().st_mode & 0o777) == "0o600"


def test_s095_a_name_is_not_taken_for_another_machine(tmp_path: Path) -> None:
    """A gateway that shows a node of its own under a known name."""
    keys = NodeKeys(tmp_path / "operator")
    keys.trust(statement_of(DeviceIdentity.generate()), "Desk")
    impostor = DeviceIdentity.generate()
    with pytest.raises(NodeKeyRefused, match="Desk was node") as refused:
        keys.check(statement_of(impostor), "Desk")
    assert "openclaw nodes trust --node Desk" in refused.value.fix
    assert keys.check(statement_of(impostor), "Other")
    # A person says that the name moved: it then stands for one node only.
    moved = statement_of(impostor)
    keys.trust(moved, "Desk")
    assert not keys.check(moved, "Desk")
    assert [pin.name for pin in keys.all()].count("Desk") == 1


def test_s095_two_known_machines_cannot_be_exchanged_under_their_names(tmp_path: Path) -> None:
    """Both are pinned and both are real: the gateway shows the one when the other was asked for."""
    keys = NodeKeys(tmp_path / "operator")
    shed, barn = statement_of(DeviceIdentity.generate()), statement_of(DeviceIdentity.generate())
    assert keys.pin(shed, shed.device_id[:12])  # by the beginning of its id
    assert not keys.pin(shed, "Shed")
    keys.note(shed.device_id, "system.run", "Shed")
    assert keys.pin(barn, "Barn")
    for name in ("Shed", "SHED", shed.device_id[:12], shed.device_id[:4], shed.device_id):
        with pytest.raises(NodeKeyRefused):
            keys.pin(barn, name)
        assert not keys.pin(shed, name)
    # Nor by an id that is not pinned yet: what was typed is the node, or nothing is.
    with pytest.raises(NodeKeyRefused, match="was asked for, and the gateway shows"):
        keys.pin(barn, DeviceIdentity.generate().device_id)
    # A new key does not make the names free, and a downgrade is noticed by each of them.
    keys.trust(statement_of(DeviceIdentity.generate()), "Third")
    keys.trust(shed, shed.device_id)
    with pytest.raises(NodeKeyRefused, match="Shed was node"):
        keys.pin(barn, "Shed")
    assert keys.went_sealed("0" * 64, "shed", "system.run")
    assert keys.went_sealed("0" * 64, shed.device_id[:12], "system.run")
    assert not keys.went_sealed(barn.device_id, "Barn", "system.run")


def test_s095_pins_made_at_once_are_all_kept(tmp_path: Path) -> None:
    """What is lost would be pinned anew, with whatever key the gateway shows then."""
    statements = [statement_of(DeviceIdentity.generate()) for _ in range(24)]
    with ThreadPoolExecutor(8) as threads:
        made = list(
            threads.map(lambda number: NodeKeys(tmp_path).pin(statements[number], f"n{number}"), range(len(statements)))
        )
    assert all(made)
    assert {pin.nodeId for pin in NodeKeys(tmp_path).all()} == {one.device_id for one in statements}


def test_s095_commands_that_went_sealed_are_remembered_and_bounded(tmp_path: Path) -> None:
    keys, node = NodeKeys(tmp_path), DeviceIdentity.generate()
    keys.note(node.device_id, "system.run")
    assert keys.get(node.device_id) is None
    keys.trust(statement_of(node), "Desk")
    for number in range(200):
        keys.note(node.device_id, f"c{number}")
    keys.note(node.device_id, "c1")
    keys.trust(statement_of(node), "Desk")  # a new key, the same memory
    pin = keys.get(node.device_id)
    assert pin is not None
    assert pin.commands[:2] == ("c0", "c1")
    assert len(pin.commands) == 64
    assert keys.went_sealed(node.device_id, "Desk", "c199")  # not noted any more, and yet not sent readable


def test_s095_a_damaged_file_is_not_an_empty_one_and_a_full_one_refuses(tmp_path: Path) -> None:
    keys = NodeKeys(tmp_path)
    pins = [PinnedNode(f"{number:064x}", "A" * 43, f"n{number}", 1) for number in range(MAX_PINS)]
    keys._write(pins)
    with pytest.raises(NodeKeyRefused, match="holds 1024 nodes"):
        keys.trust(statement_of(DeviceIdentity.generate()), "Desk")
    with pytest.raises(NodeKeyRefused, match="would be too big"):
        keys._write([PinnedNode("0" * 64, "A" * 43, "n" * 2**20, 1)])
    path = tmp_path / "node-keys.json"
    path.write_text("{")
    path.chmod(0o600)
    with pytest.raises(NodeKeyRefused, match="no key of a node can be believed") as refused:
        keys.check(statement_of(DeviceIdentity.generate()), "Desk")
    assert str(path) in refused.value.fix
