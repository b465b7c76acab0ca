"""Which service is asked next: rests, other tries, other models.

Pure. Owns how long a service rests after a failure, the order in which candidates are asked, and when a question is
asked again. It must not know clocks, randomness or how a service is called: ``now_ms`` and a random number come in.

Invariants: what was shown to somebody is never said again by another model; a wait that a service asked for is kept;
somebody who waits is made to wait `MAX_WAIT_MS` at most in all; the table of rests is no larger than `MAX_RESTS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from openclaw_gateway.models.catalog import ModelRef
from openclaw_gateway.models.provider import ModelFailed, Reason, policy_of
from openclaw_gateway.value import Value

__all__ = ["MAX_TRIES", "Rest", "Rests", "in_order", "moves_on", "wait_ms"]

MAX_TRIES: Final = 3  # of one question at one service
MAX_WAIT_MS: Final = 8_000  # between tries, of one question, all together
MAX_RESTS: Final = 256
FIRST_WAIT_MS: Final = 400
_RESTS_MS: Final = (30_000, 60_000, 300_000, 900_000)
_AUTH_RESTS_MS: Final = (60_000, 300_000, 1_800_000, 3_600_000)
_FORGIVEN_MS: Final = 86_400_000  # after a day without a failure the count starts anew


@attrs.frozen(eq=False, repr=False)
class Rest(Value):
    """``told``: the service itself said how long."""

    until_ms: int
    reason: Reason
    failures: int
    told: bool
    noted_ms: int


class Rests:
    """What services rest, by name. A changed key or address makes another service: `forget` its rest."""

    def __init__(self) -> None:
        self._rests: dict[str, Rest] = {}

    def __len__(self) -> int:
        return len(self._rests)

    def get(self, name: str, now_ms: int) -> Rest | None:
        """The rest that a service takes now."""
        rest = self._rests.get(name)
        return rest if rest is not None and rest.until_ms > now_ms else None

    def failed(self, name: str, reason: Reason, now_ms: int, after_ms: int | None = None) -> None:
        """Note a failure; reasons that say nothing of the service's state make no rest."""
        if not policy_of(reason).rest:
            return
        known = self._rests.pop(name, None)
        again = known is not None and now_ms - known.noted_ms < _FORGIVEN_MS
        failures = (known.failures if known is not None and again else 0) + 1
        steps = _AUTH_RESTS_MS if reason in {"auth", "billing"} else _RESTS_MS
        length = after_ms if after_ms is not None else steps[min(failures, len(steps)) - 1]
        self._rests[name] = Rest(now_ms + length, reason, failures, after_ms is not None, now_ms)
        while len(self._rests) > MAX_RESTS:
            del self._rests[next(iter(self._rests))]

    def answered(self, name: str) -> None:
        self._rests.pop(name, None)

    forget = answered


def in_order(candidates: Sequence[ModelRef], rests: Rests, now_ms: int) -> list[ModelRef]:
    """Whom to ask, in this order: those whose service does not rest. Where all rest, the one that is done first, unless
    its service said how long it wants to be left alone: then nobody."""
    awake = [one for one in candidates if rests.get(one.provider, now_ms) is None]
    if awake:
        return awake
    resting = [(rest, one) for one in candidates if (rest := rests.get(one.provider, now_ms)) is not None]
    resting = [(rest, one) for rest, one in resting if not rest.told]
    return [min(resting, key=lambda pair: pair[0].until_ms)[1]] if resting else []


def wait_ms(failure: ModelFailed, attempt: int, waited_ms: int, chance: float) -> int | None:
    """How long to wait before the same service is asked again, None for not at all. ``attempt`` is the number of tries
    so far, ``chance`` a random number from 0 to 1."""
    if failure.shown or not policy_of(failure.reason).again or attempt >= MAX_TRIES:
        return None
    if failure.reason == "timeout":
        return None  # it has cost its time already
    if failure.after_ms is None and failure.reason == "rate_limit":
        return None
    wait = failure.after_ms if failure.after_ms is not None else FIRST_WAIT_MS * 2 ** (attempt - 1)
    wait = int(wait + wait * 0.25 * chance)
    return wait if waited_ms + wait <= MAX_WAIT_MS else None


def moves_on(failure: ModelFailed) -> bool:
    """Whether another model may be asked after this failure."""
    return not failure.shown and policy_of(failure.reason).elsewhere
