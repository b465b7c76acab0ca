"""One gateway per state directory: a lock that dies with its process, and who holds it.

Owns ``gateway.lock``: an exclusive flock(2), and inside the file a note about the holder. Only the flock decides
whether somebody holds it; the note only says who, and is believed only while the flock is held *and* the process of
that id has the start time that is written down (V49: a process id alone names anybody). It must not know what a gateway
is.

Invariants: after kill -9 the lock is free at once; no process is ever signalled that is not verified as the holder; on
Linux the signal goes through a pidfd that was opened before the check, so that the id cannot change hands in between.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.statedir import StateDirUnsafe, ensure_private_dir

__all__ = [
    "AlreadyRunning",
    "Holder",
    "InstanceLock",
    "process_start_time",
    "read_holder",
    "signal_holder",
    "wait_released",
]

LOCK_FILE: Final = "gateway.lock"
_MAX_NOTE_BYTES: Final = 4096
_MAX_URLS: Final = 8
_MAX_URL_CHARS: Final = 256
# Somebody who only looks holds a shared lock for microseconds; the real holder holds his for hours.
_ATTEMPTS: Final = 10
_ATTEMPT_SECONDS: Final = 0.02
_POLL_SECONDS: Final = 0.02
_LINUX: Final = sys.platform.startswith("linux")


@attrs.frozen(kw_only=True)
class Holder:
    """Who holds the lock. ``pid`` is None where the note could not be verified; ``start_time`` is the system's text."""

    state_dir: Path
    pid: int | None = None
    start_time: str | None = None
    port: int | None = None
    bind: str | None = None
    url: str | None = None
    elsewhere: tuple[str, ...] = ()  # addresses that work from other hosts
    version: str | None = None
    started_at_ms: int | None = None
    stopped: bool = False  # suspended by SIGSTOP or a debugger: it will not answer


@attrs.define(eq=False)
class AlreadyRunning(GatewayError):
    """Another gateway holds this state directory."""

    holder: Holder

    def __str__(self) -> str:
        who = "a process that cannot be identified" if self.holder.pid is None else f"process {self.holder.pid}"
        where = f" at {self.holder.url}" if self.holder.url else ""
        text = f"a gateway is running already on {self.holder.state_dir}: {who}{where}"
        if self.holder.stopped:
            return f"{text}; it is suspended; fix: kill -CONT {self.holder.pid}, or: kill -KILL {self.holder.pid}"
        return f"{text}; fix: openclaw gateway stop"


class InstanceLock:
    """The lock as its holder sees it. Use as a context manager, or `release` it; the process's end releases it too."""

    def __init__(self, fd: int, state_dir: Path, note: dict[str, Any]) -> None:
        self._fd = fd
        self.state_dir = state_dir
        self._note = note

    @classmethod
    def acquire(
        cls,
        state_dir: Path,
        *,
        port: int | None = None,
        bind: str | None = None,
        url: str | None = None,
        version: str | None = None,
    ) -> InstanceLock:
        """Take the lock (the directory is made private first). Gives up after 0.2 s: a verdict, not a wait.

        Raises `AlreadyRunning`, which names the holder; `StateDirUnsafe`; `OSError`.
        """
        ensure_private_dir(state_dir)
        fd = _open(state_dir, os.O_RDWR | os.O_CREAT)
        try:
            os.fchmod(fd, 0o600)
            _lock_with_patience(fd, state_dir)
            note = {
                "pid": os.getpid(),
                "startTime": process_start_time(os.getpid()),
                "port": port,
                "bind": bind,
                "url": url,
                "version": version,
                "startedAtMs": time.time_ns() // 1_000_000,
            }
            lock = cls(fd, state_dir, note)
            lock._write()
        except BaseException:
            os.close(fd)
            raise
        return lock

    def update(
        self,
        *,
        port: int | None = None,
        bind: str | None = None,
        url: str | None = None,
        elsewhere: tuple[str, ...] | None = None,
    ) -> None:
        """Write down what became known after the lock was taken; of ``elsewhere`` what fits. Raises `OSError`; the lock
        is held all the same.
        """
        fitting = elsewhere and [one for one in elsewhere if len(one) <= _MAX_URL_CHARS][:_MAX_URLS]
        for key, value in (("port", port), ("bind", bind), ("url", url), ("elsewhere", fitting)):
            if value is not None:
                self._note[key] = value
        self._write()

    def release(self) -> None:
        """Let go. The file stays: removing it would let two processes lock two files of the same name."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(fd, 0)
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _write(self) -> None:
        text = json.dumps(self._note).encode() + b"\n"
        # Written over the old note and then cut: a reader in between sees one whole JSON line first.
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))


def read_holder(state_dir: Path) -> Holder | None:
    """Who holds the lock now; None if nobody does, whatever the file says. Raises `StateDirUnsafe`, `OSError`."""
    try:
        fd = _open(state_dir, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return None if _is_free(fd) else _identify(fd, state_dir)
    finally:
        os.close(fd)


def signal_holder(holder: Holder, signum: signal.Signals) -> bool:
    """Signal the process that holds the lock. False if that is no longer, or cannot be proven to be, ``holder``.

    Raises `PermissionError` where the holder belongs to somebody else.
    """
    if holder.pid is None or holder.pid <= 0:
        return False
    pidfd = -1
    try:
        if _LINUX:
            pidfd = os.pidfd_open(holder.pid)
        # Everything is checked again after the pidfd names one process for good.
        now = read_holder(holder.state_dir)
        if now is None or (now.pid, now.start_time) != (holder.pid, holder.start_time):
            return False
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, signum)
        else:
            os.kill(holder.pid, signum)
    except ProcessLookupError:
        return False
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    return True


async def wait_released(state_dir: Path, seconds: float) -> bool:
    """Wait until nobody holds the lock, at most ``seconds``. True if it is free. Cancellable at any time."""
    import trio

    with trio.move_on_after(seconds):
        while read_holder(state_dir) is not None:  # noqa: ASYNC110 - the kernel tells nobody when a flock goes
            await trio.sleep(_POLL_SECONDS)
        return True
    return read_holder(state_dir) is None


# --- inside


def _open(state_dir: Path, flags: int) -> int:
    path = state_dir / LOCK_FILE
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError:
        if path.is_symlink():
            raise StateDirUnsafe(path, "is a symbolic link", f"rm '{path}'") from None
        raise


def _lock_with_patience(fd: int, state_dir: Path) -> None:
    for _ in range(_ATTEMPTS):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_ATTEMPT_SECONDS)
        else:
            return
    raise AlreadyRunning(_identify(fd, state_dir))


def _is_free(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def _identify(fd: int, state_dir: Path) -> Holder:
    """The holder as its note has it, once that is verified; without a pid otherwise."""
    for _ in range(_ATTEMPTS):
        note = _read_note(fd)
        pid, start = note.get("pid"), note.get("startTime")
        if isinstance(pid, int) and pid > 0 and isinstance(start, str) and process_start_time(pid) == start:
            return Holder(
                state_dir=state_dir,
                pid=pid,
                start_time=start,
                port=_integer(note.get("port")),
                bind=_text(note.get("bind")),
                url=_text(note.get("url")),
                elsewhere=_texts(note.get("elsewhere")),
                version=_text(note.get("version")),
                started_at_ms=_integer(note.get("startedAtMs")),
                stopped=_is_stopped(pid),
            )
        time.sleep(_ATTEMPT_SECONDS / 4)  # it may have the lock and not yet have written its note
    return Holder(state_dir=state_dir)


def _read_note(fd: int) -> dict[str, Any]:
    try:
        note = json.loads(os.pread(fd, _MAX_NOTE_BYTES, 0).partition(b"\n")[0])
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


def _integer(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _proc_fields(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat (proc(5)) from the third on; the second may hold blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()


def process_start_time(pid: int) -> str | None:
    """When a process began, as the system tells it; None if it is gone or has ended. Equal texts: the same process."""
    if _LINUX:
        try:
            fields = _proc_fields(pid)
        except OSError:
            return None
        return fields[19] if len(fields) > 19 and fields[0] not in {"Z", "X"} else None
    return _ask_ps(pid, "lstart=")


def _is_stopped(pid: int) -> bool:
    if _LINUX:
        try:
            return _proc_fields(pid)[0] in {"T", "t"}
        except (OSError, IndexError):
            return False
    return (_ask_ps(pid, "state=") or "").startswith("T")


def _ask_ps(pid: int, column: str) -> str | None:
    argv = ["/bin/ps", "-o", column, "-p", str(pid)]
    environment = {"LC_ALL": "C", "TZ": "UTC"}  # two processes must read the same text
    try:
        done = subprocess.run(  # noqa: S603 - a fixed path and a number
            argv, capture_output=True, text=True, timeout=2, check=False, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
