"""``system.notify``: a line for the person at this machine.

Owns the ways to show it: the desktop's ``notify-send``, else the terminal the node runs in, else the log. It must not
know the wire. Invariants: text of a caller reaches a terminal only escaped (V52) and no option of a program can be made
of it; texts are capped.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, Final

import msgspec

from openclaw_gateway.nodes.host.errors import CommandFailed
from openclaw_gateway.nodes.host.invocations import Invocation
from openclaw_gateway.nodes.host.lookup import find_program, search_path
from openclaw_gateway.nodes.host.process import run_program
from openclaw_gateway.nodes.host.system_run import plain_environment
from openclaw_gateway.ops.log import escape, get_logger

__all__ = ["MAX_BODY", "MAX_TITLE", "system_notify"]

MAX_TITLE: Final = 200
MAX_BODY: Final = 2000
_SECONDS: Final = 5.0
_SESSION: Final = ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS", "XAUTHORITY")
_URGENCY: Final = {"passive": "low", "active": "normal", "timeSensitive": "critical"}

log = get_logger("node")


class _Params(msgspec.Struct):
    title: str = ""
    body: str = ""
    priority: str = "active"


async def system_notify(_invocation: Invocation, given: dict[str, Any]) -> dict[str, Any]:
    """``{ok, shown: "desktop" | "terminal" | "log"}``."""
    try:
        params = msgspec.convert({name: value for name, value in given.items() if value is not None}, _Params)
    except msgspec.ValidationError as error:
        raise CommandFailed("INVALID_REQUEST", f"system.notify: {error}") from error
    title, body = _plain(params.title, MAX_TITLE), _plain(params.body, MAX_BODY)
    if not title and not body:
        raise CommandFailed("INVALID_REQUEST", "system.notify: give a title or a body")
    if await _on_desktop(title or "OpenClaw", body, _URGENCY.get(params.priority, "normal")):
        return {"ok": True, "shown": "desktop"}
    line = f"{title}: {body}" if title and body else title or body
    if sys.stderr.isatty():
        with contextlib.suppress(OSError):
            sys.stderr.write(f"\a[notification] {escape(line, MAX_TITLE + MAX_BODY)}\n")
            sys.stderr.flush()
            return {"ok": True, "shown": "terminal"}
    log.info("notification", reason=line)
    return {"ok": True, "shown": "log"}


async def _on_desktop(title: str, body: str, urgency: str) -> bool:
    program = find_program("notify-send", search_path())
    if program is None or not any(name in os.environ for name in _SESSION[:3]):
        return False
    session = {name: os.environ[name] for name in _SESSION if name in os.environ}
    argv = [program, "--app-name=OpenClaw", f"--urgency={urgency}", "--", title, body]
    try:
        outcome = await run_program(
            argv, cwd="/", env={**plain_environment(), **session}, seconds=_SECONDS, max_bytes=1024
        )
    except OSError:
        return False
    return outcome.exit_code == 0


def _plain(text: str, limit: int) -> str:
    return "".join(c if c.isprintable() else " " for c in text).strip()[:limit]
