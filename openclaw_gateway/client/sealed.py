"""Sealed invokes from the operator's side: a node carries out what the gateway in between cannot read.

Owns one exchange: the node's key believed, the parameters sealed, the answer opened. It must not print, choose nodes or
keep keys (`client.nodekeys`). Invariants: nothing goes out readable because something is missing: no key, no
capability or another key is `NodeKeyRefused`, and an answer that is not sealed is none; an error inside of the sealed
answer is the node's own word, one outside may be the gateway's.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Mapping
from typing import Any, Final, Protocol

import attrs

from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.client.nodekeys import NodeKeyRefused, NodeKeys
from openclaw_gateway.errors import CallFailed, GatewayError, LocalProtocolError
from openclaw_gateway.nodes.sealing import open_reply, seal_request
from openclaw_gateway.protocol.keystatement import KeyStatement, verify_key_statement
from openclaw_gateway.protocol.sealed import CAPABILITY, MAX_LIFE_MS, SealContext, SealFault

__all__ = ["Caller", "SealedAnswerRefused", "believed_key", "invoke_sealed"]

_MARGIN_MS: Final = 5_000  # so that a request does not expire before its own deadline


class Caller(Protocol):
    """The part of `GatewayClient` that asking needs."""

    async def call(self, method: str, params: object = None, *, timeout: float | None = 30.0) -> Any: ...


@attrs.define(eq=False)
class SealedAnswerRefused(GatewayError):
    """What came back is not the node's answer to what was asked. The command may have been carried out."""

    message: str
    fix: str = "ask again; where it stays, look at the gateway: openclaw gateway status"

    def __str__(self) -> str:
        return self.message


def believed_key(row: Mapping[str, Any]) -> KeyStatement:
    """The key that a row of ``node.list`` shows, its signature checked. Raises `NodeKeyRefused`."""
    node_id = str(row.get("nodeId"))
    if CAPABILITY not in (row.get("caps") or ()):
        raise NodeKeyRefused(
            f"node {node_id[:16]} does not say that it takes sealed invokes; nothing was sent",
            "approve it (openclaw nodes pending), or run this package's own node there: openclaw node run",
        )
    found = verify_key_statement(row.get("keyStatement"), device_id=node_id, subject="node")
    if isinstance(found, str):
        raise NodeKeyRefused(
            f"node {node_id[:16]} has no key that can be believed ({found}); nothing was sent",
            "run this package's own node there, with its secure channel, which registers the key: openclaw node run",
        )
    return found


async def invoke_sealed(
    client: Caller,
    row: Mapping[str, Any],
    command: str,
    params: object = None,
    *,
    identity: DeviceIdentity,
    keys: NodeKeys,
    name: str | None = None,
    key: str | None = None,
    timeout_ms: int = 30_000,
) -> dict[str, Any]:
    """Have the node of ``row`` (from ``node.list``) carry out ``command``; the gateway sees that name and sizes.

    ``identity`` signs the request: the node judges by it. ``keys``: pins of nodes; a node that is not in it yet is
    pinned. ``name``: what the person calls the node. ``key``: an idempotency key that was never used before;
    ``timeout_ms``: how long the node may take, at most an hour. Returns ``{ok, nodeId, command, payload}``. Raises
    `NodeKeyRefused` (nothing was sent), `CallFailed` (the gateway's error, or the node's), `SealedAnswerRefused`, and
    what `GatewayClient.call` raises. Blocks for two small files. Cancelled, the command may still be carried out.
    """
    statement = believed_key(row)
    node_id = statement.device_id
    called = name or node_id
    keys.pin(statement, called)
    keys.note(node_id, command, called)
    now = round(time.time() * 1000)
    context = SealContext(
        node_id=node_id,
        command=command,
        key=key or str(uuid.uuid4()),
        issued_at_ms=now,
        expires_at_ms=now + min(timeout_ms + _MARGIN_MS, MAX_LIFE_MS),
        node_key=statement.raw_key,
    )
    try:
        sent = seal_request(identity, context, {} if params is None else params)
    except ValueError as error:
        raise LocalProtocolError(f"the parameters cannot be sealed: {error}") from error
    request = {
        "nodeId": node_id,
        "command": command,
        "params": sent.envelope.to_wire(),
        "idempotencyKey": context.key,
        "timeoutMs": timeout_ms,
    }
    # The gateway gives up first, so that its own answer says what became of the command.
    try:
        answer = await client.call("node.invoke", request, timeout=timeout_ms / 1000 + 5)
    except CallFailed as error:
        raise _readable(error) from error
    payload = answer.get("payload") if isinstance(answer, dict) else None
    public = base64.urlsafe_b64decode(statement.public_key + "=")
    opened = open_reply(sent, payload, node_public_key=public)
    if isinstance(opened, SealFault):
        raise SealedAnswerRefused(f"the answer is not this node's: {opened.message}")
    if not opened["ok"]:
        told = {part: str(opened["error"][part]) for part in ("code", "message")}
        details: dict[str, object] = {"nodeError": told, "nodeCommandDispatched": True, "sealed": True}
        raise CallFailed(code="UNAVAILABLE", message=f"{told['code']}: {told['message']}", details=details)
    return {"ok": True, "nodeId": node_id, "command": command, "payload": opened["payload"], "sealed": True}


def _readable(error: CallFailed) -> CallFailed:
    """An error as the gateway told it. ``details.sealed`` is for what came out of a sealed answer, so a gateway that
    writes it itself is not believed."""
    if isinstance(error.details, Mapping) and "sealed" in error.details:
        return attrs.evolve(error, details={name: value for name, value in error.details.items() if name != "sealed"})
    return error
