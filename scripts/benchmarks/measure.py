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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from .load import LoadError, Result, Session, connect_rate, throughput
from .servers import HERE, TOKEN, Official, Server, program

__all__ = [
    "METHODS",
    "SERVER_CORE",
    "busy",
    "connects",
    "fanout",
    "idle_cpu",
    "in_turns",
    "per_connection",
    "pinned",
    "reference",
    "reply_bytes",
    "starts",
    "use_generator_core",
]

GENERATOR_CORE, SERVER_CORE = 0, 1
CLIENTS = 10
ID = "1:00000000-0000-4000-8000-000000000000"  # as long as the official clients' ids
ROUNDS = 3
# (row, method, params as the CLI sends them, in flight per client)
METHODS: list[tuple[str, str, dict[str, Any] | None, int]] = [
    ("health", "health", None, 1),
    ("node.list", "node.list", {}, 1),
    ("system-presence", "system-presence", None, 1),
    ("system-presence x16", "system-presence", None, 16),
    ("logs.tail", "logs.tail", {"limit": 100, "maxBytes": 250_000}, 1),
]

Start = Callable[[], AbstractContextManager[Server]]


def use_generator_core() -> None:
    if (os.cpu_count() or 1) >= 2:
        os.sched_setaffinity(0, {GENERATOR_CORE})


@contextlib.contextmanager
def pinned(start: Start) -> Iterator[Server]:
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


def connects(servers: Sequence[Server], *, rounds: int = ROUNDS) -> list[float]:
    """Connections to hello per second, for each server; taken in turns, so that a busy machine is busy for all."""
    for server in servers:
        connect_rate(server.port, TOKEN, count=40)
    rates = [[connect_rate(server.port, TOKEN, count=150) for server in servers] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*rates, strict=True)]


def reply_bytes(server: Server, method: str, params: dict[str, Any] | None) -> int:
    """Checks that the method works before it is timed; the size of its payload."""
    session = Session(server.port)
    try:
        session.hello(TOKEN)
        reply = session.call(method, params)
    finally:
        session.close()
    if not reply["ok"]:
        raise LoadError(f"{server.name}: {method}: {reply['error']}")
    return len(json.dumps(reply.get("payload"), separators=(",", ":")))


def in_turns(
    targets: Sequence[tuple[Server, str | None]], frame: bytes, in_flight: int, *, seconds: float, rounds: int = ROUNDS
) -> list[Result]:
    """The same load on each (server, token or None for an echo) in turns; medians over the rounds."""
    columns: list[list[Result]] = [[] for _ in targets]
    for _ in range(rounds):
        for column, (server, token) in zip(columns, targets, strict=True):
            column.append(
                throughput(server.port, frame, token=token, clients=CLIENTS, in_flight=in_flight, seconds=seconds)
            )
    return [
        Result(
            rate=statistics.median(result.rate for result in column),
            median=statistics.median(result.median for result in column),
            p99=statistics.median(result.p99 for result in column),
            requests=sum(result.requests for result in column),
        )
        for column in columns
    ]


def idle_cpu(servers: Sequence[Server], seconds: float) -> list[float]:
    """Share of one core that each server uses with 20 clients that say nothing."""
    with ExitStack() as stack:
        for server in servers:
            for _ in range(20):
                session = Session(server.port)
                stack.callback(session.close)
                session.hello(TOKEN)
        time.sleep(2)
        before, begin = [server.cpu_seconds() for server in servers], time.perf_counter()
        time.sleep(seconds)
        elapsed = time.perf_counter() - begin
        return [(server.cpu_seconds() - start) / elapsed for server, start in zip(servers, before, strict=True)]


def busy(seconds: float = 2.0) -> float:
    """Share of the machine that is in use before anything was started here; tells how far to trust a run."""

    def sample() -> tuple[int, int]:
        fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
        return sum(fields), fields[3] + fields[4]

    total, idle = sample()
    time.sleep(seconds)
    total_after, idle_after = sample()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def per_connection(start: Start, count: int) -> float:
    """Bytes of resident memory for each of `count` idle connections that said hello."""
    with pinned(start) as server, ExitStack() as stack:
        connect_rate(server.port, TOKEN, count=100)  # what the first sessions load stays; it is not theirs
        before = server.settled_bytes()
        for _ in range(count):
            session = Session(server.port)
            stack.callback(session.close)
            session.hello(TOKEN)
        return (server.settled_bytes() - before) / count


def fanout(name: str, *arguments: str, token: str | None, clients: int = 500, rounds: int = 20) -> float:
    """Median seconds from the trigger until every client has the event."""
    with pinned(lambda: program(name, *arguments)) as server, ExitStack() as stack:
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
    with pinned(start) as server:
        server.wait_ready(path="/readyz", seconds=60)
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
