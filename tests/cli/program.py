"""Running the real ``openclaw`` program from a test, in a state directory of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import attrs

import openclaw_gateway
from openclaw_gateway.ops.instance import read_holder

ROOT = Path(openclaw_gateway.__file__).parent.parent


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@attrs.frozen
class Program:
    """``openclaw`` with its own state directory and nothing of the caller's environment that could steer it."""

    state: Path
    env: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENCLAW_", "NOTIFY_"))}
        kept["OPENCLAW_DISABLE_BONJOUR"] = "1"
        return {**kept, "PYTHONPATH": str(ROOT), "OPENCLAW_STATE_DIR": str(self.state), **self.env}

    @property
    def argv(self) -> list[str]:
        return [sys.executable, "-m", "openclaw_gateway"]

    def __call__(self, *arguments: str, timeout: float = 25) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.argv, *arguments], capture_output=True, text=True, timeout=timeout, env=self.environment, check=False
        )

    @property
    def pid(self) -> int | None:
        holder = read_holder(self.state)
        return None if holder is None else holder.pid

    @property
    def secret(self) -> str:
        return (self.state / "credentials" / "gateway-token").read_text().strip()

    def config(self, text: str) -> None:
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.state / "openclaw.json"
        path.write_text(text)
        path.chmod(0o600)

    @contextmanager
    def foreground(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """``gateway run`` as a child; the block begins when it has said where it listens."""
        process = subprocess.Popen(
            [*self.argv, "gateway", "run", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            assert "listens on ws://" in first, first + (process.stderr.read() if process.stderr else "")
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=10)

    @contextmanager
    def started(self) -> Iterator[int]:
        """A gateway in the background, ended at the end of the block whatever happened. Gives its port."""
        port = free_port()
        done = self("gateway", "start", "--port", str(port))
        assert done.returncode == 0, done.stdout + done.stderr
        try:
            yield port
        finally:
            self("gateway", "stop", "--force")
