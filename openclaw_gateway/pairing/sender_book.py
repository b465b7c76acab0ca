"""The sender book: who waits and who was decided about, in memory, with every change durable before it is told.

Owns the view in memory and the events. Each change is decided and written in one job (`pairing.sender_rows`) and
applied here in the order of commits. It must not know configuration, adapters or messages (`pairing.senders`).

Invariants: a request is durable before `ask` returns it; codes are compared in constant time, and every wrong one is
counted on whichever path it came (V29); a book that could not be loaded answers nothing.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.errors import GatewayError, LocalProtocolError
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing import sender_rows as rows
from openclaw_gateway.pairing.records import BookEvent
from openclaw_gateway.pairing.sender_codes import SenderCodes
from openclaw_gateway.pairing.sender_records import (
    HistoryEntry,
    Sender,
    SenderKey,
    SenderRequest,
    requested_event,
    resolved_event,
)
from openclaw_gateway.pairing.sender_rows import Decided, SenderLimit, WrongCode
from openclaw_gateway.policy.senders import SessionPolicy
from openclaw_gateway.store import Store, StoreError

__all__ = [
    "SenderBook",
    "SenderBookUnreadable",
    "SenderLimit",
    "UnknownSenderRequest",
    "log_request",
    "open_sender_book",
]

CODE_TTL_MS: Final = 3_600_000
UPKEEP_SECONDS: Final = 5.0

Publish = Callable[[BookEvent], None]

log = get_logger("pairing")


@attrs.define(eq=False)
class SenderBookUnreadable(GatewayError):
    """Who is paired is not known, because the store could not be read. Retryable; nobody is admitted meanwhile."""

    reason: str

    def __str__(self) -> str:
        return f"the paired senders cannot be read: {self.reason}"


@attrs.define(eq=False)
class UnknownSenderRequest(GatewayError):
    """Nothing waits under that code or id. ``expired``: how many requests ended, because too many codes were wrong."""

    channel: str
    by_code: bool
    expired: int = 0

    def __str__(self) -> str:
        return f"no request on {self.channel} waits under that {'code' if self.by_code else 'id'}"


class SenderBook:
    """What `open_sender_book` yields: requests and decisions. Look-ups are synchronous, changes durable when they
    return; a change raises `StoreError` or `SenderBookUnreadable` and has changed nothing then. Cancellation as
    `Store.run`."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], int],
        codes: SenderCodes,
        publish: Publish,
        new_id: Callable[[], str],
        code_ttl_ms: int,
    ) -> None:
        self.codes = codes
        self.publish = publish
        self.code_ttl_ms = code_ttl_ms
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._fault: str | None = "not loaded yet"
        self._requests: dict[SenderKey, SenderRequest] = {}
        self._senders: dict[SenderKey, Sender] = {}
        self._last_seen: dict[SenderKey, int] = {}

    # --- look-ups

    @property
    def readable(self) -> bool:
        return self._fault is None

    def policy_of(self, key: SenderKey) -> SessionPolicy | None:
        """What was decided about a sender. Raises `SenderBookUnreadable`."""
        sender = self.sender(key)
        return sender.policy if sender is not None else None

    def sender(self, key: SenderKey) -> Sender | None:
        self._must_be_readable()
        return self._senders.get(key)

    def senders(self) -> tuple[Sender, ...]:
        """Everybody about whom something was decided, the newest decision first."""
        self._must_be_readable()
        return tuple(sorted(self._senders.values(), key=lambda sender: (-sender.decided_at_ms, sender.sender_id)))

    def waiting(self) -> tuple[SenderRequest, ...]:
        """Who waits for a person now, oldest first."""
        self._must_be_readable()
        now = self._clock()
        rows_ = [row for row in self._requests.values() if not row.rejected and row.expires_at_ms > now]
        return tuple(sorted(rows_, key=lambda row: (row.created_at_ms, row.request_id)))

    def is_held(self, key: SenderKey) -> bool:
        """True where a request of this sender waits, or was turned down and its time is not over."""
        row = self._requests.get(key)
        return row is not None and row.expires_at_ms > self._clock()

    def seen(self, key: SenderKey) -> None:
        """Note that somebody who waits wrote again (kept in memory only)."""
        if key in self._requests:
            self._last_seen[key] = self._clock()

    def last_seen_ms(self, request: SenderRequest) -> int:
        return self._last_seen.get(request.key, request.created_at_ms)

    # --- changes

    async def ask(self, key: SenderKey, name: str) -> SenderRequest | None:
        """Let a stranger wait. The new request, durable; None where they wait already or may not (no room)."""
        await self._readable_or_reload()
        now = self._clock()
        job = partial(
            rows.ask, key=key, name=name, now=now, ttl_ms=self.code_ttl_ms, new_id=self._new_id,
            salt=self.codes.salt(),
        )  # fmt: skip

        def then(asked: rows.Asked) -> None:
            self._forget(asked.expired)
            if asked.request is not None:
                self._requests[asked.request.key] = asked.request

        asked = await self._store.run(job, then=then)
        self._tell_ended(asked.expired, "expired", now)
        if asked.request is None or not asked.created:
            return None
        self.publish(requested_event(asked.request))
        return asked.request

    async def approve(
        self, channel: str, *, account: str | None = None, code: str | None = None, request_id: str | None = None,
        actor: str,
    ) -> Decided:  # fmt: skip
        """Let in who waits under ``code`` or ``request_id``, in that account's direct chat and nowhere else.

        Raises `UnknownSenderRequest` (a wrong code is counted by then), `SenderLimit`.
        """
        return await self._resolve(channel, account, code, request_id, actor, rows.approve)

    async def reject(
        self, channel: str, *, account: str | None = None, code: str | None = None, request_id: str | None = None,
        actor: str,
    ) -> Decided:  # fmt: skip
        """Turn down who waits; they get no other code before this one's time is over. As `approve`."""
        return await self._resolve(channel, account, code, request_id, actor, rows.reject)

    async def _resolve(
        self, channel: str, account: str | None, code: str | None, request_id: str | None, actor: str, end: Any
    ) -> Decided:
        if (code is None) == (request_id is None):
            raise LocalProtocolError("name a request by its code or by its id")
        await self._readable_or_reload()
        now = self._clock()

        def job(db: sqlite3.Connection) -> Decided | WrongCode | None:
            found: SenderRequest | WrongCode | None
            if code is not None:
                found = rows.find_code(db, channel, account, lambda row: self.codes.matches(row, code), now)
            else:
                found = rows.find_id(db, request_id or "", now)
                if found is not None and (found.channel, found.account) != (channel, account or found.account):
                    found = None
            if isinstance(found, SenderRequest):
                decided: Decided = end(db, found, now, actor)
                return decided
            return found

        outcome = await self._store.run(job, then=self._apply, precious=True)
        if isinstance(outcome, Decided):
            decision = "approved" if outcome.sender is not None else "rejected"
            self.publish(resolved_event(outcome.request, decision, now))
            log_request(decision, outcome.request, actor)
            return outcome
        expired = outcome.expired if outcome is not None else ()
        self._tell_ended(expired, "expired", now, why="too many wrong codes")
        log.warning("pairing refused", channel=channel, reason="wrong code" if code else "unknown id", subject=actor)
        raise UnknownSenderRequest(channel, code is not None, len(expired))

    async def set_policy(self, key: SenderKey, policy: SessionPolicy | None, *, actor: str) -> Sender | None:
        """Decide about a sender whether they asked or not (S080); None forgets the decision. Raises `SenderLimit`."""
        await self._readable_or_reload()
        now = self._clock()

        def then(outcome: tuple[Sender | None, SenderRequest | None]) -> None:
            sender, waiting = outcome
            self._senders.pop(key, None)
            if sender is not None:
                self._senders[key] = sender
            self._forget((waiting,) if waiting is not None else ())

        old = self._senders.get(key)
        narrower = policy != "allow" and old is not None and old.policy == "allow"
        job = partial(rows.set_policy, key=key, policy=policy, now=now, actor=actor)
        sender, waiting = await self._store.run(job, then=then, precious=not narrower, revokes=narrower)
        if waiting is not None and not waiting.rejected:
            self.publish(resolved_event(waiting, "approved" if policy == "allow" else "rejected", now))
        log.info(
            "pairing policy set", channel=key.channel, account=key.account, sender=key.sender_id,
            decision=policy or "cleared", subject=actor,
        )  # fmt: skip
        return sender

    async def history(self, *, channel: str | None = None, limit: int = 100) -> list[HistoryEntry]:
        """The newest first; at most ``MAX_HISTORY`` lines are kept."""
        return await self._store.run(partial(rows.history, channel=channel, limit=limit))

    async def expire(self) -> None:
        """Take away what is over."""
        now = self._clock()
        if all(row.expires_at_ms > now for row in self._requests.values()):
            await trio.lowlevel.checkpoint()
            return
        gone = await self._store.run(partial(rows.expire, now=now), then=self._forget)
        self._tell_ended(gone, "expired", now)

    async def reload(self) -> None:
        """Read everything anew. Raises `SenderBookUnreadable`; the book stays closed then."""
        try:
            await self._store.run(rows.load, then=self._apply_snapshot)
        except (StoreError, sqlite3.Error, ValueError, TypeError) as error:
            self._fault = str(error)
            raise SenderBookUnreadable(self._fault) from error

    async def supervise_upkeep(self) -> None:
        """Never returns: ends what is over, and reopens a book that was unreadable."""
        while True:
            await trio.sleep(UPKEEP_SECONDS)
            with suppress(StoreError, SenderBookUnreadable):
                await self._readable_or_reload()
                await self.expire()

    # --- inside

    def _must_be_readable(self) -> None:
        if self._fault is not None:
            raise SenderBookUnreadable(self._fault)

    async def _readable_or_reload(self) -> None:
        if self._fault is not None:
            await self.reload()

    def _apply_snapshot(self, snapshot: rows.SenderSnapshot) -> None:
        self._requests = {request.key: request for request in snapshot.requests}
        self._senders = {sender.key: sender for sender in snapshot.senders}
        self._last_seen = {key: at for key, at in self._last_seen.items() if key in self._requests}
        self._fault = None

    def _apply(self, outcome: Decided | WrongCode | None) -> None:
        if isinstance(outcome, WrongCode):
            self._forget(outcome.expired)
        elif outcome is not None and outcome.sender is None:
            self._requests[outcome.request.key] = outcome.request
        elif outcome is not None and outcome.sender is not None:
            self._forget((outcome.request,))
            self._senders[outcome.sender.key] = outcome.sender

    def _forget(self, gone: tuple[SenderRequest, ...] | list[SenderRequest]) -> None:
        for request in gone:
            self._requests.pop(request.key, None)
            self._last_seen.pop(request.key, None)

    def _tell_ended(
        self, gone: tuple[SenderRequest, ...] | list[SenderRequest], decision: str, now: int, why: str | None = None
    ) -> None:
        for request in gone:
            if not request.rejected:
                self.publish(resolved_event(request, decision, now))
                log_request(decision, request, why or "its time was over")


def log_request(decision: str, request: SenderRequest, reason: str) -> None:
    """One line of the log about a request; its text holds the word pairing (S167)."""
    log.info(
        "pairing of a sender", decision=decision, channel=request.channel, account=request.account,
        sender=request.sender_id, name=request.display_name or None, request_id=request.request_id, reason=reason,
    )  # fmt: skip


def _uuid4() -> str:
    return str(uuid.uuid4())


def _to_nobody(event: BookEvent) -> None:
    return None


@asynccontextmanager
async def open_sender_book(
    store: Store,
    *,
    clock: Callable[[], int],
    codes: SenderCodes,
    publish: Publish = _to_nobody,
    new_id: Callable[[], str] = _uuid4,
    code_ttl_ms: int = CODE_TTL_MS,
) -> AsyncGenerator[SenderBook, None]:
    """The book over an open store; ``clock`` gives Unix milliseconds. Opens even where the store cannot be read:
    nobody is admitted until a reload succeeds (`SenderBook.supervise_upkeep`, or the next change, tries)."""
    book = SenderBook(store, clock=clock, codes=codes, publish=publish, new_id=new_id, code_ttl_ms=code_ttl_ms)
    with suppress(SenderBookUnreadable):
        await book.reload()
    yield book
