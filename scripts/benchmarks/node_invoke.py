"""node.invoke from the operator through the gateway to a scripted node and back: round trips at 1 and at 32 in flight.

Owns the scripted node (an Ed25519 identity of its own, ``system.which`` approved) and the operator that asks it, both
in this process over raw sockets, so that what differs between two runs is the gateway. It must not know how servers are
started. ``python -m scripts.benchmarks.node_invoke`` runs both gateways in turns and prints both.

To hook it into scripts/bench: add a group ``"invoke"`` to ``GROUPS`` in ``__main__.py`` and, in ``_both``, call
``rows(pair, seconds)`` from here; it returns `report.Row` with the target of issue 4 (p50 and p99 at most half of
OpenClaw's).
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import select
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from . import measure
from .load import LoadError, Result, Session, text_frame
from .report import Row
from .servers import TOKEN, Official, Server, openclaw, ours

__all__ = ["Scene", "rows"]

ROUNDS = 3


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _frame(message: dict[str, Any]) -> bytes:
    return text_frame(json.dumps(message, separators=(",", ":")).encode())


class Scene:
    """An operator and a node that are connected to the gateway on ``port``, the node's surface approved."""

    def __init__(self, port: int) -> None:
        self._keys = (f"bench-{number}" for number in itertools.count())
        self.operator, self.node = Session(port), Session(port)
        self.operator.hello(TOKEN)
        self.node_id = self._connect_node()
        self._approve()

    def _connect_node(self) -> str:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.generate()
        raw = key.public_key().public_bytes_raw()
        device_id = hashlib.sha256(raw).hexdigest()
        _, payload = self.node.receive_message()
        challenge = json.loads(payload)["payload"]
        who = ("v3", device_id, "node-host", "node", "node", "")
        signed = "|".join((*who, str(challenge["ts"]), TOKEN, challenge["nonce"], "linux", ""))
        params = {
            "minProtocol": 4,
            "maxProtocol": 4,
            "client": {"id": "node-host", "version": "0.0.0", "platform": "linux", "mode": "node"},
            "role": "node",
            "scopes": [],
            "caps": ["system"],
            "commands": ["system.which"],
            "auth": {"token": TOKEN},
            "device": {
                "id": device_id,
                "publicKey": _b64(raw),
                "signature": _b64(key.sign(signed.encode())),
                "signedAt": challenge["ts"],
                "nonce": challenge["nonce"],
            },
        }
        reply = self.node.call("connect", params)
        if not reply["ok"]:
            raise LoadError(f"the node was refused: {reply['error']}")
        return device_id

    def _approve(self) -> None:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            waiting = self.operator.call("node.pair.list", {})["payload"]["pending"]
            mine = [row["requestId"] for row in waiting if row["nodeId"] == self.node_id]
            if mine:
                reply = self.operator.call("node.pair.approve", {"requestId": mine[0]})
                if not reply["ok"]:
                    raise LoadError(f"not approved: {reply['error']}")
                return
            time.sleep(0.05)
        raise LoadError("the node's surface never came up for approval")

    def close(self) -> None:
        self.operator.close()
        self.node.close()

    def _ask(self) -> tuple[str, bytes]:
        key = next(self._keys)
        params = {
            "nodeId": self.node_id,
            "command": "system.which",
            "params": {"bins": ["sh"]},
            "timeoutMs": 15000,
            "idempotencyKey": key,
        }
        return key, _frame({"type": "req", "id": key, "method": "node.invoke", "params": params})

    def run(self, *, in_flight: int, seconds: float) -> Result:
        """Keep ``in_flight`` invokes outstanding for ``seconds``, after a quarter of that as warm-up."""
        sent: dict[str, float] = {}
        latencies: list[float] = []
        clock = time.perf_counter
        with select.epoll() as poller:
            poller.register(self.operator.socket.fileno(), select.EPOLLIN)
            poller.register(self.node.socket.fileno(), select.EPOLLIN)
            begin = clock()
            measured_from, end = begin + seconds / 4, begin + seconds * 5 / 4
            for _ in range(in_flight):
                self._send(sent)
            while sent:
                if not poller.poll(5.0):
                    raise LoadError("no answer for 5 s")
                self._answer()
                for message in _drain(self.operator):
                    if message.get("type") != "res" or message.get("id") not in sent:
                        continue
                    now, started = clock(), sent.pop(message["id"])
                    if not message["ok"]:
                        raise LoadError(f"node.invoke failed: {message['error']}")
                    if now >= measured_from:
                        latencies.append(now - started)
                    if now < end:
                        self._send(sent)
            elapsed = clock() - measured_from
        latencies.sort()
        p99 = latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))]
        return Result(len(latencies) / elapsed, statistics.median(latencies), p99, len(latencies))

    def _send(self, sent: dict[str, float]) -> None:
        key, frame = self._ask()
        sent[key] = time.perf_counter()
        self.operator.socket.sendall(frame)

    def _answer(self) -> None:
        answers = []
        for message in _drain(self.node):
            if message.get("event") == "node.invoke.request":
                asked = message["payload"]
                params = {"id": asked["id"], "nodeId": asked["nodeId"], "ok": True, "payloadJSON": '{"bins":{}}'}
                answers.append(
                    _frame({"type": "req", "id": asked["id"], "method": "node.invoke.result", "params": params})
                )
        if answers:
            self.node.socket.sendall(b"".join(answers))


def _drain(session: Session) -> list[dict[str, Any]]:
    """All whole text messages that are there now, without waiting; a Ping is answered by nobody for so long."""
    readable, _, _ = select.select([session.socket], [], [], 0)
    if readable:
        data = session.socket.recv(1 << 18)
        if not data:
            raise LoadError("connection ended under load")
        session.pending += data
    found: list[dict[str, Any]] = []
    while _has_frame(session.pending):
        opcode, payload = session.receive_message()
        if opcode == 8:
            raise LoadError(f"closed: {payload!r}")
        if opcode == 1:
            found.append(json.loads(payload))
    return found


def _has_frame(data: bytes) -> bool:
    if len(data) < 2:
        return False
    length, start = data[1] & 0x7F, 2
    if length == 126:
        if len(data) < 4:
            return False
        length, start = int.from_bytes(data[2:4], "big"), 4
    elif length == 127:
        if len(data) < 10:
            return False
        length, start = int.from_bytes(data[2:10], "big"), 10
    return len(data) >= start + length


def compare(servers: Sequence[Server], *, in_flight: int, seconds: float) -> list[Result]:
    """The median round of each server, taken in turns, so that a busy machine is busy for all."""
    scenes = [Scene(server.port) for server in servers]
    try:
        taken: list[list[Result]] = [[] for _ in scenes]
        for _ in range(ROUNDS):
            for scene, results in zip(scenes, taken, strict=True):
                results.append(scene.run(in_flight=in_flight, seconds=seconds))
        return [sorted(results, key=lambda result: result.median)[len(results) // 2] for results in taken]
    finally:
        for scene in scenes:
            scene.close()


def rows(pair: tuple[Server, Server], seconds: float) -> list[Row]:
    """Rows for the report: ours first in ``pair``, OpenClaw's second."""
    found = []
    for in_flight in (1, 32):
        mine, theirs = compare(pair, in_flight=in_flight, seconds=seconds)
        for name, here, there in (("p50", mine.median, theirs.median), ("p99", mine.p99, theirs.p99)):
            ratio = there / here
            cells = (f"{here * 1000:,.2f} ms", f"{there * 1000:,.2f} ms", f"1/{ratio:.1f}")
            found.append(Row(f"node.invoke x{in_flight}, {name}", *cells, "<= 1/2", ratio >= 2))
    return found


def main() -> None:
    official = Official(Path(sys.argv[1]))
    measure.use_generator_core()
    with ExitStack() as stack:
        theirs, mine = stack.enter_context(openclaw(official)), stack.enter_context(ours())
        theirs.wait_ready(path="/readyz", seconds=60)
        for server in (mine, theirs):
            server.pin(measure.SERVER_CORE)
        for row in rows((mine, theirs), 1.5):
            print(row)


if __name__ == "__main__":
    main()
