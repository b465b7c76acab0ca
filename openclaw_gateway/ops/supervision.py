"""Keeping a side task alive: the one crash barrier of services (design rules 5 and 12).

Owns restart with capped backoff. It must not know what the task does. Invariants: an exception ends that task and no
other; it is logged with its stack; the next try waits 1, 2, 4 … 60 s, and a task that ran for a minute starts again at
1 s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from openclaw_gateway.ops.log import get_logger

__all__ = ["supervise"]

FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 60.0
HEALTHY_SECONDS: Final = 60.0

log = get_logger("supervision")


async def supervise(name: str, task: Callable[[], Awaitable[None]], tell: Callable[[str | None], None]) -> None:
    """Run ``task`` for ever. ``tell`` hears what troubles it (None: nothing). Returns when the task returns."""
    wait = FIRST_SECONDS
    while True:
        began = trio.current_time()
        tell(None)
        try:
            await task()
        except Exception as exc:
            if trio.current_time() - began >= HEALTHY_SECONDS:
                wait = FIRST_SECONDS
            log.exception("task failed, restarting", exc=exc, task=name, delay_ms=round(wait * 1000))
            tell(f"failed: {type(exc).__name__}")
        else:
            return
        await trio.sleep(wait)
        wait = min(wait * 2, LONGEST_SECONDS)
