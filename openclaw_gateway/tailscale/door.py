"""The listener that tailscale serve is pointed at: one port on loopback, and where it comes from is its provenance.

Owns its name and its plan among the gateway's listeners. It must not know the daemon. Invariants: nothing else is ever
told to connect there; when it closes, whoever came in through it goes too, because what was known of him was known
through it.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from openclaw_gateway.policy.network import Provenance
from openclaw_gateway.server.listening import ListenerPlan, Listening, Preface
from openclaw_gateway.server.wire import SocketWire

__all__ = ["NAME", "ProvenanceDoor"]

NAME = "tailscale"


@attrs.define(eq=False)
class ProvenanceDoor:
    """See `supervisor.Door`."""

    listening: Listening

    def open(self, port: int, provenance: Provenance, check: Callable[[SocketWire], None] | None) -> int:
        self.listening.close(NAME)
        preface: Preface | None = None
        if check is not None:
            asked = check

            async def preface(wire: SocketWire) -> tuple[str, int]:
                asked(wire)
                return wire.peer

        plan = ListenerPlan(name=NAME, hosts=("127.0.0.1",), port=port, provenance=provenance, preface=preface)
        return self.listening.open(plan).port

    def close(self) -> None:
        self.listening.cut(NAME, "tailscale route closed")
