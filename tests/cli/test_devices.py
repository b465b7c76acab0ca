"""``openclaw devices``: a real gateway, a real command line, devices that ask under a name that is not this host's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.attacks.attacker import Attacker, Device
from tests.cli.program import Program

pytestmark = pytest.mark.deadline(120)


class Gateway(Program):
    """A running gateway and its command line."""

    port: int = 0

    def connect(self, device: Device, *scopes: str, role: str = "operator", **auth: str) -> Any:
        """The hello of a connect from "elsewhere", or its error's details."""

        async def run() -> Any:
            with trio.fail_after(10):
                async with await Attacker.at(self.port) as client:
                    claims: dict[str, Any] = {"scopes": [f"operator.{scope}" for scope in scopes], "role": role}
                    given = auth or {"token": self.secret}
                    outcome = await client.connect(device=device, headers={"host": "gateway.test"}, **claims, **given)
                    return outcome.hello if outcome.admitted else outcome.error["details"]

        return trio.run(run)

    def ask(self, device: Device, *scopes: str, role: str = "operator") -> str:
        request_id: str = self.connect(device, *scopes, role=role)["requestId"]
        return request_id

    def json(self, *arguments: str) -> Any:
        done = self("devices", *arguments, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def fails(self, *arguments: str) -> str:
        done = self("devices", *arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    program = Gateway(tmp_path_factory.mktemp("devices") / "state")
    with program.started() as port:
        object.__setattr__(program, "port", port)
        yield program


@pytest.fixture(autouse=True)
def empty(gateway: Gateway) -> Iterator[None]:
    yield
    gateway.json("clear", "--yes", "--pending")


def test_a_request_is_listed_approved_and_used(gateway: Gateway) -> None:
    device = Device()
    request_id = gateway.ask(device, "read")
    listed = gateway("devices", "list").stdout
    assert "Pending (1)" in listed
    assert request_id in listed
    assert "openclaw devices approve <request>" in listed
    done = gateway("devices", "approve", request_id)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Approved {device.id}")
    assert done.stdout.rstrip().endswith("operator read")
    assert gateway.connect(device, "read")["auth"]["scopes"] == ["operator.read"]
    listed = gateway("devices", "list").stdout
    assert "Paired (1)" in listed
    assert device.id in listed


def test_pair5_without_an_id_what_waits_is_shown_and_nothing_is_approved(gateway: Gateway) -> None:
    assert "no device asks to be paired" in gateway.fails("approve")
    first, second = gateway.ask(Device(), "read"), gateway.ask(Device(), "write")
    for arguments in (("approve",), ("approve", "--latest")):
        told = gateway.fails(*arguments)
        for request_id in (first, second):
            assert f"openclaw devices approve {request_id}" in told
    done = gateway("devices", "approve", "--latest", "--json")
    assert done.returncode == 1
    assert {row["requestId"] for row in json.loads(done.stdout)["pending"]} == {first, second}
    assert gateway.json("list")["paired"] == []
    gateway.json("reject", first)
    assert "Nothing was approved" in gateway.fails("approve")  # one alone is not approved without --latest either
    assert gateway.json("approve", "--latest")["requestId"] == second


def test_pair5_a_unique_beginning_will_do_and_an_ambiguous_one_will_not(gateway: Gateway) -> None:
    device = Device()
    gateway.ask(device, "read")
    gateway.ask(device, role="node")
    assert "2 requests begin with" in gateway.fails("approve", device.id[:12])
    assert "unknown requestId" in gateway.fails("approve", "zzzzzzzz")
    other = gateway.ask(Device(), "read")
    assert gateway.json("approve", other[:13])["requestId"] == other
    (waiting,) = [row for row in gateway.json("list")["pending"] if row["role"] == "node"]
    assert gateway.json("reject", waiting["requestId"][:13])["requestId"] == waiting["requestId"]
    assert gateway.json("approve", device.id[:12])["device"]["deviceId"] == device.id


def test_pair3_a_superseded_id_names_the_one_that_took_its_place(gateway: Gateway) -> None:
    device = Device()
    old = gateway.ask(device, "read")
    new = gateway.ask(device, "read", "write")
    told = gateway.fails("approve", old)
    assert f"superseded by {new}, which also asks for operator.write" in told
    assert f"fix: openclaw devices approve {new}" in told


def test_a_node_is_approved_with_the_scope_that_takes(gateway: Gateway) -> None:
    node = Device()
    answer = gateway.json("approve", gateway.ask(node, role="node"))
    assert answer["device"]["roles"] == ["node"]
    assert gateway.connect(node, role="node")["auth"]["role"] == "node"


def test_rename_rotate_revoke_remove_speak_openclaws_keys(gateway: Gateway) -> None:
    device = Device()
    gateway.json("approve", gateway.ask(device, "read", "write"))
    token = gateway.connect(device, "read")["auth"]["deviceToken"]
    assert gateway.json("rename", "--device", device.id, "--name", "Kitchen") == {
        "deviceId": device.id,
        "label": "Kitchen",
    }
    assert "Kitchen" in gateway("devices", "list").stdout
    rotated = gateway.json("rotate", "--device", device.id, "--role", "operator", "--scope", "operator.read")
    assert (rotated["scopes"], rotated["tokenDelivery"]) == (["operator.read"], "withheld-cross-device")
    assert gateway.connect(device, "read", deviceToken=token)["code"] == "AUTH_DEVICE_TOKEN_MISMATCH"
    assert gateway.connect(device, "write")["code"] == "PAIRING_REQUIRED"
    assert gateway.json("rotate", "--device", device.id, "--role", "operator", "--no-scopes")["scopes"] == []
    told = gateway.fails("rotate", "--device", device.id, "--role", "operator", "--scope", "operator.read")
    assert "more than was approved for the device" in told
    assert "fix: openclaw devices list" in told
    revoked = gateway.json("revoke", "--device", device.id, "--role", "operator")
    assert set(revoked) == {"deviceId", "role", "revokedAtMs"}
    assert "none (revoked)" in gateway("devices", "list").stdout
    assert "no approved token in this role" in gateway.fails("revoke", "--device", device.id, "--role", "node")
    assert gateway.json("remove", device.id) == {"deviceId": device.id}
    for command in (
        ("remove", device.id),
        ("rename", "--device", device.id, "--name", "x"),
        ("rotate", "--device", device.id, "--role", "operator"),
        ("revoke", "--device", device.id, "--role", "operator"),
    ):
        told = gateway.fails(*command)
        assert "unknown deviceId" in told
        assert "fix: openclaw devices list" in told


def test_clear_wants_to_be_confirmed(gateway: Gateway) -> None:
    device = Device()
    gateway.json("approve", gateway.ask(device, "read"))
    waiting = gateway.ask(Device(), "read")
    told = gateway.fails("clear", "--pending")
    assert "would remove 1 paired devices, and reject 1 requests" in told
    assert "fix: openclaw devices clear --yes --pending" in told
    assert gateway.json("clear", "--yes") == {"removedDevices": [device.id], "rejectedPending": []}
    assert gateway.json("clear", "--yes", "--pending") == {"removedDevices": [], "rejectedPending": [waiting]}
    assert gateway("devices", "list").stdout == "No device is paired, and none asks to be.\n"


def test_v52_names_that_devices_give_themselves_move_no_terminal(gateway: Gateway) -> None:
    gateway.json("approve", gateway.ask(Device(), "read"))
    (row,) = gateway.json("list")["paired"]
    gateway.json("rename", "--device", row["deviceId"], "--name", "a\x1b[2Jb")
    assert "\x1b" not in gateway("devices", "list").stdout


@pytest.mark.parametrize(
    "arguments",
    [("rename", "--device", "x"), ("rotate", "--device", "x"), ("remove",), ("reject",),
     ("rotate", "--device", "x", "--role", "operator", "--scope", "operator.read", "--no-scopes")],
)  # fmt: skip
def test_wrong_usage_is_told_as_such(arguments: tuple[str, ...], gateway: Gateway) -> None:
    done = gateway("devices", *arguments)
    assert done.returncode == 2
    assert "Usage:" in done.stderr


def test_a_gateway_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    done = Program(tmp_path / "state")("devices", "remove", "x")
    assert done.returncode == 1
    assert "openclaw gateway start" in done.stderr + done.stdout or "cannot use the gateway" in done.stderr
