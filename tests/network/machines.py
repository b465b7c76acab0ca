"""What stands at the ends of the cable: our gateway with its operators on the left, a node on the right.

Owns the processes and the operator's connections. It must not assert what a test is about. Invariants: every process
has folders of its own, is ended by its pid, and writes to files, so that no full pipe is part of a test; operators sit
on the gateway's own machine, so the cable that is pulled is never theirs.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks.load import Session, request_frame
from tests.cli.program import ROOT
from tests.network.cable import Cable

__all__ = ["PORT", "TOKEN", "GatewayMachine", "NodeMachine", "Operator", "await_that", "runs_below"]

PORT = 18789  # a namespace has all of its ports to itself
TOKEN = "token-of-the-network-tests-0123456789abc"
Json = dict[str, Any]


def await_that(what: str, holds: Callable[[], object], *, seconds: float, also: Callable[[], str] = str) -> float:
    """Ask until ``holds()``; the seconds it took. What is waited for happens in other processes."""
    begin = time.monotonic()
    while not holds():
        assert time.monotonic() - begin < seconds, f"not within {seconds:g} s: {what}\n{also()}"
        time.sleep(0.02)
    return time.monotonic() - begin


def environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENCLAW_", "NOTIFY_"))}
    return {**kept, "HOME": str(home), "NO_COLOR": "1", "PYTHONPATH": str(ROOT), **extra}


def runs_below(pid: int, words: Sequence[str]) -> bool:
    """Whether ``pid`` started, itself or through others, a program with exactly these arguments."""
    wanted, waiting = b"\0".join(word.encode() for word in words) + b"\0", [pid]
    while waiting:
        parent = waiting.pop()
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                children = [int(word) for word in listing.read_text().split()]
            except OSError:
                continue
            for child in children:
                try:
                    if Path(f"/proc/{child}/cmdline").read_bytes().endswith(wanted):
                        return True
                except OSError:
                    continue
                waiting.append(child)
    return False


def _end(process: subprocess.Popen[bytes] | None) -> None:
    if process is None:
        return
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(8)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Operator:
    """An administrator's connection on the gateway's machine. Answers are kept until somebody asks for them."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._numbers = itertools.count(1)
        self.answers: dict[str, list[Json]] = {}

    def start(self, method: str, params: Json) -> str:
        """Send a request, and do not wait; its id."""
        identifier = f"{method}:{next(self._numbers)}"
        self.answers[identifier] = []
        self._session.socket.sendall(request_frame(identifier, method, params))
        return identifier

    def answer(self, identifier: str) -> Json:
        """Wait for the answer to what was started."""
        while not self.answers[identifier]:
            self._read()
        return self.answers[identifier][0]

    def call(self, method: str, params: Json | None = None) -> Any:
        reply = self.answer(self.start(method, params or {}))
        assert reply["ok"], reply
        return reply["payload"]

    def _read(self) -> None:
        opcode, payload = self._session.receive_message()
        assert opcode in (1, 9, 10), payload  # text, or a heartbeat
        if opcode == 1:
            message = json.loads(payload)
            if message.get("type") == "res":
                self.answers.setdefault(message["id"], []).append(message)

    def close(self) -> None:
        self._session.close()


class GatewayMachine:
    """`start` it; `operator` opens one more connection to it."""

    def __init__(self, cable: Cable, folder: Path) -> None:
        self._cable = cable
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._operators: list[Operator] = []
        folder.mkdir()

    def start(self, **websocket: int) -> None:
        """Listening on the cable when it returns. ``websocket``: keys of gateway.transports.websocket."""
        config: Json = {
            "gateway": {
                "mode": "local",
                "bind": "lan",
                "auth": {"type": "token", "token": TOKEN},
                "transports": {"websocket": websocket},
            },
            "logging": {"level": "info"},
        }
        (self._folder / "openclaw.json").write_text(json.dumps(config))
        extra = {
            "OPENCLAW_STATE_DIR": str(self._folder / "state"),
            "OPENCLAW_CONFIG_PATH": str(self._folder / "openclaw.json"),
        }
        arguments = [sys.executable, "-m", "openclaw_gateway", "gateway", "run", "--port", str(PORT)]
        with (self._folder / "output").open("wb") as out:
            self._process = subprocess.Popen(
                self._cable.inside(self._cable.left, arguments),
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment(self._folder, extra),
            )  # fmt: skip
        await_that("the gateway listens", self._listens, seconds=20, also=self.output)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.output()
        try:
            self._cable.run_in(self._cable.left, lambda: Session(PORT, timeout=2)).close()
        except OSError:
            return False
        return True

    def output(self) -> str:
        return (self._folder / "output").read_text(errors="replace")[-4000:]

    def log(self) -> list[Json]:
        """The gateway's own log, a record a line."""
        files = sorted((self._folder / "state" / "logs").glob("*.log*")) if self._process is not None else []
        lines = [line for file in files for line in file.read_text().splitlines()]
        return [json.loads(line) for line in lines]

    def operator(self) -> Operator:
        session = self._cable.run_in(self._cable.left, lambda: Session(PORT))
        session.hello(TOKEN)
        operator = Operator(session)
        self._operators.append(operator)
        return operator

    def end(self) -> None:
        for operator in self._operators:
            operator.close()
        _end(self._process)
        self._process = None


class NodeMachine:
    """A node host on the right end of the cable."""

    def __init__(self, cable: Cable, folder: Path, command: Sequence[str], extra: Mapping[str, str]) -> None:
        """``command`` without ``node run``; ``extra`` for its environment."""
        folder.mkdir(exist_ok=True)
        self._log = folder / "output"
        where = ["node", "run", "--host", cable.left_address, "--port", str(PORT), "--display-name", "At the cable"]
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                cable.inside(cable.right, [*command, *where]),
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=folder,
                env=environment(folder, {"OPENCLAW_GATEWAY_TOKEN": TOKEN, **extra}),
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def output(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def approved(self, operator: Operator) -> str:
        """Approve whatever it asks for until it may be asked itself; its node id."""
        found: list[str] = []

        def ready() -> bool:
            assert self._process.poll() is None, self.output()
            for kind in ("device", "node"):
                for request in operator.call(f"{kind}.pair.list")["pending"]:
                    operator.call(f"{kind}.pair.approve", {"requestId": request["requestId"]})
            found[:] = [row["nodeId"] for row in operator.call("node.list")["nodes"] if row["commands"]]
            return bool(found)

        await_that("the node is approved", ready, seconds=60, also=self.output)
        return found[0]

    def end(self) -> None:
        _end(self._process)
