"""The owner's socket: where it lies, how it is reached, and who is at its other end.

Owns the path ``<state>/run/owner.sock`` and the proof of ownership: the socket lies in a private directory, has mode
0600, and on Linux the kernel itself says which user connected (SO_PEERCRED, unix(7)). It must not know what is said
over it. Invariants: no proof, no conversation; a socket somebody listens on is never taken away.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from openclaw_gateway.ops.statedir import ensure_private_dir

__all__ = ["HasOptions", "connect_owner", "listen_owner", "owner_socket", "peer_is_owner"]

_LINUX: Final = sys.platform.startswith("linux")
_MAX_PATH: Final = 100  # sun_path has 108 bytes on Linux, 104 elsewhere
_BACKLOG: Final = 8


class HasOptions(Protocol):
    """A socket as far as it is asked here: the standard library's or trio's."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def owner_socket(state_dir: Path) -> Path:
    return state_dir / "run" / "owner.sock"


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """A name for ``path`` that is short enough: on Linux by way of its directory's descriptor. Raises `OSError`."""
    if len(os.fsencode(path)) <= _MAX_PATH or not _LINUX:
        yield str(path)
        return
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def listen_owner(state_dir: Path) -> socket.socket | None:
    """Listen; None where somebody else does already. Raises `OSError`, `StateDirUnsafe`."""
    path = owner_socket(state_dir)
    ensure_private_dir(state_dir)
    ensure_private_dir(path.parent)
    other = connect_owner(state_dir, timeout=0.5)
    if other is not None:
        other.close()
        return None
    path.unlink(missing_ok=True)  # left behind by a process that was killed
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            with _address(path) as name:
                sock.bind(name)
        finally:
            os.umask(before)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def connect_owner(state_dir: Path, *, timeout: float) -> socket.socket | None:
    """A connection to the gateway that runs on ``state_dir``, ``timeout`` seconds per step; None where none listens or
    the socket is not ours to use."""
    path = owner_socket(state_dir)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        with _address(path) as name:
            sock.connect(name)
        if not peer_is_owner(sock):
            sock.close()
            return None
    except OSError:
        sock.close()
        return None
    return sock


def peer_is_owner(sock: HasOptions) -> bool:
    """True where the process at the other end is this user's. Elsewhere than on Linux the directory's mode alone
    keeps others out."""
    if not _LINUX:
        return True
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return bool(uid == os.geteuid())
