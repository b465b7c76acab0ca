"""One program, run to its end and never beyond: its process group, its time, its output.

Owns the guard: a ``/bin/sh`` that leads the group and holds a pipe from this process. When the pipe closes, for
whatever reason (kill -9 of the node included), everything in the group is killed. PR_SET_PDEATHSIG would not do:
under Trio the fork happens in a worker thread, and the kernel takes that thread's end for the parent's.

Invariants: no shell ever reads the command (it reaches the guard as ``"$@"``); when `run_program` is left, by return,
error or cancellation, nothing of the group lives; of each output stream at most ``max_bytes`` are kept, the rest is
read and dropped, so that a talkative program neither blocks nor fills the memory. What leaves the group on purpose
(setsid) is out of reach here; that takes a container.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import trio

__all__ = ["Outcome", "run_program"]

# The watcher keeps the group from being empty until it is killed as a whole, so its id cannot change hands before.
# The guard's own remarks ("Terminated") go nowhere: the program's stderr is the program's alone.
_GUARD: Final = """\
exec 3<&0 </dev/null
{ trap '' TERM INT HUP; read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
trap : TERM INT HUP
exec 4>&2 2>/dev/null
(exec "$@" 2>&4 3<&- 4>&-)
exit $?
"""
TERM_SECONDS: Final = 0.5
DRAIN_SECONDS: Final = 0.5
REAP_SECONDS: Final = 2.0
_CHUNK: Final = 65_536


@attrs.frozen(kw_only=True)
class Outcome:
    """``exit_code`` as a shell tells it (128 + n for a signal), None where the time was over; ``truncated``: output
    was dropped."""

    exit_code: int | None
    timed_out: bool
    stdout: bytes
    stderr: bytes
    truncated: bool


@attrs.define
class _Kept:
    limit: int
    data: bytearray = attrs.field(factory=bytearray)
    dropped: bool = False

    async def collect(self, stream: trio.abc.ReceiveStream) -> None:
        with contextlib.suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            while chunk := await stream.receive_some(_CHUNK):
                room = self.limit - len(self.data)
                self.data += chunk[:room]
                self.dropped = self.dropped or len(chunk) > room


async def run_program(
    argv: Sequence[str], *, cwd: str, env: Mapping[str, str], seconds: float, max_bytes: int
) -> Outcome:
    """Run ``argv`` (its first item an absolute path) for at most ``seconds``; then SIGTERM, 0.5 s later SIGKILL.

    Raises OSError where it cannot be started. Cancellation kills the group at once and waits for the leader's end.
    """
    process = await trio.lowlevel.open_process(
        ["/bin/sh", "-c", _GUARD, "openclaw-node-guard", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=dict(env),
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    out, err = _Kept(max_bytes), _Kept(max_bytes)
    timed_out = False
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(out.collect, process.stdout)
            nursery.start_soon(err.collect, process.stderr)
            with trio.move_on_after(seconds) as patience:
                await process.wait()
            timed_out = patience.cancelled_caught
            if timed_out:
                _signal_group(process, signal.SIGTERM)
                with trio.move_on_after(TERM_SECONDS):
                    await process.wait()
            _signal_group(process, signal.SIGKILL)
            # Whoever left the group may hold the pipes for ever; what is in them by now is enough.
            nursery.cancel_scope.deadline = trio.current_time() + DRAIN_SECONDS
    finally:
        await _end(process)
    return Outcome(
        exit_code=None if timed_out else process.returncode,
        timed_out=timed_out,
        stdout=bytes(out.data),
        stderr=bytes(err.data),
        truncated=out.dropped or err.dropped,
    )


def _signal_group(process: trio.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


async def _end(process: trio.Process) -> None:
    if process.returncode is None:
        _signal_group(process, signal.SIGKILL)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + REAP_SECONDS):
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()
        await process.wait()
