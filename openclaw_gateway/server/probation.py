"""Commit-confirm: a change of the configuration that goes back by itself unless somebody confirms it from outside.

Owns the clock and the three ends of a change on probation: confirmed, taken back, time ran out. The record, its file
and the undoing are `config.pending`'s; taking a changed file over is the configuration watcher's, for the change as for
its undoing.

Invariants: confirming takes a connection that was made after the change came into use, because whoever is still
connected from before knows nothing about whether anybody can get in now; a change that is not in use cannot be
confirmed; the time left survives a restart; a record that cannot be read, or a file that cannot be edited, is tried
again and shows in `health`, never forgotten. Every end is in the audit trail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Final

import trio

from openclaw_gateway.config.paths import pending_path
from openclaw_gateway.config.pending import Pending, PendingUnreadable, Undone, close_pending, read_pending, undo
from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.audit import recorded
from openclaw_gateway.rpc.table import CallContext, CallError

__all__ = ["Probation"]

log = get_logger("config")

_TOLD: Final[Mapping[Undone, str]] = {
    "restored": "the file is as it was before",
    "reverted": "the settings went back; what somebody else edited meanwhile stays",
    "superseded": "somebody has set these settings anew meanwhile: nothing to take back",
    "nothing": "the change was not in the file",
}


class Probation:
    """The change on probation of one gateway, if any. Belongs to its Trio run.

    ``opened_at`` gives the monotonic second at which a connection was made, None for what is no connection of its own
    (HTTP); ``applied_hash`` the SHA-256 of the text that is in use.
    """

    def __init__(
        self,
        state: Path,
        *,
        env: Mapping[str, str],
        audit: AuditTrail,
        applied_hash: Callable[[], str | None],
        opened_at: Callable[[str], float | None],
        now_ms: Callable[[], int],
    ) -> None:
        self._state = state
        self._env = env
        self._audit = audit
        self._applied_hash = applied_hash
        self._opened_at = opened_at
        self._now_ms = now_ms
        self._pending: Pending | None = None
        self._in_use_since: float | None = None  # monotonic
        self._changed = trio.Event()

    def look(self) -> None:
        """The file, or what is in use of it, may have changed. Synchronous; one look at the disk."""
        self._read()
        self._changed.set()

    def _read(self) -> None:
        if not pending_path(self._state).exists():
            self._pending = self._in_use_since = None
            return
        try:
            found = read_pending(self._state)
        except PendingUnreadable:
            return  # `serve` says so
        if found is not None and (self._pending is None or found.id != self._pending.id):
            self._in_use_since = None
            if found.undone is None:
                log.warning(
                    "configuration changed on probation", keys=found.keys, duration_ms=found.left_ms(self._now_ms()),
                    fix="openclaw config confirm",
                )  # fmt: skip
                self._audit.note(
                    Action.CONFIG_PENDING, actor="owner", keys=found.keys, hash_after=found.hash_after[:12],
                    expires_at=found.made_at_ms + found.window_ms,
                )  # fmt: skip
        self._pending = found
        if found is not None and self._in_use_since is None and self._applied_hash() == found.hash_after:
            self._in_use_since = monotonic()

    async def serve(self) -> None:
        """Never returns: takes back what nobody confirmed in time. Raises what kept it from doing so (supervise it)."""
        while True:
            changed = self._changed = trio.Event()
            self._read()
            pending = self._pending
            if pending is None:
                read_pending(self._state)  # an unreadable one is trouble to be seen, not none
                await changed.wait()
            elif pending.undone is not None:
                self._told(pending, pending.undone, "no gateway ran when its time ran out")
            elif pending.left_ms(self._now_ms()) == 0:
                self._told(pending, undo(pending, env=self._env), "not confirmed in time")
            else:
                with trio.move_on_after(pending.left_ms(self._now_ms()) / 1000):
                    await changed.wait()

    def _told(self, pending: Pending, undone: Undone, why: str) -> None:
        close_pending(self._state)
        self._pending = self._in_use_since = None
        log.warning("configuration rolled back", keys=pending.keys, reason=f"{why}: {_TOLD[undone]}")
        self._audit.note(
            Action.CONFIG_ROLLED_BACK, actor="gateway", keys=pending.keys, reason=f"{why}: {_TOLD[undone]}"
        )

    # --- what callers ask

    def _waiting(self) -> Pending:
        self._read()
        if self._pending is None or self._pending.undone is not None:
            raise CallError(wire_error("config-nothing-pending"))
        return self._pending

    def view(self) -> dict[str, Any] | None:
        """What waits, for showing: paths, never values."""
        self._read()
        pending = self._pending
        if pending is None or pending.undone is not None:
            return None
        return {
            "id": pending.id,
            "keys": list(pending.keys),
            "leftMs": pending.left_ms(self._now_ms()),
            "inUse": self._in_use_since is not None,
        }

    async def confirm(self, context: CallContext) -> dict[str, Any]:
        """Make the change stay. Raises `CallError`: nothing waits, it is not in use, or the connection is old."""
        pending = self._waiting()
        if self._in_use_since is None:
            raise CallError(wire_error("config-not-in-use"))
        opened = self._opened_at(context.conn_id)
        if opened is None or opened <= self._in_use_since:
            raise CallError(wire_error("config-old-connection"))
        close_pending(self._state)
        self.look()
        log.info("configuration confirmed", keys=pending.keys)
        await recorded(
            self._audit, Action.CONFIG_CONFIRMED, context, keys=pending.keys, hash_after=pending.hash_after[:12]
        )
        return {"ok": True, "id": pending.id, "keys": list(pending.keys)}

    async def roll_back(self, context: CallContext) -> dict[str, Any]:
        """Take the change back now. Raises `CallError`."""
        pending = self._waiting()
        try:
            undone = undo(pending, env=self._env)
        except Exception as exc:
            log.exception("configuration cannot be rolled back", exc=exc, keys=pending.keys)
            raise CallError(wire_error("config-invalid", fault=f"it cannot be taken back: {exc}")) from exc
        close_pending(self._state)
        self.look()
        await recorded(self._audit, Action.CONFIG_ROLLED_BACK, context, keys=pending.keys, reason=_TOLD[undone])
        return {"ok": True, "id": pending.id, "keys": list(pending.keys), "outcome": undone, "text": _TOLD[undone]}
