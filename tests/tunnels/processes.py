"""Looking at processes through /proc: who lives, who is whose child, who is a zombie."""

from __future__ import annotations

import os
import time
from pathlib import Path

__all__ = ["alive", "arguments", "children", "our_zombies", "wait_gone"]


def _stat(pid: int) -> tuple[str, int] | None:
    """(state, parent), None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[1])


def alive(pid: int) -> bool:
    found = _stat(pid)
    return found is not None and found[0] not in "ZX"


def arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    except (FileNotFoundError, ProcessLookupError):
        return []


def children(root: int) -> list[int]:
    """Every process below ``root``, zombies too."""
    parents = {
        int(entry.name): found[1]
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and (found := _stat(int(entry.name)))
    }
    below, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        below |= more
        grown = bool(more)
    return sorted(below - {root})


def our_zombies(*, besides: int = 0) -> list[int]:
    """Zombies below us, but for those that another program (``besides``) has yet to wait for."""
    others = set(children(besides)) if besides else set()
    return [
        pid
        for pid in children(os.getpid())
        if pid not in others and (found := _stat(pid)) is not None and found[0] == "Z"
    ]


def wait_gone(*pids: int, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < until, f"still there: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.01)
