"""Plain HTTP on the port: routes (spec wire.md section 9), POST /rpc, CORS (C16), canonical paths (V40), the drain."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from openclaw_gateway import Gateway
from openclaw_gateway.config.schema import AuthConfig, CorsConfig, HttpConfig, TransportsConfig, WebSocketConfig
from openclaw_gateway.config.secrets import resolve_auth
from openclaw_gateway.server import http, incoming
from openclaw_gateway.testing import ScriptedPeer, open_memory_gateway, open_memory_stream

from .conftest import CONFIG, TOKEN

AUTH: dict[str, Any] = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


@attrs.frozen
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """HTTP/1.1 by hand on one connection of a gateway."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.data = b""

    async def send(self, method: str, target: str, body: bytes = b"", **headers: Any) -> None:
        fields = {"Host": "127.0.0.1:18789", **{name.replace("_", "-"): value for name, value in headers.items()}}
        if body:
            fields.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        await self.stream.send_all(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body)

    async def _until(self, enough: Callable[[], bool]) -> None:
        while not enough():
            data = await self.stream.receive_some(65_536)
            assert data, f"the connection ended: {self.data!r}"
            self.data += bytes(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        await self._until(lambda: b"\r\n\r\n" in self.data)
        head, _, self.data = self.data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = 0 if head_only else int(headers.get("content-length", "0"))
        await self._until(lambda: len(self.data) >= size)
        body, self.data = self.data[:size], self.data[size:]
        return Answer(int(status.split()[1]), headers, body)

    async def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
        await self.send(method, target, body, **headers)
        return await self.answer(head_only=method == "HEAD")


@asynccontextmanager
async def dial(gateway: Gateway, address: str = "127.0.0.1") -> AsyncIterator[Http]:
    async with open_memory_stream(gateway, address=address) as stream:
        yield Http(stream)


async def ask(gateway: Gateway, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
    async with dial(gateway) as client:
        return await client.ask(method, target, body, **headers)


def call(method: str, params: Any = None, **more: Any) -> bytes:
    return json.dumps(
        {"jsonrpc": "2.0", "method": method, **({"params": params} if params is not None else {}), **more}
    ).encode()


@pytest.mark.parametrize("path", ["/health", "/healthz"])
async def test_s165_health(gateway: Gateway, path: str) -> None:
    answer = await ask(gateway, "GET", path)
    assert (answer.status, answer.json) == (200, {"ok": True, "status": "live"})
    assert answer.headers["cache-control"] == "no-store"
    head = await ask(gateway, "HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", answer.headers["content-length"])


async def test_obs2_readiness_tells_detail_to_direct_loopback_alone(gateway: Gateway) -> None:
    here = await ask(gateway, "GET", "/readyz")
    assert (here.status, here.json["ready"], here.json["failing"]) == (200, True, [])
    assert {"uptimeMs", "eventLoop", "parts"} <= here.json.keys()
    async with dial(gateway, "203.0.113.5") as client:
        there = await client.ask("GET", "/readyz")
    assert there.json == {"ready": True}
    proxied = await ask(gateway, "GET", "/readyz", X_Forwarded_For="203.0.113.5")
    assert proxied.json == {"ready": True}
    gateway.health.set("discovery", "port 5353 is taken")
    broken = await ask(gateway, "GET", "/ready")
    assert (broken.status, broken.json["failing"]) == (503, ["discovery"])
    assert (await ask(gateway, "GET", "/health")).status == 200
    started = await ask(gateway, "GET", "/startupz")
    assert (started.status, started.json["status"], started.json["version"]) == (200, "started", gateway.version)


async def test_rfc9110_8_6_204_has_neither_length_nor_type(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", "/rpc", call("health"), **AUTH)
    assert (answer.status, answer.body) == (204, b"")
    assert not {"content-length", "content-type", "transfer-encoding"} & answer.headers.keys()


async def test_rfc9110_10_1_1_100_continue_comes_after_admission(gateway: Gateway) -> None:
    body = call("health", id=1)
    expect: dict[str, Any] = {"Expect": "100-continue", "Content-Length": str(len(body))}
    async with dial(gateway) as client:
        await client.send("POST", "/rpc", **expect)
        assert (await client.answer()).status == 401
        assert await client.stream.receive_some() == b""
    async with dial(gateway) as client:
        await client.send("POST", "/rpc", **AUTH, **expect)
        assert (await client.answer()).status == 100
        await client.stream.send_all(body)
        answer = await client.answer()
        assert (answer.status, answer.json["id"]) == (200, 1)


@pytest.mark.parametrize(
    "head",
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01 garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_refused_heads_get_400_security_headers_and_a_closed_connection(gateway: Gateway, head: bytes) -> None:
    async with dial(gateway) as client:
        await client.stream.send_all(head)
        answer = await client.answer()
        assert answer.status == 400
        assert answer.headers["connection"].lower() == "close"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"


async def test_m2_the_page_says_who_may_call(gateway: Gateway) -> None:
    assert b"openclaw tokens create" in (await ask(gateway, "GET", "/")).body


@pytest.mark.parametrize("path", ["/health", "/healthz", "/ready", "/readyz", "/startupz", "/"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_405_names_what_is_allowed(gateway: Gateway, path: str, method: str) -> None:
    answer = await ask(gateway, method, path, Content_Length="0")
    assert (answer.status, answer.body, answer.headers["allow"]) == (405, b"Method Not Allowed", "GET, HEAD")
    assert "access-control-allow-origin" not in answer.headers or path == "/"


async def test_v14_405_comes_before_any_accounting(gateway: Gateway) -> None:
    for _ in range(20):
        answer = await ask(gateway, "GET", "/rpc", Authorization="Bearer wrong")
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert (await ask(gateway, "POST", "/rpc", call("health", id=1), **AUTH)).status == 200


@pytest.mark.parametrize("path", ["/healthz/", "/nope", "/api/nope", "/v1/x", "/RPC", "/Health", "/rpc/"])
async def test_what_is_not_in_the_table_is_404(gateway: Gateway, path: str) -> None:
    for method in ("GET", "POST"):
        answer = await ask(gateway, method, path, Content_Length="0")
        assert (answer.status, answer.body) == (404, b"Not Found")


@pytest.mark.parametrize(
    "path",
    ["//health", "/./health", "/x/../health", "/%68ealth", "/health%00", "/a//rpc", "/rpc%2f", "/rpc;x", "/..%2frpc"],
)
async def test_v40_only_one_spelling_of_a_path(gateway: Gateway, path: str) -> None:
    assert (await ask(gateway, "GET", path)).status == 400


async def test_security_headers_are_on_every_answer(gateway: Gateway) -> None:
    for method, path in (("GET", "/health"), ("GET", "/nope"), ("PUT", "/health"), ("GET", "//"), ("POST", "/rpc")):
        headers = (await ask(gateway, method, path, Content_Length="0")).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "permissions-policy" in headers
        assert "server" not in headers


# --- POST /rpc


async def test_s116_rpc_single_batch_and_notification(gateway: Gateway) -> None:
    one = await ask(gateway, "POST", "/rpc", call("node.list", id="a"), **AUTH)
    assert (one.status, one.json["id"], one.json["result"]["nodes"]) == (200, "a", [])
    short = await ask(gateway, "POST", "/rpc", b'{"method":"last-heartbeat"}', **AUTH)
    assert short.json == {"jsonrpc": "2.0", "id": None, "result": None}
    silent = await ask(gateway, "POST", "/rpc", call("last-heartbeat"), **AUTH)
    assert (silent.status, silent.body) == (204, b"")
    batch = b"[%b,%b,%b]" % (call("last-heartbeat", id=1), call("last-heartbeat"), call("node.list", {"zzz": 1}, id=2))
    many = await ask(gateway, "POST", "/rpc", batch, **AUTH)
    assert [item["id"] for item in many.json] == [1, 2]
    assert many.json[1]["error"]["message"] == "invalid node.list params: at root: unexpected property 'zzz'"
    none = await ask(gateway, "POST", "/rpc", b"[%b]" % call("last-heartbeat"), **AUTH)
    assert none.status == 204
    junk = await ask(gateway, "POST", "/rpc", b"{", **AUTH)
    assert (junk.status, junk.json["error"]["code"]) == (400, -32700)


async def test_rpc_runs_async_handlers_and_survives_their_bugs(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    async def later(context: Any, params: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return {"principal": context.principal, "role": context.role, "conn": context.conn_id}

    async def boom(context: Any, params: Any) -> Any:
        raise RuntimeError("secret")

    gateway.rpc.method("test.later", scope="operator.read")(later)
    gateway.rpc.method("test.boom", scope="operator.read")(boom)
    gateway.rpc.method("test.bad", scope="operator.read")(lambda context, params: {"x": object()})
    answer = await ask(gateway, "POST", "/rpc", call("test.later", id=1), **AUTH)
    assert answer.json["result"] == {"principal": "token:operator", "role": "operator", "conn": "http"}
    for method in ("test.boom", "test.bad"):
        answer = await ask(gateway, "POST", "/rpc", call(method, id=1), **AUTH)
        assert (answer.status, answer.json["error"]["code"]) == (200, -32603), method
        assert b"secret" not in answer.body
    assert {"handler failed", "result cannot be encoded"} <= {
        record.getMessage().split(" method=")[0] for record in caplog.records if record.levelname == "ERROR"
    }


@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", "Basic dTpw", TOKEN])
async def test_v41_rpc_without_the_secret_is_401(gateway: Gateway, given: str | None) -> None:
    headers = {"Content_Type": "application/json"} | ({"Authorization": given} if given is not None else {})
    answer = await ask(gateway, "POST", "/rpc", call("health", id=1), **headers)
    assert (answer.status, answer.json["error"]["type"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_v47_the_body_is_read_only_after_admission_and_is_capped(gateway: Gateway) -> None:
    async with dial(gateway) as client:
        await client.send("POST", "/rpc", Content_Length=str(10**9), Authorization="Bearer wrong")
        assert (await client.answer()).status == 401
    async with dial(gateway) as client:
        await client.send("POST", "/rpc", Content_Length=str(incoming.MAX_BODY_BYTES + 1), **AUTH)
        answer = await client.answer()
        assert (answer.status, answer.json["error"]["type"]) == (413, "payload_too_large")
    async with dial(gateway) as client:
        await client.send("POST", "/rpc", Transfer_Encoding="chunked", **AUTH)
        chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
        for _ in range(incoming.MAX_BODY_BYTES // 65_536 + 1):
            await client.stream.send_all(chunk)
        assert (await client.answer()).status == 413
    padded = call("last-heartbeat", id=1)
    padded += b" " * (incoming.MAX_BODY_BYTES - len(padded))
    assert (await ask(gateway, "POST", "/rpc", padded, **AUTH)).status == 200


async def test_v47_a_body_that_does_not_come_is_408(mock_clock: MockClock) -> None:
    async with open_memory_gateway(CONFIG) as gateway, dial(gateway) as client:
        await client.send("POST", "/rpc", Content_Length="100", **AUTH)
        await client.stream.send_all(b"{")
        await wait_all_tasks_blocked()
        mock_clock.jump(incoming.BODY_SECONDS + 0.1)
        answer = await client.answer()
        assert (answer.status, answer.json["error"]["type"]) == (408, "request_timeout")


async def test_v46_a_head_that_does_not_come_ends_after_15_seconds(mock_clock: MockClock) -> None:
    async with open_memory_gateway(CONFIG) as gateway, dial(gateway) as client:
        await client.stream.send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n")
        await wait_all_tasks_blocked()
        mock_clock.jump(14)
        await wait_all_tasks_blocked()
        assert len(gateway._server.wires) == 1
        mock_clock.jump(2)
        while await client.stream.receive_some():
            pass
        await wait_all_tasks_blocked()
        assert gateway._server.wires == {}


@pytest.mark.parametrize("begins", [b"", b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n"], ids=["silence", "half a head"])
async def test_v46_a_head_has_15_seconds_in_all_however_its_bytes_come(mock_clock: MockClock, begins: bytes) -> None:
    """The first bytes are waited for before hypercorn is: its own time must not begin anew with them."""
    async with open_memory_gateway(CONFIG) as gateway, dial(gateway) as client:
        await wait_all_tasks_blocked()
        mock_clock.jump(14)
        if begins:
            await client.stream.send_all(begins)
        await wait_all_tasks_blocked()
        assert len(gateway._server.wires) == 1
        mock_clock.jump(2)
        with suppress(trio.BrokenResourceError):
            while await client.stream.receive_some():
                pass
        await wait_all_tasks_blocked()
        assert gateway._server.wires == {}


async def test_life4_a_connection_that_has_said_nothing_does_not_hold_up_a_stop(gateway: Gateway) -> None:
    async with dial(gateway), dial(gateway) as late:
        await wait_all_tasks_blocked()
        assert len(gateway._server.wires) == 2
        await late.stream.send_all(b"GET /health HT")
        await wait_all_tasks_blocked()
        await gateway._server.http.stop_idle()
        with trio.fail_after(1):
            await gateway._server.wait_empty()
        async with dial(gateway):  # one that was accepted a moment before
            await wait_all_tasks_blocked()
            assert gateway._server.wires == {}


@pytest.mark.parametrize("after", ["nothing", "half a head", "a request"])
async def test_v46_a_connection_that_the_peer_closed_is_let_go_at_once(gateway: Gateway, after: str) -> None:
    with trio.fail_after(5):
        async with dial(gateway) as client:
            if after == "a request":
                assert (await client.ask("GET", "/health")).status == 200
            elif after == "half a head":
                await client.stream.send_all(b"GET /health HT")
            await wait_all_tasks_blocked()
            assert len(gateway._server.wires) == 1
    assert gateway._server.wires == {}
    assert len(gateway._core.registry.strangers) == 0


async def test_a_peer_that_closed_its_sending_half_still_gets_its_answer(gateway: Gateway) -> None:
    async def later(context: Any, params: Any) -> str:
        await wait_all_tasks_blocked()
        return "done"

    gateway.rpc.method("test.later", scope="operator.read")(later)
    async with open_memory_stream(gateway) as stream:
        client = Http(stream)
        await client.send("POST", "/rpc", call("test.later", id=1), **AUTH)
        await stream.send_eof()
        assert (await client.answer()).json["result"] == "done"
        with trio.fail_after(5):
            assert await stream.receive_some() == b""


async def test_v46_a_head_over_16_kib_is_431(gateway: Gateway) -> None:
    answer = await ask(gateway, "GET", "/health", X_Big="x" * 20_000)
    assert answer.status in {400, 431}


async def test_keep_alive_serves_many_requests(gateway: Gateway) -> None:
    async with dial(gateway) as client:
        for _ in range(5):
            assert (await client.ask("GET", "/health")).status == 200
            assert (await client.ask("POST", "/rpc", call("health", id=1), **AUTH)).status == 200


# --- C16: pages of other origins


def _cors(*origins: str, enabled: bool = True) -> Any:
    transports = TransportsConfig(http=HttpConfig(cors=CorsConfig(enabled=enabled, origins=origins)))
    return open_memory_gateway(CONFIG, transports=transports)


async def test_c16_s118_s119_any_origin_by_default_and_never_with_credentials(gateway: Gateway) -> None:
    answer = await ask(gateway, "POST", "/rpc", call("health", id=1), Origin="https://page.example", **AUTH)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")
    assert "access-control-allow-credentials" not in answer.headers
    preflight = await ask(
        gateway, "OPTIONS", "/rpc", Origin="https://page.example", Access_Control_Request_Method="POST"
    )
    assert (preflight.status, preflight.headers["access-control-allow-methods"]) == (204, "POST")
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in preflight.headers


async def test_c16_a_list_of_origins_answers_those_alone() -> None:
    async with _cors("https://good.example") as gateway:
        good = await ask(gateway, "POST", "/rpc", call("health", id=1), Origin="https://good.example", **AUTH)
        assert good.headers["access-control-allow-origin"] == "https://good.example"
        assert good.headers["vary"] == "Origin"
        bad = await ask(gateway, "POST", "/rpc", call("health", id=1), Origin="https://evil.example", **AUTH)
        assert "access-control-allow-origin" not in bad.headers
        preflight = await ask(
            gateway, "OPTIONS", "/rpc", Origin="https://evil.example", Access_Control_Request_Method="POST"
        )
        assert preflight.status == 405


async def test_c16_switched_off_there_is_no_cors_header() -> None:
    async with _cors("*", enabled=False) as gateway:
        answer = await ask(gateway, "POST", "/rpc", call("health", id=1), Origin="https://x.example", **AUTH)
        assert "access-control-allow-origin" not in answer.headers


async def test_c16_probes_have_no_cors(gateway: Gateway) -> None:
    answer = await ask(gateway, "GET", "/health", Origin="https://page.example")
    assert "access-control-allow-origin" not in answer.headers


# --- switched off, draining


async def test_s116_http_can_be_disabled_but_probes_stay() -> None:
    transports = TransportsConfig(http=HttpConfig(enabled=False))
    async with open_memory_gateway(CONFIG, transports=transports) as gateway:
        assert (await ask(gateway, "POST", "/rpc", call("health", id=1), **AUTH)).status == 404
        assert (await ask(gateway, "GET", "/")).status == 404
        assert (await ask(gateway, "GET", "/health")).status == 200


async def test_s112_websocket_can_be_disabled() -> None:
    transports = TransportsConfig(websocket=WebSocketConfig(enabled=False))
    async with open_memory_gateway(CONFIG, transports=transports) as gateway:
        async with open_memory_stream(gateway) as stream:
            assert (await ScriptedPeer(stream).upgrade()).status_code == 404
        assert (await ask(gateway, "POST", "/rpc", call("health", id=1), **AUTH)).status == 200


async def test_live4_while_draining_upgrades_and_requests_get_503_with_retry_after(gateway: Gateway) -> None:
    gateway._server.draining = gateway._http.draining = True
    async with open_memory_stream(gateway) as stream:
        response = await ScriptedPeer(stream).upgrade()
        assert (response.status_code, response.headers["Retry-After"]) == (503, "2")
        assert response.body == b"Gateway websocket admission closed\n"
    answer = await ask(gateway, "POST", "/rpc", call("health", id=1), **AUTH)
    assert (answer.status, answer.headers["retry-after"]) == (503, "2")
    assert (await ask(gateway, "GET", "/health")).status == 200


async def test_obs2_health_is_503_when_the_loop_stalled(gateway: Gateway) -> None:
    gateway.loop._beat -= 10
    answer = await ask(gateway, "GET", "/health")
    assert (answer.status, answer.json["status"]) == (503, "stalled")


@pytest.mark.expect_error_log("request failed")
async def test_rob1_a_bug_in_a_route_is_500_and_the_connection_goes_on(gateway: Gateway) -> None:
    async def bug(request: Any, grant: Any) -> Any:
        raise RuntimeError("secret")

    gateway._http.routes["/bug"] = http.Route(methods=("GET",), handler=bug, needs_admission=False)
    async with dial(gateway) as client:
        answer = await client.ask("GET", "/bug")
        assert (answer.status, answer.body) == (500, b"Internal Server Error")
        assert (await client.ask("GET", "/health")).status == 200


async def test_s159_a_plain_get_says_what_this_port_speaks(gateway: Gateway) -> None:
    answer = await ask(gateway, "GET", "/")
    assert answer.status == 200
    assert b"WebSocket" in answer.body
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


async def test_v16_a_secret_rotated_while_the_body_comes_is_asked_for_again(listening: Gateway) -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"health"}'
    head = (
        f"POST /rpc HTTP/1.1\r\nHost: 127.0.0.1:{listening.port}\r\nAuthorization: Bearer {listening.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with await trio.open_tcp_stream("127.0.0.1", listening.port) as stream:
        await stream.send_all(head.encode() + body[:5])
        await wait_all_tasks_blocked(0.05)
        config = attrs.evolve(listening.config, auth=AuthConfig(type="token", token="another-token-0123456789abcdef"))
        listening.apply(config, resolve_auth(config, None, {}))
        await stream.send_all(body[5:])
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await stream.receive_some(65536)
        assert answer.startswith(b"HTTP/1.1 401")
