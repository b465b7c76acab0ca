"""The event loop, watched: how late it runs, how busy it is, and which task held it up (PERF-2, OBS-2).

Owns the figures under ``eventLoop`` in `health`, `status` and ``/readyz``. It must not know what tasks do. Cost: one
attribute store per task step and two clock reads per turn of the loop; measured in scripts/bench as below one per cent
of throughput.

Invariants: a task step longer than `STALL_SECONDS` is logged with the task's name; the samples kept are bounded.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter, process_time, time_ns
from typing import Any, Final

import trio

from openclaw_gateway.ops.log import get_logger

__all__ = ["LoopMonitor"]

STALL_SECONDS: Final = 0.2
_INTERVAL: Final = 1.0
_SAMPLES: Final = 60
_DEGRADED_DELAY_MS: Final = 200.0

log = get_logger("loop")


class LoopMonitor(trio.abc.Instrument):
    """Install with `trio.lowlevel.add_instrument`; `serve` samples the loop's delay once a second."""

    def __init__(self) -> None:
        self._task: Any = None
        self._turn_began = perf_counter()
        self._last_turn_end = self._turn_began
        self._busy = 0.0
        self._delays: deque[float] = deque(maxlen=_SAMPLES)
        self._utilization = 0.0
        self._cpu = 0.0
        self._degraded_since: int | None = None
        self._beat = perf_counter()

    # --- Instrument: called by Trio

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._task = task

    def after_io_wait(self, timeout: float) -> None:
        self._turn_began = perf_counter()

    def before_io_wait(self, timeout: float) -> None:
        took = perf_counter() - self._turn_began
        self._busy += took
        if took > STALL_SECONDS and self._task is not None:
            # The last task of a turn that took too long; with one runnable task (the usual stall) that is the culprit.
            log.warning("event loop stalled", lag_ms=round(took * 1000), task=self._task.name)

    # --- sampling

    async def serve(self) -> None:
        while True:
            began, cpu, busy = perf_counter(), process_time(), self._busy
            await trio.sleep(_INTERVAL)
            elapsed = perf_counter() - began
            self._beat = perf_counter()
            self._delays.append(max(0.0, elapsed - _INTERVAL) * 1000)
            self._utilization = min(1.0, (self._busy - busy) / elapsed)
            self._cpu = (process_time() - cpu) / elapsed
            late = self._delays[-1] > _DEGRADED_DELAY_MS
            if late and self._degraded_since is None:
                self._degraded_since = time_ns() // 1_000_000
            elif not late:
                self._degraded_since = None

    @property
    def stalled_for(self) -> float:
        """Seconds since the sampler last ran beyond its interval: what /health judges itself by."""
        return max(0.0, perf_counter() - self._beat - _INTERVAL)

    def view(self) -> dict[str, Any]:
        """The ``eventLoop`` object of OpenClaw's health: milliseconds and ratios over the last minute."""
        delays = sorted(self._delays) or [0.0]
        degraded = self._degraded_since is not None
        return {
            "degraded": degraded,
            "degradedSinceMs": self._degraded_since,
            "reasons": ["event_loop_delay"] if degraded else [],
            "intervalMs": _INTERVAL * 1000,
            "delayP99Ms": round(delays[int(0.99 * (len(delays) - 1))], 3),
            "delayMaxMs": round(delays[-1], 3),
            "utilization": round(self._utilization, 4),
            "cpuCoreRatio": round(self._cpu, 4),
        }
