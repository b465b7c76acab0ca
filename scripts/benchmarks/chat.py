"""Messages to agents: from acceptance to the first words, the durable queue, and many answers at once.

Owns these measurements. It must not know how a gateway is started or how a run works. OpenClaw's gateway has no agent
that answers without a model, so its acknowledgement of `chat.send` stands beside our first words: ours are later in the
same story. Ours is durable by then.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

from .load import LoadError, Session, request_frame
from .report import Row
from .servers import HERE, TOKEN, Server, program

__all__ = ["rows", "stream_row"]

STREAMS = 100
QUEUE_SECONDS = 5.0


def _first_delta(server: Server, count: int) -> list[float]:
    """Seconds from sending `chat.send` to the first piece of the answer."""
    session = Session(server.port)
    session.hello(TOKEN)
    found = []
    for number in range(count):
        params = {
            "sessionKey": f"bench-{number}",
            "message": "the quick brown fox",
            "idempotencyKey": str(uuid.uuid4()),
        }
        frame = request_frame("send", "chat.send", params)
        began = time.perf_counter()
        session.socket.sendall(frame)
        while True:
            _, payload = session.receive_message()
            if b'"state":"delta"' in payload:
                break
            if b'"ok":false' in payload:
                raise LoadError(f"chat.send refused: {payload[:300]!r}")
        found.append(time.perf_counter() - began)
        while b'"state":"final"' not in payload:
            _, payload = session.receive_message()
    session.socket.close()
    return found


def _acknowledged(server: Server, count: int) -> list[float]:
    """Seconds from sending `chat.send` to its reply."""
    session = Session(server.port)
    session.hello(TOKEN)
    found = []
    for number in range(count):
        params = {
            "sessionKey": f"agent:main:bench-{number}",
            "message": "the quick brown fox",
            "idempotencyKey": str(uuid.uuid4()),
        }
        began = time.perf_counter()
        reply = session.call("chat.send", params)
        if not reply["ok"]:
            raise LoadError(f"chat.send refused: {reply['error']}")
        found.append(time.perf_counter() - began)
        time.sleep(0.2)
    session.socket.close()
    return found


def _queue_p99(seconds: float) -> float:
    with tempfile.TemporaryDirectory(prefix="openclaw-bench-") as folder:
        command = [sys.executable, str(HERE / "queue_program.py"), str(Path(folder) / "state"), str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds * 4 + 30)
    waits = sorted(float(line) for line in done.stdout.split())
    return waits[int(len(waits) * 0.99) - 1]


def _streams() -> tuple[int, int]:
    """Bytes that `STREAMS` answers at once cost over the idle gateway, and how many pieces came."""
    with program("stream_gateway.py", TOKEN) as server:
        session = Session(server.port)
        session.hello(TOKEN)
        idle = server.settled_bytes()
        for number in range(STREAMS):
            params = {"sessionKey": f"s{number}", "message": "go", "idempotencyKey": f"r{number}"}
            if not session.call("chat.send", params)["ok"]:
                raise LoadError("chat.send refused")
        most, pieces, ended = idle, 0, 0
        until, look = time.monotonic() + 60, 0.0
        while ended < STREAMS and time.monotonic() < until:
            _, payload = session.receive_message()
            pieces += b'"state":"delta"' in payload
            ended += b'"state":"final"' in payload
            if b'"state":"error"' in payload:
                raise LoadError(f"a stream failed: {json.loads(payload)['payload'].get('errorMessage')}")
            if time.monotonic() > look:
                most, look = max(most, server.resident_bytes()), time.monotonic() + 0.5
        session.socket.close()
        if ended < STREAMS:
            raise LoadError(f"{ended} of {STREAMS} answers ended within a minute")
    return most - idle, pieces


def rows(pair: tuple[Server, Server], quick: bool) -> list[Row]:
    """``pair``: ours (with its echo agent) and OpenClaw's, both standing."""
    mine, theirs = pair
    count = 5 if quick else 15
    first = statistics.median(_first_delta(mine, 10 * count))
    acknowledged = statistics.median(_acknowledged(theirs, count))
    ratio = acknowledged / first
    cells = (f"{first * 1e3:.1f} ms", f"{acknowledged * 1e3:.1f} ms", f"1/{ratio:.1f}")
    what = "chat.send to first words (echo), beside OpenClaw's acknowledgement"
    found = [Row(what, *cells, "<= 1/5", ratio >= 5)]
    waited = _queue_p99(2.0 if quick else QUEUE_SECONDS)
    found.append(
        Row("accepted to dispatched, p99, 200 messages/s", f"{waited * 1e3:.2f} ms", "", "", "<= 5 ms", waited <= 0.005)
    )
    return found


def stream_row() -> Row:
    grown, pieces = _streams()
    what = f"{STREAMS} answers at once ({pieces:,} pieces)"
    return Row(what, f"+{grown / 1e6:.1f} MB", "", "", "<= 20 MB", grown <= 20_000_000)
