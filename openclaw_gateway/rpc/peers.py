"""Methods about who is paired and who waits: `device.pair.list`.

Owns their scopes. The rows come from pairing/. A caller that holds only its own device's token sees no other device's
request (V21): the pairing scope is needed.
"""

from __future__ import annotations

from typing import Any

from openclaw_gateway.pairing.devices import DeviceBook, DeviceBookUnreadable
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable, NoParams

__all__ = ["register"]


def register(table: MethodTable, *, book: DeviceBook) -> None:
    def list_devices(context: CallContext, params: NoParams) -> dict[str, Any]:
        try:
            return book.to_wire()
        except DeviceBookUnreadable as exc:
            raise CallError(wire_error("store-unavailable")) from exc

    table.method("device.pair.list", scope="operator.pairing")(list_devices)
