"""Public fakes for programs that embed the gateway: test against the real thing without a port, a file or a client.

    from openclaw_gateway.testing import connect_peer, open_memory_gateway

    async with open_memory_gateway() as gateway, connect_peer(gateway) as peer:
        assert (await peer.request("health"))["ok"]

Everything behind the stream is the gateway itself: admission, sessions, methods, events. Only the socket is replaced.
"""

from __future__ import annotations

from openclaw_gateway.testing.channel import ScriptedChannel, open_scripted_channel
from openclaw_gateway.testing.gateway import connect_peer, open_memory_gateway, open_memory_stream
from openclaw_gateway.testing.peer import PeerClosed, ScriptedPeer, connect_params

__all__ = [
    "PeerClosed",
    "ScriptedChannel",
    "ScriptedPeer",
    "connect_params",
    "connect_peer",
    "open_memory_gateway",
    "open_memory_stream",
    "open_scripted_channel",
]
