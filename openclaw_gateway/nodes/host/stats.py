"""What this machine has: the fields of ``node.host.stats``, read from the operating system.

Owns the sample. It must not know when or where it is sent. Invariant: every number is finite and not negative; what the
system does not tell is left out.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

__all__ = ["INTERVAL_SECONDS", "sample_stats"]

INTERVAL_SECONDS: Final = 60.0


def sample_stats() -> dict[str, Any]:
    """Cores, load, memory and disk of the home folder, in bytes. A few microseconds; never raises."""
    stats: dict[str, Any] = {"cpuCount": max(1, min(4096, os.cpu_count() or 1))}
    try:
        loads = [min(max(load, 0.0), 100_000.0) for load in os.getloadavg()]
    except OSError:
        loads = []
    if any(loads):
        stats["loadAverage"] = loads
    stats.update(_memory())
    try:
        disk = os.statvfs(Path.home())
    except (OSError, RuntimeError):
        return stats
    total = disk.f_frsize * disk.f_blocks
    stats["diskTotalBytes"] = total
    stats["diskAvailableBytes"] = min(disk.f_frsize * disk.f_bavail, total)
    return stats


def _memory() -> dict[str, int]:
    try:
        page, total = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return {"memoryTotalBytes": 0, "memoryFreeBytes": 0}
    try:
        free = os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError):
        free = 0
    return {"memoryTotalBytes": page * total, "memoryFreeBytes": min(page * max(free, 0), page * total)}
