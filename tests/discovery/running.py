"""A real gateway in a namespace, announcing: for the tests of the responder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from tests.discovery.netns import Host

READ_SECONDS = 20.0


@attrs.define
class Running:
    """``openclaw gateway run`` on ``host``, with the state directory ``state``."""

    host: Host
    state: Path
    port: int
    process: subprocess.Popen[str]
    env: Mapping[str, str]

    def openclaw(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.host.run([sys.executable, "-m", "openclaw_gateway", *words], env=self.env, check=check)

    def discovery(self) -> dict[str, Any]:
        """The ``discovery`` member of `status`."""
        found: dict[str, Any] = json.loads(self.openclaw("status", "--json").stdout)["discovery"]
        return found

    def log(self) -> str:
        return (self.state / "logs" / "gateway.log").read_text()

    def logged(self, text: str) -> int:
        """How many lines of the log hold ``text``."""
        return sum(text in line for line in self.log().splitlines())

    def until(self, ready: Callable[[dict[str, Any]], bool], seconds: float = READ_SECONDS) -> dict[str, Any]:
        """Ask `status` until it is as wanted; its last answer."""
        deadline = time.monotonic() + seconds
        while not ready(seen := self.discovery()):
            assert time.monotonic() < deadline, seen
        return seen

    def announced(self) -> dict[str, Any]:
        """Wait until it has seen itself everywhere."""

        def seen_everywhere(seen: dict[str, Any]) -> bool:
            return seen["state"] == "announcing" and all(row["lastSeenMsAgo"] is not None for row in seen["interfaces"])

        return self.until(seen_everywhere)

    def stop(self) -> float:
        """Ask it to end; how long that took, in seconds."""
        began = time.monotonic()
        self.process.terminate()
        self.process.wait(10)
        return time.monotonic() - began


@contextmanager
def gateway(
    host: Host, state: Path, *, port: int = 18789, bind: str = "0.0.0.0", mode: str | None = "minimal",
    env: Mapping[str, str] | None = None,
) -> Iterator[Running]:  # fmt: skip
    """The block begins when the gateway has said where it listens. Tests run in containers, so the switch is on."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    tree: dict[str, Any] = {"gateway": {"bind": bind, "port": port}}
    if mode is not None:
        tree["discovery"] = {"mdns": {"mode": mode}}
    (state / "openclaw.json").write_text(json.dumps(tree))
    (state / "openclaw.json").chmod(0o600)
    steered = {"OPENCLAW_STATE_DIR": str(state), "OPENCLAW_DISABLE_BONJOUR": "0", **(env or {})}
    process = host.popen(
        [sys.executable, "-m", "openclaw_gateway", "gateway", "run"], env=steered, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "listens on ws://" in first, first
    running = Running(host, state, port, process, steered)
    try:
        yield running
    finally:
        if process.poll() is None:
            running.stop()
