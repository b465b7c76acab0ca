"""Reachable under a flood (LIVE-2), patient with the slow (LIVE-3), never mute during a restart (LIVE-4)."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.benchmarks.load import HOST, LoadError, Session
from tests.attacks.attacker import TOKEN, Attacker, open_victim

from .churn import upgrade_bytes
from .running import Running, answers, await_that, gateway

QUIET = {"logging": {"console": False}}


@pytest.fixture
def many_files() -> Iterator[int]:
    """How many sockets this process may hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(hard, 1 << 20) - 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# --- LIVE-2


def address(number: int) -> str:
    return f"127.0.{number // 250 % 250}.{2 + number % 250}"


def half_open(running: Running, number: int) -> socket.socket:
    """A client that says nothing, or half of a request, or that it wants to upgrade and then nothing."""
    sock = socket.create_connection((HOST, running.port), timeout=10, source_address=(address(number), 0))
    upgrade = upgrade_bytes(running.port)
    sock.sendall((b"", upgrade[:40], upgrade)[number % 3])
    return sock


def honest(running: Running) -> float:
    """Seconds from the connect to the hello of a client that behaves."""
    began = time.monotonic()
    session = Session(running.port, timeout=5)
    try:
        session.hello(running.token)
        return time.monotonic() - began
    finally:
        session.close()


def flood(tmp_path: Path, count: int) -> None:
    with gateway(tmp_path, QUIET) as running, contextlib.ExitStack() as held:
        waits = []
        for number in range(count):
            held.callback(half_open(running, number).close)
            if number % (count // 10) == count // 10 - 1:
                waits.append(honest(running))
        over = threading.Event()

        def go_on() -> None:
            number = count
            while not over.is_set():
                sock = half_open(running, number)
                if number % 2:
                    sock.close()
                else:
                    hold.append(sock)
                number += 1
                over.wait(0.002)

        hold: list[socket.socket] = []
        storm = threading.Thread(target=go_on)
        storm.start()
        try:
            during = [honest(running) for _ in range(20)]
        finally:
            over.set()
            storm.join()
            for sock in hold:
                sock.close()
        print(f"{count} half-open: honest hello at most {max(waits):.3f} s; while more come {max(during):.3f} s")
        assert max(waits) < 1
        assert max(during) < 1
        with running.control() as call:
            assert call("soak.census")["strangers"] <= 512
        assert running.http("/health")[0] == 200


def test_live2_1k_half_open_clients_do_not_keep_an_honest_one_out(tmp_path: Path, many_files: int) -> None:
    flood(tmp_path, min(1000, many_files))


@pytest.mark.soak
def test_live2_5k_half_open_clients_do_not_keep_an_honest_one_out(tmp_path: Path, many_files: int) -> None:
    flood(tmp_path, min(5000, many_files))


# --- LIVE-4


def attempt(port: int) -> tuple[str, float]:
    """How one upgrade ended, and after how many seconds."""
    began, outcome = time.monotonic(), "?"
    try:
        with socket.create_connection((HOST, port), timeout=4) as sock:
            sock.sendall(upgrade_bytes(port))
            head = b""
            while b"\r\n\r\n" not in head and (data := sock.recv(4096)):
                head += data
            outcome = head[9:12].decode() if head else "ended"
    except ConnectionRefusedError:
        outcome = "refused"
    except ConnectionResetError:
        outcome = "reset"
    except TimeoutError:
        outcome = "timeout"
    return outcome, time.monotonic() - began


def storm_through_restarts(tmp_path: Path, restarts: int) -> None:
    with gateway(tmp_path, QUIET, real=True) as running:
        over, results = threading.Event(), list[tuple[str, float]]()

        def knock() -> None:
            while not over.is_set():
                results.append(attempt(running.port))
                over.wait(0.005)

        threads = [threading.Thread(target=knock) for _ in range(6)]
        for thread in threads:
            thread.start()
        lock = tmp_path / "state" / "gateway.lock"
        try:
            for _ in range(restarts):
                clients = [running.session() for _ in range(20)]
                before = lock.read_text()
                os.kill(running.pid, signal.SIGUSR1)
                await_that(
                    "it is back",
                    lambda before=before: lock.read_text() != before and answers(running.port),  # type: ignore[misc]
                )
                for client in clients:
                    client.close()
        finally:
            over.set()
            for thread in threads:
                thread.join()
        seen = Counter(outcome for outcome, _ in results)
        slowest = max(took for _, took in results)
        print(f"{restarts} restarts, {len(results)} attempts: {dict(seen)}, slowest {slowest:.2f} s")
        assert seen["101"] > 10 * restarts
        # "ended": a connection that had not said anything yet when the stop began is closed like any other idle one.
        assert set(seen) <= {"101", "503", "refused", "reset", "ended"}
        assert seen["ended"] <= len(threads) * restarts
        assert slowest <= 2
        assert running.process.poll() is None


def test_live4_every_attempt_during_a_restart_ends(tmp_path: Path) -> None:
    storm_through_restarts(tmp_path, 2)


@pytest.mark.soak
def test_live4_every_attempt_during_10_restarts_ends(tmp_path: Path) -> None:
    storm_through_restarts(tmp_path, 10)


# --- LIVE-3


def slow_session(running: Running) -> Session:
    """An admitted client whose kernel takes 4 KB at a time."""
    session = Session.__new__(Session)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(15)
    sock.connect((HOST, running.port))
    session.socket, session.pending = sock, b""
    sock.sendall(upgrade_bytes(running.port))
    while b"\r\n\r\n" not in session.pending:
        session.pending += sock.recv(4096)
    session.pending = session.pending.partition(b"\r\n\r\n")[2]
    session.hello(running.token)
    return session


def read_slowly(session: Session, rate: int, seconds: float) -> int:
    """Bytes read in ``seconds`` at ``rate`` bytes a second; raises when the gateway hangs up."""
    began, count = time.monotonic(), 0
    while (now := time.monotonic() - began) < seconds:
        owed = int(now * rate) - count
        if owed > 0:
            data = session.socket.recv(owed)
            if not data:
                raise LoadError(f"closed after {now:.1f} s and {count} bytes")
            count += len(data)
        time.sleep(0.02)
    return count


def slow_reader(tmp_path: Path, *, size: int, rate: int, seconds: float, interval: int, timeout: int) -> None:
    config = {
        "gateway": {"transports": {"websocket": {"pingIntervalMs": interval, "pingTimeoutMs": timeout}}},
        **QUIET,
    }
    with gateway(tmp_path, config) as running:
        session = slow_session(running)
        try:
            with running.control() as call:
                call("soak.publish", {"size": size})
            count = read_slowly(session, rate, seconds)
            log = (tmp_path / "state" / "logs" / "gateway.log").read_text()
            print(f"{rate} B/s of {size}: {count} bytes in {seconds:g} s, pings every {interval} ms, alive")
            assert count > 0.8 * rate * seconds
            assert "ping timeout" not in log
            assert "takes no data" not in log
        finally:
            session.close()


# The kernel here tells of a freed window in steps of 6 KB, so what matters is how long 6 KB take against the pong
# window and against the slow-consumer limit (interval and window together).


def test_live3_a_slow_reader_is_not_taken_for_dead(tmp_path: Path) -> None:
    """30 and 10 s scaled to 3 and 1; 2.2 s between two signs of life, so more than the pong window. The whole event and
    the ping behind it are in the kernel.
    """
    slow_reader(tmp_path, size=1_500_000, rate=2800, seconds=10, interval=3000, timeout=1000)


@pytest.mark.soak
def test_live3_a_slow_reader_of_more_than_the_kernel_takes(tmp_path: Path) -> None:
    slow_reader(tmp_path, size=8_000_000, rate=2800, seconds=30, interval=3000, timeout=1000)


@pytest.mark.soak
@pytest.mark.deadline(300)
@pytest.mark.parametrize("size", [8_000_000, 1_500_000])
def test_live3_a_1_kb_a_second_reader_lives_with_the_real_intervals(size: int, tmp_path: Path) -> None:
    slow_reader(tmp_path, size=size, rate=1000, seconds=170, interval=30_000, timeout=10_000)


@pytest.mark.soak
@pytest.mark.deadline(300)
def test_live3_a_400_bytes_a_second_reader_lives_with_the_real_intervals(tmp_path: Path) -> None:
    """15 s between two signs of life."""
    slow_reader(tmp_path, size=1_500_000, rate=400, seconds=170, interval=30_000, timeout=10_000)


async def test_live3_the_kernel_ends_strangers_and_leaves_clients_to_the_watchdog() -> None:
    """With TCP_USER_TIMEOUT a reader of 1 KB/s is reset after two minutes, however steadily it reads."""
    async with (
        open_victim() as victim,
        await Attacker.at(victim.port) as client,
        await Attacker.at(victim.port) as other,
    ):
        await other.open()
        assert (await client.connect(token=TOKEN)).admitted
        of_kernel = {
            session.grant is not None: session.wire.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)  # type: ignore[attr-defined]
            for session in victim._core.registry.live
        }
        assert of_kernel == {True: 0, False: 120_000}


@pytest.mark.parametrize("size", [8_000_000, 1_500_000])
def test_live3_ws2_a_reader_that_stops_is_let_go_at_the_limit(size: int, tmp_path: Path) -> None:
    config = {"gateway": {"transports": {"websocket": {"pingIntervalMs": 2000, "pingTimeoutMs": 1000}}}, **QUIET}
    with gateway(tmp_path, config) as running:
        session = slow_session(running)
        log = tmp_path / "state" / "logs" / "gateway.log"
        try:
            with running.control() as call:
                call("soak.publish", {"size": size})
            began = time.monotonic()
            await_that("it is let go", told(log, '"reason":"slow consumer"'), seconds=12)
            assert 2.5 <= time.monotonic() - began <= 8
        finally:
            session.close()


def told(log: Path, text: str) -> Callable[[], bool]:
    return lambda: text in log.read_text()
