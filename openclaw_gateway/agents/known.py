"""The runs that are known by their ids: those that have not ended, and how the last of the others did.

Owns both lists and their caps. It must not know how a run begins or ends.

Invariants: a run that has not ended hides one of the same id that has; of ended runs the last `MAX_ENDED` are kept,
without their questions; of the others there are as many as the inbound queue admits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from openclaw_gateway.agents.records import AgentFailed
from openclaw_gateway.agents.runstate import Ended, Run, digest_of

__all__ = ["KnownRuns"]

MAX_ENDED: Final = 1_000


class KnownRuns:
    """All runs of one gateway."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._ended: OrderedDict[str, Ended] = OrderedDict()

    def __len__(self) -> int:
        """All of them, ended or not."""
        return len(self._runs) + len(self._ended)

    def get(self, run_id: str) -> Run | Ended | None:
        return self._runs.get(run_id) or self._ended.get(run_id)

    def alive(self, run_id: str) -> Run | None:
        """The run of this id that has not ended."""
        return self._runs.get(run_id)

    def active(self, session_key: str | None = None) -> list[Run]:
        """Runs that have not ended, in the order of acceptance."""
        return [run for run in self._runs.values() if session_key in {None, run.request.session_key}]

    def restore(self, waiting: Sequence[Run]) -> None:
        """Take over what an earlier process accepted and left."""
        self._runs.update((run.request.run_id, run) for run in waiting)

    def add(self, run: Run) -> Run:
        self._runs[run.request.run_id] = run
        return run

    def discard(self, run_id: str) -> None:
        """A run is known no more, and nothing of it stays: another process knows how it ended, or will carry it out."""
        self._runs.pop(run_id, None)

    def end(self, run: Run, failure: AgentFailed | None, now: int) -> None:
        """A run has ended, at ``now`` in Unix milliseconds; its `State` says how."""
        request = run.request
        self._runs.pop(request.run_id, None)
        self._ended[request.run_id] = Ended(
            run_id=request.run_id,
            session_key=request.session_key,
            state=run.state,
            ended_at_ms=now,
            started_at_ms=run.started_at_ms,
            error=failure.message if failure is not None else None,
            asked=digest_of(request),
        )
        while len(self._ended) > MAX_ENDED:
            self._ended.popitem(last=False)
