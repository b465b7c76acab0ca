"""Methods about which nodes there are: `node.pair.list`, `node.list`, `node.describe`.

Owns their scopes. The rows come from pairing/ and nodes/.
"""

from __future__ import annotations

from typing import Any

import attrs

from openclaw_gateway.nodes.listing import node_rows
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.pairing.devices import DeviceBook, DeviceBookUnreadable
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable, NoParams
from openclaw_gateway.server.registry import SessionRegistry
from openclaw_gateway.value import Value

__all__ = ["register"]


@attrs.frozen(eq=False, repr=False)
class DescribeParams(Value):
    node_id: str


def register(table: MethodTable, *, book: DeviceBook, registry: SessionRegistry) -> None:
    def rows() -> list[dict[str, Any]]:
        try:
            return node_rows(book.paired(), registry)
        except DeviceBookUnreadable as exc:
            raise CallError(wire_error("store-unavailable")) from exc

    def list_nodes(context: CallContext, params: NoParams) -> dict[str, Any]:
        return {"ts": now_ms(), "nodes": rows()}

    def list_node_pairings(context: CallContext, params: NoParams) -> dict[str, Any]:
        paired = [row for row in rows() if row.get("paired")]
        return {"pending": [], "paired": paired}

    def describe_node(context: CallContext, params: DescribeParams) -> dict[str, Any]:
        for row in rows():
            if row["nodeId"] == params.node_id:
                return {"ts": now_ms(), **row}
        raise CallError(wire_error("unknown-node", node=params.node_id[:80]))

    table.method("node.list", scope="operator.read")(list_nodes)
    table.method("node.pair.list", scope="operator.pairing")(list_node_pairings)
    table.method("node.describe", scope="operator.read", params=DescribeParams)(describe_node)
