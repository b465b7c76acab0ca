"""Real processes for the interop tests: the gateway under test, and OpenClaw's own programs run against it.

Owns starting, waiting for and ending them; it must not know what a test asserts. Invariants: every process runs in
folders of its own below the test's temporary folder, sees no configuration of the person who runs the tests,
listens on 127.0.0.1 only, and is ended by pid. ``OPENCLAW_TEST_REFERENCE=1`` puts OpenClaw's own gateway in our
place: what a test asserts of official behaviour must hold there too, which is how the harness is known to be right.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

__all__ = ["TOKEN", "Completed", "GatewayProcess", "Official", "free_port", "wait_until"]

TOKEN = "token-of-the-interop-tests-0123456789abc"
HERE = Path(__file__).parent
REFERENCE = os.environ.get("OPENCLAW_TEST_REFERENCE") == "1"
START_SECONDS = 60.0 if REFERENCE else 15.0
STOP_SECONDS = 40.0 if REFERENCE else 8.0


def free_port() -> int:
    with socket.socket() as raw:
        raw.bind(("127.0.0.1", 0))
        port: int = raw.getsockname()[1]
        return port


def wait_until(what: str, ready: Callable[[], bool], *, seconds: float, also: Callable[[], str] = str) -> None:
    """Ask `ready` until it says yes; the condition is another process, so there is nothing to wait on but time."""
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise AssertionError(f"{what}: not within {seconds} s\n{also()}")
        time.sleep(0.05)


def _environment(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment without anything of OpenClaw's, and with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENCLAW_")}
    return {**kept, "HOME": str(home), "NO_COLOR": "1", "OPENCLAW_NO_RESPAWN": "1", **extra}


@attrs.frozen
class Completed:
    """How a program ended. ``text`` is both streams, for messages of failed assertions."""

    command: str
    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return f"$ {self.command}\nexit {self.code}\n{self.out}\n--- stderr\n{self.err}"

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise AssertionError(f"not JSON: {self.text}") from error


class GatewayProcess:
    """A gateway on a free port. `restart` keeps port and state."""

    def __init__(self, folder: Path, official: Official | None) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder / "gateway.out"
        self._official = official
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "state").mkdir(parents=True)
        kind = "mode" if REFERENCE else "type"
        config: dict[str, Any] = {"gateway": {"mode": "local", "auth": {kind: "token", "token": TOKEN}}}
        if REFERENCE:
            config["discovery"] = {"mdns": {"mode": "off"}}
            config["logging"] = {"file": str(folder / "openclaw.log")}
        else:
            # So that a test need not wait 30 s for a tick.
            config["gateway"]["transports"] = {"websocket": {"tickIntervalMs": 2000}}
        (folder / "openclaw.json").write_text(json.dumps(config))

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else "(no output)"

    def start(self) -> None:
        assert self._process is None
        arguments = ["gateway", "run", "--port", str(self.port)]
        if REFERENCE:
            assert self._official is not None
            command = [*self._official.command, *arguments]
        else:
            command = [sys.executable, "-m", "openclaw_gateway", *arguments]
        extra = {
            "OPENCLAW_STATE_DIR": str(self.folder / "state"),
            "OPENCLAW_CONFIG_PATH": str(self.folder / "openclaw.json"),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                env=_environment(self.folder, extra),
            )
        wait_until("the gateway answers /health", self._answers, seconds=START_SECONDS, also=self.output)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the gateway ended with {self._process.returncode}:\n{self.output()}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> int:
        """Ask it to end (SIGTERM) and wait; its exit code (0 where it was never started). Killed when its time is
        over.
        """
        if self._process is None:
            return 0
        process, self._process = self._process, None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def restart(self) -> None:
        assert self.stop() == 0, self.output()
        self.start()


class Official:
    """OpenClaw's own programs, installed by scripts/official."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.modules = folder / "node_modules"
        self.node = self.modules / ".bin" / "node"
        self.command = [str(self.node), str(self.modules / "openclaw" / "openclaw.mjs")]
        self.home = home
        home.mkdir(parents=True, exist_ok=True)

    def _extra(self, name: str, config: Mapping[str, Any]) -> dict[str, str]:
        path = self.home / f"{name}.json"
        path.write_text(json.dumps(config))
        return {
            "OPENCLAW_STATE_DIR": str(self.home / f"{name}.state"),
            "OPENCLAW_CONFIG_PATH": str(path),
            "PATH": f"{self.node.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }

    def environment(self, name: str, config: Mapping[str, Any]) -> dict[str, str]:
        """For running `command` elsewhere (a namespace), in a home of that name; to be added to the caller's."""
        return self._extra(name, config)

    def cli(
        self,
        *arguments: str,
        config: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        seconds: float = 60.0,
    ) -> Completed:
        """Run ``openclaw ARGUMENTS`` to its end."""
        name = f"cli-{abs(hash((arguments, str(config))))}"
        log = {"logging": {"file": str(self.home / f"{name}.log")}}
        extra = {**self._extra(name, {**log, **(config or {})}), **(env or {})}
        return self._run([*self.command, *arguments], extra, seconds)

    def script(self, name: str, *arguments: str, seconds: float = 60.0) -> Completed:
        """Run one of this folder's scripts with OpenClaw's Node; it finds the packages through OPENCLAW_MODULES."""
        command = [str(self.node), str(HERE / name), *arguments]
        return self._run(command, {"OPENCLAW_MODULES": str(self.modules)}, seconds)

    def start_script(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        return self._start([str(self.node), str(HERE / name), *arguments], {"OPENCLAW_MODULES": str(self.modules)})

    def start_node_host(self, port: int, *arguments: str) -> subprocess.Popen[str]:
        """``openclaw node run`` against the gateway on `port`, its output on one pipe."""
        extra = {**self._extra("node-host", {}), "OPENCLAW_GATEWAY_TOKEN": TOKEN}
        command = [*self.command, "node", "run", "--host", "127.0.0.1", "--port", str(port), *arguments]
        return self._start(command, extra)

    def start_without_secret(self, home: str, *arguments: str) -> subprocess.Popen[str]:
        """``openclaw ARGUMENTS`` in the home of that name, which stays, knowing no secret; its output on one pipe."""
        return self._start([*self.command, *arguments], self._extra(home, {}))

    def _run(self, command: Sequence[str], extra: Mapping[str, str], seconds: float) -> Completed:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=seconds,
            cwd=self.home,
            env=_environment(self.home, extra),
        )
        out, err = process.stdout.decode(errors="replace"), process.stderr.decode(errors="replace")
        return Completed(" ".join(command[1:]), process.returncode, out, err)

    def _start(self, command: Sequence[str], extra: Mapping[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.home,
            env=_environment(self.home, extra),
        )
