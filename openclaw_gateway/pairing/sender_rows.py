"""The rows behind the sender book: each durable change as one job for `Store.run`.

Owns the SQL of requests, decisions, wrong codes and history. It must not know tasks, memory views or how a code is
made: who matches one is asked through a function. Every function may run again from the start (see `Store.run`).

Invariants: one waiting row per (channel, account, sender), at most `MAX_PENDING_PER_ACCOUNT` per account and
`MAX_PENDING` in all; a wrong code is counted in the transaction that looked at it, so no path and no race gets a free
guess (V29); only an approval or an operator's word makes a sender allowed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.pairing.sender_records import HistoryEntry, Sender, SenderKey, SenderRequest
from openclaw_gateway.policy.senders import MAX_PENDING_PER_ACCOUNT, MAX_WRONG_CODES, SessionPolicy
from openclaw_gateway.value import Value

__all__ = [
    "MAX_HISTORY",
    "MAX_PENDING",
    "MAX_SENDERS",
    "Asked",
    "Decided",
    "SenderLimit",
    "SenderSnapshot",
    "WrongCode",
]

MAX_PENDING: Final = 300  # over all accounts, those that were turned down included
MAX_SENDERS: Final = 10_000
MAX_HISTORY: Final = 1_000

_REQUEST: Final = "request_id, channel, account, sender_id, display_name, salt, rejected, created_at_ms, expires_at_ms"
_SENDER: Final = "channel, account, sender_id, display_name, policy, decided_at_ms, decided_by"
_HISTORY: Final = "at_ms, event, channel, account, sender_id, display_name, actor, request_id"
_KEY: Final = "channel = ? AND account = ? AND sender_id = ?"
# S608: all that is put together here are the constants above; values travel as parameters.
_SELECT_REQUEST: Final = f"SELECT {_REQUEST} FROM sender_requests"  # noqa: S608
_SELECT_SENDER: Final = f"SELECT {_SENDER} FROM senders"  # noqa: S608
_SELECT_HISTORY: Final = f"SELECT {_HISTORY} FROM sender_history"  # noqa: S608
_DELETE_REQUEST: Final = "DELETE FROM sender_requests"


@attrs.define(eq=False)
class SenderLimit(GatewayError):
    """As many senders are remembered as there is room for."""

    limit: int

    def __str__(self) -> str:
        return f"{self.limit} senders are remembered already"


@attrs.frozen(eq=False, repr=False)
class SenderSnapshot(Value):
    """What the book keeps in memory."""

    requests: list[SenderRequest]
    senders: list[Sender]


@attrs.frozen(eq=False, repr=False)
class Asked(Value):
    """``request`` waits (``created`` just now or before); None where it may not: decided meanwhile, or no room."""

    request: SenderRequest | None
    created: bool
    expired: tuple[SenderRequest, ...] = ()


@attrs.frozen(eq=False, repr=False)
class Decided(Value):
    """A request ended by a person. ``sender``: the decision that follows from it; None for a rejection."""

    request: SenderRequest
    sender: Sender | None


@attrs.frozen(eq=False, repr=False)
class WrongCode(Value):
    """No waiting request has that code. ``expired``: those that end now, because too many codes were wrong."""

    expired: tuple[SenderRequest, ...] = ()


def load(db: sqlite3.Connection) -> SenderSnapshot:
    """Raises `TypeError` or `ValueError` where a row cannot be read: nothing is left out silently."""
    return SenderSnapshot(
        [_request(row) for row in db.execute(_SELECT_REQUEST)], [_sender(row) for row in db.execute(_SELECT_SENDER)]
    )


def ask(
    db: sqlite3.Connection, key: SenderKey, name: str, now: int, ttl_ms: int, new_id: Callable[[], str], salt: bytes
) -> Asked:
    """Let a stranger wait, once."""
    expired = tuple(expire(db, now))
    old = db.execute(f"{_SELECT_REQUEST} WHERE {_KEY}", attrs.astuple(key)).fetchone()
    if old is not None:
        return Asked(_request(old), created=False, expired=expired)
    sender = _find(db, key)
    if sender is not None and sender.policy != "pair":
        return Asked(None, created=False, expired=expired)
    counted = "SELECT count(*), coalesce(sum(channel = ? AND account = ? AND NOT rejected), 0) FROM sender_requests"
    total, same = db.execute(counted, (key.channel, key.account)).fetchone()
    if same >= MAX_PENDING_PER_ACCOUNT or total >= MAX_PENDING:
        return Asked(None, created=False, expired=expired)
    request = SenderRequest(
        request_id=new_id(),
        channel=key.channel,
        account=key.account,
        sender_id=key.sender_id,
        display_name=name,
        salt=salt,
        rejected=False,
        created_at_ms=now,
        expires_at_ms=now + ttl_ms,
    )
    db.execute(
        "INSERT INTO sender_requests VALUES (:request_id, :channel, :account, :sender_id, :display_name, :salt, "
        ":rejected, :created_at_ms, :expires_at_ms)",
        attrs.asdict(request),
    )
    _write_history(db, request, "requested", now, "sender")
    return Asked(request, created=True, expired=expired)


def expire(db: sqlite3.Connection, now: int) -> list[SenderRequest]:
    """Take away what is over. Those that were turned down are among them: their silence ends."""
    rows = db.execute(f"{_DELETE_REQUEST} WHERE expires_at_ms <= ? RETURNING {_REQUEST}", (now,)).fetchall()
    gone = [_request(row) for row in rows]
    for request in gone:
        if not request.rejected:
            _write_history(db, request, "expired", now, "clock")
    _forget_wrong(db)
    return gone


def find_code(
    db: sqlite3.Connection,
    channel: str,
    account: str | None,
    matches: Callable[[SenderRequest], bool],
    now: int,
) -> SenderRequest | WrongCode:
    """The waiting request that a code belongs to; else the try is counted against every account it was tried on."""
    where = f"{_SELECT_REQUEST} WHERE channel = ? AND account = coalesce(?, account) AND NOT rejected"
    rows = db.execute(f"{where} AND expires_at_ms > ?", (channel, account, now)).fetchall()
    waiting = [_request(row) for row in rows]
    # Each is compared, so that the time taken does not tell how many there are before the right one.
    found = [request for request in waiting if matches(request)]
    if found:
        return found[0]
    expired: list[SenderRequest] = []
    for tried in sorted({request.account for request in waiting}):
        wrong = db.execute(
            "INSERT INTO sender_wrong_codes VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET wrong = wrong + 1 "
            "RETURNING wrong",
            (channel, tried),
        ).fetchone()[0]
        if wrong >= MAX_WRONG_CODES:
            ended = [request for request in waiting if request.account == tried]
            for request in ended:
                db.execute(f"{_DELETE_REQUEST} WHERE request_id = ?", (request.request_id,))
                _write_history(db, request, "codes-expired", now, "wrong codes")
            expired += ended
    _forget_wrong(db)
    return WrongCode(tuple(expired))


def find_id(db: sqlite3.Connection, request_id: str, now: int) -> SenderRequest | None:
    """A waiting request by its id."""
    row = db.execute(
        f"{_SELECT_REQUEST} WHERE request_id = ? AND NOT rejected AND expires_at_ms > ?", (request_id, now)
    ).fetchone()
    return _request(row) if row else None


def approve(db: sqlite3.Connection, request: SenderRequest, now: int, actor: str) -> Decided:
    """The sender is on the local allow list from now on (S079). Raises `SenderLimit`."""
    sender = _put(db, request.key, request.display_name, "allow", now, actor)
    db.execute(f"{_DELETE_REQUEST} WHERE request_id = ?", (request.request_id,))
    _write_history(db, request, "approved", now, actor)
    _forget_wrong(db)
    return Decided(request, sender)


def reject(db: sqlite3.Connection, request: SenderRequest, now: int, actor: str) -> Decided:
    """Turned down: the code is worthless, and no other goes out until this one's time would have been over."""
    db.execute("UPDATE sender_requests SET rejected = 1 WHERE request_id = ?", (request.request_id,))
    _write_history(db, request, "rejected", now, actor)
    _forget_wrong(db)
    return Decided(attrs.evolve(request, rejected=True), None)


def set_policy(
    db: sqlite3.Connection, key: SenderKey, policy: SessionPolicy | None, now: int, actor: str
) -> tuple[Sender | None, SenderRequest | None]:
    """Decide about a sender without a request; None forgets what was decided. What waited ends with it, and is the
    second value. Raises `SenderLimit`."""
    old = _find(db, key)
    row = db.execute(f"{_SELECT_REQUEST} WHERE {_KEY}", attrs.astuple(key)).fetchone()
    waiting = _request(row) if row else None
    name = waiting.display_name if waiting is not None else old.display_name if old is not None else ""
    if policy is None:
        db.execute(f"DELETE FROM senders WHERE {_KEY}", attrs.astuple(key))  # noqa: S608 - a constant
        sender = None
    else:
        sender = _put(db, key, name, policy, now, actor)
    if waiting is not None:
        db.execute(f"{_DELETE_REQUEST} WHERE request_id = ?", (waiting.request_id,))
        _forget_wrong(db)
    entry = HistoryEntry(
        at_ms=now,
        event=f"policy-{policy or 'cleared'}",
        channel=key.channel,
        account=key.account,
        sender_id=key.sender_id,
        display_name=name,
        actor=actor,
        request_id=None,
    )
    _append(db, entry)
    return sender, waiting


def history(db: sqlite3.Connection, channel: str | None, limit: int) -> list[HistoryEntry]:
    """The newest first."""
    rows = db.execute(
        f"{_SELECT_HISTORY} WHERE channel = coalesce(?, channel) ORDER BY seq DESC LIMIT ?", (channel, limit)
    )
    return [HistoryEntry(**_named(_HISTORY, row)) for row in rows]


# --- inside


def _find(db: sqlite3.Connection, key: SenderKey) -> Sender | None:
    row = db.execute(f"{_SELECT_SENDER} WHERE {_KEY}", attrs.astuple(key)).fetchone()
    return _sender(row) if row else None


def _put(db: sqlite3.Connection, key: SenderKey, name: str, policy: SessionPolicy, now: int, actor: str) -> Sender:
    if _find(db, key) is None and db.execute("SELECT count(*) FROM senders").fetchone()[0] >= MAX_SENDERS:
        raise SenderLimit(MAX_SENDERS)
    sender = Sender(
        channel=key.channel,
        account=key.account,
        sender_id=key.sender_id,
        display_name=name,
        policy=policy,
        decided_at_ms=now,
        decided_by=actor,
    )
    db.execute(
        "INSERT OR REPLACE INTO senders VALUES (:channel, :account, :sender_id, :display_name, :policy, "
        ":decided_at_ms, :decided_by)",
        attrs.asdict(sender),
    )
    return sender


def _forget_wrong(db: sqlite3.Connection) -> None:
    """Wrong codes count against what waits; where nothing waits there is nothing to guess."""
    db.execute(
        "DELETE FROM sender_wrong_codes WHERE NOT EXISTS (SELECT 1 FROM sender_requests AS r WHERE NOT r.rejected "
        "AND r.channel = sender_wrong_codes.channel AND r.account = sender_wrong_codes.account)"
    )


def _write_history(db: sqlite3.Connection, request: SenderRequest, event: str, now: int, actor: str) -> None:
    entry = HistoryEntry(
        at_ms=now,
        event=event,
        channel=request.channel,
        account=request.account,
        sender_id=request.sender_id,
        display_name=request.display_name,
        actor=actor,
        request_id=request.request_id,
    )
    _append(db, entry)


def _append(db: sqlite3.Connection, entry: HistoryEntry) -> None:
    db.execute(
        f"INSERT INTO sender_history ({_HISTORY}) "  # noqa: S608
        f"VALUES ({', '.join(f':{name}' for name in _HISTORY.split(', '))})",
        attrs.asdict(entry),
    )
    db.execute(
        "DELETE FROM sender_history WHERE seq <= (SELECT max(seq) FROM sender_history) - ?",
        (MAX_HISTORY,),
    )


def _named(columns: str, row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(columns.split(", "), row, strict=True))


def _request(row: tuple[Any, ...]) -> SenderRequest:
    fields = _named(_REQUEST, row)
    return SenderRequest(**{**fields, "rejected": bool(fields["rejected"])})


def _sender(row: tuple[Any, ...]) -> Sender:
    sender = Sender(**_named(_SENDER, row))
    if sender.policy not in {"allow", "deny", "pair"}:
        raise ValueError("a session policy in the database is none of allow, deny, pair")
    return sender
