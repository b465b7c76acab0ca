"""How long to wait before the next try: capped, growing, with jitter (design rule 12). Pure.

Owns one pace per state. It must not know clocks or sockets. Invariants: a wait is never under half of its step and
never over ``longest``; two nodes that lost the same gateway do not come back in step.
"""

from __future__ import annotations

from typing import Final

import attrs

__all__ = ["CONNECTING", "PUBLISHING", "RENEWING", "WAITING", "Pace"]


@attrs.frozen
class Pace:
    """``first`` and ``longest`` in seconds; each try doubles the step."""

    first: float
    longest: float

    def delay(self, failures: int, chance: float, *, at_least: float = 0.0) -> float:
        """Seconds to wait after ``failures`` in a row (from 1). ``chance`` in [0, 1) spreads the step's upper half.

        ``at_least``: what the gateway asked for (retryAfterMs); it is kept, up to ten times ``longest``.
        """
        step = min(self.longest, self.first * 2.0 ** min(failures - 1, 30))
        return max(step * (0.5 + 0.5 * chance), min(at_least, 10 * self.longest))


CONNECTING: Final = Pace(1.0, 30.0)  # the gateway is away, or sent us away
WAITING: Final = Pace(2.0, 15.0)  # a person has to approve: not so often that it is noise, not so rarely that they wait
PUBLISHING: Final = Pace(1.0, 60.0)  # optional announcements that the gateway does not take yet
RENEWING: Final = Pace(60.0, 3600.0)  # the client certificate: months are left when it is first tried
