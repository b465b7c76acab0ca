"""The instance lock against real processes: killed, suspended, and somebody else's process ids."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from openclaw_gateway.ops.instance import (
    AlreadyRunning,
    Holder,
    InstanceLock,
    read_holder,
    signal_holder,
    wait_released,
)

HOLD = """
import sys
from pathlib import Path
from openclaw_gateway.ops.instance import InstanceLock
lock = InstanceLock.acquire(Path(sys.argv[1]), port=1234, bind="loopback", url="ws://127.0.0.1:1234", version="9")
print("held", flush=True)
sys.stdin.read()
"""
WAIT = "import sys; print('up', flush=True); sys.stdin.read()"

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a Python process that has said one line, and ends it after the test."""
    running: list[subprocess.Popen[str]] = []

    def begin(source: str, *argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", source, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip() in {"held", "up"}
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_life2_a_second_one_is_told_who_holds_it(tmp_path: Path, start: Start) -> None:
    process = start(HOLD, str(tmp_path / "state"))
    with pytest.raises(AlreadyRunning) as caught:
        InstanceLock.acquire(tmp_path / "state")
    assert caught.value.holder.pid == process.pid
    assert f"process {process.pid} at ws://127.0.0.1:1234" in str(caught.value)
    assert "openclaw gateway stop" in str(caught.value)


def test_life2_after_kill_9_it_is_free_at_once(tmp_path: Path, start: Start) -> None:
    process = start(HOLD, str(tmp_path / "state"))
    process.kill()
    process.wait()
    assert read_holder(tmp_path / "state") is None  # though the note is still in the file
    assert f'"pid": {process.pid}' in (tmp_path / "state" / "gateway.lock").read_text()
    with InstanceLock.acquire(tmp_path / "state"):
        holder = read_holder(tmp_path / "state")
    assert holder is not None
    assert holder.pid == os.getpid()


def test_life2_a_suspended_holder_gives_a_clear_error(tmp_path: Path, start: Start) -> None:
    process = start(HOLD, str(tmp_path / "state"))
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    with pytest.raises(AlreadyRunning, match=f"suspended.*kill -CONT {process.pid}"):
        InstanceLock.acquire(tmp_path / "state")


def test_the_note_can_be_updated_and_is_private(tmp_path: Path) -> None:
    with InstanceLock.acquire(tmp_path / "state", version="1.2", bind="a rather long bind that becomes short") as lock:
        lock.update(port=4711, url="ws://127.0.0.1:4711", bind="lan")
        holder = read_holder(tmp_path / "state")
        assert holder is not None
        assert (holder.port, holder.url, holder.bind, holder.version) == (4711, "ws://127.0.0.1:4711", "lan", "1.2")
        assert holder.started_at_ms is not None
        note = json.loads((tmp_path / "state" / "gateway.lock").read_text())
        assert set(note) == {"pid", "startTime", "port", "bind", "url", "version", "startedAtMs"}
    assert (tmp_path / "state" / "gateway.lock").stat().st_mode & 0o777 == 0o600
    assert read_holder(tmp_path / "state") is None


def test_nothing_there_is_nobody(tmp_path: Path) -> None:
    assert read_holder(tmp_path / "state") is None


def test_somebody_who_only_looks_does_not_stop_a_start(tmp_path: Path) -> None:
    for _ in range(200):
        with InstanceLock.acquire(tmp_path / "state"):
            assert read_holder(tmp_path / "state") is not None
        assert read_holder(tmp_path / "state") is None


def test_v49_the_verified_holder_is_signalled(tmp_path: Path, start: Start) -> None:
    process = start(HOLD, str(tmp_path / "state"))
    holder = read_holder(tmp_path / "state")
    assert holder is not None
    assert signal_holder(holder, signal.SIGTERM)
    assert process.wait(10) == -signal.SIGTERM
    assert not signal_holder(holder, signal.SIGTERM)


def test_v49_a_stale_note_that_names_a_living_process_signals_nobody(tmp_path: Path, start: Start) -> None:
    bystander = start(WAIT)
    with InstanceLock.acquire(tmp_path / "state"):
        mine = read_holder(tmp_path / "state")
    assert mine is not None
    note = {"pid": bystander.pid, "startTime": mine.start_time, "port": 1}
    (tmp_path / "state" / "gateway.lock").write_text(json.dumps(note) + "\n")
    # Nobody holds the lock:
    assert read_holder(tmp_path / "state") is None
    assert not signal_holder(attrs.evolve(mine, pid=bystander.pid), signal.SIGKILL)
    assert bystander.poll() is None


def test_v49_a_held_lock_with_a_wrong_note_signals_nobody(tmp_path: Path, start: Start) -> None:
    bystander = start(WAIT)
    start(HOLD, str(tmp_path / "state"))
    for start_time in ("1", "", None, 5):
        note = {"pid": bystander.pid, "startTime": start_time}
        (tmp_path / "state" / "gateway.lock").write_text(json.dumps(note) + "\n")
        holder = read_holder(tmp_path / "state")
        assert holder == Holder(state_dir=tmp_path / "state")  # held, by whom is not known
        assert not signal_holder(holder, signal.SIGKILL)
        forged = Holder(state_dir=tmp_path / "state", pid=bystander.pid, start_time="1")
        assert not signal_holder(forged, signal.SIGKILL)
    with pytest.raises(AlreadyRunning, match="cannot be identified"):
        InstanceLock.acquire(tmp_path / "state")
    assert bystander.poll() is None


async def test_waiting_ends_when_the_holder_lets_go(tmp_path: Path, start: Start) -> None:
    process = start(HOLD, str(tmp_path / "state"))
    assert not await wait_released(tmp_path / "state", 0.05)
    process.send_signal(signal.SIGTERM)
    assert await wait_released(tmp_path / "state", 10)
    assert process.wait(10) == -signal.SIGTERM
