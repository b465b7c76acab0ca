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
from collections.abc import Iterator

from .load import LoadError, Session
from .node_invoke import Asking, approve, rows_of
from .report import Row
from .servers import TOKEN, Official, Server, node_host

__all__ = ["rows"]

START_SECONDS = 60.0


@contextlib.contextmanager
def _asking(server: Server, official: Official) -> Iterator[Asking]:
    with node_host(official, server.port), contextlib.closing(Session(server.port)) as operator:
        operator.hello(TOKEN)
        scene = Asking(operator, approve(operator, None, seconds=START_SECONDS))
        _check(operator, scene.node_id)
        yield scene


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
        scenes = [stack.enter_context(_asking(server, official)) for server in pair]
        return rows_of(scenes, "node.invoke, OpenClaw's node host", seconds)
