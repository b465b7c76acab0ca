"""node.invoke from the operator through the gateway to a node and back: round trips at 1 and at 32 in flight.

Owns the operator that asks and the scripted node (an Ed25519 identity of its own, ``system.which`` approved), both in
this process over raw sockets, so that what differs between two runs is the gateway. With OpenClaw's own node host
(`official_node`) the node's time is in both numbers. It must not know how servers are started. The target is issue 4's:
p50 and p99 at most half of OpenClaw's.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import select
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from .load import LoadError, Result, Session, text_frame
from .report import Row
from .servers import TOKEN, Server

__all__ = ["Asking", "Scene", "approve", "connect_node", "rows", "rows_of"]

ROUNDS = 3


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _frame(message: dict[str, Any]) -> bytes:
    return text_frame(json.dumps(message, separators=(",", ":")).encode())


def connect_node(session: Session, commands: Sequence[str] = ("system.which",)) -> str:
    """Say hello as a node with a key of its own; its node id."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    raw = key.public_key().public_bytes_raw()
    device_id = hashlib.sha256(raw).hexdigest()
    _, payload = session.receive_message()
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
        "commands": list(commands),
        "auth": {"token": TOKEN},
        "device": {
            "id": device_id,
            "publicKey": _b64(raw),
            "signature": _b64(key.sign(signed.encode())),
            "signedAt": challenge["ts"],
            "nonce": challenge["nonce"],
        },
    }
    reply = session.call("connect", params)
    if not reply["ok"]:
        raise LoadError(f"the node was refused: {reply['error']}")
    return device_id


def approve(operator: Session, node_id: str | None, *, seconds: float = 10.0) -> str:
    """Approve the surface that the node (None: whichever node) asks for, as soon as it does; its node id."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for row in operator.call("node.pair.list", {})["payload"]["pending"]:
            if node_id in {None, row["nodeId"]}:
                reply = operator.call("node.pair.approve", {"requestId": row["requestId"]})
                if not reply["ok"]:
                    raise LoadError(f"not approved: {reply['error']}")
                return str(row["nodeId"])
        time.sleep(0.05)
    raise LoadError("the node's surface never came up for approval")


class Asking:
    """An operator that asks a node, which answers by itself."""

    def __init__(self, operator: Session, node_id: str) -> None:
        self._keys = (f"bench-{number}" for number in itertools.count())
        self.operator = operator
        self.node_id = node_id

    def close(self) -> None:
        self.operator.close()

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
            for session in self._sessions():
                poller.register(session.socket.fileno(), select.EPOLLIN)
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

    def _sessions(self) -> list[Session]:
        return [self.operator]

    def _answer(self) -> None:
        """What this process has to do for the node."""


class Scene(Asking):
    """The operator and a scripted node, connected to the gateway on ``port``, the node's surface approved."""

    def __init__(self, port: int) -> None:
        operator, self.node = Session(port), Session(port)
        operator.hello(TOKEN)
        super().__init__(operator, approve(operator, connect_node(self.node)))

    def close(self) -> None:
        super().close()
        self.node.close()

    def _sessions(self) -> list[Session]:
        return [self.operator, self.node]

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
    """All whole text messages that are there now, without waiting."""
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


def compare(scenes: Sequence[Asking], *, in_flight: int, seconds: float) -> list[Result]:
    """The median round of each scene, taken in turns, so that a busy machine is busy for all."""
    taken: list[list[Result]] = [[] for _ in scenes]
    for _ in range(ROUNDS):
        for scene, results in zip(scenes, taken, strict=True):
            results.append(scene.run(in_flight=in_flight, seconds=seconds))
    return [sorted(results, key=lambda result: result.median)[len(results) // 2] for results in taken]


def rows_of(scenes: Sequence[Asking], what: str, seconds: float) -> list[Row]:
    """Rows for the report: ours first in ``scenes``, OpenClaw's second."""
    found = []
    for in_flight in (1, 32):
        mine, theirs = compare(scenes, in_flight=in_flight, seconds=seconds)
        for name, here, there in (("p50", mine.median, theirs.median), ("p99", mine.p99, theirs.p99)):
            ratio = there / here
            cells = (f"{here * 1000:,.2f} ms", f"{there * 1000:,.2f} ms", f"1/{ratio:.1f}")
            found.append(Row(f"{what} x{in_flight}, {name}", *cells, "<= 1/2", ratio >= 2))
    return found


def rows(pair: tuple[Server, Server], seconds: float) -> list[Row]:
    """The scripted node at both gateways: ours first in ``pair``, OpenClaw's second."""
    with ExitStack() as stack:
        scenes = [Scene(server.port) for server in pair]
        for scene in scenes:
            stack.callback(scene.close)
        return rows_of(scenes, "node.invoke", seconds)
