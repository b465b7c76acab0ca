"""One connection of a node, from hello to its end: requests in, announcements out.

Owns the tasks of that connection. It must not know how it came about or what follows it. Invariants: nothing that was
invoked over a connection outlives it; a gateway that does not know an announcement loses nothing and is not asked again
on this connection.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec
import trio

from openclaw_gateway.client import CallFailed, ClientClosed, GatewayClient
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.nodes.host.invocations import Handler, Invocations
from openclaw_gateway.nodes.host.pace import PUBLISHING
from openclaw_gateway.nodes.host.seals import Seals
from openclaw_gateway.nodes.host.stats import INTERVAL_SECONDS, sample_stats
from openclaw_gateway.ops.log import get_logger

__all__ = ["Surface", "serve_connection"]

Surface = Literal["unknown", "pending", "approved"]
_ANNOUNCEMENTS: Final[tuple[tuple[str, Mapping[str, Any]], ...]] = (
    ("node.runnerInventory.update", {"protocolFeatures": [], "workerHost": {"enabled": False}}),
    ("node.skills.update", {"skills": []}),
    ("node.pluginTools.update", {"tools": []}),
)
_CALL_SECONDS: Final = 15.0

log = get_logger("node")
_chance = random.SystemRandom().random


async def serve_connection(
    client: GatewayClient,
    handlers: Mapping[str, Handler],
    node_id: str,
    *,
    stop: trio.Event,
    surface: Callable[[Surface], None],
    seals: Seals | None = None,
) -> ClientClosed | None:
    """Serve until the connection ends (then why) or ``stop`` is set (then None). On return no command runs.

    ``surface`` hears whether an operator has approved what this node offers, as far as the gateway lets it be known.
    """
    why: ClientClosed | None = None
    async with trio.open_nursery() as nursery:

        async def obey_stop() -> None:
            await stop.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(obey_stop)
        nursery.start_soon(_report_stats, client)
        nursery.start_soon(_announce_all, client, surface)
        invocations = Invocations(client, handlers, node_id, seals)
        try:
            async for event in client.events():
                if event.name == "node.invoke.request":
                    invocations.take(nursery, event.payload)
                elif event.name == "node.invoke.cancel":
                    invocations.cancel(event.payload)
                elif event.name in {"node.pair.requested", "node.pair.resolved"}:
                    _heed_decision(event.payload, node_id, surface)
                if event.gap:
                    log.warning("events lost", count=event.gap)
        except ClientClosed as error:
            why = error
        nursery.cancel_scope.cancel()
    return None if stop.is_set() and why is None else why or client.closed


def _heed_decision(payload: Any, node_id: str, surface: Callable[[Surface], None]) -> None:
    """A request waits (no ``decision``), or one was decided."""
    if isinstance(payload, dict) and payload.get("nodeId") in {None, node_id}:
        surface("approved" if payload.get("decision") == "approved" else "pending")


async def _report_stats(client: GatewayClient) -> None:
    while True:
        params = {"event": "node.host.stats", "payloadJSON": msgspec.json.encode(sample_stats()).decode()}
        try:
            await client.call("node.event", params, timeout=_CALL_SECONDS)
        except ClientClosed:
            return
        except GatewayError as error:
            log.debug("stats not taken", error=str(error))
        await trio.sleep(INTERVAL_SECONDS)


async def _announce_all(client: GatewayClient, surface: Callable[[Surface], None]) -> None:
    for method, params in _ANNOUNCEMENTS:
        if not await _announce(client, method, params, surface):
            return


async def _announce(
    client: GatewayClient, method: str, params: Mapping[str, Any], surface: Callable[[Surface], None]
) -> bool:
    """Say it until it is taken or refused for good. False where the connection is over."""
    failures = 0
    while True:
        try:
            await client.call(method, params, timeout=_CALL_SECONDS)
        except CallFailed as error:
            if error.code != "UNAVAILABLE":
                log.debug("announcement not taken", method=method, error=str(error))
                return True
            if "approval" in error.message:
                surface("pending")
        except ClientClosed:
            return False
        except GatewayError as error:
            log.debug("announcement not answered", method=method, error=str(error))
        else:
            return True
        failures += 1
        await trio.sleep(PUBLISHING.delay(failures, _chance()))
