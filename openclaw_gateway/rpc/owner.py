"""The owner of the state directory as a caller: what may be asked without a secret and without scopes (PAIR-2).

Owns the list of methods (deciding who is paired, nothing else) and the caller's identity. How ownership is proven is
for those who let an owner in: the owner's door of a running gateway, and the offline tool under the instance lock. It
must not know either.

Invariants: every call runs through the same dispatcher, parameters and rules as over WebSocket; a method that is not
about pairing is refused whoever asks.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.protocol.scopes import KNOWN_OPERATOR_SCOPES
from openclaw_gateway.rpc.dispatch import Dispatcher
from openclaw_gateway.rpc.table import CallError

__all__ = ["OwnerCaller", "may_ask", "owner_call"]

_FAMILIES: Final = ("pairing.", "channels.pairing.", "device.pair.", "device.token.", "device.cert.", "node.pair.")


@attrs.frozen(eq=False)
class OwnerCaller:
    """A `CallContext` that holds every operator scope, because its holder could edit the files anyway."""

    conn_id: str
    role: str = "operator"
    scopes: frozenset[str] = KNOWN_OPERATOR_SCOPES
    principal: str = "owner"
    client_id: str = "cli"
    auth_method: str = "owner"
    device_id: str | None = None
    client_address: str = "local"


def may_ask(method: str) -> bool:
    """True where the owner may call ``method`` this way."""
    return method.startswith(_FAMILIES)


async def owner_call(dispatcher: Dispatcher, caller: OwnerCaller, method: str, params: msgspec.Raw) -> Any:
    """The method's payload. Raises `CallError`; cancellation as the method's own."""
    spec = dispatcher.table.view(caller.role, caller.scopes).get(method) if may_ask(method) else None
    if spec is None:
        raise CallError(wire_error("unknown-method", method=method[:80]))
    return await dispatcher.run(spec, caller, params)
