"""Following one run from inside the gateway.

Owns the way from what is told of runs to somebody who waits for one of them. It must not know who that is.

Invariants: whoever watches loses nothing, because what a run says is bounded (`records.MAX_REPLY`); everybody else is
told as before; a watch ends with its block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio

from openclaw_gateway.agents.records import AgentFailed, Delta, Message
from openclaw_gateway.agents.runs import AgentRuns
from openclaw_gateway.agents.runstate import Run, RunEvents
from openclaw_gateway.queues import Effect

__all__ = ["RunWatch", "WatchedEvents", "watched_events"]


class RunWatch:
    """What a run has said since the last look. ``message`` once it is over, with ``error`` where it failed."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._wake = trio.Event()
        self.message: Message | None = None
        self.error: AgentFailed | None = None
        self.aborted = False

    @property
    def over(self) -> bool:
        return self.message is not None

    async def next_text(self) -> str:
        """Wait until something was said or the run is over; all that was said since, empty when there is no more."""
        while not self._parts and not self.over:
            await self._wake.wait()
            self._wake = trio.Event()
        text = "".join(self._parts)
        self._parts.clear()
        return text

    def said(self, text: str) -> None:
        self._parts.append(text)
        self._wake.set()

    def ended(self, message: Message, *, error: AgentFailed | None, aborted: bool) -> None:
        self.message, self.error, self.aborted = message, error, aborted
        self._wake.set()


class WatchedEvents(RunEvents):
    """Tells ``inner`` everything, and whoever watches a run of it."""

    def __init__(self, inner: RunEvents) -> None:
        self._inner = inner
        self._watches: dict[str, RunWatch] = {}

    @contextmanager
    def watch(self, run_id: str) -> Iterator[RunWatch]:
        """Follow the run that is about to be started under this id; one at a time watches a run."""
        watch = self._watches[run_id] = RunWatch()
        try:
            yield watch
        finally:
            self._watches.pop(run_id, None)

    def started(self, run: Run) -> None:
        self._inner.started(run)

    def delta(self, run: Run, text: str) -> None:
        self._inner.delta(run, text)
        watch = self._watches.get(run.request.run_id)
        if watch is not None:
            watch.said(text)

    def other(self, run: Run, delta: Delta) -> None:
        self._inner.other(run, delta)

    def effects(self, run: Run, message: Message, *, error: AgentFailed | None) -> Sequence[Effect]:
        return self._inner.effects(run, message, error=error)

    def ended(self, run: Run, message: Message, *, error: AgentFailed | None) -> None:
        self._inner.ended(run, message, error=error)
        watch = self._watches.get(run.request.run_id)
        if watch is not None:
            watch.ended(message, error=error, aborted=run.state == "aborted")


def watched_events(runs: AgentRuns) -> WatchedEvents:
    """The events of ``runs`` so that runs can be watched; put in place once."""
    if not isinstance(runs.events, WatchedEvents):
        runs.events = WatchedEvents(runs.events)
    return runs.events
