"""The servers under measurement: starting them, what they cost, ending them.

Owns processes and what /proc says of them; it must not know what is measured. Invariants: every server runs in folders
of its own below one temporary folder, listens on 127.0.0.1 only, and is ended by pid, with everything it started, when
its ``with`` block ends, also on Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .load import HOST, LoadError, http_ok

__all__ = ["TOKEN", "Official", "Server", "node_host", "openclaw", "ours", "program"]

TOKEN = "token-of-the-benchmark-0123456789abcdef"
HERE = Path(__file__).parent
_TICKS = os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as raw:
        raw.bind((HOST, 0))
        port: int = raw.getsockname()[1]
        return port


class Server:
    """A running server process and everything it started."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.port = port
        self.process = process
        self.check: ssl.SSLContext | None = None  # what its probes are asked with, where it speaks TLS
        self.log = log
        self.start_seconds = 0.0

    def pids(self) -> list[int]:
        found, queue = [], [self.process.pid]
        while queue:
            pid = queue.pop()
            found.append(pid)
            for listing in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    queue += [int(word) for word in listing.read_text().split()]
        return found

    def resident_bytes(self) -> int:
        """Resident memory of the whole process tree (VmRSS; pages shared between its processes count in each)."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                    if line.startswith("VmRSS:"):
                        total += int(line.split()[1]) * 1024
        return total

    def settled_bytes(self, *, patience: float = 20.0) -> int:
        """`resident_bytes` once it moved by less than 1 % in two seconds."""
        before = self.resident_bytes()
        until = time.monotonic() + patience
        while time.monotonic() < until:
            time.sleep(2)
            now = self.resident_bytes()
            if abs(now - before) < before / 100:
                return now
            before = now
        return before

    def cpu_seconds(self) -> float:
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12])
        return total / _TICKS

    def pin(self, core: int) -> None:
        """Keep every thread of the tree on one core. Where the machine has one core only, nothing happens."""
        if (os.cpu_count() or 1) < 2:
            return
        for pid in self.pids():
            for task in Path(f"/proc/{pid}/task").glob("*"):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(int(task.name), {core})

    def trigger(self) -> None:
        """One line on the server's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def wait_ready(self, *, path: str | None, seconds: float) -> None:
        """Until /health answers 200, or, where there is no HTTP, until the port accepts."""
        begin = time.perf_counter()
        while time.perf_counter() - begin < seconds:
            if self.process.poll() is not None:
                raise LoadError(f"{self.name} ended with {self.process.returncode}:\n{self._tail()}")
            if path is not None and http_ok(self.port, path, self.check):
                return
            if path is None:
                with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
                    return
            time.sleep(0.003)
        raise LoadError(f"{self.name} was not ready within {seconds} s:\n{self._tail()}")

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def end(self) -> None:
        pids = self.pids()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        for pid in pids:
            if pid != self.process.pid or self.process.poll() is None:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()


@contextlib.contextmanager
def _serve(
    name: str,
    command: Sequence[str],
    port: int,
    folder: Path,
    *,
    env: Mapping[str, str],
    ready: str | None,
    seconds: float = 60.0,
    check: ssl.SSLContext | None = None,
) -> Iterator[Server]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OPENCLAW_")}
    log = folder / "output"
    everywhere = set(range(os.cpu_count() or 1))
    with log.open("wb") as out:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**kept, "HOME": str(folder), "NO_COLOR": "1", **env},
        )
    with contextlib.suppress(OSError):
        os.sched_setaffinity(process.pid, everywhere)  # the bench itself may be pinned, and children inherit that
    server = Server(name, port, process, log)
    server.check = check
    try:
        server.wait_ready(path=ready, seconds=seconds)
        server.start_seconds = time.perf_counter() - begin
        yield server
    finally:
        server.end()


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


class Official:
    """Where scripts/official put OpenClaw and its Node."""

    def __init__(self, folder: Path) -> None:
        self.modules = folder / "node_modules"
        self.node = str(self.modules / ".bin" / "node")

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.modules / '.bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        return {"PATH": path, "OPENCLAW_MODULES": str(self.modules)}


@contextlib.contextmanager
def openclaw(official: Official, *, tls: bool = False, check: ssl.SSLContext | None = None) -> Iterator[Server]:
    """OpenClaw's own gateway, as small as its switches make it: no channels, no discovery, no updates, no cron. With
    ``tls`` it makes a certificate of its own; ``check`` is what its probes are asked with.

    It answers /health before it admits clients; wait for /readyz before asking it anything else.
    """
    with _folder() as folder:
        port = _free_port()
        gateway: dict[str, Any] = {
            "mode": "local",
            "port": port,
            "bind": "loopback",
            "auth": {"mode": "token", "token": TOKEN},
        }
        if tls:
            gateway["tls"] = {"enabled": True, "autoGenerate": True}
        config = {
            "gateway": gateway,
            "discovery": {"mdns": {"mode": "off"}},
            "logging": {"file": str(folder / "openclaw.log")},
        }
        (folder / "openclaw.json").write_text(json.dumps(config))
        env = {
            **official.environment,
            "OPENCLAW_STATE_DIR": str(folder / "state"),
            "OPENCLAW_CONFIG_PATH": str(folder / "openclaw.json"),
            "OPENCLAW_NO_RESPAWN": "1",
            "OPENCLAW_NO_AUTO_UPDATE": "1",
            "OPENCLAW_DISABLE_BONJOUR": "1",
            "OPENCLAW_SKIP_CHANNELS": "1",
            "OPENCLAW_SKIP_CRON": "1",
            "OPENCLAW_SKIP_GMAIL_WATCHER": "1",
            "OPENCLAW_SKIP_BROWSER_CONTROL_SERVER": "1",
            "OPENCLAW_SKIP_CANVAS_HOST": "1",
            "OPENCLAW_SKIP_STARTUP_MODEL_PREWARM": "1",
        }
        program_path = str(official.modules / "openclaw" / "openclaw.mjs")
        command = [official.node, program_path, "gateway", "run", "--port", str(port)]
        with _serve("OpenClaw", command, port, folder, env=env, ready="/health", check=check) as server:
            yield server


@contextlib.contextmanager
def node_host(official: Official, port: int) -> Iterator[None]:
    """OpenClaw's own headless node (``node run``) at the gateway on ``port``, with a state folder of its own.

    It stays on the load generator's core, whichever gateway it serves.
    """
    with _folder() as folder:
        env = {
            **official.environment,
            "HOME": str(folder),
            "NO_COLOR": "1",
            "OPENCLAW_STATE_DIR": str(folder / "state"),
            "OPENCLAW_CONFIG_PATH": str(folder / "openclaw.json"),
            "OPENCLAW_GATEWAY_TOKEN": TOKEN,
            "OPENCLAW_NO_RESPAWN": "1",
        }
        (folder / "openclaw.json").write_text("{}")
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OPENCLAW_")}
        command = [official.node, str(official.modules / "openclaw" / "openclaw.mjs"), "node", "run"]
        log = folder / "output"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*command, "--host", HOST, "--port", str(port), "--display-name", "Bench"],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**kept, **env},
            )
        server = Server("OpenClaw's node host", port, process, log)
        try:
            yield
        finally:
            server.end()


@contextlib.contextmanager
def ours(
    *, connections: int = 100, tls: Mapping[str, Any] | None = None, check: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """This gateway as a user starts it; `connections` also raises what one address may open, `check` is what its probes
    are asked with."""
    with _folder() as folder:
        port = _free_port()
        websocket: dict[str, Any] = {}
        if connections != 100:
            websocket = {"concurrentConnections": connections, "unauthenticatedPerAddress": connections}
        config = {
            "gateway": {
                "mode": "local",
                "auth": {"type": "token", "token": TOKEN},
                "transports": {"websocket": websocket},
                **({"tls": tls} if tls is not None else {}),
            }
        }
        (folder / "openclaw.json").write_text(json.dumps(config))
        env = {
            "OPENCLAW_STATE_DIR": str(folder / "state"),
            "OPENCLAW_CONFIG_PATH": str(folder / "openclaw.json"),
        }
        command = [sys.executable, "-m", "openclaw_gateway", "gateway", "run", "--port", str(port)]
        with _serve("openclaw_gateway", command, port, folder, env=env, ready="/health", check=check) as server:
            yield server


@contextlib.contextmanager
def program(name: str, *arguments: str, node: Official | None = None) -> Iterator[Server]:
    """One of this folder's small servers; it takes its port as the last argument."""
    with _folder() as folder:
        port = _free_port()
        script = str(HERE / name)
        if node is not None:
            command = [node.node, script, *arguments, str(port)]
            env = node.environment
        else:
            command = [sys.executable, script, *arguments, str(port)]
            env = {}
        with _serve(name, command, port, folder, env=env, ready=None, seconds=20) as server:
            yield server
