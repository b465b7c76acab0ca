"""The audit trail: who came, who was turned away, what authority was given or taken, and who did it (AUDIT-1).

Owns the queue between those who record and the file, and the two promises: `AuditTrail.note` costs a few microseconds
and is on the disk within about a second; `AuditTrail.commit` is on the disk when it returns. It must not know what an
action means, and never sees credentials: there are no fields for them (`ops.auditrows.FIELDS`).

Theory of operation. Both put an entry into one queue, so the order in the file is the order of events. Whatever is
queued is written by one job on the store's thread (design rule 10: no thread of our own): seal, append, fsync, and the
new head into the store in the same job. Commits that wait at the same time share one job. A synchronous fsync on the
loop would hold up every connection for as long as the disk likes (here 0.2 ms, on a busy disk 5-50 ms).

Invariants: at most `MAX_PENDING` entries wait, what does not fit is counted and the count becomes a row; an entry
leaves the queue only when it is on the disk; a job that is run twice appends once; recording never ends a connection
and never stops a gateway.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from itertools import islice
from math import inf
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.ops.auditchain import Head, read_row, seal
from openclaw_gateway.ops.auditfile import AuditFile, Written, stamp, tail_lines
from openclaw_gateway.ops.auditrepeat import Entry, Repeats
from openclaw_gateway.ops.auditrows import Action, compose
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.store import Store, StoreError, StoreUnavailable

__all__ = ["Action", "AuditTrail", "audit_folder", "open_audit", "read_head"]

MAX_PENDING: Final = 4096
COMMIT_RESERVE: Final = 512  # room that only commits may use
BATCH: Final = 512
FLUSH_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 1.0
MEMORY_ROWS: Final = 500  # what a gateway without a state directory remembers
_REPEATING: Final = frozenset({Action.CONNECT, Action.DISCONNECT, Action.CHANNEL_REFUSED})

log = get_logger("audit")


def audit_folder(state_dir: Path) -> Path:
    return state_dir / "audit"


@attrs.define(eq=False)
class _Batch:
    """What one job writes; ``written`` is set once it did, so that running the job again appends nothing."""

    rows: list[Entry]
    dropped: int
    written: Written | None = None


class AuditTrail:
    """What `open_audit` yields. Belongs to one Trio run; every method is called from its loop.

    Without a store, or with one in memory, the trail is the last `MEMORY_ROWS` rows and ends with the process.
    """

    def __init__(self, store: Store | None = None, *, file: AuditFile | None = None) -> None:
        self._store = store
        state_dir = store.state_dir if store is not None else None
        if file is None and state_dir is not None:
            file = AuditFile(audit_folder(state_dir))
        self._file = file
        self._pending: deque[Entry] = deque()
        self._repeats = Repeats()
        self._writing = trio.Lock()
        self._taken = 0  # entries that ever entered the queue
        self._kept = 0  # entries that left it for the disk
        self._memory: deque[bytes] = deque(maxlen=MEMORY_ROWS)
        self._memory_head = Head()
        self._fault: str | None = None
        self.dropped = 0  # entries that had no room, since the last row that counts them

    @property
    def fault(self) -> str | None:
        """Why the last write failed; None while all is well."""
        return self._fault

    @property
    def waiting(self) -> int:
        """Entries that are not on the disk yet."""
        return len(self._pending)

    def note(self, action: Action, *, actor: str, outcome: str = "ok", **fields: object) -> None:
        """Record something that nobody waits for: it is on the disk within about a second. Never raises.

        ``fields`` are names of `FIELDS` that the action may carry; others are dropped and counted in the row.
        """
        entry = Entry(time.time(), action, {"outcome": outcome, "actor": actor, **fields})
        if action in _REPEATING:
            for due in self._repeats.pass_on(entry, time.monotonic()):
                self._queue(due, MAX_PENDING)
        else:
            self._queue(entry, MAX_PENDING)

    async def commit(self, action: Action, *, actor: str, outcome: str = "ok", **fields: object) -> None:
        """Record something about authority; on the disk, with everything recorded before it, when this returns.

        Call it after the change is durable and before it is acknowledged. Cancellation leaves the entry queued. Raises
        `StoreUnavailable` where it cannot be written now: the entry then stays queued and is written when it can be
        (unless the queue was full; the message says so).
        """
        entry = Entry(time.time(), action, {"outcome": outcome, "actor": actor, **fields})
        if not self._queue(entry, MAX_PENDING + COMMIT_RESERVE):
            raise StoreUnavailable("the audit trail cannot be written, and too many rows wait already")
        await self._write_up_to(self._taken)

    async def flush(self) -> None:
        """Write everything that was recorded so far. Raises `StoreUnavailable`; then it stays queued."""
        await self._write_up_to(self._taken)

    async def serve_flush(self) -> None:
        """Never returns: writes what was noted, once a second. A disk that fails is tried again a second later."""
        while True:
            await trio.sleep(FLUSH_SECONDS)
            for due in self._repeats.due(time.monotonic()):
                self._queue(due, MAX_PENDING)
            with suppress(StoreError):
                await self.flush()

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last rows, oldest first, with what was noted a moment ago. Reads at most as much of the files as these
        rows take. Raises OSError where a file is there and cannot be read."""
        with suppress(StoreError):  # what cannot be written now is missing here too, and the rest is still worth seeing
            await self.flush()
        if self._file is not None:
            return tail_lines(self._file.folder, limit)
        rows = [read_row(line[:-1]) for line in islice(self._memory, max(0, len(self._memory) - limit), None)]
        return [row for row in rows if row is not None]

    async def aclose(self) -> None:
        """Write what is left, within `CLOSE_SECONDS`."""
        for due in self._repeats.due(inf):
            self._queue(due, MAX_PENDING)
        with suppress(StoreError), trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            await self.flush()
        if self._pending:
            log.error("audit rows could not be written", lost=len(self._pending), error=self._fault)
        if self._file is not None and not self._writing.locked():
            self._file.close()

    # --- inside

    def _queue(self, entry: Entry, limit: int) -> bool:
        if len(self._pending) >= limit:
            self.dropped += 1
            return False
        self._pending.append(entry)
        self._taken += 1
        return True

    async def _write_up_to(self, ticket: int) -> None:
        """Return once the first ``ticket`` entries are on the disk. Who comes while a batch is being written waits for
        it and goes with the next."""
        if self._file is None:
            self._remember()
        while self._kept < ticket:
            async with self._writing:
                if self._kept < ticket:
                    await self._write_batch()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def _write_batch(self) -> None:
        file, store = self._file, self._store
        assert file is not None
        assert store is not None
        # A bound on what one job does: others wait for the store's thread, and a disk that fails is tried often.
        rows = list(islice(self._pending, BATCH))
        batch = _Batch(rows, self.dropped if len(rows) == len(self._pending) else 0)

        def work(db: sqlite3.Connection) -> None:
            if batch.written is None:
                row = db.execute("SELECT seq, hash FROM audit_head").fetchone()
                batch.written = file.append(_rows(batch), Head(*row) if row is not None else Head())
            head = batch.written.head
            if head.seq:
                db.execute(
                    "INSERT INTO audit_head (id, seq, hash) VALUES (1, ?, ?)"
                    " ON CONFLICT (id) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
                    (head.seq, head.hash),
                )

        try:
            await store.run(work)
        except StoreError as error:
            self._broken(str(error))
            raise
        finally:
            written = batch.written
            if written is not None:
                self._take_off(batch, written)
        assert written is not None
        if written.fault is not None:
            self._broken(written.fault)
            raise StoreUnavailable(f"the audit trail cannot be written: {written.fault}")
        if self._fault is not None:
            self._fault = None
            log.info("the audit trail is written again")

    def _take_off(self, batch: _Batch, written: Written) -> None:
        rows = min(written.rows, len(batch.rows))
        for _ in range(rows):
            self._pending.popleft()
        self._kept += rows
        if written.rows > len(batch.rows):  # the row that counts what was dropped comes last
            self.dropped -= batch.dropped

    def _broken(self, fault: str) -> None:
        if self._fault is None:
            log.error("the audit trail cannot be written", error=fault, fix="df -h, openclaw doctor")
        self._fault = fault

    def _remember(self) -> None:
        while self._pending:
            entry = self._pending.popleft()
            self._kept += 1
            row = compose(entry.action, stamp(entry.at), entry.fields)
            line, self._memory_head = seal(row, self._memory_head)
            self._memory.append(line)


def _rows(batch: _Batch) -> list[dict[str, object]]:
    rows = [compose(entry.action, stamp(entry.at), entry.fields) for entry in batch.rows]
    if batch.dropped:
        fields = {"outcome": "failed", "actor": "gateway", "dropped": batch.dropped}
        rows.append(compose(Action.AUDIT_DROPPED, stamp(time.time()), fields))
    return rows


def read_head(state_dir: Path) -> Head | None:
    """The head that the store knows, read beside a running gateway or without one; None where there is no store yet.

    Raises `sqlite3.Error` where the store is there and cannot be read.
    """
    path = state_dir / "gateway.db"
    if not path.exists():
        return None
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)
    try:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'audit_head'").fetchone():
            return None
        row = db.execute("SELECT seq, hash FROM audit_head").fetchone()
        return Head(*row) if row is not None else Head()
    finally:
        db.close()


@asynccontextmanager
async def open_audit(store: Store) -> AsyncGenerator[AuditTrail, None]:
    """The trail beside an open store (``<state>/audit``). On exit what was noted is written, within a second.

    Nothing is opened or created before the first row. The command line uses it the same way while no gateway runs.
    """
    trail = AuditTrail(store)
    try:
        yield trail
    finally:
        await trail.aclose()
