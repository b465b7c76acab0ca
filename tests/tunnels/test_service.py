"""``gateway.tunnels``: kept up by the gateway, shown in status, and no way to pass for a local process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig, open_gateway
from openclaw_gateway.client import ConnectFailed, Credentials, DeviceIdentity, open_client
from openclaw_gateway.config.schema import AuthConfig, TunnelConfig
from openclaw_gateway.tunnels.process import answers
from openclaw_gateway.tunnels.registry import list_tunnels
from openclaw_gateway.tunnels.service import MAX_CONFIGURED, TunnelService
from tests.cli.program import Program
from tests.tunnels.processes import alive, our_zombies, wait_gone
from tests.tunnels.sshd import Sshd, free_port, needs_sshd, open_sshd

pytestmark = [needs_sshd, pytest.mark.deadline(60)]

TOKEN = "a-token-that-is-long-enough-for-this"


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with open_sshd(tmp_path / "sshd") as running:
        yield running


def tunnel(sshd: Sshd, **fields: Any) -> TunnelConfig:
    base: dict[str, Any] = {
        "name": "out",
        "host": "127.0.0.1",
        "user": sshd.user,
        "port": sshd.port,
        "bind_port": free_port(),
        "identity": sshd.identity,
        "known_hosts": sshd.known_hosts,
    }
    return TunnelConfig(**{**base, **fields})


def config(*tunnels: TunnelConfig, **fields: Any) -> GatewayConfig:
    return GatewayConfig(port=0, auth=AuthConfig(token=TOKEN), tunnels=tunnels, **fields)


async def wait_view(gateway: Gateway, wanted: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    async with open_client(gateway.urls[0], auth=Credentials(token=TOKEN)) as client:
        with trio.fail_after(15):
            while True:
                found: list[dict[str, Any]] = (await client.call("status"))["tunnels"]
                if wanted(found):
                    return found
                await trio.sleep(0.02)


def all_up(view: list[dict[str, Any]]) -> bool:
    return bool(view) and all(entry["state"] == "up" for entry in view)


async def test_s134_a_configured_tunnel_publishes_the_gateway_and_status_shows_it(sshd: Sshd) -> None:
    out = tunnel(sshd)
    async with open_gateway(config(out)) as gateway:
        (entry,) = await wait_view(gateway, all_up)
        assert (entry["name"], entry["direction"], entry["bindPort"]) == ("out", "remote", out.bind_port)
        assert await answers(out.bind_port)
        pid = entry["pid"]
        assert alive(pid)
    assert not alive(pid)
    assert our_zombies(besides=sshd.process.pid) == []


async def test_v13_who_comes_through_a_published_tunnel_is_not_local(sshd: Sshd) -> None:
    """A device that asks over loopback is approved at once; the same device through the tunnel has to wait."""
    out = tunnel(sshd)
    async with open_gateway(config(out)) as gateway:
        await wait_view(gateway, all_up)
        async with open_client(
            gateway.urls[0],
            auth=Credentials(token=TOKEN),
            identity=DeviceIdentity.generate(),
            scopes=("operator.read",),
        ):
            pass
        with pytest.raises(ConnectFailed) as caught:
            async with open_client(
                f"ws://127.0.0.1:{out.bind_port}", auth=Credentials(token=TOKEN), identity=DeviceIdentity.generate()
            ):
                raise AssertionError("a stranger on another host was approved as local")
        assert (caught.value.details or {}).get("code") == "PAIRING_REQUIRED"


async def test_the_gateway_s_own_port_is_never_the_end_of_a_published_tunnel(sshd: Sshd, tmp_path: Path) -> None:
    from openclaw_gateway.config.load import load_config

    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    entry = {"name": "out", "host": "h", "bindPort": 1, "targetPort": 18789}
    file = state / "openclaw.json"
    file.write_text(json.dumps({"gateway": {"tunnels": [entry]}}))
    file.chmod(0o600)
    loaded = load_config(env={"OPENCLAW_STATE_DIR": str(state)})
    assert loaded.config.tunnels[0].target_port is None
    file.write_text(json.dumps({"gateway": {"auth": {"type": "none"}, "tunnels": [entry, {**entry, "name": "out"}]}}))
    loaded = load_config(env={"OPENCLAW_STATE_DIR": str(state)})
    assert loaded.config.tunnels == ()
    assert "gateway.tunnels.0.direction" in {issue.path for issue in loaded.issues}


async def test_a_reload_changes_one_tunnel_and_leaves_the_other_alone(sshd: Sshd) -> None:
    one, two = tunnel(sshd, name="one"), tunnel(sshd, name="two")
    async with open_gateway(config(one, two)) as gateway:
        before = {
            entry["name"]: entry for entry in await wait_view(gateway, lambda view: len(view) == 2 and all_up(view))
        }
        changed = attrs.evolve(two, bind_port=free_port())
        gateway.apply(attrs.evolve(gateway.config, tunnels=(one, changed)), gateway.auth)
        after = {
            entry["name"]: entry
            for entry in await wait_view(
                gateway, lambda view: all_up(view) and any(entry["bindPort"] == changed.bind_port for entry in view)
            )
        }
        assert after["one"]["pid"] == before["one"]["pid"]
        assert after["two"]["pid"] != before["two"]["pid"]
        assert not alive(before["two"]["pid"])
        gateway.apply(attrs.evolve(gateway.config, tunnels=()), gateway.auth)
        assert await wait_view(gateway, lambda view: not view) == []
        wait_gone(after["one"]["pid"], after["two"]["pid"])


async def test_a_tunnel_that_cannot_come_up_hurts_nobody(sshd: Sshd) -> None:
    sshd.deny_everybody()
    async with open_gateway(config(tunnel(sshd, name="bad"))) as gateway:
        (entry,) = await wait_view(gateway, lambda view: bool(view) and view[0]["state"] == "blocked")
        assert entry["failure"] == "auth-denied"
        assert "ssh-copy-id" in entry["fix"]
        assert gateway.health.failing == []


def write_config(program: Program, sshd: Sshd) -> int:
    port = free_port()
    entry = {
        "name": "out",
        "host": "127.0.0.1",
        "user": sshd.user,
        "port": sshd.port,
        "bindPort": port,
        "identity": sshd.identity,
        "knownHosts": sshd.known_hosts,
    }
    program.config(json.dumps({"gateway": {"tunnels": [entry]}}))
    return port


def wait_tunnel(program: Program, name: str) -> Any:
    until = time.monotonic() + 15
    while time.monotonic() < until:
        for running in list_tunnels(program.state):
            if running.name == name and running.report["state"] == "up":
                return running
        time.sleep(0.02)
    raise AssertionError(list_tunnels(program.state))


def test_kill_9_of_the_gateway_releases_the_tunnel(sshd: Sshd, tmp_path: Path) -> None:
    program = Program(tmp_path / "state")
    write_config(program, sshd)
    with program.foreground("--port", str(free_port())) as process:
        running = wait_tunnel(program, "out")
        assert (running.owner, running.pid) == ("gateway", process.pid)
        pid = running.report["pid"]
        refused = program("tunnel", "close", "out")
        assert refused.returncode == 1
        assert "the gateway keeps out open" in refused.stderr
        process.kill()
        process.wait(5)
        wait_gone(pid)
        assert list_tunnels(program.state) == []


def test_net1_a_command_from_elsewhere_shows_its_device(sshd: Sshd, tmp_path: Path) -> None:
    """Through a published tunnel the secret alone is not enough; one approval on the gateway's host is."""
    far, near = Program(tmp_path / "far"), Program(tmp_path / "near")
    port = write_config(far, sshd)
    with far.foreground("--port", str(free_port())):
        wait_tunnel(far, "out")
        there = ("--url", f"ws://127.0.0.1:{port}", "--token", far.secret)
        asked = near("health", "--json", *there)
        assert json.loads(asked.stdout)["error"]["type"] == "PAIRING_REQUIRED"
        request = json.loads(far("devices", "list", "--json").stdout)["pending"][0]["requestId"]
        assert far("devices", "approve", request).returncode == 0
        assert near("health", "--json", *there).returncode == 0
        assert (near.state / "identity" / "device.json").stat().st_mode & 0o777 == 0o600


def test_tunnel_open_list_close(sshd: Sshd, tmp_path: Path) -> None:
    program = Program(tmp_path / "state")
    port = free_port()
    options = ["--name", "lab", "--remote", "--bind-port", str(port), "--identity", sshd.identity]
    options += ["--known-hosts", sshd.known_hosts, "--json", str(sshd.target)]

    with subprocess.Popen(
        [*program.argv, "tunnel", "open", *options], stdout=subprocess.PIPE, text=True, env=program.environment
    ) as opened:
        assert opened.stdout is not None
        reports = iter(json.loads(line) for line in opened.stdout)
        up = next(report for report in reports if report["state"] == "up")
        assert (up["name"], up["direction"], up["bindPort"]) == ("lab", "remote", port)
        listed = json.loads(program("tunnel", "list", "--json").stdout)["tunnels"]
        assert [(one["name"], one["owner"], one["ownerPid"], one["pid"]) for one in listed] == [
            ("lab", "command", opened.pid, up["pid"])
        ]
        twice = program("tunnel", "open", *options)
        assert twice.returncode == 1
        assert "runs already" in twice.stderr
        closed = program("tunnel", "close", "lab", "--json")
        assert json.loads(closed.stdout)["ok"] is True
        assert opened.wait(5) == 0
        wait_gone(up["pid"])
    assert "No tunnel runs" in program("tunnel", "list").stdout
    assert program("tunnel", "close", "lab").returncode == 1


def test_tunnel_open_says_why_it_cannot(sshd: Sshd, tmp_path: Path) -> None:
    program = Program(tmp_path / "state")
    sshd.learn_host_key(sshd.folder / "other_key.pub")
    done = program(
        "tunnel", "open", "--bind-port", "0", "--identity", sshd.identity, "--known-hosts", sshd.known_hosts,
        str(sshd.target),
    )  # fmt: skip
    assert done.returncode == 1
    assert "another key than the known one" in done.stderr
    assert "ssh-keygen -R" in done.stderr


def test_v49_close_signals_only_the_process_that_opened_it(tmp_path: Path) -> None:
    """A note that names a living process with another start time is stale: nobody is signalled."""
    program = Program(tmp_path / "state")
    folder = program.state / "run" / "tunnels"
    folder.mkdir(mode=0o700, parents=True)
    for path in (program.state, program.state / "run"):
        path.chmod(0o700)
    note = folder / "lab.json"
    note.write_text(json.dumps({"pid": os.getpid(), "started": "1", "owner": "command", "report": {"state": "up"}}))
    note.chmod(0o600)
    before = signal.getsignal(signal.SIGTERM)
    assert program("tunnel", "close", "lab").returncode == 1
    assert signal.getsignal(signal.SIGTERM) is before
    assert not note.exists()


def test_the_number_of_tunnels_has_a_cap(tmp_path: Path) -> None:
    from openclaw_gateway.tunnels.registry import MAX_TUNNELS, claim
    from openclaw_gateway.tunnels.spec import TunnelRefused

    folder = tmp_path / "run" / "tunnels"
    folder.mkdir(mode=0o700, parents=True)
    (tmp_path / "run").chmod(0o700)
    for number in range(MAX_TUNNELS):
        (folder / f"t{number}.json").write_text("{}")
    with pytest.raises(TunnelRefused, match="more than"), claim(tmp_path, "one-more", "command"):
        raise AssertionError("not reached")


def test_configured_tunnels_have_a_cap(sshd: Sshd) -> None:
    service = TunnelService(state=None, entrance=lambda: 1)
    service.configure(tuple(tunnel(sshd, name=f"t{number}") for number in range(MAX_CONFIGURED + 9)))
    assert len(service._wanted) == MAX_CONFIGURED
