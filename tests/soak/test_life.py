"""Start, stop, restart, kill, over and over: one process, one port (LIFE-1..4, issue 2 "Must show")."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scripts.benchmarks.load import LoadError, Session, request_frame
from tests.cli.program import ROOT, Program, free_port

from .running import answers, await_that, gateway, processes_of

SUPERVISOR = """
trap 'kill -TERM "$child" 2>/dev/null; over=1' TERM
over=0
while [ "$over" = 0 ]; do
    "$@" &
    child=$!
    echo "started $child"
    wait "$child"
    code=$?
    while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done
    echo "ended $child $code"
done
"""


def assert_port_is_free(port: int) -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))


def start_stop(state: Path, cycles: int) -> list[float]:
    """Seconds from the command to the verdict of each start."""
    openclaw, port, took = Program(state), free_port(), []
    try:
        for _ in range(cycles):
            began = time.monotonic()
            started = openclaw("gateway", "start", "--port", str(port))
            took.append(time.monotonic() - began)
            assert started.returncode == 0, started.stdout + started.stderr
            assert processes_of(state) == [openclaw.pid]
            assert answers(port)
            stopped = openclaw("gateway", "stop")
            assert stopped.returncode == 0, stopped.stdout + stopped.stderr
            assert processes_of(state) == []
            assert_port_is_free(port)
    finally:
        openclaw("gateway", "stop", "--force")
    log = (state / "logs" / "gateway.log").read_text()
    assert "address already in use" not in log.lower()
    assert log.count('"event":"gateway started"') == cycles
    return took


def in_lanes(tmp_path: Path, work: Callable[[Path, int], list[float]], lanes: int, rounds: int) -> None:
    """Several gateways at once, each in its own state directory and on its own port."""
    with ThreadPoolExecutor(lanes) as pool:
        runs = [pool.submit(work, tmp_path / f"state{lane}", rounds) for lane in range(lanes)]
        took = sorted(seconds for run in runs for seconds in run.result())
    print(f"{len(took)} rounds: median {took[len(took) // 2]:.2f} s, slowest {took[-1]:.2f} s")
    assert len(took) == lanes * rounds


@pytest.mark.deadline(90)
def test_life1_life2_5_start_stop_cycles_leave_one_process_and_a_free_port(tmp_path: Path) -> None:
    in_lanes(tmp_path, start_stop, 1, 5)


@pytest.mark.soak
@pytest.mark.deadline(900)
def test_life1_life2_100_start_stop_cycles_leave_one_process_and_a_free_port(tmp_path: Path) -> None:
    in_lanes(tmp_path, start_stop, 4, 25)


def supervised(state: Path, rounds: int) -> list[float]:
    """``gateway run`` under a shell loop that starts it again whenever it ends; it is told to end ``rounds`` times."""
    openclaw, port, took = Program(state), free_port(), []
    command = [sys.executable, "-m", "openclaw_gateway", "gateway", "run", "--port", str(port)]
    state.mkdir(mode=0o700, parents=True)
    lines = state.parent / f"{state.name}.lines"
    with lines.open("w") as out:
        loop = subprocess.Popen(
            ["bash", "-c", SUPERVISOR, "supervisor", *command],
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=openclaw.environment, cwd=ROOT,
        )  # fmt: skip
        try:
            seen: set[int] = set()
            for _ in range(rounds):
                await_that("a fresh process answers", lambda: fresh(openclaw, port, seen), seconds=15)
                pid = openclaw.pid
                assert pid is not None
                assert processes_of(state) == [pid]
                began = time.monotonic()
                os.kill(pid, signal.SIGTERM)
                seen.add(pid)
                await_that("it has ended", lambda pid=pid: f"ended {pid} " in lines.read_text())  # type: ignore[misc]
                took.append(time.monotonic() - began)
        finally:
            loop.terminate()
            loop.wait(15)
    told = lines.read_text()
    ended = [line.split() for line in told.splitlines() if line.startswith("ended ")]
    assert [code for _, _, code in ended[:rounds]] == ["0"] * rounds, told
    assert "in use" not in told
    await_that("nothing is left", lambda: not processes_of(state))
    assert_port_is_free(port)
    assert max(took) <= 5
    return took


def fresh(openclaw: Program, port: int, seen: set[int]) -> bool:
    pid = openclaw.pid
    return pid is not None and pid not in seen and answers(port)


@pytest.mark.deadline(90)
def test_life1_a_shell_loop_as_supervisor_sees_one_process_at_a_time(tmp_path: Path) -> None:
    in_lanes(tmp_path, supervised, 1, 5)


@pytest.mark.soak
@pytest.mark.deadline(600)
def test_life1_100_rounds_under_a_shell_loop(tmp_path: Path) -> None:
    in_lanes(tmp_path, supervised, 2, 50)


def killed(state: Path, rounds: int) -> list[float]:
    """SIGKILL and an immediate start, with clients connected."""
    openclaw, port, took = Program(state), free_port(), []
    try:
        assert openclaw("gateway", "start", "--port", str(port)).returncode == 0
        for _ in range(rounds):
            clients = [Session(port) for _ in range(3)]
            clients[0].hello(openclaw.secret)
            before = openclaw.pid
            assert before is not None
            os.kill(before, signal.SIGKILL)
            began = time.monotonic()
            started = openclaw("gateway", "start", "--port", str(port))
            took.append(time.monotonic() - began)
            assert started.returncode == 0, started.stderr
            assert openclaw.pid not in {None, before}
            assert processes_of(state) == [openclaw.pid]
            for client in clients:
                client.close()
    finally:
        openclaw("gateway", "stop", "--force")
    assert_port_is_free(port)
    assert max(took) < 6
    return took


@pytest.mark.deadline(60)
def test_life2_kill_9_and_immediate_start(tmp_path: Path) -> None:
    in_lanes(tmp_path, killed, 1, 2)


@pytest.mark.soak
@pytest.mark.deadline(300)
def test_life2_kill_9_and_immediate_start_30_times(tmp_path: Path) -> None:
    in_lanes(tmp_path, killed, 2, 15)


def restart_in_place(tmp_path: Path, rounds: int) -> None:
    with gateway(tmp_path, {"logging": {"console": False}}, real=True) as running:
        holder = tmp_path / "state" / "gateway.lock"

        def born() -> int:
            note: dict[str, int] = json.loads(holder.read_text() or "{}")
            return note.get("startedAtMs", 0)

        slowest, files = 0.0, descriptors(running.pid)
        for _ in range(rounds):
            client, before = running.session(), born()
            began = time.monotonic()
            os.kill(running.pid, signal.SIGUSR1)
            assert goodbye(client) == (True, 1012)
            await_that("it came back", lambda before=before: born() > before and answers(running.port))  # type: ignore[misc]
            slowest = max(slowest, time.monotonic() - began)
            assert processes_of(tmp_path / "state") == [running.pid]
            assert running.process.poll() is None
        print(f"{rounds} restarts in process {running.pid}, slowest {slowest:.2f} s")
        assert descriptors(running.pid) <= files
        log = (tmp_path / "state" / "logs" / "gateway.log").read_text()
        assert log.count('"event":"gateway started"') == rounds + 1


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_life1_sigusr1_restarts_in_the_same_process(tmp_path: Path) -> None:
    restart_in_place(tmp_path, 3)


@pytest.mark.soak
def test_life1_20_sigusr1_restarts_keep_the_process(tmp_path: Path) -> None:
    restart_in_place(tmp_path, 20)


# --- LIFE-4


def goodbye(session: Session) -> tuple[bool, int]:
    """Whether a ``shutdown`` event came, and the close code; 1006 where the connection just ended."""
    told = False
    try:
        while True:
            opcode, payload = session.receive_message()
            if opcode == 1 and b'"event":"shutdown"' in payload:
                told = True
            elif opcode == 8:
                return told, int.from_bytes(payload[:2], "big")
    except (LoadError, OSError):
        return told, 1006
    finally:
        session.close()


def test_life4_500_clients_and_50_pending_calls_all_hear_of_the_stop(tmp_path: Path) -> None:
    config = {
        "gateway": {"transports": {"websocket": {"concurrentConnections": 600}}},
        "logging": {"console": False},
    }
    with gateway(tmp_path, config) as running:
        sessions = [running.session() for _ in range(500)]
        for session in sessions[:50]:
            session.socket.sendall(request_frame("pending", "soak.hang"))
        with running.control() as call:
            await_that("all calls are pending", lambda: call("soak.census")["tasks"] >= 500 + 50)
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        with ThreadPoolExecutor(4) as pool:
            seen = list(pool.map(goodbye, sessions))
        code = running.process.wait(10)
        took = time.monotonic() - began
        print(f"500 clients, 50 pending calls: exit {code} after {took:.2f} s")
        assert code == 0
        assert took <= 5
        assert set(seen) == {(True, 1012)}, [(index, s) for index, s in enumerate(seen) if s != (True, 1012)]


def test_life4_clients_that_neither_read_nor_answer_cannot_hold_the_stop(tmp_path: Path) -> None:
    with gateway(tmp_path, {"logging": {"console": False}}) as running:
        sessions = [running.session() for _ in range(60)]
        for session in sessions:
            session.socket.sendall(request_frame("pending", "soak.hang"))
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        code = running.process.wait(10)
        took = time.monotonic() - began
        for session in sessions:
            session.close()
        print(f"60 deaf clients: exit {code} after {took:.2f} s")
        assert code == 0
        assert took <= 5
