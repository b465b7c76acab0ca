"""A gateway without a port, and ways to reach it over memory streams.

Owns the plumbing between a `ScriptedPeer` and `Gateway.serve_stream`. It must not know frames. Invariants: no TCP port
is opened and nothing is kept on disk; when `connect_peer` is left, the gateway has let go of the connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import attrs
import trio

from openclaw_gateway.app import Gateway, open_gateway
from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.errors import flat_errors
from openclaw_gateway.testing.peer import ScriptedPeer

__all__ = ["connect_peer", "open_memory_gateway", "open_memory_stream"]


@asynccontextmanager
async def open_memory_gateway(config: GatewayConfig | None = None, **overrides: Any) -> AsyncIterator[Gateway]:
    """Open a gateway that listens nowhere; reach it with `connect_peer`.

    ``overrides`` replace fields of ``config`` (default: a token is made up, see `Gateway.token`). The environment of
    the process is not read. Ends like `open_gateway`: clients are told, the whole stop takes at most five seconds.
    """
    config = attrs.evolve(config if config is not None else GatewayConfig(), **overrides)
    async with open_gateway(config, env={}, listen=False) as gateway:
        yield gateway


@asynccontextmanager
async def open_memory_stream(
    gateway: Gateway, *, address: str = "127.0.0.1", lockstep: bool = False
) -> AsyncIterator[trio.abc.HalfCloseableStream]:
    """The client's end of one connection that seems to come from ``address``.

    ``lockstep`` holds each side's bytes until the other reads them: a client that stops reading is then a slow
    consumer. Without it the stream buffers without limit. On leaving, the stream is closed and the connection waited
    for.
    """
    from trio.testing import lockstep_stream_pair, memory_stream_pair

    make = lockstep_stream_pair if lockstep else memory_stream_pair
    ours, theirs = make()
    with flat_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(gateway.serve_stream, theirs, peer=(address, 50_000)))
            try:
                yield ours
            finally:
                await trio.aclose_forcefully(ours)


@asynccontextmanager
async def connect_peer(
    gateway: Gateway, *, address: str = "127.0.0.1", connect: bool = True, **who: Any
) -> AsyncIterator[ScriptedPeer]:
    """A peer that is connected: upgraded, challenged, admitted. ``who`` is `ScriptedPeer.connect`'s; the gateway's own
    token is presented where no other credential is given.

    ``connect=False`` stops after the challenge. Raises `CallFailed` where the gateway refuses.
    """
    async with open_memory_stream(gateway, address=address) as stream:
        peer = ScriptedPeer(stream)
        await peer.upgrade()
        await peer.expect_event("connect.challenge")
        if connect:
            if not {"token", "password", "device_token", "bootstrap_token"}.intersection(who):
                who["token"] = gateway.token
            await peer.connect(**who)
        yield peer
