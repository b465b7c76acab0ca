"""`logs.tail`: the log file, a page at a time (spec wire.md section 6).

Owns the method's parameters; reading and its caps are `ops.logtail`'s. Log lines hold no secrets by construction
(`ops.log`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.ops.logtail import tail_json
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable
from openclaw_gateway.value import Value

__all__ = ["register"]

DEFAULT_LINES: Final = 500
DEFAULT_BYTES: Final = 250_000


@attrs.frozen(eq=False, repr=False)
class TailParams(Value):
    cursor: int | None = None
    limit: int | None = None
    max_bytes: int | None = None


def register(table: MethodTable, *, path: Path | None) -> None:
    """``path`` None: this gateway keeps no log file (embedding)."""

    def tail_log(context: CallContext, params: TailParams) -> Any:
        if path is None:
            return {"file": "none", "cursor": 0, "size": 0, "lines": [], "truncated": False, "reset": False}
        faults = {"cursor": (params.cursor, 0), "limit": (params.limit, 1), "maxBytes": (params.max_bytes, 1)}
        for name, (value, least) in faults.items():
            if value is not None and value < least:
                fault = f"at /{name}: must be >= {least}"
                raise CallError(wire_error("invalid-params", method="logs.tail", fault=fault))
        limit = params.limit if params.limit is not None else DEFAULT_LINES
        max_bytes = params.max_bytes if params.max_bytes is not None else DEFAULT_BYTES
        return msgspec.Raw(tail_json(path, params.cursor, limit, max_bytes))

    table.method("logs.tail", scope="operator.read", params=TailParams)(tail_log)
