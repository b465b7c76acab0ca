"""Tunnels through a real sshd: up, down in every named way, and always exactly one ssh (requirement NET-9)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from openclaw_gateway import GatewayConfig, open_gateway
from openclaw_gateway.tunnels.process import TunnelFailed, answers
from openclaw_gateway.tunnels.spec import SshTarget, TunnelSpec
from openclaw_gateway.tunnels.supervisor import TunnelReport, run_tunnel
from tests.tunnels.processes import alive, arguments, children, our_zombies, wait_gone
from tests.tunnels.sshd import Sshd, free_port, needs_sshd, open_sshd

pytestmark = [needs_sshd, pytest.mark.deadline(60)]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with open_sshd(tmp_path / "sshd") as running:
        yield running


class Heard:
    """What a tunnel told, and a way to wait for it."""

    def __init__(self) -> None:
        self.reports: list[TunnelReport] = []
        self._news = trio.Event()

    def __call__(self, report: TunnelReport) -> None:
        self.reports.append(report)
        self._news.set()
        self._news = trio.Event()

    async def wait(
        self, wanted: Callable[[TunnelReport], bool], seconds: float = 10, *, after: int = 0
    ) -> TunnelReport:
        with trio.fail_after(seconds):
            while True:
                for report in self.reports[after:]:
                    if wanted(report):
                        return report
                await self._news.wait()

    async def wait_state(self, state: str, seconds: float = 10, *, after: int = 0) -> TunnelReport:
        return await self.wait(lambda report: report.state == state, seconds, after=after)


def ssh_of(spec: TunnelSpec) -> list[int]:
    """Every living ssh below us that carries this forwarding."""
    return [
        pid
        for pid in children(os.getpid())
        if (words := arguments(pid)) and Path(words[0]).name == "ssh" and any(str(spec.target.port) in w for w in words)
    ]


@pytest.mark.parametrize("direction", ["local", "remote"])
async def test_s132_s134_a_tunnel_comes_up_and_carries_a_gateway(sshd: Sshd, direction: str) -> None:
    heard = Heard()
    async with open_gateway(GatewayConfig(port=0)) as gateway, trio.open_nursery() as nursery:
        spec = sshd.spec(direction=direction, target_port=gateway.port)
        nursery.start_soon(partial(run_tunnel, spec, tell=heard))
        up = await heard.wait_state("up")
        assert up.bind_port != gateway.port
        assert await answers(up.bind_port)
        assert len(ssh_of(spec)) == 1
        nursery.cancel_scope.cancel()
    assert ssh_of(spec) == []
    assert our_zombies(besides=sshd.process.pid) == []
    assert heard.reports[-1].state == "stopped"
    assert [report.state for report in heard.reports] == ["connecting", "connecting", "checking", "up", "stopped"]


async def test_a_gateway_that_is_away_leaves_ssh_alone(sshd: Sshd) -> None:
    heard = Heard()
    port = free_port()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_tunnel, sshd.spec(target_port=port), tell=heard))
        silent = await heard.wait(lambda report: report.failure == "probe-failed")
        assert silent.state == "checking"
        async with open_gateway(GatewayConfig(port=port)):
            up = await heard.wait_state("up")
            assert up.pid == silent.pid
            nursery.cancel_scope.cancel()


async def test_the_forwarding_may_be_denied(tmp_path: Path) -> None:
    heard = Heard()
    with open_sshd(tmp_path / "sshd", forwarding="no") as sshd:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run_tunnel, sshd.spec(target_port=free_port()), tell=heard))
            report = await heard.wait(lambda report: report.failure == "forwarding-denied")
            assert "AllowTcpForwarding" in (report.fix or "")
            nursery.cancel_scope.cancel()


async def fails(sshd: Sshd, spec: TunnelSpec, failure: str) -> TunnelFailed:
    """Opening ``spec`` ends at once with that failure, and nothing stays."""
    heard = Heard()
    with pytest.raises(TunnelFailed) as caught, trio.fail_after(15):
        await run_tunnel(spec, tell=heard, give_up=True)
    assert caught.value.failure == failure
    assert caught.value.fix
    assert ssh_of(spec) == []
    assert our_zombies(besides=sshd.process.pid) == []
    return caught.value


async def test_a_changed_host_key_is_refused(sshd: Sshd) -> None:
    sshd.learn_host_key(sshd.folder / "other_key.pub")
    error = await fails(sshd, sshd.spec(), "host-key-changed")
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'" in error.fix


async def test_an_unknown_host_key_is_refused(sshd: Sshd) -> None:
    sshd.forget_host_key()
    await fails(sshd, sshd.spec(), "host-key-unknown")


async def test_a_key_that_is_not_accepted(sshd: Sshd) -> None:
    sshd.deny_everybody()
    await fails(sshd, sshd.spec(), "auth-denied")


async def test_a_key_file_that_is_none(sshd: Sshd, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("no key")
    bad.chmod(0o600)
    await fails(sshd, sshd.spec(identity=str(bad)), "identity-unusable")


async def test_a_busy_port_here(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = await fails(sshd, sshd.spec(bind_port=port), "port-busy")
        assert str(port) in error.fix


async def test_no_ssh_at_all(sshd: Sshd) -> None:
    with pytest.raises(TunnelFailed) as caught:
        await run_tunnel(sshd.spec(), tell=Heard(), give_up=True, program="/nonexistent/ssh")
    assert caught.value.failure == "no-ssh"


async def test_a_blocked_tunnel_does_not_loop_fast(sshd: Sshd) -> None:
    heard = Heard()
    sshd.deny_everybody()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_tunnel, sshd.spec(), tell=heard))
        blocked = await heard.wait_state("blocked")
        assert blocked.failure == "auth-denied"
        assert (blocked.retry_in_ms or 0) >= 30_000
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("target", "failure"), [("127.0.0.1", "refused"), ("no-such-host.invalid", "unresolved")])
async def test_network_failures_are_tried_again(sshd: Sshd, target: str, failure: str) -> None:
    heard = Heard()
    spec = sshd.spec(target=SshTarget(target, sshd.user, free_port()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_tunnel, spec, tell=heard, give_up=True))
        waiting = await heard.wait_state("waiting", 20)
        assert waiting.failure == failure
        assert (waiting.retry_in_ms or 0) <= 1000
        nursery.cancel_scope.cancel()


async def test_a_busy_port_over_there_is_tried_again(sshd: Sshd) -> None:
    heard = Heard()
    with socket.create_server(("127.0.0.1", 0)) as other:
        spec = sshd.spec(direction="remote", bind_port=other.getsockname()[1])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run_tunnel, spec, tell=heard))
            waiting = await heard.wait_state("waiting")
            assert waiting.failure == "remote-port-busy"
            other.close()
            await heard.wait_state("up")
            nursery.cancel_scope.cancel()


async def test_a_dead_peer_is_noticed(sshd: Sshd) -> None:
    heard = Heard()
    spec = sshd.spec(direction="remote", alive_interval=1, alive_count=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_tunnel, spec, tell=heard))
        await heard.wait_state("up")
        sshd.end_connections(signal.SIGSTOP)
        try:
            lost = await heard.wait_state("waiting", 15)
            assert lost.failure == "dead-peer"
        finally:
            sshd.end_connections(signal.SIGKILL)
        await heard.wait(lambda report: report.state == "up" and report.restarts == 1)
        nursery.cancel_scope.cancel()


async def test_a_connection_that_is_cut_is_named(sshd: Sshd) -> None:
    heard = Heard()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_tunnel, sshd.spec(direction="remote"), tell=heard))
        await heard.wait_state("up")
        sshd.end_connections()
        lost = await heard.wait_state("waiting")
        assert lost.failure == "connection-lost"
        nursery.cancel_scope.cancel()


@pytest.mark.deadline(120)
async def test_net9_kill_9_twenty_times_is_always_exactly_one(sshd: Sshd) -> None:
    heard = Heard()
    async with open_gateway(GatewayConfig(port=0)) as gateway, trio.open_nursery() as nursery:
        spec = sshd.spec(target_port=gateway.port, bind_port=free_port())
        nursery.start_soon(partial(run_tunnel, spec, tell=heard))
        await heard.wait_state("up")
        slowest = 0.0
        for number in range(1, 21):
            (pid,) = ssh_of(spec)
            began = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            up = await heard.wait(lambda report: report.state == "up" and report.restarts == number)  # noqa: B023
            slowest = max(slowest, time.monotonic() - began)
            assert ssh_of(spec) == [up.pid]
            assert await answers(up.bind_port)
            assert up.bind_port == spec.bind_port
        assert slowest <= 5, f"back after {slowest:.1f} s"
        assert our_zombies(besides=sshd.process.pid) == []
        nursery.cancel_scope.cancel()


OWNER = """
import sys, trio, json
from openclaw_gateway.tunnels.spec import SshTarget, TunnelSpec
from openclaw_gateway.tunnels.supervisor import run_tunnel
host, user, port, identity, known = sys.argv[1:]
spec = TunnelSpec(name="t", target=SshTarget(host, user, int(port)), direction="remote", bind_port=0, target_port=1,
                  identity=identity, known_hosts=known)
def tell(report):
    if report.state == "up":
        print(report.pid, flush=True)
trio.run(lambda: run_tunnel(spec, tell=tell))
"""


def test_kill_9_of_the_owner_ends_the_tunnel(sshd: Sshd) -> None:
    command = [sys.executable, "-c", OWNER, "127.0.0.1", sshd.user, str(sshd.port), sshd.identity, sshd.known_hosts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.kill()
        owner.wait(5)
        wait_gone(pid)
