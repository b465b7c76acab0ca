"""What hypercorn and websockets bring along and a gateway process never uses, left out of it.

Owns one act before they are imported: placeholders. First for hypercorn's two modules that pull in h2, hpack,
hyperframe and wsproto: this gateway speaks HTTP/1.1 alone and takes upgrades out of hypercorn's hands
(server/upgrade.py). Then for parts of the standard library that both ask for at their top and need only for what a
gateway never does: reading logging configurations and TOML, annotating with `multiprocessing`, and, of a websockets
that is no release, finding out which one it is (with it come email, zipfile and csv). It must not run inside another
program, which may want all of that for itself: only ``openclaw gateway run`` calls it, in a process that is the
gateway's alone.

Invariants: where hypercorn is loaded already, nothing happens; every module that was left out can be imported by
anybody afterwards and is the real one.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final

__all__ = ["leave_out_unused"]

_BORROWED: Final = ("h2", "h2.events")  # named in annotations of hypercorn.typing alone
# Modules of the standard library, and which of their names are taken from them while hypercorn and websockets load.
_UNUSED: Final = {
    "importlib.metadata": (),
    "logging.config": ("dictConfig", "fileConfig"),
    "multiprocessing.synchronize": ("Event",),
    "tomllib": (),
}


class _LeftOut:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("this is left out of a gateway's process (openclaw_gateway.cli.lean)")


def leave_out_unused() -> None:
    """To be called before anything imports hypercorn."""
    if "hypercorn" in sys.modules or any(name in sys.modules for name in _BORROWED):
        return
    for name in _BORROWED:
        sys.modules[name] = ModuleType(name)
    sys.modules["h2"].events = sys.modules["h2.events"]  # type: ignore[attr-defined]
    for name, member in (("hypercorn.protocol.h2", "H2Protocol"), ("hypercorn.protocol.ws_stream", "WSStream")):
        placeholder = ModuleType(name)
        setattr(placeholder, member, _LeftOut)
        sys.modules[name] = placeholder
    unused = [name for name in _UNUSED if name not in sys.modules]
    for name in unused:
        placeholder = sys.modules[name] = ModuleType(name)
        for member in _UNUSED[name]:
            setattr(placeholder, member, _LeftOut)
    try:
        for name in ("hypercorn.protocol", "hypercorn.trio", "hypercorn.config", "websockets.version"):
            importlib.import_module(name)
    finally:
        for name in (*_BORROWED, *unused):
            sys.modules.pop(name, None)
