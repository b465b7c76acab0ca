"""A long-running program that dies with us, kill -9 included, and never stays behind as a zombie.

Owns the guard: a ``/bin/sh`` between us and the program that leads their process group and holds a pipe from us. The
pipe closes with us, however we end; then the whole group is killed. (PR_SET_PDEATHSIG would not do: Trio forks in a
worker thread, and the kernel takes that thread's end, ten seconds later, for the parent's.) It must not know what the
program is.

Invariants: no shell ever reads the command (it reaches the guard as ``"$@"``); the program reads nothing of ours (its
stdin is /dev/null); when the block of `open_guarded` is left, by return, error or cancellation, nothing of the group
lives and the guard has been waited for; a line that is handed on is printable and at most `MAX_LINE` characters long.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import trio

from openclaw_gateway.errors import flat_errors
from openclaw_gateway.ops.log import escape

__all__ = ["MAX_LINE", "TERM_SECONDS", "GuardedProcess", "open_guarded"]

# The inner shell tells its id and then becomes the program, so the id is known before the program's first word. The
# watcher keeps the group from being empty until the guard itself ends it, so the group's id cannot change hands. The
# guard's own remarks ("Killed") go nowhere: stderr is the program's alone.
_GUARD: Final = """\
exec 3<&0 </dev/null 4>&2 2>/dev/null
/bin/sh -c 'echo "$$"; exec "$@"' "$0" "$@" 2>&4 3<&- 4>&- &
program=$!
{ trap '' TERM INT HUP; exec 4>&-; read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
watcher=$!
exec 3<&- 4>&-
trap '' TERM INT HUP
wait "$program"
status=$?
kill -KILL "$watcher"
wait "$watcher"
exit "$status"
"""
MAX_LINE: Final = 8192
TERM_SECONDS: Final = 1.0
KILL_SECONDS: Final = 1.0
REAP_SECONDS: Final = 2.0
DRAIN_SECONDS: Final = 0.5
_CHUNK: Final = 4096


class GuardedProcess:
    """A program under guard, made by `open_guarded`. ``pid`` is the program's own, not the guard's; 0 where it ended
    before it could tell."""

    def __init__(self, guard: trio.Process, pid: int) -> None:
        self._guard = guard
        self.pid = pid

    @property
    def returncode(self) -> int | None:
        """The exit status as a shell tells it (128 + n for a signal), None while it runs."""
        code = self._guard.returncode
        return 128 - code if code is not None and code < 0 else code

    async def wait(self) -> int:
        """Wait for the end; the exit status. Cancelling gives up waiting and changes nothing."""
        await self._guard.wait()
        code = self.returncode
        assert code is not None
        return code

    def terminate(self) -> None:
        """Ask the program to end (SIGTERM). Synchronous and harmless when repeated."""
        self.signal(signal.SIGTERM)

    def signal(self, number: signal.Signals) -> None:
        # While the guard has not been waited for, it has not waited for the program: the id is still the program's.
        if self.pid > 0 and self._guard.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def _end(self) -> None:
        """TERM, KILL, then the whole group; bounded by the sum of the three patiences."""
        with trio.CancelScope(shield=True):
            for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
                self.signal(number)
                with trio.move_on_after(seconds):
                    await self._guard.wait()
                    break
            # Also where the guard ended by itself: what the program left in its group ends with it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._guard.pid, signal.SIGKILL)
            with trio.move_on_after(REAP_SECONDS):
                if self._guard.stdin is not None:
                    await self._guard.stdin.aclose()
                await self._guard.wait()


@asynccontextmanager
async def open_guarded(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stderr_line: Callable[[str], None] | None = None,
    stdout_line: Callable[[str], None] | None = None,
) -> AsyncIterator[GuardedProcess]:
    """Run ``argv`` while the block lasts.

    ``env``: the whole environment, None for ours. ``stderr_line`` and ``stdout_line`` hear each line as it comes; they
    must not block, and what they raise ends the block. Leaving the block: SIGTERM, `TERM_SECONDS` later SIGKILL;
    under cancellation too. Raises FileNotFoundError or another OSError where the program cannot be started.
    """
    program = shutil.which(argv[0], path=(os.environ if env is None else env).get("PATH"))
    if program is None:
        raise FileNotFoundError(2, "no such program", argv[0])
    guard = await trio.lowlevel.open_process(
        ["/bin/sh", "-c", _GUARD, "openclaw-guard", program, *argv[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=None if env is None else dict(env),
        start_new_session=True,
    )
    assert guard.stdout is not None
    assert guard.stderr is not None
    process = GuardedProcess(guard, 0)
    try:
        out = _Lines(guard.stdout)
        told = await out.next()
        process.pid = int(told) if told is not None and told.isdecimal() else 0
        with flat_errors():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(out.hand_on, stdout_line)
                nursery.start_soon(_Lines(guard.stderr).hand_on, stderr_line)
                try:
                    yield process
                finally:
                    await process._end()  # noqa: SLF001  the same module
                    # What left the group may hold the pipes for ever; what is in them by now is enough.
                    nursery.cancel_scope.deadline = trio.current_time() + DRAIN_SECONDS
    finally:
        await process._end()  # noqa: SLF001  the same module
        for stream in (guard.stdout, guard.stderr):
            await trio.aclose_forcefully(stream)


class _Lines:
    """A stream cut into lines."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()
        self._ended = False

    async def next(self) -> str | None:
        """The next line, without its end; None at the end of the stream."""
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline or len(line) >= MAX_LINE:
                if not newline:
                    line, rest = self._buffer[:MAX_LINE], self._buffer[MAX_LINE:]
                self._buffer = rest
                return escape(line.decode(errors="replace").rstrip("\r"), MAX_LINE)
            if self._ended:
                self._buffer = bytearray()
                return escape(line.decode(errors="replace"), MAX_LINE) if line else None
            try:
                chunk = await self._stream.receive_some(_CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                chunk = b""
            self._ended = not chunk
            self._buffer += chunk

    async def hand_on(self, hear: Callable[[str], None] | None) -> None:
        while (line := await self.next()) is not None:
            if hear is not None:
                hear(line)
