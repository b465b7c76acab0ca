"""Which tunnels run on this host for this state directory: what ``tunnel list`` shows and ``tunnel close`` ends.

Owns ``<state>/run/tunnels/``: one lock and one note per name. It must not start or restart anything. Invariants: of two
that want one name, one gets it (flock); a note counts only while its process lives, told by id and start time (V49);
what a dead process left is removed; at most `MAX_TUNNELS`; nothing secret is in a note.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import msgspec

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.instance import process_start_time
from openclaw_gateway.ops.statedir import ensure_private_dir, read_private_file
from openclaw_gateway.tunnels.spec import TunnelRefused, check_name

__all__ = ["MAX_TUNNELS", "Claim", "Running", "claim", "end_tunnel", "list_tunnels"]

MAX_TUNNELS: Final = 64

Owner = Literal["command", "gateway"]


class _Note(msgspec.Struct):
    pid: int
    started: str | None
    owner: Owner
    report: dict[str, Any]


@attrs.frozen
class Running:
    """A tunnel whose owner lives. ``report``: the last `TunnelReport` as on the wire."""

    name: str
    pid: int
    started: str | None
    owner: Owner
    report: dict[str, Any]

    def to_wire(self) -> dict[str, Any]:
        return {**self.report, "name": self.name, "owner": self.owner, "ownerPid": self.pid}


@attrs.define
class Claim:
    """The right to a name while the block of `claim` lasts."""

    path: Path
    owner: Owner

    def write(self, report: dict[str, Any]) -> None:
        """Note the state. A note that cannot be written is no reason to end a tunnel."""
        note = _Note(os.getpid(), process_start_time(os.getpid()), self.owner, report)
        # Without fsync: a note that a crash of the machine takes along belongs to a tunnel that is gone as well.
        fresh = self.path.with_suffix(".new")
        with contextlib.suppress(OSError):
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, msgspec.json.encode(note))
            finally:
                os.close(fd)
            fresh.replace(self.path)


def _folder(state: Path) -> Path:
    return state / "run" / "tunnels"


@contextmanager
def claim(state: Path, name: str, owner: Owner) -> Iterator[Claim]:
    """Take ``name``. Raises `TunnelRefused` where another process has it, OSError or `StateDirUnsafe`."""
    folder = _folder(state)
    ensure_private_dir(folder.parent)
    ensure_private_dir(folder)
    if len(list(folder.glob("*.json"))) >= MAX_TUNNELS:
        raise TunnelRefused(f"more than {MAX_TUNNELS} tunnels", "openclaw tunnel list")
    lock = os.open(folder / f"{check_name(name)}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TunnelRefused(f"a tunnel named {name} runs already", f"openclaw tunnel close {name}") from error
        path = folder / f"{name}.json"
        try:
            yield Claim(path, owner)
        finally:
            path.unlink(missing_ok=True)
    finally:
        os.close(lock)


def list_tunnels(state: Path) -> list[Running]:
    """Every tunnel that runs, by name. Removes the notes of those that do not."""
    found: list[Running] = []
    folder = _folder(state)
    for path in sorted(folder.glob("*.json"))[:MAX_TUNNELS]:
        try:
            note = msgspec.json.decode(read_private_file(path), type=_Note)
        except (OSError, GatewayError, msgspec.DecodeError, UnicodeDecodeError):
            continue
        started = process_start_time(note.pid)
        if started is None or (note.started is not None and started != note.started):
            path.unlink(missing_ok=True)
            continue
        found.append(Running(path.stem, note.pid, note.started, note.owner, note.report))
    return found


def end_tunnel(running: Running) -> bool:
    """SIGTERM to the owner of a tunnel, if it still is that process; False where it is gone."""
    pidfd = -1
    try:
        if sys.platform.startswith("linux"):
            pidfd = os.pidfd_open(running.pid)
        # Looked at again after the pidfd names one process for good (V49).
        if running.started is None or process_start_time(running.pid) != running.started:
            return False
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        else:
            os.kill(running.pid, signal.SIGTERM)
    except ProcessLookupError:
        return False
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    return True
