"""What 200 connected nodes cost that each report host stats every 60 s: our gateway's share of a core.

Owns the nodes: 200 connections with a key and an approved surface each, which answer pings, and an operator that hears
every report. It must not know how the gateway is started. A minute is pressed together honestly: first the share with
the nodes connected and silent, then with each reporting every `EVERY` seconds (a gateway of ours takes one a second);
the difference, divided by how much too often they reported, is what the reports cost, and the row is the sum.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import time
from collections.abc import Callable, Sequence

from .load import LoadError, Session, text_frame
from .node_invoke import approve, connect_node
from .report import Row
from .servers import TOKEN, Server

__all__ = ["NODES", "row"]

NODES = 200
REAL_SECONDS = 60.0
EVERY = 2.0
_STATS = {
    "cpuCount": 8, "loadAverage": [0.42, 0.4, 0.38], "memoryTotalBytes": 17_179_869_184,
    "memoryFreeBytes": 8_123_456_789, "diskTotalBytes": 512_000_000_000, "diskAvailableBytes": 123_456_789_012,
}  # fmt: skip


def _report() -> bytes:
    params = {"event": "node.host.stats", "payloadJSON": json.dumps(_STATS, separators=(",", ":"))}
    request = {"type": "req", "id": "stats", "method": "node.event", "params": params}
    return text_frame(json.dumps(request, separators=(",", ":")).encode())


class _Crowd:
    def __init__(self, nodes: Sequence[Session], operator: Session, poller: select.epoll) -> None:
        self._nodes = nodes
        self._operator = operator
        self._poller = poller
        self._by_fd = {session.socket.fileno(): session for session in (*nodes, operator)}
        for fd in self._by_fd:
            poller.register(fd, select.EPOLLIN)
        self.taken = 0
        self.heard = 0

    def live(self, seconds: float, frame: bytes | None = None) -> int:
        """Answer pings for so long; with a frame, each node sends it every `EVERY` seconds, evenly spread. How many
        were sent."""
        begin = time.monotonic()
        turns = itertools.cycle(self._nodes)
        sent = 0
        while (now := time.monotonic()) < begin + seconds:
            due = int((now - begin) / EVERY * len(self._nodes)) if frame is not None else 0
            while frame is not None and sent < due:
                next(turns).socket.sendall(frame)
                sent += 1
            for fd, _ in self._poller.poll(0.01 if frame is not None else 0.2):
                self._take(self._by_fd[fd])
        return sent

    def _take(self, session: Session) -> None:
        opcode, payload = session.receive_message()
        while True:
            if opcode == 8:
                raise LoadError(f"a node was closed: {payload!r}")
            if session is self._operator:
                self.heard += b'"node.hostStats"' in payload[:80]
            elif b'"reason":"updated"' in payload:
                self.taken += 1
            if not session.pending:
                return
            opcode, payload = session.receive_message()


def _share(server: Server, live: Callable[[], int]) -> tuple[float, int]:
    """(share of a core that the server used meanwhile, what ``live`` said)"""
    used, begin = server.cpu_seconds(), time.perf_counter()
    said = live()
    return (server.cpu_seconds() - used) / (time.perf_counter() - begin), said


def row(server: Server, seconds: float) -> Row:
    """One row; ``seconds`` is how long each of the two shares is measured."""
    with contextlib.ExitStack() as stack:
        poller = stack.enter_context(select.epoll())
        operator = stack.enter_context(contextlib.closing(Session(server.port)))
        operator.hello(TOKEN)
        nodes = []
        for _ in range(NODES):
            nodes.append(stack.enter_context(contextlib.closing(Session(server.port))))
            approve(operator, connect_node(nodes[-1]))
        crowd = _Crowd(nodes, operator, poller)
        crowd.live(2.0)
        silent, _ = _share(server, lambda: crowd.live(seconds))
        crowd.taken = crowd.heard = 0
        talking, sent = _share(server, lambda: crowd.live(seconds, _report()))
        crowd.live(0.5)
    if crowd.taken < sent or crowd.heard < sent:
        raise LoadError(f"of {sent} reports {crowd.taken} were taken and {crowd.heard} reached the operator")
    share = silent + max(0.0, talking - silent) * EVERY / REAL_SECONDS
    pressed = f"{silent:.2%} silent + 1/{REAL_SECONDS / EVERY:.0f} of what {sent:,} reports in {seconds:g} s add"
    what = f"CPU, {NODES} nodes, stats every 60 s ({pressed})"
    return Row(what, f"{share:.2%}", "", "", "< 1% of a core", share < 0.01)
