"""Whether multicast DNS makes sense where this process runs.

Owns the reasons of the surroundings; what the network interfaces allow is `discovery.lans`' business. Reads a few files
below /proc and the process's environment, sends nothing.

Invariants: in a container and in WSL2 discovery is off by itself (DISC-1): multicast does not leave them, and trying
costs logs and renames; ``OPENCLAW_DISABLE_BONJOUR`` decides over both, in OpenClaw's words: 1 off, 0 on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from openclaw_gateway.server.addresses import in_container

__all__ = ["SWITCH", "is_wsl", "why_not_here"]

SWITCH: Final = "OPENCLAW_DISABLE_BONJOUR"
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def is_wsl(kernel: Path = Path("/proc/sys/kernel/osrelease")) -> bool:
    """Whether Linux runs inside Windows."""
    try:
        return "microsoft" in kernel.read_text(encoding="utf-8", errors="replace").lower()
    except OSError:
        return False


def why_not_here(
    env: Mapping[str, str] = os.environ,
    *,
    container: Callable[[], bool] = in_container,
    wsl: Callable[[], bool] = is_wsl,
) -> str | None:
    """Why nothing is announced from here, in a few words; None where nothing speaks against it."""
    switch = env.get(SWITCH, "").strip().lower()
    if switch in _TRUE:
        return f"switched off by {SWITCH}={switch}"
    if switch in _FALSE:
        return None
    if container():
        return f"this is a container, multicast does not leave it; with the host's network: {SWITCH}=0"
    if wsl():
        return f"this is WSL, multicast does not leave it; with mirrored networking: {SWITCH}=0"
    return None
