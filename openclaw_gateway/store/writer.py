"""The store as tasks see it: `await store.run(job)`, with one thread behind it that commits jobs in groups.

Owns the queue between the tasks and the thread, its bound, and the promises to the caller: durable when it returns,
never half done, never unsure (except, and then it says so, when a closing store ran out of time). It must not know SQL.
Callbacks cross from the thread with `TrioToken.run_sync_soon` only (design rule 10).

Invariants: at most ``capacity`` jobs wait; a job that was queued runs to completion whether or not its caller is still
interested; results are applied (``then``) in the order of commit; every shield has a deadline (rule 4).
"""

from __future__ import annotations

import math
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import trio

from openclaw_gateway.store.database import DatabaseFiles, Recovery
from openclaw_gateway.store.engine import Engine, Job
from openclaw_gateway.store.errors import StoreUnavailable

__all__ = ["CAPACITY", "CLOSE_SECONDS", "JOB_SECONDS", "Store", "open_store"]

T = TypeVar("T")

CAPACITY: Final = 1024
BATCH: Final = 256
JOB_SECONDS: Final = 30.0  # over the 5 s that a lock may last, with room for a backup in front
CLOSE_SECONDS: Final = 2.0
_INTERRUPT_AFTER: Final = 1.5


@attrs.define(eq=False, slots=True)
class _Waiting(Job):
    then: Callable[[Any], None] | None = None
    done: trio.Event = attrs.field(factory=trio.Event)


class Store:
    """What `open_store` yields. Belongs to one Trio run; every method is called from its loop."""

    def __init__(self, state_dir: Path | None, *, capacity: int = CAPACITY) -> None:
        self.state_dir = state_dir
        self._engine = Engine(None if state_dir is None else DatabaseFiles(state_dir.absolute()))
        self._capacity = capacity
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._outstanding: set[_Waiting] = set()
        self._closing = False
        self._opened = trio.Event()
        self._stopped = trio.Event()
        self._open_error: Exception | None = None
        self._token = trio.lowlevel.current_trio_token()

    @property
    def recovery(self) -> Recovery | None:
        """What was restored when the store was opened; None where nothing had to be."""
        return self._engine.recovery

    @property
    def backup_fault(self) -> str | None:
        """Why the last backup could not be taken; None while all is well."""
        return self._engine.backup_fault

    @property
    def waiting(self) -> int:
        """How many jobs are queued or running."""
        return len(self._outstanding)

    async def run(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        then: Callable[[T], None] | None = None,
        precious: bool = False,
        revokes: bool = False,
    ) -> T:
        """Run ``work(db)`` in a transaction on the store's thread and return its result once that is durable.

        ``work`` only reads and writes ``db``: it ends no transaction, and it may be run again if a neighbour in its
        group breaks the transaction. What it raises rolls its changes back and is raised here. ``then(result)`` runs on
        the loop in the order of commits, before anybody's `run` returns: this is how a view in memory follows the
        database. ``precious``: a backup is due soon after (decisions of a person, not time stamps). ``revokes``: the
        job takes authority back; a fresh backup takes the place of all older ones, so no restore undoes it (V26).

        Cancellation: looked at before the job is queued, not after; a queued job is waited for (shielded, at most 30
        s). Raises `StoreUnavailable` (queue full, closing, locked, disk full: nothing was changed unless
        ``outcome_unknown``) or `StoreCorrupt`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Waiting(work, precious=precious, revokes=revokes, then=then)
        if self._closing:
            raise StoreUnavailable("the store is closing")
        if len(self._outstanding) >= self._capacity:
            raise StoreUnavailable(f"too many changes are waiting (limit {self._capacity})")
        self._outstanding.add(job)
        if self.state_dir is None:
            self._engine.process([job])
            self._deliver([job])
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            self._queue.put(job)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + JOB_SECONDS):
                await job.done.wait()
        if not job.done.is_set():
            raise StoreUnavailable(f"no answer within {JOB_SECONDS:g} s", outcome_unknown=True)
        if job.error is not None:
            raise job.error
        result: T = job.value
        return result

    async def _start(self) -> None:
        if self.state_dir is None:
            self._engine.open()
            await trio.lowlevel.checkpoint()
            return
        threading.Thread(target=self._work, name="openclaw-store", daemon=True).start()
        try:
            await self._opened.wait()
        except trio.Cancelled:
            await self._aclose()
            raise
        if self._open_error is not None:
            await self._aclose()
            raise self._open_error

    async def _aclose(self) -> None:
        """Finish what is queued, stop the thread; who waits longer than `CLOSE_SECONDS` learns that it is unsure."""
        self._closing = True
        if self.state_dir is None:
            self._engine.close()
            return
        self._engine.hurry(time.monotonic() + _INTERRUPT_AFTER)
        self._queue.put(None)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS):
            with trio.move_on_after(_INTERRUPT_AFTER):
                await self._stopped.wait()
            if not self._stopped.is_set():
                self._engine.interrupt()
                await self._stopped.wait()
        self._let_go("the store closed before the change was made")

    def _let_go(self, reason: str) -> None:
        self._closing = True
        for job in self._outstanding:
            job.error = StoreUnavailable(reason, outcome_unknown=True)
            job.done.set()
        self._outstanding.clear()

    def _on_stopped(self) -> None:
        # Also reached if a bug ends the thread: nobody may wait for answers that cannot come.
        self._stopped.set()
        self._let_go("the store's thread has ended")

    def _deliver(self, batch: list[_Waiting]) -> None:
        for job in batch:
            if job not in self._outstanding:
                continue  # its caller was let go when the store closed
            self._outstanding.discard(job)
            if job.error is None and job.then is not None:
                try:
                    job.then(job.value)
                except Exception as error:  # noqa: BLE001 - a bug of the caller's; it must not stop the other results
                    job.error = error
            job.done.set()

    # --- the thread

    def _work(self) -> None:
        try:
            try:
                self._engine.open()
            except Exception as error:  # noqa: BLE001 - raised by open_store
                self._open_error = error
                return
            finally:
                self._tell(self._opened.set)
            while self._turn():
                pass
        finally:
            self._engine.close()
            self._tell(self._on_stopped)

    def _turn(self) -> bool:
        """One batch of jobs, and a backup if one is due. False when the store closes and all is done."""
        batch, goes_on = self._collect()
        if batch:
            self._engine.process(batch)
            self._tell(self._deliver, batch)
        if goes_on and self._engine.seconds_until_backup() == 0.0:
            self._engine.take_due_backup()
        return goes_on

    def _collect(self) -> tuple[list[_Waiting], bool]:
        batch: list[_Waiting] = []
        timeout = self._engine.seconds_until_backup()
        while len(batch) < BATCH:
            try:
                job = self._queue.get_nowait() if batch else self._queue.get(timeout=timeout)
            except queue.Empty:
                break
            if job is None:
                return batch, False
            batch.append(job)
        return batch, True

    def _tell(self, callback: Callable[..., object], *args: object) -> None:
        try:
            self._token.run_sync_soon(callback, *args)
        except trio.RunFinishedError:
            # Nobody is left to hear it: the loop ended without closing the store.
            self._engine.hurry(-math.inf)
            self._queue.put(None)


@asynccontextmanager
async def open_store(state_dir: Path | None, *, capacity: int = CAPACITY) -> AsyncGenerator[Store, None]:
    """The store under ``state_dir`` (created 0700); None: a private database in memory, gone with the context.

    On entry the database is open, checked, in the newest format; `Store.recovery` tells if a backup had to be put back.
    On exit what is queued is finished, within 2 s. The caller holds the instance lock of the directory.

    Raises `StoreCorrupt`, `StoreTooNew`, `StoreUnavailable`, `StateDirUnsafe`. Cancellation during opening leaves the
    thread to end by itself within 2 s.
    """
    store = Store(state_dir, capacity=capacity)
    await store._start()  # noqa: SLF001 - the two halves of one object
    try:
        yield store
    finally:
        await store._aclose()  # noqa: SLF001
