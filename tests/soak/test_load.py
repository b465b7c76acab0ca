"""Many busy clients (PERF-1) and many idle ones (PERF-2), measured from processes of their own."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from scripts.benchmarks.load import Session, request_frame
from tests.cli.program import ROOT

from .running import MIB, Running, gateway

CONFIG = {"gateway": {"transports": {"websocket": {"concurrentConnections": 400}}}, "logging": {"console": False}}


@attrs.define
class Traffic:
    """What `busy` has to show for itself."""

    sent: int = 0
    answered: int = 0
    received: int = 0
    late: float = 0.0  # seconds that the generator itself ran behind


@contextmanager
def probing(running: Running, seconds: float) -> Iterator[dict[str, Any]]:
    """A prober in its own process for ``seconds``; the block's value is filled when it ends."""
    prober = subprocess.Popen(
        [sys.executable, "-m", "tests.soak.probe", str(running.port), str(seconds)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=running.program.environment,
    )  # fmt: skip
    result: dict[str, Any] = {}
    assert prober.stdin is not None
    prober.stdin.write(running.token)
    prober.stdin.close()
    prober.stdin = None
    try:
        yield result
        out, _ = prober.communicate(timeout=seconds + 30)
        result.update(json.loads(out))
    finally:
        if prober.poll() is None:
            prober.kill()
        prober.communicate()


def busy(sessions: list[Session], *, rate: int, seconds: float, fan_out: tuple[Session, int] | None) -> Traffic:
    """``rate`` requests a second from each of ``sessions``, evenly spread; half way, one event of so many bytes to
    all.
    """
    traffic, poller = Traffic(), select.epoll()
    frame, by_fd = request_frame("1:p", "last-heartbeat"), {}
    for session in sessions:
        session.socket.setblocking(False)
        by_fd[session.socket.fileno()] = session
        poller.register(session.socket.fileno(), select.EPOLLIN)
    burst, turns = 5, rate // 5  # five frames in one send, so that the generator is not what is measured
    step = 1 / (turns * len(sessions))
    begin, due = time.perf_counter(), 0
    mark = b'"id":"1:p"'
    try:
        while (now := time.perf_counter() - begin) < seconds:
            owed = int(now / step)
            traffic.late = max(traffic.late, (owed - due) * step)
            while due < owed:
                session = sessions[due % len(sessions)]
                try:
                    session.socket.send(frame * burst)
                    traffic.sent += burst
                except BlockingIOError:
                    pass  # its buffer is full: it waits its turn
                due += 1
            if fan_out is not None and now > seconds / 2:
                publisher, size = fan_out
                publisher.socket.sendall(request_frame("publish", "soak.publish", {"size": size}))
                fan_out = None
            for fd, _ in poller.poll(step):
                data = by_fd[fd].socket.recv(1 << 20)
                assert data, "a client lost its connection"
                traffic.received += len(data)
                traffic.answered += data.count(mark)
        return traffic
    finally:
        poller.close()
        for session in sessions:
            session.socket.setblocking(True)


def loaded_and_not(tmp_path: Path, *, clients: int, rate: int, seconds: float, event: int) -> None:
    with gateway(tmp_path, CONFIG) as running:
        with probing(running, min(5.0, seconds)) as alone:
            pass
        sessions = [running.session() for _ in range(clients)]
        publisher = running.session()
        with probing(running, seconds) as loaded:
            cpu = running.cpu_seconds
            traffic = busy(sessions, rate=rate, seconds=seconds + 0.5, fan_out=(publisher, event))
            cpu = running.cpu_seconds - cpu
        print(
            f"{clients} clients, {traffic.answered / (seconds + 0.5):.0f} answers/s (asked {clients * rate}), generator"
            f" at most {traffic.late:.2f} s behind, gateway {cpu / (seconds + 0.5):.0%} of a core, "
            f"event of {event} bytes to each, {traffic.received / MIB:.0f} MiB read, rss {running.rss / MIB:.0f} MiB"
        )
        print(f"alone  {alone}\nloaded {loaded}")
        assert traffic.received > event * clients
        assert traffic.answered > 0.9 * traffic.sent
        assert loaded["helloP99"] < max(0.250, 10 * alone["helloP99"])
        assert loaded["healthP99"] < max(0.050, 10 * alone["healthP99"])


@pytest.mark.soak
def test_perf1_200_clients_at_100_messages_a_second_and_10_mb_of_events(tmp_path: Path) -> None:
    """A fan-out that puts 10 MB on the wire at once."""
    loaded_and_not(tmp_path, clients=200, rate=100, seconds=20, event=50_000)


@pytest.mark.soak
def test_perf1_one_event_of_10_mb_to_20_clients(tmp_path: Path) -> None:
    loaded_and_not(tmp_path, clients=20, rate=100, seconds=10, event=10_000_000)


def test_perf1_a_small_load_leaves_the_door_open(tmp_path: Path) -> None:
    loaded_and_not(tmp_path, clients=20, rate=100, seconds=2, event=50_000)


def idle_share(tmp_path: Path, seconds: float) -> float:
    """The part of a core that a gateway with 20 silent clients uses; they answer pings, as real ones do."""
    with gateway(tmp_path, {"logging": {"console": False}}, real=True) as running, ExitStack() as clients:
        poller = select.epoll()
        clients.callback(poller.close)
        sessions = {session.socket.fileno(): session for session in (running.session() for _ in range(20))}
        for fd in sessions:
            poller.register(fd, select.EPOLLIN)
        until, began, cpu = time.monotonic() + 2, 0.0, 0.0  # what the connects left to do is not idleness
        while time.monotonic() < until:
            for fd, _ in poller.poll(0.1):
                data = sessions[fd].socket.recv(1 << 16)
                assert data, "a client lost its connection"
                if data.endswith(b"\x89\x00"):
                    sessions[fd].socket.sendall(b"\x8a\x80\x00\x00\x00\x00")
            if not began and time.monotonic() > until - 0.5:
                began, cpu, until = time.monotonic(), running.cpu_seconds, time.monotonic() + seconds
        share = (running.cpu_seconds - cpu) / (time.monotonic() - began)
        print(f"idle with 20 clients: {share:.3%} of a core over {seconds:g} s")
        return share


@pytest.mark.soak
def test_perf2_idle_with_20_clients_uses_less_than_half_a_percent(tmp_path: Path) -> None:
    assert idle_share(tmp_path, 20) < 0.005


def test_perf2_idle_is_idle(tmp_path: Path) -> None:
    assert idle_share(tmp_path, 3) < 0.02
