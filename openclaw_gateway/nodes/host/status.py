"""What the node is doing, for whoever asks: a lock that dies with the process and a small file beside it.

Owns ``node.lock`` (flock(2); only it decides whether a node runs) and ``status.json`` (replaced whole at each change).
It must not know sockets. Invariants: after kill -9 the node counts as stopped at once, whatever the file says; the file
is at most `MAX_BYTES` and holds no secret; two nodes cannot run on one state directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import attrs
import msgspec

from openclaw_gateway._version import __version__
from openclaw_gateway.nodes.host.errors import NodeError
from openclaw_gateway.ops.statedir import ensure_private_dir, read_private_file

__all__ = ["MAX_BYTES", "NodeState", "Report", "StatusBoard", "read_status"]

MAX_BYTES: Final = 16_384
NodeState = Literal["connecting", "waiting-for-approval", "connected", "refused", "stopped"]


@attrs.frozen(kw_only=True)
class Report:
    """One state of the node. ``retry_in`` seconds; ``surface``: whether the commands it offers were approved."""

    state: NodeState
    gateway: str
    device_id: str
    reason: str | None = None
    fix: str | None = None
    request_id: str | None = None
    link: str | None = None
    retry_in: float | None = None
    failures: int = 0
    surface: Literal["unknown", "pending", "approved"] = "unknown"
    secure: bool | None = None  # once connected: whether end-to-end encrypted
    gateway_key: str | None = None  # fingerprint of the key that the gateway proved
    certificate_ends_at: float | None = None  # Unix seconds: the client certificate that this gateway issued

    def to_wire(self) -> dict[str, Any]:
        names = {
            "device_id": "deviceId", "request_id": "requestId", "retry_in": "retryInSeconds",
            "secure": "secureChannel", "gateway_key": "gatewayKeyFingerprint",
        }  # fmt: skip
        fields = attrs.asdict(self)
        wire = {names.get(name, name): value for name, value in fields.items() if value is not None}
        if self.retry_in is not None:
            wire["retryInSeconds"] = round(self.retry_in, 1)
        ends_at = wire.pop("certificate_ends_at", None)
        if ends_at is not None:
            wire["certificateEndsAtMs"] = round(ends_at * 1000)
        return wire


class StatusBoard:
    """Holds the lock and writes the file. Raises `NodeError` on entry where another node holds it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd = -1
        self._began = round(time.time() * 1000)

    def __enter__(self) -> Self:
        ensure_private_dir(self._directory)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(self._directory / "node.lock", flags, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise NodeError(
                f"a node runs on this state directory already ({self._directory})",
                "openclaw node status; for a second one set OPENCLAW_STATE_DIR",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def tell(self, report: Report) -> None:
        """Replace the file. A full disk is no reason to stop serving: then the old content stays."""
        wire = {
            **report.to_wire(),
            "pid": os.getpid(),
            "version": __version__,
            "startedAtMs": self._began,
            "sinceMs": round(time.time() * 1000),
        }
        temporary = self._directory / ".status.json.tmp"
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(temporary, flags, 0o600)
            try:
                os.write(fd, msgspec.json.encode(wire)[:MAX_BYTES])
            finally:
                os.close(fd)
            temporary.replace(self._directory / "status.json")


def read_status(directory: Path) -> dict[str, Any]:
    """``{"running": bool, "state": ..., ...}``: the last report, believed only while the lock is held."""
    running = _is_held(directory / "node.lock")
    try:
        said = msgspec.json.decode(read_private_file(directory / "status.json", limit=MAX_BYTES))
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        said = {}
    if not isinstance(said, dict):
        said = {}
    if running:
        return {"state": "connecting", **said, "running": True}
    last = said.get("state")
    kept = {name: said[name] for name in ("gateway", "deviceId", "reason", "fix", "sinceMs") if name in said}
    return {**kept, "state": "refused" if last == "refused" else "stopped", "running": False}


def _is_held(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
