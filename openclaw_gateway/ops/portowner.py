"""Who listens on a TCP port of this host.

Owns the reading of /proc/net/tcp and /proc/<pid>/fd (proc(5)). Best effort: on systems without /proc, and for
processes of other users, the answer is that somebody listens, without a name. Blocks for a few milliseconds."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final

import attrs

__all__ = ["PortOwner", "can_bind", "port_owners"]

_LISTEN: Final = "0A"
_MAX_PROCESSES: Final = 50_000


@attrs.frozen
class PortOwner:
    """``pid`` is None where the process may not be looked at; ``command`` is at most 200 characters, unescaped."""

    pid: int | None
    command: str


def can_bind(host: str, port: int) -> bool:
    """True where a listener could be opened there now (SO_REUSEADDR, as our own does)."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True


def port_owners(port: int) -> tuple[PortOwner, ...]:
    """The processes that listen on ``port``, on whatever address; empty where nobody does (as far as can be seen)."""
    inodes = _listening_inodes(port)
    if not inodes:
        return ()
    wanted = {f"socket:[{inode}]" for inode in inodes}
    owners = []
    for number, entry in enumerate(Path("/proc").iterdir()):
        if number > _MAX_PROCESSES or not wanted:
            break
        if entry.name.isdigit() and _holds(entry, wanted):
            owners.append(PortOwner(int(entry.name), _command(entry)))
    return tuple(owners) or (PortOwner(None, "a process of another user"),)


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _holds(process: Path, wanted: set[str]) -> bool:
    try:
        return any(str(fd.readlink()) in wanted for fd in (process / "fd").iterdir())
    except OSError:
        return False


def _command(process: Path) -> str:
    try:
        raw = (process / "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode("utf-8", "replace").strip()[:200]
