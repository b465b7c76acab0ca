"""How long to wait before the next try, and when to give up.

Owns the arithmetic of retries: capped exponential growth with jitter. Pure: the caller brings the random number.
Invariants: a wait is never longer than the cap, never shorter than half of the step it belongs to, and never negative.
"""

from __future__ import annotations

__all__ = ["backoff_ms"]


def backoff_ms(attempt: int, *, first_ms: int, cap_ms: int, jitter: float) -> int:
    """Milliseconds before the try after ``attempt`` failed ones (1 = the first failed). ``jitter`` from 0 to 1 spreads
    the wait over the upper half of its step, so that many that failed together do not come back together.
    """
    step = min(cap_ms, first_ms << min(max(attempt, 1) - 1, 32))
    return step // 2 + int(step / 2 * min(max(jitter, 0.0), 1.0))
