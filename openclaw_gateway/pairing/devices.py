"""The device book: who is paired and who waits, in memory, with every change durable before it is told.

Owns the promises of pairing (PAIR-1, 3, 4, 6, 9; STATE-2..4; V60): each change is decided and written in one job
(`pairing.rows`, `pairing.requestrows`, `pairing.decisions`) and applied to the view (`pairing.known`) in the order of
commits, so memory never knows what a crash could take back. Look-ups are synchronous: the view's own. It must not know
connections, policy or the event bus: changes return the events that the shell publishes (`pairing.outcomes`).

Invariants: a change returns when it is durable; who loses authority is told in the same step (``on_cut``); a book that
could not be loaded answers nothing (`DeviceBookUnreadable`), never "not paired".
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import trio

from openclaw_gateway.pairing import decisions, requestrows, rows
from openclaw_gateway.pairing.decisions import Decider, TokenChange
from openclaw_gateway.pairing.known import DeviceBookUnreadable, KnownDevices
from openclaw_gateway.pairing.lastseen import LastSeen
from openclaw_gateway.pairing.outcomes import ApprovalOutcome, Decided, RequestOutcome
from openclaw_gateway.pairing.records import (
    CHANGED,
    Ask,
    BookEvent,
    PairedDevice,
    PendingRequest,
    Resolution,
    requested_event,
    resolved_event,
)
from openclaw_gateway.pairing.requestrows import Change
from openclaw_gateway.pairing.rows import Approval, ApprovalRefused
from openclaw_gateway.pairing.tokens import DeviceTokens
from openclaw_gateway.store import Store, StoreError

__all__ = ["ApprovalRefused", "DeviceBook", "DeviceBookUnreadable", "open_device_book"]

REQUEST_TTL_MS: Final = 300_000
REFRESH_MS: Final = 30_000  # a retry writes a pending row's new expiry at most this often
UPKEEP_SECONDS: Final = 5.0
_CLOSING_FLUSH_SECONDS: Final = 1.0


def _nobody_is_connected(device_id: str, role: str | None, spared: str | None) -> None:
    return None


class DeviceBook:
    """What `open_device_book` yields. All methods belong to the store's Trio run. Times are Unix milliseconds."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], int],
        tokens: DeviceTokens,
        new_id: Callable[[], str],
        request_ttl_ms: int,
    ) -> None:
        self.tokens = tokens
        # Called as on_cut(device_id, role or None for all, spared connection id or None) in the same step in which
        # the book itself learns that authority was taken back: what is running for that device ends there (AUTH-5).
        self.on_cut: Callable[[str, str | None, str | None], None] = _nobody_is_connected
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._ttl_ms = request_ttl_ms
        self._seen = LastSeen(store, clock)
        self._known = KnownDevices(clock, self._seen)

    # --- look-ups: synchronous, from memory

    def lookup(self, device_id: str, role: str) -> PairedDevice | None:
        """The live record of (device, role); None where there is none or it was revoked.

        Raises `DeviceBookUnreadable`, as all look-ups: admission then answers a retryable UNAVAILABLE.
        """
        return self._known.lookup(device_id, role)

    def records_of(self, device_id: str) -> tuple[PairedDevice, ...]:
        """All records of one device, revoked ones too."""
        return self._known.records_of(device_id)

    def paired(self) -> tuple[PairedDevice, ...]:
        """Every record, revoked ones too."""
        return self._known.paired()

    def pending(self) -> tuple[PendingRequest, ...]:
        """What waits now, oldest first."""
        return self._known.pending()

    def resolution(self, request_id: str) -> Resolution | None:
        """What became of an id that is pending no longer (the last 256 are known): superseded by which, approved."""
        return self._known.resolution(request_id)

    def was_removed(self, device_id: str) -> bool:
        """True where a person removed this device and nobody approved it since: it does not pair by itself (V26)."""
        return self._known.was_removed(device_id)

    def to_wire(self, *, only: str | None = None) -> dict[str, Any]:
        """The result of `device.pair.list`: ``{pending, paired}``, of one device where ``only`` names it (V21)."""
        return self._known.to_wire(only=only)

    # --- changes: durable when they return

    async def request_pairing(self, ask: Ask, now: int) -> RequestOutcome:
        """Make sure that ``ask`` waits for a person, and under which id.

        The same or a narrower ask keeps its id and lives on; a wider one gets a new id, and the old one is superseded.
        Raises `StoreUnavailable` / `StoreCorrupt` (nothing waits then) or `DeviceBookUnreadable`. Cancellation as
        `Store.run`.
        """
        await self._readable_or_reload()
        known = self._known.waiting(ask.device_id, ask.role)
        if known is not None and known.covers(ask) and known.expires_at_ms - now > self._ttl_ms - REFRESH_MS:
            await trio.lowlevel.checkpoint()
            return RequestOutcome(known, created=False, superseded=None, events=())
        change = await self._store.run(
            partial(requestrows.ask_to_pair, ask=ask, now=now, ttl_ms=self._ttl_ms, new_id=self._new_id),
            then=self._known.apply_change,
        )
        events = [resolved_event(old.request_id, old.device_id, decision, now) for old, decision in change.gone]
        if change.created:
            events.append(requested_event(change.request, is_repair=self._known.is_repair(ask.device_id)))
        return RequestOutcome(change.request, change.created, change.superseded, tuple(events))

    async def approve_silently(self, ask: Ask, via: str, now: int) -> ApprovalOutcome:
        """Pair (device, role) with exactly ``ask.scopes`` without asking anybody: policy decided so, ``via`` says how.

        Only where nothing was decided about this device and role before: what was revoked, and wider scopes than were
        approved, raise `ApprovalRefused` and need a request (V11, V26). A narrower or equal ask returns the record as
        it is. Otherwise as `request_pairing`.
        """
        await self._readable_or_reload()
        approval = await self._store.run(
            partial(rows.approve_silently, ask=ask, via=via, now=now, tokens=self.tokens, new_id=self._new_id),
            then=self._known.apply_approval,
            precious=True,
        )
        events = (resolved_event(approval.request_id, ask.device_id, "approved", now),) if approval.fresh else ()
        return ApprovalOutcome(approval.device, events)

    async def register_key(self, device_id: str, statement: str) -> tuple[PairedDevice, ...]:
        """Keep the key statement of a paired device that has none yet; its records then. ``statement`` was verified.

        Raises `ApprovalRefused` where another key is registered, and as `request_pairing`.
        """
        await self._readable_or_reload()
        job = partial(rows.register_key, device_id=device_id, statement=statement)
        return await self._store.run(job, then=self._known.apply_records, precious=True)

    # --- what a person decides (`pairing.decisions` has the rules and the errors)

    async def approve(self, request_id: str, by: Decider, now: int, *, ask_hash: str | None = None) -> ApprovalOutcome:
        """Pair what waits under ``request_id``, within what ``by`` holds. Raises as `decisions.approve`, and as
        `request_pairing`. Of two that approve at once one gets the outcome, the other `UnknownRequest`.
        """
        await self._readable_or_reload()
        job = partial(decisions.approve, request_id=request_id, by=by, now=now, tokens=self.tokens, ask_hash=ask_hash)
        approval = await self._store.run(job, then=self._known.apply_approval, precious=True)
        return ApprovalOutcome(
            approval.device, (resolved_event(request_id, approval.device.device_id, "approved", now),)
        )

    async def reject(self, request_id: str, by: Decider, now: int) -> tuple[Resolution, tuple[BookEvent, ...]]:
        """End a request. Raises as `decisions.reject`, and as `request_pairing`."""
        await self._readable_or_reload()
        job = partial(decisions.reject, request_id=request_id, by=by, now=now)
        gone = await self._store.run(job, then=self._known.apply_resolution, precious=True)
        return gone, (resolved_event(request_id, gone.device_id, "rejected", now),)

    async def remove(self, device_id: str, by: Decider, now: int, *, spare: str | None = None) -> Decided:
        """Forget a device; its connections end (``spare``: the id of one that has an answer to read first).

        Raises as `decisions.remove`, and as `request_pairing`.
        """
        await self._readable_or_reload()

        def then(records: tuple[PairedDevice, ...]) -> None:
            self._known.apply_removed(device_id, records)
            self.on_cut(device_id, None, spare)

        job = partial(decisions.remove, device_id=device_id, by=by, now=now)
        records = await self._store.run(job, then=then, revokes=True)
        return Decided(records[0], (CHANGED,))

    async def rename(self, device_id: str, label: str, by: Decider) -> Decided:
        """Raises as `decisions.rename`, and as `request_pairing`."""
        await self._readable_or_reload()
        job = partial(decisions.rename, device_id=device_id, label=label, by=by)
        records = await self._store.run(job, then=self._known.apply_records, precious=True)
        return Decided(records[0], (CHANGED,))

    async def rotate(
        self,
        device_id: str,
        role: str,
        scopes: tuple[str, ...] | None,
        by: Decider,
        now: int,
        *,
        spare: str | None = None,
    ) -> Decided:
        """A new token, and with ``scopes`` a narrower grant; the old token and what came with it end. As `remove`."""
        await self._readable_or_reload()
        job = partial(
            decisions.rotate, device_id=device_id, role=role, scopes=scopes, by=by, now=now, tokens=self.tokens
        )
        change = await self._store.run(job, then=partial(self._apply_cut, spare=spare), revokes=True)
        return Decided(change.device, (CHANGED,))

    async def revoke(self, device_id: str, role: str, by: Decider, now: int, *, spare: str | None = None) -> Decided:
        """Take (device, role) its authority until somebody approves it anew. As `remove`."""
        await self._readable_or_reload()
        job = partial(decisions.revoke, device_id=device_id, role=role, by=by, now=now)
        change = await self._store.run(job, then=partial(self._apply_cut, spare=spare), revokes=True)
        return Decided(change.device, (CHANGED,) if change.changed else ())

    # --- upkeep

    async def reissue(self, device_id: str, role: str, now: int) -> PairedDevice | None:
        """Give a live (device, role) a new token, the next generation; None where nothing is live. As `expire`."""
        await self._readable_or_reload()
        records = await self._store.run(
            partial(rows.reissue, device_id=device_id, role=role, now=now, tokens=self.tokens),
            then=self._known.apply_records,
            revokes=True,
        )
        return next((record for record in records if record.role == role), None)

    async def expire(self, now: int) -> tuple[BookEvent, ...]:
        """End the requests whose time is over; costs nothing when there are none. Raises as `request_pairing`."""
        self._known.must_be_readable()
        if not self._known.any_over(now):
            await trio.lowlevel.checkpoint()
            return ()
        gone = await self._store.run(partial(requestrows.expire, now=now), then=self._known.apply_expired)
        return tuple(resolved_event(old.request_id, old.device_id, "expired", now) for old in gone)

    def touch(self, device_id: str, role: str, ip: str, now: int) -> None:
        """Note that a live device was here. Seen at once in memory, on the disk within a minute or so (STATE-3)."""
        self._known.touch(device_id, role, ip, now)

    async def flush(self) -> None:
        """Write what `touch` noted. Raises `StoreError`; then it is kept for the next time."""
        await self._seen.flush()

    def follow(self, records: tuple[PairedDevice, ...]) -> None:
        """Take over all records of one device as a job of this room left them (`pairing.issued`): for ``then`` of
        `Store.run`, in the order of commits."""
        self._known.apply_records(records)

    def follow_approvals(
        self, *, dropped: Iterable[PendingRequest], changes: Iterable[Change], approvals: Iterable[Approval]
    ) -> None:
        """The same for approvals in a job of another part (`pairing.setupcodes`), and what they did to requests."""
        self._known.apply_expired(list(dropped))
        for change in changes:
            self._known.apply_change(change)
        for approval in approvals:
            self._known.apply_approval(approval)

    async def reload(self) -> None:
        """Read everything anew. Raises `DeviceBookUnreadable`; the book stays closed then."""
        try:
            await self._store.run(rows.load, then=self._known.apply_snapshot)
        except (StoreError, sqlite3.Error, ValueError, TypeError) as error:
            self._known.fault = str(error)
            raise DeviceBookUnreadable(self._known.fault) from error

    async def supervise_upkeep(self, publish: Callable[[tuple[BookEvent, ...]], object]) -> None:
        """Never returns: expires requests (and hands the events to ``publish``), flushes, reopens a book that was
        unreadable.

        A store that fails now is asked again five seconds later.
        """
        while True:
            await trio.sleep(UPKEEP_SECONDS)
            try:
                if self._known.fault is not None:
                    await self.reload()
                if events := await self.expire(self._clock()):
                    publish(events)
                if self._seen.due():
                    await self.flush()
            except (StoreError, DeviceBookUnreadable):
                continue

    # --- inside

    async def _readable_or_reload(self) -> None:
        if self._known.fault is not None:
            await self.reload()

    def _apply_cut(self, change: TokenChange, *, spare: str | None) -> None:
        self._known.apply_records(change.records)
        if change.changed:
            self.on_cut(change.device.device_id, change.device.role, spare)


def _uuid4() -> str:
    return str(uuid.uuid4())


@asynccontextmanager
async def open_device_book(
    store: Store,
    *,
    clock: Callable[[], int],
    tokens: DeviceTokens,
    new_id: Callable[[], str] = _uuid4,
    request_ttl_ms: int = REQUEST_TTL_MS,
) -> AsyncGenerator[DeviceBook, None]:
    """The book over an open store. ``clock`` gives Unix milliseconds.

    Opens even where the store cannot be read: look-ups then raise `DeviceBookUnreadable` until a reload succeeds
    (`supervise_upkeep`, or the next change, tries). On exit the last "last seen" are flushed, within a second.
    """
    book = DeviceBook(store, clock=clock, tokens=tokens, new_id=new_id, request_ttl_ms=request_ttl_ms)
    with suppress(DeviceBookUnreadable):  # fail closed: see lookup
        await book.reload()
    try:
        yield book
    finally:
        deadline = trio.current_time() + _CLOSING_FLUSH_SECONDS
        # A time stamp is not worth more than the shutdown.
        with suppress(StoreError), trio.CancelScope(shield=True, deadline=deadline):
            await book.flush()
