"""What the device book knows: who is paired, who waits, and what became of the rest, in memory.

Owns the view that follows the store, and every look-up in it. It must not know the store, tasks or who asks: each
``apply`` takes what one durable job left, in the order of commits, so the view never knows what a crash could take
back.

Invariants: a view that could not be loaded answers nothing (`DeviceBookUnreadable`), never "not paired"; what `lookup`
returns is live; what was settled and removed is remembered up to the caps of the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.pairing import requestrows, rows
from openclaw_gateway.pairing.lastseen import LastSeen
from openclaw_gateway.pairing.records import (
    PairedDevice,
    PendingRequest,
    Resolution,
    paired_to_wire,
    pending_to_wire,
)
from openclaw_gateway.pairing.requestrows import Change
from openclaw_gateway.pairing.rows import Approval

__all__ = ["DeviceBookUnreadable", "KnownDevices"]


@attrs.define(eq=False, repr=False)
class DeviceBookUnreadable(GatewayError):
    """Who is paired is not known, because the store could not be read. Retryable; nobody is admitted meanwhile."""

    reason: str

    def __str__(self) -> str:
        return f"the paired devices cannot be read: {self.reason}"


class KnownDevices:
    """The view of one `DeviceBook`. ``fault``: why nothing can be looked up, None while all can."""

    def __init__(self, clock: Callable[[], int], seen: LastSeen) -> None:
        self.fault: str | None = "not loaded yet"
        self._clock = clock
        self._seen = seen
        self._devices: dict[str, dict[str, PairedDevice]] = {}
        self._pending: dict[tuple[str, str], PendingRequest] = {}
        self._resolved: dict[str, Resolution] = {}
        self._removed: dict[str, None] = {}

    def must_be_readable(self) -> None:
        """Raises `DeviceBookUnreadable`."""
        if self.fault is not None:
            raise DeviceBookUnreadable(self.fault)

    # --- look-ups

    def lookup(self, device_id: str, role: str) -> PairedDevice | None:
        """The live record of (device, role); None where there is none or it was revoked.

        Raises `DeviceBookUnreadable`: admission then answers a retryable UNAVAILABLE.
        """
        self.must_be_readable()
        record = self._devices.get(device_id, {}).get(role)
        return record if record is not None and record.live else None

    def records_of(self, device_id: str) -> tuple[PairedDevice, ...]:
        """All records of one device, revoked ones too. Raises `DeviceBookUnreadable`."""
        self.must_be_readable()
        return tuple(self._devices.get(device_id, {}).values())

    def paired(self) -> tuple[PairedDevice, ...]:
        """Every record, revoked ones too. Raises `DeviceBookUnreadable`."""
        self.must_be_readable()
        return tuple(record for roles in self._devices.values() for record in roles.values())

    def pending(self) -> tuple[PendingRequest, ...]:
        """What waits now, oldest first. Raises `DeviceBookUnreadable`."""
        self.must_be_readable()
        now = self._clock()
        waiting = [request for request in self._pending.values() if request.expires_at_ms > now]
        return tuple(sorted(waiting, key=lambda request: (request.first_seen_ms, request.request_id)))

    def resolution(self, request_id: str) -> Resolution | None:
        """What became of an id that is pending no longer (the last 256 are known): superseded by which, approved."""
        self.must_be_readable()
        return self._resolved.get(request_id)

    def was_removed(self, device_id: str) -> bool:
        """True where a person removed this device and nobody approved it since: it does not pair by itself (V26)."""
        self.must_be_readable()
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

    def waiting(self, device_id: str, role: str) -> PendingRequest | None:
        """The request of (device, role), expired or not."""
        return self._pending.get((device_id, role))

    def is_repair(self, device_id: str) -> bool:
        """True where the device is known already: what it asks for renews or widens what it has."""
        return device_id in self._devices

    def any_over(self, now: int) -> bool:
        """True where the time of a request is over."""
        return any(request.expires_at_ms <= now for request in self._pending.values())

    # --- a visit

    def touch(self, device_id: str, role: str, ip: str, now: int) -> None:
        """Note that a live device was here. Raises `DeviceBookUnreadable`."""
        record = self.lookup(device_id, role)
        if record is not None and record.last_seen_at_ms <= now:
            self._devices[device_id][role] = attrs.evolve(record, last_seen_at_ms=now, last_ip=ip)
            self._seen.note(device_id, role, now, ip)

    # --- what a durable job left

    def apply_snapshot(self, snapshot: rows.Snapshot) -> None:
        """Everything anew; from here on the view can be read."""
        self._devices = {}
        for record in snapshot.paired:
            self._devices.setdefault(record.device_id, {})[record.role] = self._seen.upon(record)
        self._pending = {(request.device_id, request.role): request for request in snapshot.pending}
        self._resolved = {resolution.request_id: resolution for resolution in snapshot.resolved}
        self._removed = dict.fromkeys(snapshot.removed)
        self.fault = None

    def apply_change(self, change: Change) -> None:
        for old, _decision in change.gone:
            self._pending.pop((old.device_id, old.role), None)
        self._pending[change.request.device_id, change.request.role] = change.request
        if change.superseded is not None:
            self._remember(change.superseded)

    def apply_expired(self, gone: list[PendingRequest]) -> None:
        for old in gone:
            self._pending.pop((old.device_id, old.role), None)

    def apply_approval(self, approval: Approval) -> None:
        self.apply_records(approval.records)
        if approval.fresh:
            self._removed.pop(approval.device.device_id, None)
        if approval.resolved is not None:
            self.apply_resolution(approval.resolved)

    def apply_resolution(self, resolution: Resolution) -> None:
        self._pending.pop((resolution.device_id, resolution.role), None)
        self._remember(resolution)

    def apply_removed(self, device_id: str, records: tuple[PairedDevice, ...]) -> None:
        self._devices.pop(device_id, None)
        self._removed[device_id] = None
        while len(self._removed) > rows.MAX_REMOVED:
            del self._removed[next(iter(self._removed))]
        for record in records:
            self._seen.forget(device_id, record.role)

    def apply_records(self, records: tuple[PairedDevice, ...]) -> None:
        """``records`` are all of one device."""
        if records:
            self._devices[records[0].device_id] = {record.role: self._seen.upon(record) for record in records}

    def _remember(self, resolution: Resolution) -> None:
        self._resolved.pop(resolution.request_id, None)
        self._resolved[resolution.request_id] = resolution
        while len(self._resolved) > requestrows.MAX_RESOLUTIONS:
            del self._resolved[next(iter(self._resolved))]
