"""The device book: who is paired and who waits, in memory, with every change durable before it is told.

Owns the view in memory and the promises of pairing (PAIR-1, 3, 4, 6, 9; STATE-2..4; V60). Look-ups are synchronous. The
view follows the store: each change is decided and written in one job (`pairing.rows`) and applied here in the order of
commits, so memory never knows what a crash could take back. It must not know connections, policy or the event bus:
changes return the events that the shell publishes.

Invariants: a book that could not be loaded answers nothing (`DeviceBookUnreadable`), never "not paired"; what `lookup`
returns is live; a connect that only reads writes nothing: "last seen" is kept here and flushed at most once a minute.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.pairing import decisions, requestrows, rows
from openclaw_gateway.pairing.decisions import Decider, TokenChange
from openclaw_gateway.pairing.records import (
    CHANGED,
    Ask,
    BookEvent,
    PairedDevice,
    PendingRequest,
    Resolution,
    paired_to_wire,
    pending_to_wire,
    requested_event,
    resolved_event,
)
from openclaw_gateway.pairing.requestrows import Change
from openclaw_gateway.pairing.rows import Approval, ApprovalRefused
from openclaw_gateway.pairing.tokens import DeviceTokens
from openclaw_gateway.store import Store, StoreError
from openclaw_gateway.value import Value

__all__ = [
    "ApprovalOutcome",
    "ApprovalRefused",
    "Decided",
    "DeviceBook",
    "DeviceBookUnreadable",
    "RequestOutcome",
    "open_device_book",
]

REQUEST_TTL_MS: Final = 300_000
REFRESH_MS: Final = 30_000  # a retry writes a pending row's new expiry at most this often
FLUSH_MS: Final = 60_000
UPKEEP_SECONDS: Final = 5.0
_CLOSING_FLUSH_SECONDS: Final = 1.0


@attrs.define(eq=False, repr=False)
class DeviceBookUnreadable(GatewayError):
    """Who is paired is not known, because the store could not be read. Retryable; nobody is admitted meanwhile."""

    reason: str

    def __str__(self) -> str:
        return f"the paired devices cannot be read: {self.reason}"


@attrs.frozen(eq=False, repr=False)
class RequestOutcome(Value):
    """``request`` is durable and listed. ``created``: it has a new id. ``superseded``: the id it took the place of."""

    request: PendingRequest
    created: bool
    superseded: Resolution | None
    events: tuple[BookEvent, ...]


@attrs.frozen(eq=False, repr=False)
class ApprovalOutcome(Value):
    device: PairedDevice
    events: tuple[BookEvent, ...]


@attrs.frozen(eq=False, repr=False)
class Decided(Value):
    """What came of a decision that takes away or renames. ``device``: the record concerned, as it is now."""

    device: PairedDevice
    events: tuple[BookEvent, ...]


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
        self._fault: str | None = "not loaded yet"
        self._devices: dict[str, dict[str, PairedDevice]] = {}
        self._pending: dict[tuple[str, str], PendingRequest] = {}
        self._resolved: dict[str, Resolution] = {}
        self._removed: dict[str, None] = {}
        self._seen: dict[tuple[str, str], tuple[int, str]] = {}
        self._flushed_at_ms = clock()

    # --- look-ups: synchronous, from memory

    def lookup(self, device_id: str, role: str) -> PairedDevice | None:
        """The live record of (device, role); None where there is none or it was revoked.

        Raises `DeviceBookUnreadable`: admission then answers a retryable UNAVAILABLE.
        """
        self._must_be_readable()
        record = self._devices.get(device_id, {}).get(role)
        return record if record is not None and record.live else None

    def records_of(self, device_id: str) -> tuple[PairedDevice, ...]:
        """All records of one device, revoked ones too. Raises `DeviceBookUnreadable`."""
        self._must_be_readable()
        return tuple(self._devices.get(device_id, {}).values())

    def paired(self) -> tuple[PairedDevice, ...]:
        """Every record, revoked ones too. Raises `DeviceBookUnreadable`."""
        self._must_be_readable()
        return tuple(record for roles in self._devices.values() for record in roles.values())

    def pending(self) -> tuple[PendingRequest, ...]:
        """What waits now, oldest first. Raises `DeviceBookUnreadable`."""
        self._must_be_readable()
        now = self._clock()
        waiting = [request for request in self._pending.values() if request.expires_at_ms > now]
        return tuple(sorted(waiting, key=lambda request: (request.first_seen_ms, request.request_id)))

    def resolution(self, request_id: str) -> Resolution | None:
        """What became of an id that is pending no longer (the last 256 are known): superseded by which, approved."""
        self._must_be_readable()
        return self._resolved.get(request_id)

    def was_removed(self, device_id: str) -> bool:
        """True where a person removed this device and nobody approved it since: it does not pair by itself (V26)."""
        self._must_be_readable()
        return device_id in self._removed

    def to_wire(self, *, only: str | None = None) -> dict[str, Any]:
        """The result of `device.pair.list`: ``{pending, paired}``, of one device where ``only`` names it (V21).

        Raises `DeviceBookUnreadable`.
        """
        return {
            "pending": [
                pending_to_wire(request, is_repair=request.device_id in self._devices)
                for request in self.pending()
                if only in {None, request.device_id}
            ],
            "paired": [
                paired_to_wire(list(roles.values()))
                for device_id, roles in self._devices.items()
                if only in {None, device_id}
            ],
        }

    # --- changes: durable when they return

    async def request_pairing(self, ask: Ask, now: int) -> RequestOutcome:
        """Make sure that ``ask`` waits for a person, and under which id.

        The same or a narrower ask keeps its id and lives on; a wider one gets a new id, and the old one is superseded.
        Raises `StoreUnavailable` / `StoreCorrupt` (nothing waits then) or `DeviceBookUnreadable`. Cancellation as
        `Store.run`.
        """
        await self._readable_or_reload()
        known = self._pending.get((ask.device_id, ask.role))
        if known is not None and known.covers(ask) and known.expires_at_ms - now > self._ttl_ms - REFRESH_MS:
            await trio.lowlevel.checkpoint()
            return RequestOutcome(known, created=False, superseded=None, events=())
        change = await self._store.run(
            partial(requestrows.ask_to_pair, ask=ask, now=now, ttl_ms=self._ttl_ms, new_id=self._new_id),
            then=self._apply_change,
        )
        events = [resolved_event(old.request_id, old.device_id, decision, now) for old, decision in change.gone]
        if change.created:
            events.append(requested_event(change.request, is_repair=ask.device_id in self._devices))
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
            then=self._apply_approval,
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
        return await self._store.run(job, then=self._apply_records, precious=True)

    # --- what a person decides (`pairing.decisions` has the rules and the errors)

    async def approve(self, request_id: str, by: Decider, now: int, *, ask_hash: str | None = None) -> ApprovalOutcome:
        """Pair what waits under ``request_id``, within what ``by`` holds. Raises as `decisions.approve`, and as
        `request_pairing`. Of two that approve at once one gets the outcome, the other `UnknownRequest`.
        """
        await self._readable_or_reload()
        job = partial(decisions.approve, request_id=request_id, by=by, now=now, tokens=self.tokens, ask_hash=ask_hash)
        approval = await self._store.run(job, then=self._apply_approval, precious=True)
        return ApprovalOutcome(
            approval.device, (resolved_event(request_id, approval.device.device_id, "approved", now),)
        )

    async def reject(self, request_id: str, by: Decider, now: int) -> tuple[Resolution, tuple[BookEvent, ...]]:
        """End a request. Raises as `decisions.reject`, and as `request_pairing`."""
        await self._readable_or_reload()
        job = partial(decisions.reject, request_id=request_id, by=by, now=now)
        gone = await self._store.run(job, then=self._apply_resolution, precious=True)
        return gone, (resolved_event(request_id, gone.device_id, "rejected", now),)

    async def remove(self, device_id: str, by: Decider, now: int, *, spare: str | None = None) -> Decided:
        """Forget a device; its connections end (``spare``: the id of one that has an answer to read first).

        Raises as `decisions.remove`, and as `request_pairing`.
        """
        await self._readable_or_reload()

        def then(records: tuple[PairedDevice, ...]) -> None:
            self._devices.pop(device_id, None)
            self._removed[device_id] = None
            while len(self._removed) > rows.MAX_REMOVED:
                del self._removed[next(iter(self._removed))]
            for record in records:
                self._seen.pop((device_id, record.role), None)
            self.on_cut(device_id, None, spare)

        job = partial(decisions.remove, device_id=device_id, by=by, now=now)
        records = await self._store.run(job, then=then, revokes=True)
        return Decided(records[0], (CHANGED,))

    async def rename(self, device_id: str, label: str, by: Decider) -> Decided:
        """Raises as `decisions.rename`, and as `request_pairing`."""
        await self._readable_or_reload()
        job = partial(decisions.rename, device_id=device_id, label=label, by=by)
        records = await self._store.run(job, then=self._apply_records, precious=True)
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
            then=self._apply_records,
            revokes=True,
        )
        return next((record for record in records if record.role == role), None)

    async def expire(self, now: int) -> tuple[BookEvent, ...]:
        """End the requests whose time is over; costs nothing when there are none. Raises as `request_pairing`."""
        self._must_be_readable()
        if all(request.expires_at_ms > now for request in self._pending.values()):
            await trio.lowlevel.checkpoint()
            return ()
        gone = await self._store.run(partial(requestrows.expire, now=now), then=self._apply_expired)
        return tuple(resolved_event(old.request_id, old.device_id, "expired", now) for old in gone)

    def touch(self, device_id: str, role: str, ip: str, now: int) -> None:
        """Note that a live device was here. Seen at once in memory, on the disk within a minute or so (STATE-3)."""
        record = self.lookup(device_id, role)
        if record is not None and record.last_seen_at_ms <= now:
            self._devices[device_id][role] = attrs.evolve(record, last_seen_at_ms=now, last_ip=ip)
            self._seen[device_id, role] = (now, ip)

    async def flush(self) -> None:
        """Write what `touch` noted. Raises `StoreError`; then it is kept for the next time."""
        self._flushed_at_ms = self._clock()
        if not self._seen:
            return
        seen, self._seen = self._seen, {}
        try:
            await self._store.run(lambda db: rows.save_seen(db, [(*key, *value) for key, value in seen.items()]))
        except BaseException:
            self._seen = {**seen, **self._seen}
            raise

    def follow(self, records: tuple[PairedDevice, ...]) -> None:
        """Take over all records of one device as a job of this room left them (`pairing.issued`): for ``then`` of
        `Store.run`, in the order of commits."""
        self._apply_records(records)

    def follow_approvals(
        self, *, dropped: Iterable[PendingRequest], changes: Iterable[Change], approvals: Iterable[Approval]
    ) -> None:
        """The same for approvals in a job of another part (`pairing.setupcodes`), and what they did to requests."""
        self._apply_expired(list(dropped))
        for change in changes:
            self._apply_change(change)
        for approval in approvals:
            self._apply_approval(approval)

    async def reload(self) -> None:
        """Read everything anew. Raises `DeviceBookUnreadable`; the book stays closed then."""
        try:
            await self._store.run(rows.load, then=self._apply_snapshot)
        except (StoreError, sqlite3.Error, ValueError, TypeError) as error:
            self._fault = str(error)
            raise DeviceBookUnreadable(self._fault) from error

    async def supervise_upkeep(self, publish: Callable[[tuple[BookEvent, ...]], object]) -> None:
        """Never returns: expires requests (and hands the events to ``publish``), flushes, reopens a book that was
        unreadable.

        A store that fails now is asked again five seconds later.
        """
        while True:
            await trio.sleep(UPKEEP_SECONDS)
            try:
                if self._fault is not None:
                    await self.reload()
                if events := await self.expire(self._clock()):
                    publish(events)
                if abs(self._clock() - self._flushed_at_ms) >= FLUSH_MS:
                    await self.flush()
            except (StoreError, DeviceBookUnreadable):
                continue

    # --- inside

    def _must_be_readable(self) -> None:
        if self._fault is not None:
            raise DeviceBookUnreadable(self._fault)

    async def _readable_or_reload(self) -> None:
        if self._fault is not None:
            await self.reload()

    def _apply_snapshot(self, snapshot: rows.Snapshot) -> None:
        self._devices = {}
        for record in snapshot.paired:
            self._devices.setdefault(record.device_id, {})[record.role] = self._with_seen(record)
        self._pending = {(request.device_id, request.role): request for request in snapshot.pending}
        self._resolved = {resolution.request_id: resolution for resolution in snapshot.resolved}
        self._removed = dict.fromkeys(snapshot.removed)
        self._fault = None

    def _apply_change(self, change: Change) -> None:
        for old, _decision in change.gone:
            self._pending.pop((old.device_id, old.role), None)
        self._pending[change.request.device_id, change.request.role] = change.request
        if change.superseded is not None:
            self._remember(change.superseded)

    def _apply_expired(self, gone: list[PendingRequest]) -> None:
        for old in gone:
            self._pending.pop((old.device_id, old.role), None)

    def _apply_approval(self, approval: Approval) -> None:
        self._apply_records(approval.records)
        if approval.fresh:
            self._removed.pop(approval.device.device_id, None)
        if approval.resolved is not None:
            self._apply_resolution(approval.resolved)

    def _apply_resolution(self, resolution: Resolution) -> None:
        self._pending.pop((resolution.device_id, resolution.role), None)
        self._remember(resolution)

    def _apply_cut(self, change: TokenChange, *, spare: str | None) -> None:
        self._apply_records(change.records)
        if change.changed:
            self.on_cut(change.device.device_id, change.device.role, spare)

    def _apply_records(self, records: tuple[PairedDevice, ...]) -> None:
        """``records`` are all of one device; what `touch` noted and nobody flushed yet is newer than the rows."""
        if records:
            self._devices[records[0].device_id] = {record.role: self._with_seen(record) for record in records}

    def _with_seen(self, record: PairedDevice) -> PairedDevice:
        seen = self._seen.get((record.device_id, record.role))
        return record if seen is None else attrs.evolve(record, last_seen_at_ms=seen[0], last_ip=seen[1])

    def _remember(self, resolution: Resolution) -> None:
        self._resolved.pop(resolution.request_id, None)
        self._resolved[resolution.request_id] = resolution
        while len(self._resolved) > requestrows.MAX_RESOLUTIONS:
            del self._resolved[next(iter(self._resolved))]


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
