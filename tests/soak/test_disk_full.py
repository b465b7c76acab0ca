"""A full disk (STATE, LOG-1, V60): the gateway serves on, refuses what it cannot keep, and recovers by itself."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from scripts.benchmarks.load import Session, connect_params
from tests.attacks.attacker import Device
from tests.cli.program import Program

from .running import MIB, Running, await_that, gateway

CONFIG = {
    "gateway": {"pairing": {"autoApprove": {"loopback": False}}},
    "logging": {"console": False, "maxBytes": 65_536},
}


def ask_to_pair(running: Running) -> dict[str, Any]:
    """What a device that nobody knows is told: the error of its connect."""
    session = Session(running.port)
    try:
        _, challenge = session.receive_message()
        params = connect_params(running.token)
        params |= {"scopes": ["operator.read"], "client": {**params["client"], "mode": "ui", "id": "openclaw-tui"}}
        params["device"] = Device().prove(params, json.loads(challenge)["payload"])
        reply = session.call("connect", params)
        assert not reply["ok"], reply
        error: dict[str, Any] = reply["error"]
        return error
    finally:
        session.close()


def assert_waits(error: dict[str, Any]) -> None:
    assert error["details"]["code"] == "PAIRING_REQUIRED", error
    assert error["details"]["requestId"]


def through_a_full_disk(running: Running, fill: Callable[[], None], free: Callable[[], None]) -> None:
    client = running.session()
    assert_waits(ask_to_pair(running))
    log = running.program.state / "logs" / "gateway.log"
    fill()
    try:
        for _ in range(5):
            error = ask_to_pair(running)
            assert (error["code"], error["retryable"]) == ("UNAVAILABLE", True), error
        for _ in range(200):  # each leaves two lines in a log that cannot take them
            running.session().close()
        assert client.call("health")["ok"]
        assert client.call("system-presence")["ok"]
        listed = client.call("device.pair.list")
        assert len(listed["payload"]["pending"]) == 1
        assert running.http("/health")[0] == 200
    finally:
        free()
    await_that("a pairing request is kept again", lambda: "requestId" in ask_to_pair(running).get("details", {}))
    assert running.process.poll() is None
    running.session().close()
    await_that("the log tells what it lost", lambda: '"event":"log lines lost"' in log.read_text())
    assert client.call("health")["ok"]
    client.close()


def test_disk_full_by_a_file_size_limit(tmp_path: Path) -> None:
    """RLIMIT_FSIZE on the running process: every file that would grow answers EFBIG."""
    with gateway(tmp_path, CONFIG) as running:
        before = resource.prlimit(running.pid, resource.RLIMIT_FSIZE)

        def fill() -> None:
            resource.prlimit(running.pid, resource.RLIMIT_FSIZE, (1, before[1]))

        def free() -> None:
            resource.prlimit(running.pid, resource.RLIMIT_FSIZE, before)

        through_a_full_disk(running, fill, free)


@contextlib.contextmanager
def small_disk(where: Path, size: int) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "soak", str(where)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(where)], check=True)


def _can_mount() -> bool:
    done = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return os.geteuid() == 0 and done.returncode == 0


if _can_mount():  # as somebody else the test above is what there is

    def test_disk_full_on_a_small_file_system(tmp_path: Path) -> None:
        """ENOSPC from the file system itself."""
        disk = tmp_path / "disk"
        disk.mkdir()
        with small_disk(disk, 4 * MIB), gateway(tmp_path, CONFIG, state=disk / "state") as running:
            filler = disk / "filler"

            def fill() -> None:
                with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                    while file.write(bytes(4096)):
                        pass

            through_a_full_disk(running, fill, filler.unlink)

    def test_disk_full_at_the_start_is_said_in_one_line(tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        with small_disk(disk, 64 * 1024):
            (disk / "filler").write_bytes(bytes(48 * 1024))
            done = Program(disk / "state")("gateway", "run", "--port", "0")
            assert done.returncode == 1, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            assert "disk is full" in done.stderr or "No space left" in done.stderr, done.stderr
