"""Health: the picture that `health`, `status`, the probes and the ``health`` event share.

Owns what "alive", "started" and "ready" mean here: alive is a loop that answers (the probe is answered by that loop),
started is past the first accept, ready is every part that says it is ready. It must not know how parts work: each
reports a state under its name.

Invariants: a part's trouble never makes the gateway not alive; no path or secret of this machine is in here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import attrs

from openclaw_gateway.ops.loop import LoopMonitor

__all__ = ["Health"]

STALL_LIMIT_SECONDS: Final = 5.0


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def rss_bytes() -> int:
    """Resident set size; 0 where /proc is not there."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


@attrs.define(eq=False, repr=False)
class Health:
    """``parts``: name → why it is not ready (None: ready). ``version`` grows when a part's state changes."""

    loop: LoopMonitor
    server_version: str
    on_change: Callable[[], None] = lambda: None
    parts: dict[str, str | None] = attrs.field(factory=dict)
    started_at: float = attrs.field(factory=time.monotonic)
    config_issues: tuple[str, ...] = ()
    heartbeats_enabled: bool = True
    last_heartbeat: dict[str, Any] | None = None
    version: int = 1
    channels: Callable[[], dict[str, Any]] = dict  # the members that tell of message channels

    def set(self, part: str, trouble: str | None) -> None:
        if self.parts.get(part, "") != trouble:
            self.parts[part] = trouble
            self.version += 1
            self.on_change()

    def note_config(self, paths: Iterable[str]) -> None:
        """The settings that are not in use as written, by path; a fault of the file as a whole ("") reads ``file``."""
        issues = tuple(dict.fromkeys(path or "file" for path in paths))
        if issues != self.config_issues:
            self.config_issues = issues
            self.version += 1
            self.on_change()

    @property
    def failing(self) -> list[str]:
        return [name for name, trouble in self.parts.items() if trouble is not None]

    @property
    def uptime_ms(self) -> int:
        return round((time.monotonic() - self.started_at) * 1000)

    @property
    def alive(self) -> bool:
        return self.loop.stalled_for <= STALL_LIMIT_SECONDS

    def view(self) -> dict[str, Any]:
        """The result of `health`, in the shape of OpenClaw's (method-shapes.md).
        """
        began = time.perf_counter()
        out: dict[str, Any] = {
            "ok": True,
            "ts": now_ms(),
            "durationMs": 0,
            "plugins": {"loaded": [], "errors": [], "unavailable": []},
            "configReload": {"hotReloadStatus": "degraded" if self.config_issues else "ok"},
            "channels": {},
            "channelOrder": [],
            "channelLabels": {},
            "heartbeatSeconds": 0,
            "defaultAgentId": "main",
            "agents": [],
            "sessions": {"count": 0, "recent": []},
            "modelRuntime": {"degraded": False, "pendingAgents": []},
            "eventLoop": self.loop.view(),
        }
        # To the microsecond: nothing is asked of others here, so whole milliseconds would read 0 for ever.
        out.update(self.channels())
        out["durationMs"] = round((time.perf_counter() - began) * 1000, 3)
        return out
