"""Families of refresh tokens in the store: the SQL behind the issued tokens, as jobs for `Store.run`.

Owns the row of a family and each durable change of one as a function of the database that decides and writes in the
same transaction, together with the device's record. It must not know tasks, memory views or what a device is told.
Every function may run again from the start (see `Store.run`).

Invariants: there is one family per (device, role), bound to the digest of the device token it belongs to; no secret is
stored; a job that may not end a family leaves it as it was.
"""

from __future__ import annotations

import hmac
import sqlite3
from typing import Any, Final

import attrs

from openclaw_gateway.pairing import rows
from openclaw_gateway.pairing.records import PairedDevice
from openclaw_gateway.pairing.tokens import DeviceTokens
from openclaw_gateway.policy.tokenlife import FamilyState, LifeRules, RefreshVerdict, decide_refresh
from openclaw_gateway.value import Value

__all__ = ["Family", "Written", "load", "renew", "rotate"]

_COLUMNS: Final = "device_id, role, family, uses, issued_at_ms, bound, revoked_at_ms"
_SELECT: Final = f"SELECT {_COLUMNS} FROM refresh_families"  # noqa: S608 - constants
_REPLACE: Final = f"INSERT OR REPLACE INTO refresh_families ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Family(Value):
    """One row of ``refresh_families``. ``bound`` is the digest of the device token that the family belongs to."""

    device_id: str
    role: str
    family: bytes
    uses: int
    issued_at_ms: int
    bound: bytes = attrs.field(repr=False)
    revoked_at_ms: int | None = None

    def belongs_to(self, record: PairedDevice) -> bool:
        return hmac.compare_digest(self.bound, record.token_digest)

    def state(self, *, settled: bool) -> FamilyState:
        return FamilyState(
            uses=self.uses, issued_at_ms=self.issued_at_ms, revoked=self.revoked_at_ms is not None, settled=settled
        )

    def usable(self, rules: LifeRules, now: int) -> bool:
        """True where its newest refresh token would be taken now."""
        return decide_refresh(self.state(settled=True), self.uses, rules, now) is RefreshVerdict.ROTATE


@attrs.frozen(eq=False, repr=False)
class Written(Value):
    """What a job left: all records of the device, and its family in the role that was meant."""

    records: tuple[PairedDevice, ...]
    record: PairedDevice | None
    family: Family | None
    verdict: RefreshVerdict | None = None


def load(db: sqlite3.Connection) -> list[Family]:
    return [_family(row) for row in db.execute(_SELECT)]


def _family(row: tuple[Any, ...]) -> Family:
    return Family(**dict(zip(_COLUMNS.split(", "), row, strict=True)))


def _read(db: sqlite3.Connection, device_id: str, role: str) -> Family | None:
    row = db.execute(f"{_SELECT} WHERE device_id = ? AND role = ?", (device_id, role)).fetchone()
    return _family(row) if row is not None else None


def _write(db: sqlite3.Connection, family: Family) -> Family:
    db.execute(_REPLACE, attrs.astuple(family))
    return family


def _live(records: tuple[PairedDevice, ...], role: str) -> PairedDevice | None:
    return next((record for record in records if record.role == role and record.live), None)


def renew(
    db: sqlite3.Connection, *, record: PairedDevice, rules: LifeRules, now: int, tokens: DeviceTokens, afresh: bool
) -> Written:
    """Replace what has lived its life, as `IssuedTokens.hand_out` says; decided on what the database holds now."""
    device_id, role = record.device_id, record.role
    records = rows.records_of(db, device_id)
    live = _live(records, role)
    if live is None:
        return Written(records, None, None)
    family = _read(db, device_id, role)
    if afresh and (rules.expired(live.token_issued_at_ms, now) or tokens.issue(live) is None):
        records = rows.reissue(db, device_id, role, now, tokens)
        live = _live(records, role)
        assert live is not None
    if rules.refreshes:
        bound = family is not None and family.belongs_to(live)
        if not bound or (afresh and family is not None and not family.usable(rules, now)):
            fresh = Family(
                device_id=device_id, role=role, family=tokens.new_family(), uses=0, issued_at_ms=now,
                bound=live.token_digest,
            )  # fmt: skip
            family = _write(db, fresh)
    return Written(records, live, family)


def rotate(
    db: sqlite3.Connection,
    *,
    owner: tuple[str, str],
    name: bytes,
    use: int,
    rules: LifeRules,
    now: int,
    tokens: DeviceTokens,
    settled: bool,
    may_end: bool,
) -> Written | None:
    """Carry out `decide_refresh` in one transaction. None: the family would have to end, and this job may not."""
    records = rows.records_of(db, owner[0])
    record, family = _live(records, owner[1]), _read(db, *owner)
    if record is None or family is None or family.family != name or not family.belongs_to(record):
        return Written(records, record, family, RefreshVerdict.REVOKED)
    verdict = decide_refresh(family.state(settled=settled), use, rules, now)
    if verdict is RefreshVerdict.REUSED and not may_end:
        return None
    if verdict not in {RefreshVerdict.ROTATE, RefreshVerdict.REUSED}:
        return Written(records, record, family, verdict)
    records = rows.reissue(db, *owner, now, tokens)
    record = _live(records, owner[1])
    assert record is not None
    if verdict is RefreshVerdict.ROTATE:
        family = attrs.evolve(family, uses=family.uses + 1, issued_at_ms=now, bound=record.token_digest)
    else:
        # The new device token is handed to nobody: the device has to authenticate afresh.
        family = attrs.evolve(family, revoked_at_ms=now, bound=record.token_digest)
    return Written(records, record, _write(db, family), verdict)
