"""What hypercorn brings along and a gateway process never uses, left out of it: HTTP/2 and hypercorn's own WebSockets.

Owns one act before hypercorn is imported: placeholders for its two modules that pull in h2, hpack, hyperframe and
wsproto (1.8 MB resident, 30 ms of a start). This gateway speaks HTTP/1.1 alone and takes upgrades out of hypercorn's
hands (server/upgrade.py), so neither is ever called. It must not run inside another program, which may want HTTP/2 for
itself: only ``openclaw gateway run`` calls it, in a process that is the gateway's alone.

Invariants: where hypercorn is loaded already, nothing happens; h2 itself can be imported by anybody afterwards.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, Final

__all__ = ["leave_out_http2"]

_BORROWED: Final = ("h2", "h2.events")  # named in annotations of hypercorn.typing alone


class _LeftOut:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("HTTP/2 and hypercorn's WebSockets are left out of this process")


def leave_out_http2() -> None:
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
    try:
        importlib.import_module("hypercorn.protocol")
    finally:
        for name in _BORROWED:
            sys.modules.pop(name, None)
