"""When each device was last here: noted at once, written at most once a minute (STATE-3).

Owns the notes that are not on the disk yet. It must not know who may come in, nor what a record is for. Invariants: a
connect that only reads writes nothing; a note that could not be written is kept for the next time, unless a newer one
took its place; a time stamp is worth no failure and no wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from openclaw_gateway.pairing import rows
from openclaw_gateway.pairing.records import PairedDevice
from openclaw_gateway.store import Store

__all__ = ["LastSeen"]

FLUSH_MS: Final = 60_000


class LastSeen:
    """The notes of one `DeviceBook`. ``clock`` gives Unix milliseconds."""

    def __init__(self, store: Store, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[int, str]] = {}
        self._flushed_at_ms = clock()

    def note(self, device_id: str, role: str, now: int, ip: str) -> None:
        self._seen[device_id, role] = (now, ip)

    def forget(self, device_id: str, role: str) -> None:
        self._seen.pop((device_id, role), None)

    def upon(self, record: PairedDevice) -> PairedDevice:
        """``record`` as of its last visit: what was noted and nobody flushed yet is newer than the row."""
        seen = self._seen.get((record.device_id, record.role))
        return record if seen is None else attrs.evolve(record, last_seen_at_ms=seen[0], last_ip=seen[1])

    def due(self) -> bool:
        """True where the last `flush` was a minute ago, by whichever way the clock went."""
        return abs(self._clock() - self._flushed_at_ms) >= FLUSH_MS

    async def flush(self) -> None:
        """Write the notes. Raises `StoreError`; then they are kept for the next time."""
        self._flushed_at_ms = self._clock()
        if not self._seen:
            return
        seen, self._seen = self._seen, {}
        try:
            await self._store.run(lambda db: rows.save_seen(db, [(*key, *value) for key, value in seen.items()]))
        except BaseException:
            self._seen = {**seen, **self._seen}
            raise
