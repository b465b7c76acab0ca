"""When a tunnel that ended is opened again. Pure.

Owns the policy of network-facts section 2: what a person has to mend is tried again once a minute and slower; what the
network did, after 1 to 60 s, doubling, with jitter. A tunnel that had been up comes back within `RECENT_SECONDS`: an
ssh that is killed again and again is replaced as fast as one that was killed once. After `HEALTHY_SECONDS` up,
everything is forgotten.
"""

from __future__ import annotations

from typing import Final

import attrs

from openclaw_gateway.tunnels.spec import FATAL, Failure

__all__ = ["BLOCKED_SECONDS", "HEALTHY_SECONDS", "LONGEST_SECONDS", "RECENT_SECONDS", "Pace"]

FIRST_SECONDS: Final = 1.0
LONGEST_SECONDS: Final = 60.0
RECENT_SECONDS: Final = 1.0
BLOCKED_SECONDS: Final = 60.0
BLOCKED_LONGEST_SECONDS: Final = 600.0
HEALTHY_SECONDS: Final = 60.0


@attrs.define
class Pace:
    """``failures``: how many runs in a row ended since the tunnel was healthy."""

    failures: int = 0

    def after(self, failure: Failure, *, up_for: float | None, chance: float) -> float:
        """Seconds to wait. ``up_for``: how long the run had been up, None where it never was; ``chance`` in [0, 1)."""
        if up_for is not None and up_for >= HEALTHY_SECONDS:
            self.failures = 0
        self.failures += 1
        doubled = 2.0 ** min(self.failures - 1, 30)
        if up_for is not None:
            step = RECENT_SECONDS
        elif failure in FATAL:
            step = min(BLOCKED_SECONDS * doubled, BLOCKED_LONGEST_SECONDS)
        else:
            step = min(FIRST_SECONDS * doubled, LONGEST_SECONDS)
        return step * (0.5 + 0.5 * chance)
