"""Where the configuration and the state live.

Owns the two look-ups and the names of the files that config/ itself keeps. Must not touch the disk: a path in, a path
out.

Invariants: only the process environment handed in is asked; no ``.env`` file is ever read, neither in the working
directory nor in the state directory (a repository that a person merely enters must not be able to take over the
configuration).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["config_path", "generated_token_path", "last_good_path", "pending_path", "state_dir"]


def state_dir(env: Mapping[str, str]) -> Path:
    """``$OPENCLAW_STATE_DIR``, else ``~/.openclaw``; always absolute."""
    named = env.get("OPENCLAW_STATE_DIR", "").strip()
    return _absolute(named, env) if named else _home(env) / ".openclaw"


def config_path(env: Mapping[str, str]) -> Path:
    """``$OPENCLAW_CONFIG_PATH``, else ``openclaw.json`` in the state directory; always absolute."""
    named = env.get("OPENCLAW_CONFIG_PATH", "").strip()
    return _absolute(named, env) if named else state_dir(env) / "openclaw.json"


def last_good_path(state: Path) -> Path:
    """The last configuration text that was valid as a whole."""
    return state / "config" / "last-good.json5"


def pending_path(state: Path) -> Path:
    """A change of the configuration that waits for its confirmation."""
    return state / "config" / "pending.json"


def generated_token_path(state: Path) -> Path:
    """The token that the gateway made for itself when none was configured."""
    return state / "credentials" / "gateway-token"


def _home(env: Mapping[str, str]) -> Path:
    home = env.get("HOME", "").strip()
    return Path(home) if home else Path.home()


def _absolute(named: str, env: Mapping[str, str]) -> Path:
    if named == "~" or named.startswith("~/"):
        return _home(env) / named[2:]
    return Path(named).absolute()
