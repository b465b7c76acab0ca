"""Node command policy: what a kind of node may lend, what an approval of it takes, what a caller may never send.

Owns the kinds of nodes and how pinned metadata becomes one, the platform ceilings, the scopes that approving and
invoking a command need, the reserved control fields and the closed list of events. Source: OpenClaw's pages "Node
command policy" and "Operator scopes"; where ours is stricter that is said. It must not know connections, stores or who
is asking.

Invariants: default-deny, so a command that no list names is refused until ``gateway.nodes.commands.allow`` names it;
``deny`` always wins; an unknown or contradictory platform gets the smallest ceiling (V31); reserved fields are found at
any depth, however they are spelled (V30).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.value import Value

__all__ = [
    "EXEC_EVENTS",
    "NODE_EVENTS",
    "NodeKind",
    "NodePolicy",
    "approve_scopes",
    "exec_capable",
    "invoke_scope",
    "node_kind",
    "reserved_field",
]

NodeKind = Literal["macos", "ios", "watchos", "android", "windows", "cli", "linux", "unknown"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MOBILE: Final = _words(
    "camera.list location.get device.info device.status contacts.search calendar.events reminders.list photos.latest "
    "motion.activity motion.pedometer system.notify"
)
_DESKTOP_HOST: Final = _words(
    "system.run system.run.prepare system.which system.execApprovals.get system.execApprovals.set browser.proxy "
    "browser.proxy.upload.v1 mcp.tools.call.v1 screen.snapshot desktop.stream fs.listDir terminal.upload ollama.chat "
    "ollama.models"
)
_MACOS: Final = _MOBILE | {"camera.ptz.status", "device.apps", "computer.act"}
_CANVAS: Final = frozenset({"canvas.present", "canvas.hide", "canvas.navigate"})
_ANDROID: Final = _MOBILE | _words(
    "notifications.list notifications.actions device.permissions device.health device.apps callLog.search "
    "mobile.ui.observe mobile.ui.act"
)
_TALK: Final = frozenset({"talk.ptt.start", "talk.ptt.stop", "talk.ptt.cancel", "talk.ptt.once"})
_LINUX: Final = _DESKTOP_HOST | {"system.notify", "computer.act"}

# What a node of the kind may lend once a person approved it.
CEILINGS: Final[dict[NodeKind, frozenset[str]]] = {
    "macos": _MACOS | _CANVAS | _DESKTOP_HOST | _TALK,
    "ios": _MOBILE | _TALK,
    "watchos": frozenset({"device.info", "device.status", "system.notify"}) | _TALK,
    "android": _ANDROID | _TALK,
    "windows": _DESKTOP_HOST
    | {"camera.list", "location.get", "device.info", "device.status", "system.notify", "computer.act"}
    | _TALK,
    "cli": _LINUX | _TALK,
    "linux": _LINUX | _TALK,
    "unknown": frozenset({"system.notify"}) | _TALK,
}

# Approving or relaying these lets the holder run programs on the node or read its disk. OpenClaw's list, and besides it
# what writes files or calls tools there (stricter than OpenClaw).
_EXEC: Final = _words(
    "system.run system.run.prepare system.which browser.proxy browser.proxy.upload.v1 fs.listDir "
    "system.execApprovals.get system.execApprovals.set terminal.upload mcp.tools.call.v1 computer.act"
)
# Relaying these needs operator.admin each time; the others operator.write.
_ADMIN_RELAY: Final = _words(
    "browser.proxy browser.proxy.upload.v1 fs.listDir terminal.upload system.execApprovals.get system.execApprovals.set"
)

EXEC_EVENTS: Final = frozenset({"exec.started", "exec.finished", "exec.denied"})
# All that a node may tell; everything else is answered with handled: false (V32).
NODE_EVENTS: Final = EXEC_EVENTS | {"node.host.stats", "node.presence.alive", "node.presence.activity"}

_WORD: Final = re.compile(r"[a-z]+")
_PLATFORMS: Final[dict[str, NodeKind]] = {
    "macos": "macos",
    "mac": "macos",
    "darwin": "macos",
    "ios": "ios",
    "ipados": "ios",
    "iphone": "ios",
    "ipad": "ios",
    "watchos": "watchos",
    "applewatch": "watchos",
    "android": "android",
    "windows": "windows",
    "win": "windows",
    "linux": "linux",
}


def _kind_of(text: str) -> NodeKind | None:
    """The platform that a text names, None where it names none. ASCII only: look-alike letters name nothing."""
    if not text.isascii():
        return "unknown"
    word = _WORD.match(text.strip().lower())
    return None if word is None else _PLATFORMS.get(word.group(), "unknown")


def node_kind(platform: str, device_family: str, client_id: str) -> NodeKind:
    """The kind of a node by what was pinned when it was paired, never by what it says now (V31).

    Platform and family must not contradict each other; a node host on a desktop platform without an app of its own
    (``node-host`` on Linux) is the kind ``cli``.
    """
    by_platform, by_family = _kind_of(platform), _kind_of(device_family)
    if by_platform is None or (by_family is not None and by_family not in {by_platform, "unknown"}):
        return "unknown"
    return "cli" if by_platform == "linux" and client_id == "node-host" else by_platform


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NodePolicy(Value):
    """``gateway.nodes.commands``: exact names that are added to every ceiling, and names that are refused always."""

    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()

    def permits(self, command: str, kind: NodeKind) -> bool:
        """Whether a node of this kind may lend the command at all; an approval is needed besides."""
        return command not in self.deny and (command in CEILINGS[kind] or command in self.allow)

    def ceiling(self, declared: Iterable[str], kind: NodeKind) -> tuple[str, ...]:
        """Those of the declared commands that may be asked for, sorted, each once."""
        return tuple(sorted({command for command in declared if self.permits(command, kind)}))


def exec_capable(command: str) -> bool:
    """Whether the command reaches programs, tools or files of the node.

    A command that only ``commands.allow`` knows counts as exec-capable where its name says so.
    """
    if command in _EXEC:
        return True
    words = re.split(r"[^a-z]+", command.lower())
    return not {"exec", "shell", "terminal", "spawn"}.isdisjoint(words)


def approve_scopes(commands: Iterable[str]) -> tuple[str, ...]:
    """The operator scopes that approving a surface with these commands takes (V20)."""
    commands = tuple(commands)
    if not commands:
        return ("operator.pairing",)
    if any(map(exec_capable, commands)):
        return ("operator.pairing", "operator.admin")
    return ("operator.pairing", "operator.write")


def invoke_scope(command: str) -> str:
    """The operator scope that relaying this command takes."""
    return "operator.admin" if command in _ADMIN_RELAY else "operator.write"


_APPROVAL: Final = re.compile(r"approv|allowalways|systemrunplan|bypass(policy|ask|exec)|skip(policy|ask|exec)")
_NOT_LETTERS: Final = re.compile(r"[^a-z0-9]")


def reserved_field(params: Any, command: str) -> str | None:
    """The path of the first control field in a caller's ``params`` that only the gateway may set, None where none is.

    Reserved at any depth: every name about an approval, and ``runId``. A run id at the top of ``system.run`` is
    no fault: OpenClaw's own callers send one, and the gateway puts its own in its place. ``system.execApprovals.set``
    (an administrator's, by `invoke_scope`) carries a policy file, whose names are not looked at.
    """
    if command == "system.execApprovals.set":
        return None
    waiting: list[tuple[Any, str, int]] = [(params, "", 0)]
    while waiting:
        value, path, depth = waiting.pop()
        if isinstance(value, list):
            waiting.extend((item, path, depth + 1) for item in value if isinstance(item, dict | list))
        elif isinstance(value, dict):
            for key, item in value.items():
                plain = _NOT_LETTERS.sub("", key.casefold())
                here = f"{path}/{key[:80]}"
                runs = command.startswith("system.run") and depth == 0 and key == "runId"
                if _APPROVAL.search(plain) is not None or (plain == "runid" and not runs):
                    return here
                if isinstance(item, dict | list):
                    waiting.append((item, here, depth + 1))
    return None
