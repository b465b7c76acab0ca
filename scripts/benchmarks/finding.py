"""How long `openclaw devices discover` takes to its first gateway: two namespaces, a gateway in one, the command in the
other.

Owns both namespaces and the cable between them, nothing of the machine's networks. It must not run without root; then
there are no rows.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from .report import Row

__all__ = ["rows"]

MOST_SECONDS = 1.2
READY_SECONDS = 20.0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def _pair() -> Iterator[tuple[str, str]]:
    names = (f"oc-look-{os.getpid()}", f"oc-gate-{os.getpid()}")
    with contextlib.ExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        _ip("-n", names[0], "link", "add", "lan0", "type", "veth", "peer", "name", "lan0", "netns", names[1])
        for number, name in enumerate(names, 1):
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "addr", "add", f"10.98.0.{number}/24", "dev", "lan0")
            _ip("-n", name, "link", "set", "lan0", "up")
        yield names


@contextlib.contextmanager
def _gateway(namespace: str) -> Iterator[None]:
    """A gateway that has announced itself."""
    with tempfile.TemporaryDirectory(prefix="oc-bench-") as folder:
        state = Path(folder)
        (state / "openclaw.json").write_text(json.dumps({"gateway": {"bind": "0.0.0.0", "port": 18789}}))
        (state / "openclaw.json").chmod(0o600)
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-m", "openclaw_gateway", "gateway", "run"],
            env={**os.environ, "OPENCLAW_STATE_DIR": folder, "OPENCLAW_DISABLE_BONJOUR": "0"},
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert "listens on" in process.stdout.readline()
            until = time.monotonic() + READY_SECONDS
            while "announced on the LAN" not in (state / "logs" / "gateway.log").read_text():
                assert time.monotonic() < until, "the gateway did not announce itself"
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.communicate()


def _first(namespace: str, folder: str) -> float:
    """Seconds from the start of the command to its first whole gateway."""
    began = time.perf_counter()
    process = subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-m", "openclaw_gateway", "devices", "discover"],
        env={**os.environ, "OPENCLAW_STATE_DIR": folder}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        took = time.perf_counter() - began
        assert lines[0] == "Found OpenClaw Gateway:\n", lines
        assert lines[3].startswith("  Version: v"), lines
        return took
    finally:
        process.communicate()


def rows(rounds: int) -> list[Row]:
    """One row; none where namespaces cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return []
    with _pair() as (here, there), _gateway(there), tempfile.TemporaryDirectory(prefix="oc-bench-") as folder:
        time.sleep(2.0)  # what was announced within the last second is not repeated (RFC 6762 section 6)
        took = [_first(here, folder) for _ in range(rounds)]
    median, worst = statistics.median(took), max(took)
    return [
        Row(
            "devices discover, first gateway", f"{median * 1000:,.0f} ms", f"worst {worst * 1000:,.0f} ms", "",
            "<= 1.2 s", median <= MOST_SECONDS,
        )
    ]  # fmt: skip
