"""``gateway.mode: remote``: every command works, through ssh, directly, by whichever of several routes lives (S038)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import Program
from tests.tunnels.processes import arguments, children
from tests.tunnels.sshd import Sshd, free_port, needs_sshd, open_sshd

pytestmark = [needs_sshd, pytest.mark.deadline(120)]

COMMANDS = [
    ("status",),
    ("health", "--json"),
    ("gateway", "health"),
    ("gateway", "status", "--json"),
    ("gateway", "probe"),
    ("gateway", "call", "status"),
    ("logs", "-n", "3"),
    ("devices", "list"),
    ("nodes", "list"),
    ("pairing", "list"),
    ("tokens", "list"),
    ("audit", "-n", "3"),
    ("gateway", "explain", "--ip", "192.0.2.1"),
    ("doctor",),
]


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("far") / "state")
    with program.started() as port:
        yield Program(program.state, {"PORT": str(port)})


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with open_sshd(tmp_path_factory.mktemp("ssh") / "sshd") as running:
        yield running


def port_of(far: Program) -> int:
    return int(far.env["PORT"])


def ssh_route(sshd: Sshd, far: Program) -> dict[str, Any]:
    return {
        "transport": "ssh",
        "remotePort": port_of(far),
        "sshTarget": str(sshd.target),
        "sshIdentity": sshd.identity,
        "sshKnownHosts": sshd.known_hosts,
    }


def near(folder: Path, far: Program, remote: dict[str, Any]) -> Program:
    program = Program(folder / "near")
    gateway = {"mode": "remote", "remote": {"token": far.secret, **remote}}
    program.config(json.dumps({"gateway": gateway}))
    return program


def our_ssh(sshd: Sshd) -> list[int]:
    return [
        pid
        for pid in children(os.getpid())
        if (words := arguments(pid)) and Path(words[0]).name == "ssh" and str(sshd.port) in words
    ]


@pytest.mark.parametrize("way", ["ssh", "direct", "both"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_s038_every_command_works_in_remote_mode(
    tmp_path: Path, far: Program, sshd: Sshd, way: str, command: tuple[str, ...]
) -> None:
    direct = {"url": f"ws://127.0.0.1:{port_of(far)}"}
    remote: dict[str, Any] = {"ssh": ssh_route(sshd, far), "direct": direct}.get(way) or {
        "routes": [{"transport": "direct", **direct}, ssh_route(sshd, far)]
    }
    program = near(tmp_path, far, remote)
    done = program(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not (program.state / "credentials" / "gateway-token").exists(), "a remote command makes no token here"
    assert our_ssh(sshd) == []


def test_probe_shows_the_tunnel_in_openclaws_keys(tmp_path: Path, far: Program, sshd: Sshd) -> None:
    program = near(tmp_path, far, ssh_route(sshd, far))
    done = program("gateway", "probe", "--json")
    target = json.loads(done.stdout)["targets"][0]
    assert (target["id"], target["kind"]) == ("sshTunnel", "sshTunnel")
    assert target["connect"]["rpcOk"] is True
    tunnel = target["tunnel"]
    assert set(tunnel) == {"kind", "target", "localPort", "remotePort", "pid"}
    assert (tunnel["kind"], tunnel["target"], tunnel["remotePort"]) == ("ssh", str(sshd.target), port_of(far))


def test_v56_probe_through_a_named_host_sends_no_configured_secret(tmp_path: Path, far: Program, sshd: Sshd) -> None:
    program = near(tmp_path, far, {"url": f"ws://127.0.0.1:{port_of(far)}"})
    done = program("gateway", "probe", "--ssh", str(sshd.target), "--ssh-identity", sshd.identity)
    assert done.returncode == 1
    assert "secret of its own" in done.stderr


@pytest.mark.parametrize("command", [("gateway", "run"), ("gateway", "start")])
def test_s038_no_gateway_starts_in_remote_mode(tmp_path: Path, far: Program, command: tuple[str, ...]) -> None:
    program = near(tmp_path, far, {"url": "wss://gateway.example:18789"})
    done = program(*command)
    assert done.returncode == 78
    assert "Gateway start blocked: set gateway.mode=local (current: remote)" in done.stderr
    assert "openclaw config set gateway.mode local" in done.stderr


def test_remote_mode_without_a_gateway_never_falls_back_to_the_local_one(tmp_path: Path) -> None:
    program = Program(tmp_path / "near")
    program.config(json.dumps({"gateway": {"mode": "remote"}}))
    done = program("health")
    assert done.returncode == 1
    assert "names no gateway" in done.stderr


def test_a_changed_host_key_stops_the_command(tmp_path: Path, far: Program, sshd: Sshd) -> None:
    other = tmp_path / "known"
    words = (sshd.folder / "other_key.pub").read_text().split()
    other.write_text(f"[127.0.0.1]:{sshd.port} {words[0]} {words[1]}\n")
    program = near(tmp_path, far, {**ssh_route(sshd, far), "sshKnownHosts": str(other)})
    done = program("health")
    assert done.returncode == 1
    assert "another key than the known one" in done.stderr
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}' -f {other}" in done.stderr


def test_s038_pairing_and_doctor_look_at_the_gateway_over_there(tmp_path: Path, far: Program, sshd: Sshd) -> None:
    program = near(tmp_path, far, ssh_route(sshd, far))
    for command in (("pairing", "list"), ("devices", "list")):
        done = program(*command)
        assert done.returncode == 0, done.stderr
        assert "what the state directory holds" not in done.stdout + done.stderr
    said = program("doctor").stdout
    assert "gateway.bind" not in said
    assert "the first start makes it" not in said
    network = program("doctor", "--network")
    assert "gateway start" not in network.stdout, "it would refuse: the mode is remote"
    assert "gateway.mode is remote" in network.stdout


def test_every_route_that_failed_is_told(tmp_path: Path, far: Program, sshd: Sshd) -> None:
    dead = {"url": f"ws://127.0.0.1:{free_port()}"}
    program = near(
        tmp_path, far, {**dead, "routes": [{**ssh_route(sshd, far), "sshTarget": f"127.0.0.1:{free_port()}"}]}
    )
    done = program("health")
    assert done.returncode == 1
    assert "connection refused" in done.stderr
    assert "ssh 127.0.0.1" in done.stderr


def test_a_silent_route_costs_a_quarter_of_a_second_and_is_not_first_again(
    tmp_path: Path, far: Program, sshd: Sshd
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts in the kernel, never answers
        quiet = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        good = f"ws://127.0.0.1:{port_of(far)}"
        program = near(tmp_path, far, {"url": quiet, "routes": [{"url": good}]})
        began = time.monotonic()
        assert far("health").returncode == 0
        without = time.monotonic() - began
        began = time.monotonic()
        assert program("health").returncode == 0
        # Beside the same command without it: a machine that is slow is slow for both.
        assert time.monotonic() - began < 4 * without + 4
        remembered = json.loads((program.state / "run" / "route.json").read_text())
        assert remembered["name"] == good


class Relay:
    """A TCP relay that can go silent (dead path) or away (refused)."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.frozen = threading.Event()
        self._pairs: list[socket.socket] = []
        self.count = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near_side, _ = self._server.accept()
            except OSError:
                return
            self.count += 1
            far_side = socket.create_connection(("127.0.0.1", self._to))
            self._pairs += [near_side, far_side]
            for one, other in ((near_side, far_side), (far_side, near_side)):
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(65536):
                if self.frozen.is_set():
                    continue
                other.sendall(data)
        except OSError:
            pass
        if not self.frozen.is_set():
            for sock in (one, other):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.frozen.set()
        for sock in (self._server, *self._pairs):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextmanager
def following(program: Program) -> Iterator[subprocess.Popen[str]]:
    argv = [*program.argv, "logs", "--follow", "--interval", "100", "-n", "1"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=program.environment
    ) as one:
        try:
            yield one
        finally:
            one.send_signal(signal.SIGINT)


def make_line(far: Program) -> None:
    """One more line in the gateway's log."""
    assert far("health", "--json").returncode == 0


@pytest.mark.parametrize("loss", ["frozen", "closed"])
def test_s038_failover_of_a_follower_takes_less_than_5_seconds(
    tmp_path: Path, far: Program, sshd: Sshd, loss: str
) -> None:
    relay = Relay(port_of(far))
    try:
        program = near(tmp_path, far, {"url": f"ws://127.0.0.1:{relay.port}", "routes": [ssh_route(sshd, far)]})
        with following(program) as follower:
            assert follower.stdout is not None
            assert follower.stdout.readline()
            before = relay.count
            assert before >= 2, "the question and the connection came this way"
            if loss == "frozen":
                relay.frozen.set()
            else:
                relay.close()
            began = time.monotonic()
            while not our_ssh(sshd):
                assert time.monotonic() - began < 5
                time.sleep(0.02)
            # Through the new route lines come again.
            make_line(far)
            assert follower.stdout.readline()
    finally:
        relay.close()
    deadline = time.monotonic() + 15
    while our_ssh(sshd):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_kill_9_of_a_command_ends_its_tunnel(tmp_path: Path, far: Program, sshd: Sshd) -> None:
    program = near(tmp_path, far, ssh_route(sshd, far))
    with following(program) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline()
        (pid,) = our_ssh(sshd)
        follower.kill()
        follower.wait(5)
        deadline = time.monotonic() + 15
        while Path(f"/proc/{pid}").exists() and arguments(pid):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_s038_failover_of_a_node_takes_less_than_5_seconds(tmp_path: Path, far: Program, sshd: Sshd) -> None:
    relay = Relay(port_of(far))
    try:
        program = near(tmp_path, far, {"url": f"ws://127.0.0.1:{relay.port}", "routes": [ssh_route(sshd, far)]})
        argv = [*program.argv, "node", "run", "--json"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=program.environment) as node:
            assert node.stdout is not None
            reports = (json.loads(line) for line in node.stdout)
            try:
                for report in reports:
                    if report.get("state") == "waiting-for-approval":
                        assert far("devices", "approve", report["requestId"]).returncode == 0
                    if report.get("state") == "connected":
                        break
                relay.frozen.set()
                began = time.monotonic()
                # How its request stands may still be reported of the old connection.
                assert next(report["state"] for report in reports if report["state"] != "connected") == "connecting"
                assert next(report["state"] for report in reports) == "connected"
                assert time.monotonic() - began < 5
                assert our_ssh(sshd)
                node.send_signal(signal.SIGTERM)
                assert node.wait(5) == 0
            finally:
                node.kill()
    finally:
        relay.close()
    assert our_ssh(sshd) == []
