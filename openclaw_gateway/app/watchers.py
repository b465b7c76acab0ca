"""What runs beside the connections as long as the gateway lives: each task supervised by itself.

Owns the list of these tasks, their names in `health`, and the nursery they run in. It must not know what a task does,
nor how a failed one is started again (`ops.supervision`, design rule 12).

Invariant: no task here can end the gateway but the look at the own accept loop, and that only after the connections
have drained.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio

from openclaw_gateway.app.life import STOP_SECONDS, Life
from openclaw_gateway.app.parts import Parts
from openclaw_gateway.app.reloading import Reloading
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.ops.supervision import supervise
from openclaw_gateway.server.listener import watch_accepts
from openclaw_gateway.server.ownerdoor import serve_owner_door

__all__ = ["serve_door", "serve_watchers"]

HEALTH_EVENT_SECONDS: Final = 60.0


async def serve_door(parts: Parts, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Let the owner of the state directory decide who is paired (PAIR-2); ``started`` once the door is open."""
    state = parts.in_force.config.state_dir
    if state is None:
        task_status.started()
        return
    await serve_owner_door(state, parts.dispatcher, task_status=task_status)


async def serve_watchers(parts: Parts, life: Life, reloading: Reloading) -> None:
    """The watchers: heartbeat, tick, health event, upkeep, self-probe. Never returns; raises only `AcceptStalled`, and
    that after the connections have drained.
    """
    trio.lowlevel.add_instrument(parts.loop)
    health, on_demand = parts.news.health, parts.on_demand
    try:
        async with trio.open_nursery() as nursery:
            for name, task in _tasks(parts):
                nursery.start_soon(supervise, name, task, partial(health.set, name))
            nursery.start_soon(
                supervise, "discovery", partial(parts.discovery.serve, life.wait_stopped), parts.discovery.tell
            )
            nursery.start_soon(supervise, "tunnels", on_demand.serve_tunnels, on_demand.tunnels_troubled)
            nursery.start_soon(supervise, "tailscale", parts.tailnet.serve, parts.tailnet.trouble)
            nursery.start_soon(watch_accepts, parts.configured.probe_address)
            if parts.in_force.loaded is not None:
                nursery.start_soon(supervise, "config", reloading.serve_watch, partial(health.set, "config"))
                tell = partial(health.set, "probation")
                nursery.start_soon(supervise, "probation", reloading.serve_probation, tell)
    except Exception:
        life.request_stop("gateway failed")
        with trio.move_on_after(STOP_SECONDS):
            await life.drained.wait()
        raise
    finally:
        trio.lowlevel.remove_instrument(parts.loop)


def _tasks(parts: Parts) -> tuple[tuple[str, Callable[[], Awaitable[None]]], ...]:
    """By the name under which `health` shows how each is doing."""
    services = parts.services
    return (
        ("heartbeat", parts.heartbeat.serve),
        ("loop", parts.loop.serve),
        ("tick", partial(_tick, parts)),
        ("audit", services.audit.serve_flush),
        ("health", partial(_health_events, parts)),
        ("presence", parts.news.presence.serve),
        ("nodes", parts.nodes.serve),
        ("pairing", partial(services.book.supervise_upkeep, parts.news.publish_all)),
        ("lapses", parts.revocation.end_lapsed_sessions),
        ("certificates", parts.configured.serve),
        ("tailnet", parts.tailnet.follow),
        ("api-keys", services.keys.supervise_upkeep),
        ("tokens", services.issued.supervise_upkeep),
        ("logins", parts.on_demand.end_stale_logins),
        ("senders", services.people.supervise_upkeep),
        ("wide-area", parts.wide_area.serve),
        *parts.messaging.tasks(),
    )


async def _tick(parts: Parts) -> None:
    while True:
        await trio.sleep(parts.core.limits.tick_interval_ms / 1000)
        parts.events.publish_nowait("tick", {"ts": now_ms()}, scope=None, droppable=True)


async def _health_events(parts: Parts) -> None:
    while True:
        await trio.sleep(HEALTH_EVENT_SECONDS)
        parts.news.health_changed()
