"""A scripted node and its operator over memory streams: what the tests of nodes, methods and attacks share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from openclaw_gateway import Gateway
from openclaw_gateway.client.identity import DeviceIdentity
from openclaw_gateway.testing import ScriptedPeer, connect_peer

COMMANDS = ("system.which", "system.run", "system.notify")


@asynccontextmanager
async def node_peer(
    gateway: Gateway,
    device: DeviceIdentity,
    *,
    commands: Sequence[str] = COMMANDS,
    caps: Sequence[str] = ("system",),
    client: dict[str, Any] | None = None,
    client_id: str = "node-host",
    **more: Any,
) -> AsyncIterator[ScriptedPeer]:
    """A connected node of that device; the first connect from here pairs it by locality."""
    facts = {"displayName": "Node One", "deviceFamily": "Linux", "version": "1.2.3", **(client or {})}
    async with connect_peer(
        gateway,
        role="node",
        mode="node",
        scopes=[],
        client_id=client_id,
        client=facts,
        device=device,
        commands=list(commands),
        caps=list(caps),
        **more,
    ) as peer:
        yield peer


async def approve(operator: ScriptedPeer, node_id: str) -> dict[str, Any]:
    """Wait for the node's request and approve it."""
    while True:
        requested = await operator.expect_event("node.pair.requested")
        if requested["nodeId"] == node_id:
            break
    answer: dict[str, Any] = await operator.request("node.pair.approve", {"requestId": requested["requestId"]})
    return answer


@asynccontextmanager
async def approved_node(
    gateway: Gateway, operator: ScriptedPeer, device: DeviceIdentity | None = None, **who: Any
) -> AsyncIterator[tuple[str, ScriptedPeer]]:
    """A connected node whose surface was just approved: its id and its connection."""
    device = device or DeviceIdentity.generate()
    async with node_peer(gateway, device, **who) as node:
        await approve(operator, device.device_id)
        yield device.device_id, node


async def next_invoke(node: ScriptedPeer) -> dict[str, Any]:
    """The next command that the node is asked for; ``params`` are those of paramsJSON."""
    payload: dict[str, Any] = await node.expect_event("node.invoke.request")
    payload["params"] = msgspec.json.decode(payload["paramsJSON"]) if "paramsJSON" in payload else None
    return payload


async def answer(node: ScriptedPeer, asked: dict[str, Any], payload: Any = None, **more: Any) -> dict[str, Any]:
    """Answer an invoke as official nodes do; returns the gateway's reply."""
    body = {"id": asked["id"], "nodeId": asked["nodeId"], "ok": True, **more}
    if body["ok"] and payload is not None:
        body["payloadJSON"] = msgspec.json.encode(payload).decode()
    reply: dict[str, Any] = await node.request("node.invoke.result", body)
    return reply


def event(name: str, payload: Any) -> dict[str, Any]:
    return {"event": name, "payloadJSON": msgspec.json.encode(payload).decode()}
