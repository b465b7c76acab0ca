"""OpenClaw's own ``devices`` commands from two homes against our gateway, and its node host waiting for approval.

One home is the operator's (loopback, the token, no device). The other asks under a name that is no loopback name, so
its command line makes a device identity and sends it (wire.md section 6); ``hosts.cjs`` stands in for /etc/hosts.
"""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from .processes import HERE, TOKEN, Completed, GatewayProcess, Official, wait_until

NAME = "gateway.test"


@attrs.frozen
class Home:
    """One person's command line."""

    official: Official
    url: str
    env: dict[str, str]

    def __call__(self, *arguments: str) -> Completed:
        return self.official.cli(*arguments, "--url", self.url, "--token", TOKEN, env=self.env)

    def ok(self, *arguments: str) -> Completed:
        done = self(*arguments)
        assert done.code == 0, done.text
        return done

    def listed(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.ok("devices", "list", "--json").json
        return answer


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, official: Official) -> Iterator[GatewayProcess]:
    """A gateway that asks about this host's devices too."""
    process = GatewayProcess(tmp_path_factory.mktemp("devices"), official)
    path = process.folder / "openclaw.json"
    config = json.loads(path.read_text())
    config["gateway"]["nodes"] = {"pairing": {"autoApproveLocal": False}}
    path.write_text(json.dumps(config))
    try:
        process.start()
        yield process
    finally:
        code = process.stop()
    assert code == 0, f"the gateway ended with {code}:\n{process.output()}"


def home(official: Official, folder: Path, url: str, **env: str) -> Home:
    own = Official(official.modules.parent, folder)
    return Home(own, url, {"OPENCLAW_STATE_DIR": str(folder / "state"), **env})


@pytest.fixture
def operator(official: Official, gateway: GatewayProcess, tmp_path: Path) -> Home:
    return home(official, tmp_path / "operator", gateway.url)


@pytest.fixture
def asker(official: Official, gateway: GatewayProcess, tmp_path: Path) -> Home:
    return home(
        official,
        tmp_path / "asker",
        f"ws://{NAME}:{gateway.port}",
        OPENCLAW_ALLOW_INSECURE_PRIVATE_WS="1",
        OPENCLAW_TEST_HOSTS=NAME,
        NODE_OPTIONS=f"--require={HERE / 'hosts.cjs'}",
    )


def turned_away(asker: Home) -> str:
    """What the asker reads; this command makes a device identity where there is none (the devices commands do not)."""
    done = asker("system", "presence")
    assert done.code == 1, done.text
    assert "(requestId: " in done.text, done.text
    return done.text


@pytest.mark.deadline(300)
def test_devices_from_request_to_removal(operator: Home, asker: Home) -> None:
    text = turned_away(asker)
    (request,) = operator.listed()["pending"]
    request_id, device_id = request["requestId"], request["deviceId"]
    assert request_id in text, text
    turned_away(asker)
    assert [row["requestId"] for row in operator.listed()["pending"]] == [request_id]  # PAIR-3

    latest = operator("devices", "approve", "--latest")
    assert latest.code == 1, latest.text
    assert request_id in latest.text
    assert operator.listed()["paired"] == []

    unknown = operator("devices", "approve", "no-such-request")
    assert unknown.code == 1, unknown.text
    assert "No pending device request matches" in unknown.text, unknown.text

    approved = operator.ok("devices", "approve", request_id, "--json").json
    assert (approved["requestId"], approved["device"]["deviceId"]) == (request_id, device_id)
    asker.ok("system", "presence")
    wider = asker("devices", "list")  # asks for operator.pairing besides: what was approved is what there is (V11)
    assert wider.code == 1, wider.text
    (upgrade,) = operator.listed()["pending"]
    assert (upgrade["deviceId"], upgrade["reason"]) == (device_id, "scope-upgrade")
    operator.ok("devices", "approve", upgrade["requestId"])
    assert [row["deviceId"] for row in asker.listed()["paired"]] == [device_id]

    renamed = operator.ok("devices", "rename", "--device", device_id, "--name", "Kitchen", "--json").json
    assert renamed == {"deviceId": device_id, "label": "Kitchen"}
    assert operator.listed()["paired"][0]["operatorLabel"] == "Kitchen"
    assert "Kitchen" in operator.ok("devices", "list").out

    rotated = operator.ok("devices", "rotate", "--device", device_id, "--role", "operator").json
    assert (rotated["deviceId"], rotated["tokenDelivery"]) == (device_id, "withheld-cross-device")
    assert "token" not in rotated
    asker.listed()  # the shared secret hands out the new one (AUTH-3)

    revoked = operator.ok("devices", "revoke", "--device", device_id, "--role", "operator").json
    assert (revoked["deviceId"], revoked["role"]) == (device_id, "operator")
    assert revoked["revokedAtMs"] > 0
    turned_away(asker)
    (again,) = operator.listed()["pending"]
    operator.ok("devices", "approve", again["requestId"])
    asker.ok("system", "presence")

    assert operator.ok("devices", "remove", device_id, "--json").json == {"deviceId": device_id}
    assert operator.listed()["paired"] == []
    turned_away(asker)
    (again,) = operator.listed()["pending"]
    operator.ok("devices", "approve", again["requestId"])

    cleared = operator.ok("devices", "clear", "--yes", "--pending", "--json").json
    assert cleared == {"removedDevices": [device_id], "rejectedPending": []}
    assert operator.listed() == {"pending": [], "paired": []}


@pytest.mark.deadline(120)
def test_devices_reject_and_clear_pending(operator: Home, asker: Home) -> None:
    turned_away(asker)
    (request,) = operator.listed()["pending"]
    rejected = operator.ok("devices", "reject", request["requestId"], "--json").json
    assert rejected == {"requestId": request["requestId"], "deviceId": request["deviceId"]}
    assert operator.listed()["pending"] == []
    turned_away(asker)
    (request,) = operator.listed()["pending"]
    cleared = operator.ok("devices", "clear", "--yes", "--pending", "--json").json
    assert cleared == {"removedDevices": [], "rejectedPending": [request["requestId"]]}


@pytest.mark.deadline(180)
def test_node_host_waits_for_its_approval_without_a_restart(gateway: GatewayProcess, operator: Home) -> None:
    process = operator.official.start_node_host(gateway.port, "--display-name", "Patient Node")
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        lines.extend(process.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    found: list[dict[str, Any]] = []

    def waits() -> bool:
        assert process.poll() is None, "".join(lines)
        found[:] = [row for row in operator.listed()["pending"] if row["role"] == "node"]
        return bool(found)

    def connected() -> bool:
        assert process.poll() is None, "".join(lines)
        nodes = operator.ok("nodes", "status", "--json").json["nodes"]
        return any(node["connected"] for node in nodes)

    try:
        wait_until("the node's request is listed", waits, seconds=60, also=gateway.output)
        # The role node needs operator.admin: the command line is told so and tries again with it (V19).
        operator.ok("devices", "approve", found[0]["requestId"])
        wait_until("the node came back by itself", connected, seconds=60, also=lambda: "".join(lines))
        assert process.poll() is None, "".join(lines)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(10)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
    operator.ok("devices", "clear", "--yes")
