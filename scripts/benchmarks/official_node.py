"""node.invoke with OpenClaw's own headless node host at both gateways: what a user of it waits.

Owns the two node processes (``openclaw node run``, one at each gateway, asked in turns) and that both are approved. The
node's own time, some Node.js on the load generator's core, is in both numbers, so a ratio says less of the gateway than
with the scripted node (`node_invoke`). It must not know how gateways are started. Invariant: the processes end with the
``with`` block.
"""

from __future__ import annotations

import contextlib
import itertools
import time

from .load import LoadError, Session
from .node_invoke import Asking, approve, rows_of
from .report import Row
from .servers import TOKEN, Official, Server, node_host

__all__ = ["rows"]

START_SECONDS = 60.0


def _ready(server: Server) -> str:
    """The id of the node at ``server``, approved and answering. Over a connection of its own: one that nobody reads
    while the other node starts would be cut for the Pings that it does not answer.
    """
    with contextlib.closing(Session(server.port)) as operator:
        operator.hello(TOKEN)
        node_id = approve(operator, None, seconds=START_SECONDS)
        _check(operator, node_id)
    return node_id


def _asking(server: Server, node_id: str) -> Asking:
    operator = Session(server.port)
    operator.hello(TOKEN)
    return Asking(operator, node_id)


def _check(operator: Session, node_id: str) -> None:
    """The node does what is timed: a fast refusal would make a fine number."""
    until = time.monotonic() + START_SECONDS
    for number in itertools.count():
        params = {
            "nodeId": node_id,
            "command": "system.which",
            "params": {"bins": ["sh"]},
            "idempotencyKey": f"check-{number}",
        }
        reply = operator.call("node.invoke", params)
        if reply["ok"] or time.monotonic() > until:
            break
        time.sleep(0.2)  # an approved node comes back with a connection of its own
    if not reply["ok"] or not reply["payload"]["payload"]["bins"].get("sh"):
        raise LoadError(f"OpenClaw's node did not find sh: {reply}")


def rows(pair: tuple[Server, Server], official: Official, seconds: float) -> list[Row]:
    """Ours first in ``pair``, OpenClaw's second."""
    with contextlib.ExitStack() as stack:
        for server in pair:
            stack.enter_context(node_host(official, server.port))
        found = [_ready(server) for server in pair]
        scenes = [_asking(server, node_id) for server, node_id in zip(pair, found, strict=True)]
        for scene in scenes:
            stack.callback(scene.close)
        return rows_of(scenes, "node.invoke, OpenClaw's node host", seconds)
