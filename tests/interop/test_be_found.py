"""OpenClaw's own command line finds our gateway on a LAN (checklist C3, wire.md section 10)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.discovery.netns import avahi, lan
from tests.discovery.running import gateway

from .processes import Official


def test_c3_gateway_discover_lists_us_with_the_right_address(official: Official, tmp_path: Path) -> None:
    if shutil.which("avahi-browse") is None:
        pytest.skip("avahi-utils is not installed")
    with lan("a", "b") as net, avahi(net["b"]) as listener, gateway(net["a"], tmp_path / "ours", port=18795) as running:
        said = running.announced()
        env = {**official.environment("discover", {}), **listener.env}
        command = [*official.command, "gateway", "discover", "--json", "--timeout", "8000"]
        answer = json.loads(net["b"].run(command, env=env, timeout=60).stdout)
    (beacon,) = answer["beacons"]
    assert answer["count"] == 1
    assert beacon["wsUrl"] == f"ws://{said['host']}:18795"
    assert (beacon["instanceName"], beacon["displayName"]) == (said["instance"], said["instance"])
    assert (beacon["port"], beacon["gatewayPort"], beacon["domain"]) == (18795, 18795, "local.")
    assert (beacon["role"], beacon["transport"], beacon["lanHost"]) == ("gateway", "gateway", said["host"])
    assert not {"cliPath", "sshPort", "tailnetDns"} & beacon.keys()
