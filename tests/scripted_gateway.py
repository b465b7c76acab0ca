"""A gateway that does what a test tells it to: the fake peer of the client's and the command line's tests.

Speaks the real wire over a real socket (trio-websocket as the server), with each step replaceable: the challenge, the
verdict on connect, the answers, the goodbye. It is not a gateway: it checks nothing but what it is told to check."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

CHALLENGE: dict[str, Any] = {"nonce": "nonce-1", "ts": 1_700_000_000_000}
Answer = Any | Callable[[Any], Any]


def hello_ok(**changes: Any) -> dict[str, Any]:
    hello: dict[str, Any] = {
        "type": "hello-ok",
        "protocol": 4,
        "server": {"version": "0.1.0", "connId": "conn-1"},
        "features": {"methods": ["health"], "events": []},
        "snapshot": {"presence": [], "health": {}, "stateVersion": {"presence": 0, "health": 0}, "uptimeMs": 1},
        "auth": {"role": "operator", "scopes": ["operator.read"], "method": "token"},
        "policy": {"maxPayload": 1000, "maxBufferedBytes": 1000, "tickIntervalMs": 30_000},
    }
    hello.update(changes)
    return hello


@attrs.define
class ScriptedGateway:
    """``answers``: method -> payload, or a function of the params; an Exception instance answers with its
    ``args[0]``."""

    answers: dict[str, Answer] = attrs.field(factory=dict)
    challenge: dict[str, Any] | None = attrs.field(factory=lambda: dict(CHALLENGE))
    hello: dict[str, Any] = attrs.field(factory=hello_ok)
    refusal: Mapping[str, Any] | None = None  # a wire error instead of hello-ok
    close_code: int = 1008
    close_reason: str = ""
    reject_status: int | None = None  # an HTTP status instead of the upgrade
    reject_headers: list[tuple[bytes, bytes]] = attrs.field(factory=list)
    after_hello: Callable[[WebSocketConnection], Awaitable[None]] | None = None
    port: int = 0
    connects: list[dict[str, Any]] = attrs.field(factory=list)
    requests: list[tuple[str, Any]] = attrs.field(factory=list)
    paths: list[str] = attrs.field(factory=list)
    closes: list[tuple[int, str | None]] = attrs.field(factory=list)
    gone: trio.Event = attrs.field(factory=trio.Event)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def handle(self, request: WebSocketRequest) -> None:
        self.paths.append(request.path)
        if self.reject_status is not None:
            await request.reject(self.reject_status, extra_headers=self.reject_headers, body=b"no")
            return
        websocket = await request.accept()
        try:
            await self._converse(websocket)
        except ConnectionClosed as error:
            if error.reason is not None:
                self.closes.append((error.reason.code, error.reason.reason))
        finally:
            self.gone.set()

    async def _converse(self, websocket: WebSocketConnection) -> None:
        if self.challenge is not None:
            await send(websocket, type="event", event="connect.challenge", payload=self.challenge)
        connect = json.loads(await websocket.get_message())
        self.connects.append(connect["params"])
        if self.refusal is not None:
            await send(websocket, type="res", id=connect["id"], ok=False, error=self.refusal)
            await websocket.aclose(self.close_code, self.close_reason)
            return
        await send(websocket, type="res", id=connect["id"], ok=True, payload=self.hello)
        async with trio.open_nursery() as nursery:
            if self.after_hello is not None:
                nursery.start_soon(self.after_hello, websocket)
            try:
                while True:
                    await self._answer(websocket, json.loads(await websocket.get_message()))
            except ConnectionClosed as error:
                nursery.cancel_scope.cancel()
                if error.reason is not None:
                    self.closes.append((error.reason.code, error.reason.reason))

    async def _answer(self, websocket: WebSocketConnection, request: dict[str, Any]) -> None:
        method, params = request["method"], request.get("params")
        self.requests.append((method, params))
        if method not in self.answers:
            error = {"code": "INVALID_REQUEST", "message": f"unknown method: {method}"}
            await send(websocket, type="res", id=request["id"], ok=False, error=error)
            return
        answer = self.answers[method]
        payload = answer(params) if callable(answer) else answer
        if payload is NO_ANSWER:
            return
        if isinstance(payload, Exception):
            await send(websocket, type="res", id=request["id"], ok=False, error=payload.args[0])
        else:
            await send(websocket, type="res", id=request["id"], ok=True, payload=payload)


NO_ANSWER = object()


async def send(websocket: WebSocketConnection, **frame: Any) -> None:
    await websocket.send_message(json.dumps(frame))


@asynccontextmanager
async def open_scripted_gateway(gateway: ScriptedGateway, port: int = 0) -> AsyncIterator[ScriptedGateway]:
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, gateway.handle, "127.0.0.1", port, None)
        gateway.port = server.port
        yield gateway
        nursery.cancel_scope.cancel()
