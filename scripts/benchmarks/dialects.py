"""Protocol Buffers beside JSON: bytes on the wire, and what one frame costs the gateway in CPU.

Owns the representative frames. The first rows call the server's own encoders and decoders on them, a request from
bytes to the method's parameters and an answer or event from the handler's value to bytes, in one thread. The last rows
go through a running gateway: one client of `openclaw_gateway.client` per dialect calls the same method, and what is
counted is the CPU time that the gateway's process spent (/proc), so that the client's own cost does not show.

There is no target: JSON is decoded and encoded here by C code made for it, Protocol Buffers have to pass through the
mapping of `protocol.protojson`. The table says what is saved on the wire and what that costs.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from openclaw_gateway.client import Credentials, open_client
from openclaw_gateway.client.speech import FORMS, Form, speech_of
from openclaw_gateway.events.bus import make_event
from openclaw_gateway.server.dialect import PROTOBUF, Dialect, dialect_of

from .report import Row
from .servers import TOKEN, Server

__all__ = ["frames", "rows"]

LIMIT: Final = 100 * 1024 * 1024
_CLOCK: Final = os.sysconf("SC_CLK_TCK")
_TEXT = "The gateway is one process with one port; clients, nodes and channels meet there. "


def _requests() -> dict[str, tuple[str, dict[str, Any]]]:
    image = base64.b64encode(os.urandom(48 * 1024)).decode()
    send = {"sessionKey": "agent:main:main", "message": _TEXT * 2, "idempotencyKey": "4f7c1f0e-2f3a-4f3e-9a51-0c9d"}
    attachment = {"type": "image", "mimeType": "image/jpeg", "fileName": "photo.jpg", "content": image}
    result = {"id": "invoke-1", "nodeId": "a" * 64, "ok": True, "payloadJSON": '{"bins":{"ls":"/usr/bin/ls"}}'}
    return {
        "chat.send": ("chat.send", send),
        "chat.send with a 48 KiB picture": ("chat.send", {**send, "attachments": [attachment]}),
        "node.invoke.result": ("node.invoke.result", result),
    }


def _message(number: int) -> dict[str, Any]:
    usage = {"input": 1200 + number, "output": 300, "cacheRead": 0, "cacheWrite": 0, "totalTokens": 1500 + number}
    return {
        "role": "assistant",
        "content": [{"type": "text", "text": _TEXT * (1 + number % 5)}],
        "timestamp": 1_800_000_000_000 + number,
        "__openclaw": {"id": f"{number:032x}", "seq": number, "runId": f"{number:032x}"},
        "stopReason": "stop",
        "model": "anthropic/claude",
        "usage": usage,
    }


def _answers() -> dict[str, tuple[str, Any]]:
    history = {"sessionKey": "agent:main:main", "messages": [_message(n) for n in range(50)], "hasMore": False}
    lines = [msgspec.json.encode({"time": n, "level": "info", "msg": _TEXT[:40]}).decode() for n in range(200)]
    tail = {"file": "gateway.log", "cursor": 99_000, "size": 99_000, "lines": lines, "truncated": False, "reset": False}
    return {"chat.history, 50 messages": ("chat.history", history), "logs.tail, 200 lines": ("logs.tail", tail)}


def _events() -> dict[str, tuple[str, Any]]:
    head = {"runId": "4f7c1f0e-2f3a-4f3e-9a51-0c9d", "sessionKey": "agent:main:main", "agentId": "main", "seq": 7}
    invoke = {"id": "invoke-1", "nodeId": "a" * 64, "command": "system.which", "paramsJSON": '{"bins":["ls"]}'}
    return {
        "chat delta": ("chat", {**head, "state": "delta", "deltaText": "and channels meet "}),
        "tick": ("tick", {"ts": 1_800_000_000_000}),
        "node.invoke.request": ("node.invoke.request", {**invoke, "timeoutMs": 30_000, "idempotencyKey": "invoke-1"}),
    }


def frames(form: Form) -> dict[str, tuple[bytes, Callable[[], object]]]:
    """For each frame: how it looks on the wire, and the gateway's work on it."""
    dialect = dialect_of(PROTOBUF if form == "proto" else None)
    found: dict[str, tuple[bytes, Callable[[], object]]] = {}
    for name, (method, params) in _requests().items():
        sent = speech_of(form).request("17", method, params)
        data = sent.encode() if isinstance(sent, str) else sent
        found[f"{name}, read"] = (data, _reading(dialect, data))
    for name, (method, payload) in _answers().items():
        found[f"{name}, written"] = (dialect.ok("17", method, payload), _writing(dialect, method, payload))
    for name, (event, payload) in _events().items():
        first = b"".join(dialect.event(make_event(event, payload), 1234))
        found[f"{name} event, written"] = (first, _telling(dialect, event, payload))
    return found


def _reading(dialect: Dialect, data: bytes) -> Callable[[], object]:
    decode = msgspec.json.Decoder().decode

    def read() -> object:
        request = dialect.decode(data, LIMIT)
        return decode(request.params)  # type: ignore[union-attr]  # it is a request: this module made it

    return read


def _writing(dialect: Dialect, method: str, payload: Any) -> Callable[[], object]:
    return lambda: dialect.ok("17", method, payload)


def _telling(dialect: Dialect, event: str, payload: Any) -> Callable[[], object]:
    return lambda: b"".join(dialect.event(make_event(event, payload), 1234))


def _each(work: Callable[[], object], seconds: float) -> float:
    """Seconds of CPU for one, the best of five."""
    count, took = 1, 0.0
    while took < seconds / 10:
        count *= 2
        took = _timed(work, count)
    return min(_timed(work, count) for _ in range(5)) / count


def _timed(work: Callable[[], object], count: int) -> float:
    began = time.process_time()
    for _ in range(count):
        work()
    return time.process_time() - began


def _server_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _CLOCK


async def _calls(server: Server, form: Form, method: str, params: Any, count: int) -> float:
    """Seconds of the server's CPU for one call; eight calls at a time."""
    url = f"ws://127.0.0.1:{server.port}"
    async with open_client(url, auth=Credentials(token=TOKEN), scopes=("operator.admin",), protocol=form) as client:

        async def some(many: int) -> None:
            for _ in range(many):
                await client.call(method, params)

        await some(50)
        before = _server_cpu(server.process.pid)
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(some, count // 8)
        return (_server_cpu(server.process.pid) - before) / count


def _row(what: str, proto: float, plain: float, show: Callable[[float], str]) -> Row:
    return Row(f"{what}, beside JSON", show(proto), show(plain), f"{proto / plain:.2f}x")


def rows(server: Server, seconds: float) -> list[Row]:
    """``server``: one of ours, started."""
    made = {form: frames(form) for form in FORMS}
    out = []
    for name, (data, work) in made["proto"].items():
        beside, beside_work = made["json"][name]
        out.append(_row(f"protobuf: {name}, bytes", len(data), len(beside), lambda size: f"{size:,.0f} B"))
        costs = (_each(work, seconds), _each(beside_work, seconds))
        out.append(_row(f"protobuf: {name}, CPU", *costs, lambda cost: f"{cost * 1e6:,.1f} us"))
    for method, params in (("last-heartbeat", None), ("health", None), ("logs.tail", {"limit": 200})):
        count = 4_000 if seconds >= 0.5 else 800
        costs = (
            trio.run(_calls, server, "proto", method, params, count),
            trio.run(_calls, server, "json", method, params, count),
        )
        what = f"protobuf: a call of {method}, CPU of the gateway"
        out.append(_row(what, *costs, lambda cost: f"{cost * 1e6:,.0f} us"))
    return out
