"""The last configuration text that was valid as a whole.

Owns one file of the state directory. Must not interpret it: `config.load` reads the text again with today's
environment.

Invariants: the text is kept as written (``${NAME}`` stays a reference), mode 0600; only the gateway writes it, after
a load without a fault, and only when it changed; what cannot be read counts as absent, because it is a safety net and
not a source.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from openclaw_gateway.config.json5 import MAX_BYTES
from openclaw_gateway.config.paths import last_good_path

if TYPE_CHECKING:
    from openclaw_gateway.config.load import LoadedConfig

__all__ = ["read_good", "remember_good"]


def read_good(state: Path) -> str | None:
    """The remembered text, None when there is none that can be used."""
    from openclaw_gateway.ops.statedir import StateDirUnsafe, read_private_file

    try:
        return read_private_file(last_good_path(state), limit=MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError, StateDirUnsafe):
        return None


def remember_good(loaded: LoadedConfig) -> bool:
    """Keep the text of a fully valid load. For the gateway alone, once it runs with it; True when the file was written.

    Does nothing for a load that degraded, that had no file, or that is remembered already. One disk flush. Raises
    `OSError` or `StateDirUnsafe`; the gateway goes on without.
    """
    from openclaw_gateway.ops.statedir import ensure_private_dir, write_private_file

    state = loaded.config.state_dir
    if state is None or loaded.degraded or not loaded.exists or read_good(state) == loaded.raw:
        return False
    path = last_good_path(state)
    ensure_private_dir(state)
    ensure_private_dir(path.parent)
    write_private_file(path, loaded.raw.encode())
    return True
