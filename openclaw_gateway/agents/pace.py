"""Questions that read much, one at a time and with rests: what they cost the gateway has a bound whoever asks.

Owns the turn and the rest after it. It must not know what is asked. Loaded when somebody asks.

Invariants: one turn at a time, in the order of asking; after a turn of t seconds the next begins no sooner than `REST`
times t later, so that whoever asks without end gets a third of the time and waits for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

__all__ = ["Pace"]

REST: Final = 2.0


class Pace:
    def __init__(self) -> None:
        self._one = trio.Lock()
        self._rested = -float("inf")

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for the turn, and have it. A cancelled wait takes nobody's turn."""
        async with self._one:
            await trio.sleep_until(self._rested)
            began = trio.current_time()
            try:
                yield
            finally:
                now = trio.current_time()
                self._rested = now + (now - began) * REST
