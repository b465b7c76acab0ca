"""Opening and closing a gateway: the two tiers of life, one inside the other.

Owns the nesting (design rule 2): services live in a shielded scope and outlive connections on every path, whoever
cancels what; connections end by being asked, then by a deadline (rule 3). It must not know what either tier is made of.

Invariants: listening on entry, drained on exit, the whole stop within `STOP_SECONDS` (LIFE-4); every shield has a
deadline (rule 4); a lone real error leaves `open_gateway` as itself.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from openclaw_gateway.app.gateway import Gateway
from openclaw_gateway.app.inforce import InForce
from openclaw_gateway.app.life import STOP_SECONDS
from openclaw_gateway.app.services import open_services
from openclaw_gateway.config.lastgood import remember_good
from openclaw_gateway.config.load import LoadedConfig
from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.secrets import ResolvedAuth, resolve_auth
from openclaw_gateway.errors import flat_errors

__all__ = ["open_gateway", "serve_gateway"]


@asynccontextmanager
async def open_gateway(
    config: GatewayConfig | None = None,
    *,
    auth: ResolvedAuth | None = None,
    loaded: LoadedConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    listen: bool = True,
) -> AsyncIterator[Gateway]:
    """Open a gateway: listening on entry, drained on exit.

    ``config`` defaults to a private gateway on the standard port that keeps nothing on disk. A caller that loaded
    openclaw.json itself (the command line does) passes ``loaded``, and the ``overrides`` it was loaded with: then the
    file is watched and changes are taken over. With ``listen=False`` no port is opened: connections come only through
    `Gateway.serve_stream`.

    Raises `ConfigError` (no usable secret), `BindFailed`, `StoreError`, `StateDirUnsafe`. A cancellation from outside
    still drains, within `STOP_SECONDS`. Tasks of the caller may use the gateway from anywhere in the same Trio run
    while the block lasts.
    """
    env = os.environ if env is None else env
    if config is None:
        config = loaded.config if loaded is not None else GatewayConfig()
    if auth is None:
        overridden = loaded.overridden if loaded is not None else ()
        auth = resolve_auth(config, config.state_dir, env, overridden=overridden)
    if loaded is not None and not loaded.degraded:
        remember_good(loaded)
    with flat_errors():
        async with trio.open_nursery() as tiers:
            alive = trio.CancelScope(shield=True)
            try:
                gateway = await tiers.start(
                    _serve_tiers,
                    alive,
                    config,
                    partial(InForce, config, auth, loaded=loaded, env=env, overrides=overrides, listen=listen),
                )
                try:
                    yield gateway
                finally:
                    gateway.request_stop()
                    with trio.move_on_after(STOP_SECONDS, shield=True):
                        await gateway.drained.wait()
            finally:
                alive.cancel()


async def _serve_tiers(
    alive: trio.CancelScope,
    config: GatewayConfig,
    make: partial[InForce],
    *,
    task_status: trio.TaskStatus[Gateway] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Both tiers, inside the shielded scope: services outside, connections inside."""
    with alive:
        async with open_services(config) as services:
            await Gateway(services, make()).serve(task_status=task_status)


async def serve_gateway(
    config: GatewayConfig | None = None, *, task_status: trio.TaskStatus[Gateway] = trio.TASK_STATUS_IGNORED
) -> None:
    """`open_gateway` as a task: ``gateway = await nursery.start(serve_gateway, config)``. Returns when the gateway is
    asked to stop.
    """
    async with open_gateway(config) as gateway:
        task_status.started(gateway)
        await gateway.wait_stopped()
