"""Setup codes' rows: the SQL behind `pairing.setupcodes`, as jobs for `Store.run`.

Owns the one transaction in which a code is spent and its device paired: whoever's job comes first has the code, and
nobody ever has one half of it (V24). It must not know tasks, memory views or the text of a code. Every function may run
again from the start (see `Store.run`).

Invariants: only digests of secrets are written; a code is spent once, for the device it is bound to, before its end;
a code dies with the authority of the device that issued it; live codes and remembered outcomes are capped.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.pairing import decisions, requestrows, rows
from openclaw_gateway.pairing.decisions import Decider
from openclaw_gateway.pairing.records import Ask, PairedDevice, PendingRequest
from openclaw_gateway.pairing.requestrows import Change
from openclaw_gateway.pairing.rows import Approval
from openclaw_gateway.pairing.tokens import DeviceTokens
from openclaw_gateway.policy.setup import PROFILES, Access
from openclaw_gateway.protocol.scopes import ADMIN, satisfies
from openclaw_gateway.value import Value

__all__ = ["MAX_LIVE", "MAX_OUTCOMES", "Completion", "Redeemed", "SetupCode", "SetupCodeSpent", "SetupCodesFull"]

MAX_LIVE: Final = 32
MAX_OUTCOMES: Final = 256
OUTCOME_TTL_MS: Final = 86_400_000

_COLUMNS: Final = (
    "setup_id, access, token_digest, join_digest, join_salt, issuer, urls, tls_fingerprint, created_at_ms, "
    "expires_at_ms, bound_to"
)
_LIVE: Final = "spent_at_ms IS NULL AND expires_at_ms > :now"
_SELECT: Final = f"SELECT {_COLUMNS} FROM setup_codes"  # noqa: S608 - constants; values travel as parameters


@attrs.define(eq=False)
class SetupCodeSpent(GatewayError):
    """The code cannot be redeemed (any more): spent, expired, taken by another device, or its issuer is gone."""

    setup_id: str

    def __str__(self) -> str:
        return f"setup code {self.setup_id} is spent"


@attrs.define(eq=False)
class SetupCodesFull(GatewayError):
    """As many codes live as may; ``wait_ms`` until the next one ends by itself."""

    wait_ms: int

    def __str__(self) -> str:
        return f"{MAX_LIVE} setup codes are waiting to be used"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SetupCode(Value):
    """A code that lives. Times are Unix milliseconds; ``issuer`` is the principal that had it made."""

    setup_id: str
    access: Access
    token_digest: bytes = attrs.field(repr=False)
    join_digest: bytes | None = attrs.field(default=None, repr=False)
    join_salt: bytes | None = attrs.field(default=None, repr=False)
    issuer: str
    urls: tuple[str, ...]
    tls_fingerprint: str | None = None
    created_at_ms: int
    expires_at_ms: int
    bound_to: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Completion(Value):
    """What became of a code: `device.pair.setup.completed`, and the answer of `device.pair.setupStatus`."""

    setup_id: str
    device_id: str
    device_name: str | None
    access: Access
    ts: int

    def to_wire(self) -> dict[str, Any]:
        row = {"setupId": self.setup_id, "deviceId": self.device_id, "access": self.access, "ts": self.ts}
        return row if self.device_name is None else {**row, "deviceName": self.device_name}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Redeemed(Value):
    """A spent code: the device's record in the role it came in, and the operator's record of a phone."""

    completion: Completion
    device: PairedDevice
    handed: PairedDevice | None
    approvals: tuple[Approval, ...]
    changes: tuple[Change, ...]
    dropped: tuple[PendingRequest, ...]


@attrs.frozen(eq=False, repr=False)
class Snapshot(Value):
    live: list[SetupCode]
    outcomes: list[Completion]


def load(db: sqlite3.Connection, now: int) -> Snapshot:
    """What lives and what is remembered. Raises `ValueError` or `TypeError` where a row cannot be read."""
    live = [_code(row) for row in db.execute(f"{_SELECT} WHERE {_LIVE}", {"now": now})]
    outcomes = db.execute(
        "SELECT setup_id, bound_to, device_name, access, spent_at_ms FROM setup_codes "
        "WHERE spent_at_ms IS NOT NULL ORDER BY spent_at_ms"
    )
    return Snapshot(live, [_completion(row) for row in outcomes])


def issue(db: sqlite3.Connection, code: SetupCode) -> tuple[str, ...]:
    """Write a new code; the ids of what was forgotten to make room. Raises `SetupCodesFull`."""
    now = code.created_at_ms
    gone = [
        row[0]
        for row in db.execute(
            f"DELETE FROM setup_codes WHERE (spent_at_ms IS NULL AND NOT ({_LIVE})) "  # noqa: S608 - constants
            "OR spent_at_ms <= :old RETURNING setup_id",
            {"now": now, "old": now - OUTCOME_TTL_MS},
        ).fetchall()
    ]
    count, soonest = db.execute(
        "SELECT count(*), min(expires_at_ms) FROM setup_codes WHERE spent_at_ms IS NULL"
    ).fetchone()
    if count >= MAX_LIVE:
        raise SetupCodesFull(max(1, soonest - now))
    gone += [
        row[0]
        for row in db.execute(
            "DELETE FROM setup_codes WHERE setup_id IN (SELECT setup_id FROM setup_codes "
            "WHERE spent_at_ms IS NOT NULL ORDER BY spent_at_ms DESC, setup_id LIMIT -1 OFFSET ?) RETURNING setup_id",
            (MAX_OUTCOMES,),
        ).fetchall()
    ]
    values = {**attrs.asdict(code), "urls": json.dumps(code.urls)}
    places = ", ".join(f":{name}" for name in _COLUMNS.split(", "))
    db.execute(f"INSERT INTO setup_codes ({_COLUMNS}) VALUES ({places})", values)  # noqa: S608 - constants
    return tuple(gone)


def bind(db: sqlite3.Connection, setup_id: str, device_id: str, now: int) -> SetupCode:
    """Make the code this device's. Binding it again to the same device changes nothing. Raises `SetupCodeSpent`."""
    code = _living(db, setup_id, device_id, now)
    db.execute("UPDATE setup_codes SET bound_to = ? WHERE setup_id = ?", (device_id, setup_id))
    return attrs.evolve(code, bound_to=device_id)


def redeem(
    db: sqlite3.Connection,
    setup_id: str,
    ask: Ask,
    handed: tuple[str, ...],
    now: int,
    tokens: DeviceTokens,
    new_id: Callable[[], str],
) -> Redeemed:
    """Spend the code and pair its device in the role of ``ask``, and as an operator with ``handed`` scopes where there
    are any. A device that a person approved meanwhile keeps what it has.

    Raises `SetupCodeSpent`, and `ApprovalRefused` (limit) where no more devices can be kept; nothing is changed then.
    """
    code = _living(db, setup_id, ask.device_id, now)
    by = Decider(name=f"setup-code:{setup_id}", scopes=frozenset({ADMIN, *PROFILES[code.access].operator_scopes}))
    done = _Pairings(db, by, now, tokens, new_id)
    device = done.pair(ask)
    operator = done.pair(attrs.evolve(ask, role="operator", scopes=handed)) if handed else None
    db.execute(
        "UPDATE setup_codes SET spent_at_ms = ?, bound_to = ?, device_name = ?, join_digest = NULL, join_salt = NULL "
        "WHERE setup_id = ?",
        (now, ask.device_id, ask.display_name, setup_id),
    )
    completion = Completion(
        setup_id=setup_id, device_id=ask.device_id, device_name=ask.display_name, access=code.access, ts=now
    )
    return Redeemed(
        completion=completion,
        device=device,
        handed=operator,
        approvals=tuple(done.approvals),
        changes=tuple(done.changes),
        dropped=tuple(done.dropped),
    )


def fetch(db: sqlite3.Connection, setup_id: str, now: int) -> tuple[SetupCode, bytes] | None:
    """Give out what a join URL stands for: the code and its salt, once; None where it was fetched or is over."""
    row = db.execute(f"{_SELECT} WHERE setup_id = :id AND {_LIVE}", {"id": setup_id, "now": now}).fetchone()
    code = None if row is None else _code(row)
    if code is None or code.join_salt is None or not _issuer_stands(db, code):
        return None
    db.execute("UPDATE setup_codes SET join_digest = NULL, join_salt = NULL WHERE setup_id = ?", (setup_id,))
    return attrs.evolve(code, join_digest=None, join_salt=None), code.join_salt


def revoke(db: sqlite3.Connection, setup_ids: Sequence[str]) -> None:
    """End codes that nobody redeemed yet."""
    db.executemany("DELETE FROM setup_codes WHERE setup_id = ? AND spent_at_ms IS NULL", [(id_,) for id_ in setup_ids])


def digest(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


# --- inside


class _Pairings:
    """The approvals of one redemption, and what they did to requests that waited."""

    def __init__(
        self, db: sqlite3.Connection, by: Decider, now: int, tokens: DeviceTokens, new_id: Callable[[], str]
    ) -> None:
        self._db = db
        self._by = by
        self._now = now
        self._tokens = tokens
        self._new_id = new_id
        self.approvals: list[Approval] = []
        self.changes: list[Change] = []
        self.dropped: list[PendingRequest] = []

    def pair(self, ask: Ask) -> PairedDevice:
        known = next((r for r in rows.records_of(self._db, ask.device_id) if r.role == ask.role and r.live), None)
        if known is not None and all(satisfies(frozenset(known.scopes), scope) for scope in ask.scopes):
            return known
        waiting = requestrows.waiting_for(self._db, ask)
        if waiting is not None and not set(waiting.scopes) <= set(ask.scopes):
            # It asks for more than the code grants, and approving takes a request as it is. The device asks again.
            self._db.execute("DELETE FROM pending_requests WHERE request_id = ?", (waiting.request_id,))
            self.dropped.append(waiting)
        change = requestrows.ask_to_pair(self._db, ask, self._now, 1, self._new_id)
        approval = decisions.approve(self._db, change.request.request_id, self._by, self._now, self._tokens)
        self.changes.append(change)
        self.approvals.append(approval)
        return approval.device


def _living(db: sqlite3.Connection, setup_id: str, device_id: str, now: int) -> SetupCode:
    row = db.execute(
        f"{_SELECT} WHERE setup_id = :id AND {_LIVE} AND (bound_to IS NULL OR bound_to = :device)",
        {"id": setup_id, "device": device_id, "now": now},
    ).fetchone()
    code = None if row is None else _code(row)
    if code is None or not _issuer_stands(db, code):
        raise SetupCodeSpent(setup_id)
    return code


def _issuer_stands(db: sqlite3.Connection, code: SetupCode) -> bool:
    """False where a device had the code made that may not do so any more: what it gave out goes with it (V24, V26)."""
    kind, _, rest = code.issuer.partition(":")
    if kind != "device":
        return True
    device_id, _, role = rest.partition(":")
    live = [record for record in rows.records_of(db, device_id) if record.role == role and record.live]
    return any(satisfies(frozenset(record.scopes), ADMIN) for record in live)


def _code(row: tuple[Any, ...]) -> SetupCode:
    values = dict(zip(_COLUMNS.split(", "), row, strict=True))
    urls = json.loads(values.pop("urls"))
    if values["access"] not in PROFILES or not isinstance(urls, list) or not all(isinstance(u, str) for u in urls):
        raise ValueError("a row of setup_codes cannot be read")
    return SetupCode(**values, urls=tuple(urls))


def _completion(row: tuple[Any, ...]) -> Completion:
    setup_id, device_id, name, access, ts = row
    return Completion(setup_id=setup_id, device_id=device_id, device_name=name, access=access, ts=ts)
