"""The commands a node offers, by name, and what carries each of them out.

Owns the table and the small commands. It must not know connections. Invariant: what is not in the table cannot be
invoked, whatever a gateway sends; `CAPS` names the families that are offered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from openclaw_gateway.nodes.host.errors import CommandFailed, NodeError
from openclaw_gateway.nodes.host.exec_policy import policy_path
from openclaw_gateway.nodes.host.folders import list_folder
from openclaw_gateway.nodes.host.invocations import Handler, Invocation
from openclaw_gateway.nodes.host.lookup import MAX_BINS, find_program, search_path
from openclaw_gateway.nodes.host.notify import system_notify
from openclaw_gateway.nodes.host.system_run import load_or_refuse, system_run
from openclaw_gateway.protocol.sealed import CAPABILITY

__all__ = ["CAPS", "COMMANDS", "make_handlers"]

CAPS: Final = ("system", CAPABILITY)
COMMANDS: Final = ("system.which", "system.run", "system.notify", "fs.listDir")
MAX_LISTINGS: Final = 4


class _Which(msgspec.Struct):
    bins: list[str]


class _ListDir(msgspec.Struct):
    path: str | None = None


async def _which(_invocation: Invocation, given: dict[str, Any]) -> dict[str, Any]:
    try:
        bins = msgspec.convert(given, _Which).bins
    except msgspec.ValidationError as error:
        raise CommandFailed("INVALID_REQUEST", f"system.which: {error}") from error
    if len(bins) > MAX_BINS:
        raise CommandFailed("INVALID_REQUEST", f"system.which: over {MAX_BINS} names")
    path = search_path()
    found = {name: find_program(name, path) for name in bins}
    return {"bins": {name: where for name, where in found.items() if where is not None}}


def _list_dir(policy_file: Path) -> Handler:
    limiter = trio.CapacityLimiter(MAX_LISTINGS)

    async def handle(_invocation: Invocation, given: dict[str, Any]) -> dict[str, Any]:
        try:
            asked = msgspec.convert(given, _ListDir).path
        except msgspec.ValidationError as error:
            raise CommandFailed("INVALID_REQUEST", f"fs.listDir: {error}") from error
        roots = load_or_refuse(policy_file).roots
        # A folder on a network that hangs must hang neither the node nor the caller's cancellation.
        return await trio.to_thread.run_sync(list_folder, roots, asked, limiter=limiter, abandon_on_cancel=True)

    return handle


def make_handlers(directory: Path, only: Collection[str] | None = None) -> Mapping[str, Handler]:
    """The handlers of a node that keeps its files in ``directory``; ``only`` these commands. Raises `NodeError` for a
    name that there is not."""
    table: dict[str, Handler] = {
        "system.which": _which,
        "system.run": system_run(policy_path(directory)),
        "system.notify": system_notify,
        "fs.listDir": _list_dir(policy_path(directory)),
    }
    if only is None:
        return table
    unknown = [name for name in only if name not in table]
    if unknown:
        raise NodeError(f"this node has no command {unknown[0]}", f"choose among {', '.join(COMMANDS)}")
    return {name: table[name] for name in COMMANDS if name in only}
