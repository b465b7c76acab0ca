"""Errors of asking a node to do something: which node, which command, whether it could be sent.

Owns the rows that the node methods answer with after hello; the connection stays open. It must not know how a node came
to be approved (`pairing`). Invariant: a row about a command says whether anything was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openclaw_gateway.protocol.errorrows import INVALID_REQUEST, UNAVAILABLE, ErrorRow

__all__ = ["ROWS"]

ROWS: Final[Mapping[str, ErrorRow]] = {
    "unknown-node": ErrorRow(
        INVALID_REQUEST,
        "unknown node: {node}",
        "No node of that id is paired or connected.",
        "openclaw nodes status",
        detail="UNKNOWN_NODE",
    ),
    "node-not-connected": ErrorRow(
        UNAVAILABLE,
        "node not connected",
        "The node is paired, but has no connection now; nothing was sent.",
        "openclaw nodes status",
        detail="NOT_CONNECTED",
    ),
    "node-pairing-changed": ErrorRow(
        UNAVAILABLE,
        "node is not paired, or its commands are not approved",
        "Nothing is known to be allowed on a node of that id at this moment; nothing was sent.",
        "openclaw nodes pending, then: openclaw nodes approve <requestId>",
        detail="PAIRING_CHANGED",
        retryable=True,
    ),
    "node-command-refused": ErrorRow(
        INVALID_REQUEST,
        "node command not allowed: {command}",
        "The node does not declare the command, nobody approved it, or gateway.nodes.commands does not allow it.",
        "openclaw nodes describe --node <id> lists what it may be asked",
    ),
    "node-reserved-field": ErrorRow(
        INVALID_REQUEST,
        "params of {command} hold a field that only the gateway may set: {field}",
        "Approvals and run ids come from the gateway's own state, never from a caller.",
        "leave the field out",
        detail="RESERVED_FIELD",
    ),
    "node-failed": ErrorRow(
        UNAVAILABLE,
        "{node_code}: {node_message}",
        "The command was sent and the node did not carry it out, did not answer in time, or was lost; "
        "details.nodeError says which.",
        "openclaw logs --follow (here), and the node's own log",
    ),
    "node-busy": ErrorRow(
        UNAVAILABLE,
        "node has {limit} commands in flight",
        "As many invokes of this node, or of all nodes, are open as may be.",
        "wait for answers before sending more",
        detail="NODE_BUSY",
        retryable=True,
        retry_after_ms=250,
    ),
    "unknown-surface-request": ErrorRow(
        INVALID_REQUEST,
        "unknown requestId",
        "No node's request of that id waits: it was answered, or the node asked for something else since.",
        "openclaw nodes pending",
        detail="UNKNOWN_REQUEST",
    ),
    "node-queue-full": ErrorRow(
        UNAVAILABLE,
        "{limit} items wait for this node already",
        "As much work waits for the node, or for all nodes, as is kept.",
        "connect the node, or wait until items expire",
        detail="NODE_QUEUE_FULL",
        retryable=True,
    ),
}
