"""What this machine allows, whatever a gateway approved: programs, variables, folders.

Owns ``<state>/node/exec-policy.json5`` and the decisions made by it. It must not start or list anything. Invariants
(default-deny): no file means that nothing may run and no folder may be listed; a file that cannot be read or understood
as a whole denies everything; programs are allowed by the real path of the file that runs; variables that change which
code a program loads can never be set; every denial names the command that would allow it.

Read at each use, so that `openclaw node allow` holds at once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.config.edit import EditError, set_value
from openclaw_gateway.config.json5 import Json5Error, loads
from openclaw_gateway.nodes.host.errors import CommandFailed, NodeError
from openclaw_gateway.ops.statedir import StateDirUnsafe, ensure_private_dir, read_private_file, write_private_file

__all__ = [
    "MAX_ENTRIES",
    "ExecPolicy",
    "check_env",
    "check_program",
    "is_launcher",
    "load_policy",
    "policy_path",
    "save_policy",
]

MAX_ENTRIES: Final = 1024
_NEW: Final = """\
// What this machine lets a gateway do. Written by `openclaw node allow`; comments are kept.
{
  // deny: nothing runs; allowlist: the programs below; allow: every program (whoever may invoke then owns this account)
  mode: "allowlist",
  programs: [],
  // variables that a caller may set besides the harmless ones (LANG, TZ, ...)
  env: [],
  // folders that fs.listDir may look into
  roots: [],
  // commands that are refused unless they come sealed; then only from the operators below (openclaw node seal)
  sealedOnly: [],
  // device ids of operators whose sealed invokes are taken; none means everybody whom the gateway lets through
  operators: [],
}
"""
_MODES: Final = ("deny", "allow", "allowlist")
# The keys of the file, and the fields they are here.
_LISTS: Final = {
    "programs": "programs", "env": "env", "roots": "roots", "sealedOnly": "sealed_only", "operators": "operators"
}  # fmt: skip
_PATHS: Final = frozenset({"programs", "roots"})
_DEVICE_ID: Final = re.compile(r"[0-9a-f]{64}")

_HARMLESS: Final = frozenset({"LANG", "LANGUAGE", "TZ", "TERM", "COLUMNS", "LINES", "NO_COLOR", "CI"})
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_CODE_LOADING: Final = re.compile(
    r"(LD_|DYLD_|BASH|PYTHON|PERL|RUBY|NODE_|JAVA_|GIT_|OPENCLAW_|GCONV_|GLIBC_|LUA_|PHP).*"
    r"|ENV|IFS|PATH|PS4|SHELLOPTS|CDPATH|EDITOR|VISUAL|PAGER|LESSOPEN|LESSCLOSE|CLASSPATH|_JAVA_OPTIONS|HOME|TMPDIR",
    re.IGNORECASE,
)
# Programs that run whatever they are told to: allowing one of them allows everything.
_LAUNCHERS: Final = re.compile(
    r"(ba|da|z|k|c|tc|fi|a)?sh|busybox|toybox|env|xargs|find|sudo|doas|su|ssh|nohup|nice|setsid|timeout|watch|screen|tmux"
    r"|awk|gawk|mawk|sed|make|vim?|nano|emacs|less|more|man|tar|git|docker|podman|systemd-run|systemctl|crontab|at"
    r"|python[\d.]*|perl[\d.]*|ruby[\d.]*|node(js)?|deno|bun|php[\d.]*|lua[\d.]*|tclsh[\d.]*|ld(-linux.*|\.so.*)|strace|gdb",
    re.IGNORECASE,
)


@attrs.frozen(kw_only=True)
class ExecPolicy:
    """``programs`` and ``roots`` are absolute real paths; ``env`` names of variables; ``sealed_only`` commands or
    ``*``; ``operators`` device ids."""

    mode: Literal["deny", "allow", "allowlist"] = "allowlist"
    programs: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    sealed_only: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()


def policy_path(directory: Path) -> Path:
    return directory / "exec-policy.json5"


def load_policy(path: Path) -> ExecPolicy:
    """The policy in ``path``; the default, which allows nothing, where there is no file. Raises `NodeError`."""
    try:
        text = read_private_file(path).decode()
        return _read(loads(text))
    except FileNotFoundError:
        return ExecPolicy()
    except (StateDirUnsafe, Json5Error, UnicodeDecodeError, NodeError, OSError) as error:
        raise NodeError(f"{path} cannot be used, so nothing is allowed: {error}", f"mend {path}") from error


def _read(found: Any) -> ExecPolicy:
    if not isinstance(found, dict):
        raise NodeError("it is not an object")
    unknown = set(found) - {"mode", *_LISTS}
    if unknown:
        raise NodeError(f"unknown key {sorted(unknown)[0]!r}; there are mode, {', '.join(_LISTS)}")
    mode = found.get("mode", "allowlist")
    if mode not in _MODES:
        raise NodeError(f"mode must be one of {', '.join(_MODES)}")
    lists: dict[str, tuple[str, ...]] = {}
    for key in _LISTS:
        value = found.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise NodeError(f"{key} must be a list of texts")
        if len(value) > MAX_ENTRIES:
            raise NodeError(f"{key} has over {MAX_ENTRIES} entries")
        if key in _PATHS and not all(item.startswith("/") for item in value):
            raise NodeError(f"{key} must be absolute paths")
        if key == "operators" and not all(_DEVICE_ID.fullmatch(item) for item in value):
            raise NodeError("operators must be device ids: 64 lowercase hex digits")
        lists[_LISTS[key]] = tuple(value)
    return ExecPolicy(mode=mode, **lists)


def save_policy(path: Path, policy: ExecPolicy) -> None:
    """Write what changed, keeping the comments of the file. Raises `NodeError`, or OSError."""
    ensure_private_dir(path.parent)
    try:
        text = read_private_file(path).decode()
    except FileNotFoundError:
        text = _NEW
    before = _read(loads(text))
    try:
        if policy.mode != before.mode:
            text = set_value(text, "mode", policy.mode)
        for key, name in _LISTS.items():
            if getattr(policy, name) != getattr(before, name):
                text = set_value(text, key, list(getattr(policy, name)))
    except EditError as error:
        raise NodeError(f"{path} cannot be changed: {error}", f"mend {path} by hand") from error
    _read(loads(text))
    write_private_file(path, text.encode())


def check_program(policy: ExecPolicy, real: Path) -> None:
    """Raises `CommandFailed` unless ``real`` (a resolved path) may run."""
    if policy.mode == "deny":
        raise _denied(f"this node runs nothing (mode deny); on it: openclaw node allow --mode allowlist {real}")
    if real.stat().st_mode & 0o002:
        raise _denied(f"{real} can be changed by everybody on this machine; on it: chmod o-w {real}")
    if policy.mode == "allowlist" and str(real) not in policy.programs:
        raise _denied(f"{real} is not allowed on this node; on it: openclaw node allow {real}")


def check_env(policy: ExecPolicy, name: str) -> None:
    """Raises `CommandFailed` unless a caller may set the variable ``name``."""
    if _NAME.fullmatch(name) is None:
        raise _denied("a variable's name is letters, digits and _")
    if _CODE_LOADING.fullmatch(name) is not None:
        raise _denied(f"the variable {name} changes what a program runs; no caller may set it")
    if name not in _HARMLESS and not name.startswith("LC_") and name not in policy.env:
        raise _denied(f"the variable {name} may not be set on this node; on it: openclaw node allow --env {name}")


def is_launcher(program: Path) -> bool:
    """Whether allowing ``program`` would allow everything, because it runs what it is told to."""
    return _LAUNCHERS.fullmatch(program.name) is not None


def _denied(message: str) -> CommandFailed:
    return CommandFailed("SYSTEM_RUN_DENIED", message)
