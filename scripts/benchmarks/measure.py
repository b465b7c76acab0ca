"""What is measured, one function for each question of the issue's "Speed and size".

Owns the numbers; it must not know how they are shown (`report`) or how load is made (`load`). Invariant: a function
starts what it measures, pins it to a core that the load generator does not use, and leaves nothing running.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import attrs

from .load import LoadError, Result, Session, connect_rate, request_frame, throughput
from .servers import HERE, TOKEN, Official, Server, program

__all__ = ["ECHO_FRAME", "METHODS", "Numbers", "echo", "fanout", "gateway", "per_connection", "reference", "starts"]

GENERATOR_CORE, SERVER_CORE = 0, 1
CLIENTS = 10
ID = "1:00000000-0000-4000-8000-000000000000"  # as long as the official clients' ids
ECHO_FRAME = request_frame(ID, "last-heartbeat")
# (row, method, params as the CLI sends them, in flight per client)
METHODS: list[tuple[str, str, dict[str, Any] | None, int]] = [
    ("health", "health", None, 1),
    ("node.list", "node.list", {}, 1),
    ("system-presence", "system-presence", None, 1),
    ("system-presence x16", "system-presence", None, 16),
    ("last-heartbeat", "last-heartbeat", None, 1),
    ("last-heartbeat x16", "last-heartbeat", None, 16),
    ("logs.tail", "logs.tail", {"limit": 100, "maxBytes": 250_000}, 1),
]

Start = Callable[[], AbstractContextManager[Server]]


@attrs.define
class Numbers:
    """What one gateway did. Seconds, bytes and requests a second; ``idle_cpu`` is a share of one core."""

    resident: int = 0
    connects: float = 0.0
    rates: dict[str, Result] = attrs.field(factory=dict)
    reply_bytes: dict[str, int] = attrs.field(factory=dict)
    idle_cpu: float | None = None


def use_generator_core() -> None:
    if (os.cpu_count() or 1) >= 2:
        os.sched_setaffinity(0, {GENERATOR_CORE})


@contextlib.contextmanager
def _pinned(start: Start) -> Iterator[Server]:
    with start() as server:
        server.pin(SERVER_CORE)
        yield server


def starts(start: Start, times: int) -> float:
    """Median seconds from exec to the first 200 of /health, free to use every core."""
    seconds = []
    for _ in range(times):
        with start() as server:
            seconds.append(server.start_seconds)
    return statistics.median_low(seconds)


def gateway(start: Start, *, seconds: float, idle_seconds: float, only: set[str]) -> Numbers:
    """Everything that is asked of both gateways, on one process of it."""
    numbers = Numbers()
    with start() as server:
        if "memory" in only:
            numbers.resident = server.settled_bytes()
        server.pin(SERVER_CORE)
        if "connect" in only:
            connect_rate(server.port, TOKEN, count=40)
            numbers.connects = connect_rate(server.port, TOKEN, count=400)
        if "throughput" in only:
            session = Session(server.port)
            session.hello(TOKEN)
            for row, method, params, in_flight in METHODS:
                reply = session.call(method, params)
                if not reply["ok"]:
                    raise LoadError(f"{server.name}: {method}: {reply['error']}")
                numbers.reply_bytes[row] = len(json.dumps(reply.get("payload"), separators=(",", ":")))
                numbers.rates[row] = throughput(
                    server.port,
                    request_frame(ID, method, params),
                    token=TOKEN,
                    clients=CLIENTS,
                    in_flight=in_flight,
                    seconds=seconds,
                )
            session.close()
        if "idle" in only:
            numbers.idle_cpu = _idle_cpu(server, idle_seconds)
    return numbers


def _idle_cpu(server: Server, seconds: float) -> float:
    with ExitStack() as stack:
        for _ in range(20):
            session = Session(server.port)
            stack.callback(session.close)
            session.hello(TOKEN)
        time.sleep(2)
        before, begin = server.cpu_seconds(), time.perf_counter()
        time.sleep(seconds)
        return (server.cpu_seconds() - before) / (time.perf_counter() - begin)


def echo(name: str, *arguments: str, node: Official | None = None, seconds: float) -> dict[int, Result]:
    """A bare echo server at 1 and 16 in flight per client, with the same small JSON message."""
    with _pinned(lambda: program(name, *arguments, node=node)) as server:
        return {
            in_flight: throughput(
                server.port, ECHO_FRAME, token=None, clients=CLIENTS, in_flight=in_flight, seconds=seconds
            )
            for in_flight in (1, 16)
        }


def per_connection(start: Start, count: int) -> float:
    """Bytes of resident memory for each of `count` idle connections that said hello."""
    with _pinned(start) as server, ExitStack() as stack:
        connect_rate(server.port, TOKEN, count=100)  # what the first sessions load stays; it is not theirs
        before = server.settled_bytes()
        for _ in range(count):
            session = Session(server.port)
            stack.callback(session.close)
            session.hello(TOKEN)
        return (server.settled_bytes() - before) / count


def fanout(name: str, *arguments: str, token: str | None, clients: int = 500, rounds: int = 20) -> float:
    """Median seconds from the trigger until every client has the event."""
    with _pinned(lambda: program(name, *arguments)) as server, ExitStack() as stack:
        poller = select.epoll()
        stack.callback(poller.close)
        sessions: dict[int, Session] = {}
        for _ in range(clients):
            session = Session(server.port)
            stack.callback(session.close)
            if token is not None:
                session.hello(token)
            session.socket.setblocking(False)
            sessions[session.socket.fileno()] = session
            poller.register(session.socket.fileno(), select.EPOLLIN)
        times = []
        for _ in range(rounds):
            time.sleep(0.05)
            waiting = set(sessions)
            begin = time.perf_counter()
            server.trigger()
            while waiting:
                ready = poller.poll(5.0)
                if not ready:
                    raise LoadError(f"{name}: {len(waiting)} of {clients} clients got no event within 5 s")
                for fd, _ in ready:
                    data = sessions[fd].socket.recv(65536)
                    if not data:
                        raise LoadError(f"{name}: a connection ended")
                    if b"bench.event" in data:
                        waiting.discard(fd)
            times.append(time.perf_counter() - begin)
        return statistics.median(times)


def reference(start: Start, official: Official, seconds: float) -> dict[str, float]:
    """The same questions from @openclaw/gateway-client; its own speed is the limit, not a fast server's."""
    with _pinned(start) as server:
        ran = subprocess.run(
            [official.node, str(HERE / "reference_client.mjs"), f"ws://127.0.0.1:{server.port}", TOKEN, str(seconds)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=180,
            env={**os.environ, **official.environment},
        )
        if ran.returncode != 0:
            raise LoadError(f"reference client: {ran.stderr.decode(errors='replace')[-2000:]}")
        rates: dict[str, float] = json.loads(ran.stdout)
        return rates
