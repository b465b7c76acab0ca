"""What announcing on the LAN costs a start and an idle gateway: with and without, in turns, in a namespace of its own.

Owns the namespace (a pair of virtual cables, nothing of the machine's networks) and the two gateways in it. It must not
run without root; then there are no rows.
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

MOST_BYTES = 12_000_000
SLOWER_SECONDS = 0.03  # what two fastest starts of one machine differ by anyway
SETTLE_SECONDS = 4.0


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@contextlib.contextmanager
def _namespace() -> Iterator[str]:
    name = f"oc-bench-{os.getpid()}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
        _ip("-n", name, "addr", "add", "10.99.0.1/24", "dev", "lan0")
        for device in ("lan0", "lan1"):
            _ip("-n", name, "link", "set", device, "up")
        yield name
    finally:
        _ip("netns", "del", name)


def _once(namespace: str, mode: str) -> tuple[float, int]:
    """Seconds until it says where it listens, and VmRSS in bytes once it has settled (and, announcing, announced)."""
    with tempfile.TemporaryDirectory(prefix="oc-bench-") as folder:
        state = Path(folder)
        config = {"gateway": {"bind": "0.0.0.0", "port": 18789}, "discovery": {"mdns": {"mode": mode}}}
        (state / "openclaw.json").write_text(json.dumps(config))
        (state / "openclaw.json").chmod(0o600)
        env = {**os.environ, "OPENCLAW_STATE_DIR": folder, "OPENCLAW_DISABLE_BONJOUR": "0"}
        began = time.perf_counter()
        process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-m", "openclaw_gateway", "gateway", "run"],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert "listens on" in process.stdout.readline()
            took = time.perf_counter() - began
            time.sleep(SETTLE_SECONDS)
            if mode != "off":
                assert "announced on the LAN" in (state / "logs" / "gateway.log").read_text()
            status = Path(f"/proc/{process.pid}/status").read_text()
            size = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS:"))
            return took, size
        finally:
            process.terminate()
            process.communicate()


def rows(rounds: int) -> list[Row]:
    """Two rows; none where namespaces cannot be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return []
    found: dict[str, list[tuple[float, int]]] = {"minimal": [], "off": []}
    with _namespace() as namespace:
        for _ in range(rounds):
            for mode, samples in found.items():
                samples.append(_once(namespace, mode))
    took = {mode: min(row[0] for row in samples) for mode, samples in found.items()}  # the others were interrupted
    size = {mode: statistics.median(row[1] for row in samples) for mode, samples in found.items()}
    more, later = size["minimal"] - size["off"], took["minimal"] - took["off"]
    return [
        Row(
            "idle RSS, announcing on the LAN / not", f"{size['minimal'] / 1e6:,.1f} MB", f"{size['off'] / 1e6:,.1f} MB",
            f"+{more / 1e6:.1f} MB", "< 12 MB more", more < MOST_BYTES,
        ),
        Row(
            "start, announcing on the LAN / not", f"{took['minimal'] * 1000:,.0f} ms", f"{took['off'] * 1000:,.0f} ms",
            f"{later * 1000:+.0f} ms", "no later", later <= SLOWER_SECONDS,
        ),
    ]  # fmt: skip
