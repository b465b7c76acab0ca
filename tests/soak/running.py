"""A real gateway process for the soak tests: started, measured and ended by its pid.

Owns the child and its figures from /proc. It must not know what is tested. Invariants: nothing outlives the block;
output goes to files, so that no full pipe is part of the measurement.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from scripts.benchmarks.load import Session
from tests.cli.program import ROOT, Program, free_port

__all__ = ["Running", "await_that", "gateway", "processes_of"]

MIB = 1024 * 1024


def await_that(what: str, holds: Callable[[], object], *, seconds: float = 10.0) -> None:
    """Poll until ``holds()``; `AssertionError` after ``seconds``."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def processes_of(state: Path) -> list[int]:
    """Every living process that was started for this state directory and is a gateway."""
    wanted = f"OPENCLAW_STATE_DIR={state}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if wanted not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            is_python = (folder / "exe").readlink().name.startswith("python")  # not a shell that supervises it
            if is_python and b"run" in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@attrs.frozen
class Running:
    process: subprocess.Popen[str]
    program: Program
    port: int
    _opened: list[Session] = attrs.field(factory=list, repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def token(self) -> str:
        return self.program.secret

    @property
    def rss(self) -> int:
        """Resident bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all its threads, by the scheduler's own nanoseconds."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    @property
    def log_bytes(self) -> int:
        return sum(path.stat().st_size for path in (self.program.state / "logs").iterdir())

    def session(self) -> Session:
        """An admitted client that is an administrator; closed with the gateway where nobody does before. It answers no
        pings: one that says nothing for 40 s is taken for dead.
        """
        session = Session(self.port)
        self._opened.append(session)
        session.hello(self.token)
        return session

    def forget(self) -> None:
        for session in self._opened:
            session.close()

    @contextmanager
    def control(self) -> Iterator[Callable[..., Any]]:
        """``call(method, params)`` on a session of its own; gives the payload."""
        session = self.session()

        def call(method: str, params: dict[str, Any] | None = None) -> Any:
            reply = session.call(method, params)
            assert reply["ok"], reply
            return reply["payload"]

        try:
            yield call
        finally:
            session.close()

    def http(self, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())


@contextmanager
def gateway(
    tmp_path: Path,
    config: Mapping[str, Any] | None = None,
    *,
    state: Path | None = None,
    real: bool = False,
    arguments: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """``gateway run`` in the foreground, ready. ``real``: the plain command, without the methods of `victim`."""
    program = Program(state or tmp_path / "state", env or {})
    program.config(json.dumps(config or {}))
    module = "openclaw_gateway" if real else "tests.soak.victim"
    port = free_port()
    with (tmp_path / "stderr").open("a") as errors, (tmp_path / "stdout").open("a") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "gateway", "run", "--port", str(port), *arguments],
            stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=program.environment, text=True, cwd=ROOT,
        )  # fmt: skip
    running = Running(process, program, port)
    try:
        await_that("the gateway answers", lambda: process.poll() is not None or answers(port))
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        yield running
    finally:
        running.forget()
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return sock.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
