"""V40, V47, V57: paths, bodies and upgrades that say one thing and mean another."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import trio

from openclaw_gateway import Gateway
from openclaw_gateway.rpc.table import CallContext, NoParams
from openclaw_gateway.server import incoming

from .attacker import TOKEN, Attacker, http, legit_client_works, open_victim

BODY = b'{"method":"bait"}'


# --- V40

CROOKED = [
    "/%72pc", "/rpc%00", "/rpc%2f", "/rpc%2F..%2Frpc", "/%2e/rpc", "/%2e%2e/rpc", "/%252e%252e/rpc", "/./rpc",
    "/../rpc", "/x/../rpc", "//rpc", "/rpc//", "///", "/rpc;x=1", "/rpc\\", "/\\rpc", "/rpc%5c", "/rpc%3b",
    "/rpc%3fx", "/rpc#x",
    "/rpc%20", "/rpc%09", "/rp%c0%afc", "/rpc%c3%a9", "/health%2f..%2frpc", "/health/..;/rpc", "/health/%2e%2e/rpc",
    "http://127.0.0.1/rpc", "http://evil.example/rpc", "rpc", "*", "/rpc%", "/rpc%zz", "/%00", "/%",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_v40_a_path_that_is_not_canonical_is_400(method: str, victim: Gateway) -> None:
    ran: list[int] = []
    victim.rpc.method("bait", scope="operator.read")(lambda context, params: ran.append(1))
    for path in CROOKED:
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}):
            status, _, body = await http(
                victim.port, method, path, headers=headers, body=BODY if method == "POST" else b""
            )
            assert status == 400, (path, status)
            assert b"result" not in body
    assert ran == []


async def test_v40_what_no_table_names_is_404(victim: Gateway) -> None:
    for path in (
        "/RPC",
        "/rpc/",
        "/rpc/x",
        "/Health",
        "/health/",
        "/health.json",
        "/.env",
        "/admin",
        "/api",
        "/~",
        "/-",
    ):
        for method in ("GET", "POST"):
            status, _, _ = await http(victim.port, method, path, headers={"Authorization": f"Bearer {TOKEN}"}, body=b"")
            assert status == 404, path


async def test_v40_raw_bytes_in_a_path_reach_no_route(victim: Gateway) -> None:
    for path in (b"/rpc\xc3\xa9", b"/rpc\x01", b"/rpc\x7f", b"/r pc", b"/rpc\x0b"):
        async with await Attacker.at(victim.port) as client:
            await client.send(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status, _ = await client.read_head()
            assert status == 400
    await legit_client_works(victim.port)


# --- V47


async def test_v47_no_body_is_read_before_the_credential(victim: Gateway) -> None:
    """Headers only, a body announced and never sent: the answer comes all the same."""
    for headers, want in (
        ("", 401),
        ("Authorization: Bearer wrong\r\n", 401),
        ("Origin: https://evil.example\r\n", 403),
    ):
        async with await Attacker.at(victim.port) as client:
            head = f"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n{headers}\r\n"
            await client.send(head.encode())
            with trio.fail_after(8):
                status, _ = await client.read_head()
            assert status == want


@pytest.mark.parametrize("told", ["1048577", "99999999999999999999", "chunked"])
async def test_v47_a_body_over_the_limit_is_413_and_not_kept(told: str, victim: Gateway) -> None:
    assert incoming.MAX_BODY_BYTES == 1024 * 1024
    async with await Attacker.at(victim.port) as client, trio.open_nursery() as nursery:
        length = "Transfer-Encoding: chunked" if told == "chunked" else f"Content-Length: {told}"
        await client.send(
            f"POST /rpc HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{length}\r\n\r\n".encode()
        )
        sent = 0

        async def pour() -> None:
            nonlocal sent
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await client.send(b"10000\r\n" + b" " * 65536 + b"\r\n" if told == "chunked" else b" " * 65536)
                    sent += 65536

        nursery.start_soon(pour)
        status, _ = await client.read_head()
        assert status == 413
        # What goes on pouring is cut off: the connection ends instead of eating it for ever.
        with trio.fail_after(10), contextlib.suppress(trio.BrokenResourceError):
            while await client.stream.receive_some(65536):
                pass
        nursery.cancel_scope.cancel()
    assert sent < 64 * 1024 * 1024
    await legit_client_works(victim.port)


async def test_v47_a_body_that_drips_is_given_up(victim: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    assert incoming.BODY_SECONDS <= 10
    monkeypatch.setattr(incoming, "BODY_SECONDS", 0.3)
    async with await Attacker.at(victim.port) as client, trio.open_nursery() as nursery:
        lines = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 5000\r\n"
        await client.send(f"POST /rpc HTTP/1.1\r\n{lines}\r\n".encode())

        async def drip() -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                while True:
                    await client.send(b" ")
                    await trio.sleep(0.02)

        nursery.start_soon(drip)
        with trio.fail_after(8):
            status, _ = await client.read_head()
        assert status == 408
        nursery.cancel_scope.cancel()


async def test_v47_a_body_cannot_be_smuggled_by_two_lengths(victim: Gateway) -> None:
    ran: list[int] = []
    victim.rpc.method("bait", scope="operator.read")(lambda context, params: ran.append(1))
    smuggled = b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s" % (
        TOKEN.encode(), len(BODY), BODY,
    )  # fmt: skip
    for lengths in (
        b"Content-Length: 0\r\nContent-Length: 5\r\n",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
    ):
        async with await Attacker.at(victim.port) as client:
            await client.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\n" + lengths + b"\r\n" + smuggled)
            status, _ = await client.read_head()
            assert status in {400, 404, 501}, lengths
            with contextlib.suppress(trio.BrokenResourceError, OSError):
                await client.stream.send_eof()
                while await client.stream.receive_some(65536):
                    pass
    assert ran == []


# --- V57


class H2cAttack:
    """Asks for cleartext HTTP/2; where it gets it, calls a path with forged identity headers inside."""

    FORGED = (("tailscale-user-login", "admin@corp.example"), ("x-forwarded-for", "100.64.0.7"))

    def __init__(self, client: Attacker) -> None:
        self.client = client

    async def upgrade(self, token: str, *extra: str) -> int:
        lines = "".join(f"{line}\r\n" for line in ("Host: localhost", f"Upgrade: {token}", *extra))
        await self.client.send(f"GET /health HTTP/1.1\r\n{lines}\r\n".encode())
        status, _ = await self.client.read_head()
        if status == 101:
            await self._call(upgraded=True)
        return status

    async def prior_knowledge(self) -> None:
        """The preface of RFC 9113 section 3.4 without any upgrade."""
        await self._call(upgraded=False)

    async def _call(self, *, upgraded: bool) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        if upgraded:
            connection.initiate_upgrade_connection()
        else:
            connection.initiate_connection()
        stream = connection.get_next_available_stream_id()
        head = [
            (":method", "GET"),
            (":path", "/health"),
            (":scheme", "http"),
            (":authority", "localhost"),
            *self.FORGED,
        ]
        connection.send_headers(stream, head, end_stream=True)
        with contextlib.suppress(trio.BrokenResourceError):
            await self.client.send(connection.data_to_send())
        pending, self.client.received = self.client.received, b""
        while True:
            if pending.startswith(b"HTTP/1.1 "):
                assert pending.startswith((b"HTTP/1.1 400", b"HTTP/1.1 4", b"HTTP/1.1 5")), pending
                return
            for event in connection.receive_data(pending):
                spoken = (h2.events.RemoteSettingsChanged, h2.events.ResponseReceived, h2.events.DataReceived)
                assert not isinstance(event, spoken), f"the gateway speaks HTTP/2: {event}"
            try:
                pending = await self.client.stream.receive_some(65536)
            except trio.BrokenResourceError:
                return
            if not pending:
                return


UPGRADES = [
    ("h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    ("H2C", "Connection: upgrade", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    ("h2c", "Connection: Upgrade"),
    ("websocket, h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    (
        "h2c, websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ),
    ("h2c", "Upgrade: websocket", "Connection: Upgrade", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    ("h2", "Connection: Upgrade"),
    ("TLS/1.0", "Connection: Upgrade"),
]


@asynccontextmanager
async def upgrade_forwarding_proxy(gateway_port: int, *, source: str = "127.0.0.1") -> AsyncIterator[int]:
    """What nginx does with ``proxy_set_header Upgrade $http_upgrade``: checks and marks the first head, strips identity
    headers from it, and turns into a blind pipe when a 101 comes back. What is inside the pipe it never sees."""

    async def serve(down: trio.SocketStream) -> None:
        async with down:
            head = b""
            while b"\r\n\r\n" not in head:
                data = await down.receive_some(65536)
                if not data:
                    return
                head += data
            lines, _, rest = head.partition(b"\r\n\r\n")
            kept = [
                line for line in lines.split(b"\r\n") if not line.lower().startswith((b"tailscale-", b"x-forwarded"))
            ]
            kept.append(b"X-Forwarded-For: 203.0.113.9")
            async with await trio.open_tcp_stream("127.0.0.1", gateway_port, local_address=source) as up:
                await up.send_all(b"\r\n".join(kept) + b"\r\n\r\n" + rest)
                async with trio.open_nursery() as pipes:
                    pipes.start_soon(_pipe, up, down, pipes.cancel_scope)
                    pipes.start_soon(_pipe, down, up, pipes.cancel_scope)

    async with trio.open_nursery() as nursery:
        listeners: Any = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def _pipe(source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async for data in source:
            await sink.send_all(data)
    scope.cancel()


@pytest.mark.parametrize("place", ["plain", "trusted proxy", "unknown proxy"])
async def test_v57_nobody_gets_http2_inside_the_port(place: str) -> None:
    trusted = ("127.0.0.2",) if place == "trusted proxy" else ()
    async with open_victim(trusted_proxies=trusted) as gateway:
        inside: list[str] = []

        def spy(context: CallContext, params: NoParams) -> None:
            inside.append(context.client_address)

        gateway.rpc.method("spy", scope="operator.read")(spy)
        if place == "plain":
            await _attack_h2c(gateway.port)
        else:
            async with upgrade_forwarding_proxy(gateway.port, source="127.0.0.2") as port:
                await _attack_h2c(port)
                async with await Attacker.at(port) as client:  # the pipe itself works: a WebSocket gets through it
                    await client.open()
        assert inside == []
        await legit_client_works(gateway.port)


async def _attack_h2c(port: int) -> None:
    for token, *extra in UPGRADES:
        async with await Attacker.at(port) as client:
            assert await H2cAttack(client).upgrade(token, *extra) != 101, (token, extra)
    async with await Attacker.at(port) as client:
        await H2cAttack(client).prior_knowledge()
    # The n-th request of a keep-alive connection is no other door.
    async with await Attacker.at(port) as client:
        await client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers = await client.read_head()
        assert status == 200
        await client.read_body(headers)
        assert await H2cAttack(client).upgrade(UPGRADES[0][0], *UPGRADES[0][1:]) != 101
    async with await Attacker.at(port) as client:
        await client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, headers = await client.read_head()
        await client.read_body(headers)
        await H2cAttack(client).prior_knowledge()


async def test_v57_the_attack_works_where_it_is_not_refused() -> None:
    """The test of the test: stock hypercorn answers the same bytes with 101 and speaks HTTP/2."""
    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.config import Config
    from hypercorn.trio.tcp_server import TCPServer
    from hypercorn.trio.worker_context import WorkerContext
    from hypercorn.typing import ConnectionState

    seen: list[dict[bytes, bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def serve(stream: Any) -> None:
        with contextlib.suppress(BaseExceptionGroup):
            await TCPServer(ASGIWrapper(app), Config(), WorkerContext(None), ConnectionState({}), stream)

    async with trio.open_nursery() as nursery:
        listeners: Any = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with upgrade_forwarding_proxy(port) as proxied, await Attacker.at(proxied) as client:
            with pytest.raises(AssertionError, match="speaks HTTP/2"):
                await H2cAttack(client).upgrade(UPGRADES[0][0], *UPGRADES[0][1:])
            nursery.cancel_scope.cancel()
