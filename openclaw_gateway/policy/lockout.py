"""Failed attempts: the delay before each answer, and when a client is locked out (AUTH-6).

A pure state machine: ``now`` comes in as monotonic seconds. It must not know what a secret is. Invariants: a retry
while locked neither counts nor extends; the table never holds more than ``capacity`` rows and drops unlocked rows
first; a good attempt forgets the failures of its own key only.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from itertools import islice

import attrs

from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.value import Value

__all__ = ["CredentialClass", "FailureKey", "FailureLedger", "FailureOutcome", "LockoutRules", "failure_key"]

_EVICTION_SCAN = 64


class CredentialClass(enum.Enum):
    """Kinds of credentials that are counted apart."""

    SHARED_SECRET = "shared-secret"  # noqa: S105 - a name
    DEVICE_TOKEN = "device-token"  # noqa: S105 - a name
    SETUP_CODE = "setup-code"
    API_KEY = "api-key"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LockoutRules(Value):
    """Seconds, but for ``attempts``."""

    delays: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 5.0)  # the last one repeats
    attempts: int = 10
    window: float = 60.0
    lockout: float = 300.0


@attrs.frozen(eq=False, repr=False)
class FailureKey(Value):
    """Who is counted: ``client`` is an address key or a proven device, never shared by two roles or classes."""

    client: str
    role: str
    credential: CredentialClass
    lockable: bool  # False: delays only


@attrs.frozen(eq=False, repr=False)
class FailureOutcome(Value):
    """What one failure led to. Seconds."""

    delay: float  # to wait before the answer
    locked_for: float  # 0.0 where not locked
    failures: int  # in a row


@attrs.define(eq=False, repr=False)
class _Row:
    in_a_row: int = 0
    last: float = 0.0
    recent: deque[float] = attrs.field(factory=deque)
    locked_until: float = 0.0


def failure_key(
    peer: Peer, role: str, credential: CredentialClass, *, browser: bool, proven_device: str | None = None
) -> FailureKey:
    """Who an attempt is counted under.

    ``proven_device`` is the id of a *paired* device whose signature was verified on this connection, else None: a key
    that anybody can make for himself must not open a fresh account of tries.
    """
    # A shared secret can be guessed by anybody, and an API key tried by anybody; the other two are 256-bit texts bound
    # to one key. Who is locked out of trying API keys may still use a good one (server.gatekeeper).
    guessable = credential is CredentialClass.SHARED_SECRET or credential is CredentialClass.API_KEY
    if proven_device is not None:
        return FailureKey(f"device:{proven_device}", role, credential, lockable=guessable)
    if peer.direct_loopback and browser:
        # A page in a local browser must be locked out (V2) without locking out the person at the keyboard.
        return FailureKey(f"browser:{peer.limiter_key}", role, credential, lockable=guessable)
    return FailureKey(peer.limiter_key, role, credential, lockable=guessable and not peer.direct_loopback)


class FailureLedger:
    """Counts failures. Synchronous; one per gateway."""

    def __init__(self, rules: LockoutRules | None = None, *, capacity: int = 4096) -> None:
        self._rules = rules or LockoutRules()
        self._capacity = capacity
        self._rows: OrderedDict[FailureKey, _Row] = OrderedDict()  # least recently failed first

    def __len__(self) -> int:
        return len(self._rows)

    def locked_for(self, key: FailureKey, *, now: float) -> float:
        """Seconds until the key may try again.

        0.0: now. Ask before comparing a secret (outcome `SecretOutcome.LOCKED`).
        """
        row = self._rows.get(key)
        return max(0.0, row.locked_until - now) if row is not None else 0.0

    def failed(self, key: FailureKey, *, now: float) -> FailureOutcome:
        """Count one wrong credential."""
        rules = self._rules
        row = self._rows.get(key)
        if row is not None and row.locked_until > now:
            return FailureOutcome(rules.delays[-1], row.locked_until - now, row.in_a_row)
        if row is None or now - row.last > max(rules.window, rules.lockout):
            row = _Row()
            self._rows[key] = row
        row.in_a_row += 1
        row.last = now
        self._rows.move_to_end(key)
        self._shrink(now)
        delay = rules.delays[min(row.in_a_row, len(rules.delays)) - 1]
        if not key.lockable:
            return FailureOutcome(delay, 0.0, row.in_a_row)
        row.recent.append(now)
        while row.recent[0] < now - rules.window:
            row.recent.popleft()
        if len(row.recent) < rules.attempts:
            return FailureOutcome(delay, 0.0, row.in_a_row)
        row.recent.clear()
        row.locked_until = now + rules.lockout
        return FailureOutcome(delay, rules.lockout, row.in_a_row)

    def succeeded(self, key: FailureKey) -> None:
        """Forget the failures of one key."""
        self._rows.pop(key, None)

    def _shrink(self, now: float) -> None:
        while len(self._rows) > self._capacity:
            # A flood of fresh addresses must not wash a lock out of the table.
            candidates = islice(self._rows.items(), _EVICTION_SCAN)
            victim = next((key for key, row in candidates if row.locked_until <= now), next(iter(self._rows)))
            del self._rows[victim]
