"""A change of openclaw.json on probation: what stood there before, and until when it has to be confirmed.

Owns one file of the state directory, made before the change is written and gone when it is settled, and the undoing.
It must not know who confirms nor keep time: the running gateway does (`server.probation`), and a start looks before it
reads the configuration (`settle_before_start`).

Theory of operation. The record is durable before openclaw.json changes, so there is no moment at which a change stands
that nobody would undo: a crash before the change leaves a record with nothing to undo, a crash after it a record that
the next start, or the supervisor's, finds. Undoing puts back the very bytes where nobody changed the file since. Where
somebody did, that edit is not destroyed: only those settings go back that still have the value on probation, each with
the rest of the text as it stands.

Invariants: one change at a time; the file holds secrets that were in the configuration, so it is 0600 and nothing of
it is printed; undoing twice is undoing once.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs
import msgspec

from openclaw_gateway.config.edit import EditError, merge_patch
from openclaw_gateway.config.json5 import MAX_BYTES, Json5Error, loads
from openclaw_gateway.config.paths import pending_path, state_dir
from openclaw_gateway.config.writing import put_back, read_text, write_config
from openclaw_gateway.errors import GatewayError

__all__ = [
    "LONGEST_SECONDS",
    "SHORTEST_SECONDS",
    "Pending",
    "PendingExists",
    "PendingUnreadable",
    "Undone",
    "changed_settings",
    "close_pending",
    "propose",
    "read_pending",
    "settle_before_start",
    "undo",
]

SHORTEST_SECONDS: Final = 5.0
LONGEST_SECONDS: Final = 3600.0
_MAX_FILE: Final = 16 * MAX_BYTES
_NO_FILE: Final = "{}\n"

Undone = Literal["restored", "reverted", "superseded", "nothing"]


@attrs.frozen(kw_only=True)
class Pending:
    """One change on probation. Times are Unix milliseconds. Where there was no file, ``before`` is an empty block: a
    file that goes away changes nothing in a running gateway.

    ``undone``: a start has undone it already; what is left is to tell.
    """

    id: str
    path: str  # of openclaw.json
    before: str = attrs.field(repr=False)
    after: str = attrs.field(repr=False)
    made_at_ms: int
    window_ms: int
    keys: tuple[str, ...]
    undone: Undone | None = None

    @property
    def hash_before(self) -> str:
        return _sha256(self.before)

    @property
    def hash_after(self) -> str:
        return _sha256(self.after)

    def left_ms(self, now_ms: int) -> int:
        """Milliseconds until it is undone. A clock that was set back gives at most the whole window again."""
        return max(0, min(self.window_ms, self.made_at_ms + self.window_ms - now_ms))


@attrs.define(eq=False)
class PendingExists(GatewayError):
    """Another change waits for its confirmation."""

    keys: tuple[str, ...]
    left_ms: int

    def __str__(self) -> str:
        what = ", ".join(self.keys) or "a change"
        return f"{what} waits for its confirmation ({self.left_ms / 1000:.0f} s left), and only one change can"

    @property
    def fix(self) -> str:
        return "openclaw config confirm, or: openclaw config rollback"


@attrs.define(eq=False)
class PendingUnreadable(GatewayError):
    """The record is there and cannot be used, so nothing can be undone by itself."""

    file: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.file} cannot be read: {self.reason}; the change it stands for is not undone by itself"

    @property
    def fix(self) -> str:
        return f"look at {self.file} and openclaw.json.bak, then: rm '{self.file}'"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def read_pending(state: Path) -> Pending | None:
    """The change on probation, None where there is none. Raises `PendingUnreadable`."""
    from openclaw_gateway.ops.statedir import StateDirUnsafe, read_private_file

    file = pending_path(state)
    try:
        return msgspec.json.decode(read_private_file(file, limit=_MAX_FILE), type=Pending)
    except FileNotFoundError:
        return None
    except (OSError, StateDirUnsafe, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PendingUnreadable(file, str(error)[:200]) from error


def propose(
    state: Path, path: Path, edited: str, *, env: Mapping[str, str], window: float, now_ms: int
) -> tuple[Pending, Any, Any]:
    """Write ``edited`` to openclaw.json for ``window`` seconds. Returns the record and what `write_config` returns.

    Raises `PendingExists`, and as `write_config` does; then neither file has changed. Four disk flushes.
    """
    from openclaw_gateway.ops.statedir import ensure_private_dir

    raw = read_text(path)
    pending = Pending(
        id=os.urandom(8).hex(),
        path=str(path),
        before=raw if raw.strip() else _NO_FILE,
        after=edited,
        made_at_ms=now_ms,
        window_ms=round(window * 1000),
        keys=changed_settings(raw, edited),
    )
    ensure_private_dir(state)
    ensure_private_dir(pending_path(state).parent)
    _forget_stale(state, pending.before, now_ms)
    _create(state, pending, now_ms)
    try:
        loaded, issues = write_config(path, edited, env=env, base_hash=_sha256(raw))
    except BaseException:
        close_pending(state)
        raise
    return pending, loaded, issues


def _forget_stale(state: Path, present: str, now_ms: int) -> None:
    """A record whose time is over and whose change is not in the file: its maker died before he wrote the change."""
    other = read_pending(state)
    if other is not None and other.left_ms(now_ms) == 0 and other.undone is None and other.before == present:
        close_pending(state)


def _create(state: Path, pending: Pending, now_ms: int) -> None:
    """Make the file, or fail where it is there: a link, unlike a rename, does not replace."""
    from openclaw_gateway.ops.statedir import fsync_dir, write_private_file

    file = pending_path(state)
    draft = file.with_name(f"{file.name}.{pending.id}")
    write_private_file(draft, msgspec.json.encode(pending))
    try:
        os.link(draft, file)
    except FileExistsError:
        other = read_pending(state)
        keys, left = (other.keys, other.left_ms(now_ms)) if other is not None else ((), 0)
        raise PendingExists(keys, left) from None
    finally:
        draft.unlink()
    fsync_dir(file.parent)


def close_pending(state: Path) -> None:
    """Forget the record: it was confirmed, or undone and told. Harmless when repeated. One disk flush."""
    from openclaw_gateway.ops.statedir import fsync_dir

    file = pending_path(state)
    try:
        file.unlink()
    except FileNotFoundError:
        return
    fsync_dir(file.parent)


def changed_settings(before: str, after: str) -> tuple[str, ...]:
    """The dotted paths that differ as written, for telling; () where either text cannot be read."""
    try:
        old, new = _tree(before), _tree(after)
    except Json5Error:
        return ()
    return tuple(".".join(steps) for steps in _differences(old, new))


def _tree(text: str) -> Any:
    return loads(text) if text.strip() else {}


def _differences(old: Any, new: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        return [found for key in keys for found in _differences(old.get(key), new.get(key), (*at, key))]
    return [] if old == new and type(old) is type(new) else [at]


def _value(tree: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        tree = tree.get(step) if isinstance(tree, dict) else None
    return tree


def undo(pending: Pending, *, env: Mapping[str, str]) -> Undone:
    """Take the change back. What it came to:

    ``restored``: the very text from before; ``reverted``: somebody edited the file since, and the settings on probation
    went back within that text; ``superseded``: that edit has decided about all of them; ``nothing``: the change is not
    there. Raises `Json5Error`, `EditError`, `ConfigError`, `ConfigConflictError` where the file cannot be edited as it
    stands, `OSError`; the change then stands, and undoing may be tried again.
    """
    path = Path(pending.path)
    now = read_text(path)
    if (now if now.strip() else _NO_FILE) == pending.before:
        return "nothing"
    if _sha256(now) == pending.hash_after:
        put_back(path, pending.before, base_hash=pending.hash_after)
        return "restored"
    before, after, present = _tree(pending.before), _tree(pending.after), _tree(now)
    patch: dict[str, Any] = {}
    for steps in _differences(before, after):
        if _value(present, steps) == _value(after, steps) and steps:
            holder = patch
            for step in steps[:-1]:
                holder = holder.setdefault(step, {})
            holder[steps[-1]] = _value(before, steps)
    if not patch:
        return "superseded"
    write_config(path, merge_patch(now, patch), env=env, base_hash=_sha256(now))
    return "reverted"


def settle_before_start(env: Mapping[str, str], now_ms: int) -> Pending | None:
    """Undo a change whose time ran out while no gateway ran, before the configuration is read.

    Returns what was undone; the record stays, marked, until the gateway has told it. A change that cannot be undone, or
    a record that cannot be read, is left to the gateway, which says so. Never raises.
    """
    from openclaw_gateway.config.issues import ConfigError
    from openclaw_gateway.ops.statedir import StateDirUnsafe, write_private_file

    state = state_dir(env)
    if not pending_path(state).exists():
        return None
    try:
        pending = read_pending(state)
        if pending is None or pending.undone is not None or pending.left_ms(now_ms) > 0:
            return None
        marked = attrs.evolve(pending, undone=undo(pending, env=env))
        write_private_file(pending_path(state), msgspec.json.encode(marked))
    except (GatewayError, ConfigError, EditError, Json5Error, OSError, StateDirUnsafe):
        return None
    return marked
