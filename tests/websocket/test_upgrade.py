"""The way from HTTP to WebSocket (RFC 6455 section 4), and the limits before authentication."""

from __future__ import annotations

import pytest
import trio
from openclaw_gateway.config.schema import WebSocketConfig

from .conftest import TOKEN, OpenServer
from .rawclient import TEXT, RawClient, frame


async def test_ws_accept_value_is_that_of_the_rfc_example(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.send(client.upgrade_request(key="dGhlIHNhbXBsZSBub25jZQ=="))
        status, headers = await client.read_head()
        assert (status, headers["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")


@pytest.mark.parametrize("path", ["/", "/ws", "/some/path", "/?session=1", "/ws?x=%20"])
async def test_ws_any_path_upgrades(path: str, port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.upgrade(path=path)
        await client.read_challenge()


async def test_ws_header_forms_of_browsers_and_proxies(port: int) -> None:
    for headers in (
        {"connection": "keep-alive, Upgrade"},
        {"connection": "upgrade", "upgrade": "WebSocket"},
        {"connection": "Upgrade, keep-alive", "cache_control": "no-cache", "pragma": "no-cache"},
    ):
        async with await RawClient.dial(port) as client:
            await client.upgrade(**headers)
            await client.read_challenge()


async def test_ws_deflate_is_not_negotiated_and_a_subprotocol_is_echoed(port: int) -> None:
    async with await RawClient.dial(port) as client:
        headers = await client.upgrade(sec_websocket_extensions="permessage-deflate; client_max_window_bits")
        assert "sec-websocket-extensions" not in headers
        assert "sec-websocket-protocol" not in headers
    async with await RawClient.dial(port) as client:
        headers = await client.upgrade(sec_websocket_protocol="openclaw")
        assert headers["sec-websocket-protocol"] == "openclaw"


REFUSED = {
    "missing-key": ({"without": ["sec-websocket-key"]}, {400}),
    "empty-key": ({"sec_websocket_key": ""}, {400}),
    "short-key": ({"sec_websocket_key": "c2hvcnQ="}, {400}),
    "key-not-base64": ({"sec_websocket_key": "!!!!!!!!!!!!!!!!!!!!!!!!"}, {400}),
    "missing-version": ({"without": ["sec-websocket-version"]}, {400, 426}),
    "version-8": ({"sec_websocket_version": "8"}, {426}),
    "version-14": ({"sec_websocket_version": "14"}, {426}),
    "post": ({"method": "POST"}, {400, 404, 405}),
    "http-1.0": ({"version": "HTTP/1.0"}, {400, 404, 426, 505}),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_ws_bad_upgrade_is_refused_with_a_status(name: str, port: int) -> None:
    options, statuses = REFUSED[name]
    async with await RawClient.dial(port) as client:
        await client.send(client.upgrade_request(**options))  # type: ignore[arg-type]
        status, headers = await client.read_head()
        assert status in statuses, (status, headers)
        if status == 426:
            assert headers["sec-websocket-version"] == "13"


async def test_ws_get_without_upgrade_stays_http(port: int) -> None:
    for without in (["upgrade"], ["connection"], ["upgrade", "connection"]):
        async with await RawClient.dial(port) as client:
            await client.send(client.upgrade_request(path="/health", without=without))
            status, _ = await client.read_head()
            assert status in {200, 400}, without


async def test_ws_upgrade_may_be_the_nth_request_of_a_connection(port: int) -> None:
    get = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    async with await RawClient.dial(port) as client:
        for _ in range(3):
            await client.send(get)
            status, headers = await client.read_head()
            assert status == 200
            assert b"live" in await client.read_body(headers)
        hello = await client.hello(TOKEN)
        assert hello["type"] == "hello-ok"
        await client.assert_alive()


async def test_ws_upgrade_pipelined_behind_a_get(port: int) -> None:
    get = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
    async with await RawClient.dial(port) as client:
        await client.send(get + client.upgrade_request() + frame(TEXT, client.connect_request(TOKEN)))
        status, headers = await client.read_head()
        assert status == 200
        await client.read_body(headers)
        status, _ = await client.read_head()
        assert status == 101
        await client.read_challenge()
        assert (await client.read_message())["ok"]


async def test_ws_frames_glued_to_the_upgrade_are_not_lost(port: int) -> None:
    async with await RawClient.dial(port) as client:
        call = frame(TEXT, client.request("last-heartbeat", id_="glued"))
        await client.upgrade(glued=frame(TEXT, client.connect_request(TOKEN)) + call * 5)
        await client.read_challenge()
        assert (await client.read_message())["payload"]["type"] == "hello-ok"
        for _ in range(5):
            assert (await client.read_message())["id"] == "glued"


async def test_proto2_challenge_leaves_in_the_same_flush_as_the_101(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.send(client.upgrade_request())
        first = await client.stream.receive_some(65_536)
        assert first.startswith(b"HTTP/1.1 101 ")
        assert b'"connect.challenge"' in first


async def test_v57_h2c_upgrade_is_refused(port: int) -> None:
    async with await RawClient.dial(port) as client:
        settings = "AAMAAABkAAQAAP__"
        await client.send(
            f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            f"Upgrade: h2c\r\nHTTP2-Settings: {settings}\r\n\r\n".encode()
        )
        status, _ = await client.read_head()
        assert status != 101
        assert status in {200, 400, 426}


async def test_v57_http2_preface_is_refused(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        received = b""
        while data := await client.stream.receive_some(65_536):
            received += data
        # An HTTP/2 server would open with its SETTINGS frame: type 4 at the fourth byte.
        assert received == b"" or received.startswith(b"HTTP/1.1 4"), received


async def test_ws_silence_before_authentication_ends_at_the_deadline(open_server: OpenServer) -> None:
    async with open_server(handshake_timeout_ms=300) as port:
        for upgraded in (True, False):
            async with await RawClient.dial(port) as client:
                begin = trio.current_time()
                if upgraded:
                    await client.upgrade()
                    await client.read_challenge()
                    close = await client.read_close()
                    assert (close.close_code, close.payload[2:]) == (1000, b"")
                else:
                    while await client.stream.receive_some(1024):
                        pass
                assert trio.current_time() - begin < 5


async def test_ws_dripping_bytes_do_not_extend_the_deadline(open_server: OpenServer) -> None:
    async with open_server(handshake_timeout_ms=500) as port, await RawClient.dial(port) as client:
        await client.upgrade()
        await client.read_challenge()

        async def drip() -> None:
            for byte in frame(TEXT, b" " * 5000):
                await client.send(bytes([byte]))
                await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drip)
            with trio.fail_after(5):
                assert (await client.read_close()).close_code == 1000
            nursery.cancel_scope.cancel()


async def _is_admitted(port: int) -> RawClient | None:
    """An upgraded client, or None where the server refused the connection, the upgrade, or closed it with 1013."""
    try:
        client = await RawClient.dial(port)
        await client.send(client.upgrade_request())
        while b"\r\n\r\n" not in client.received:
            data = await client.stream.receive_some(65_536)
            if not data:
                await trio.aclose_forcefully(client.stream)
                return None
            client.received += data
        status, _ = await client.read_head()
        if status != 101:
            assert status in {429, 503}
            await trio.aclose_forcefully(client.stream)
            return None
        got = await client.read_frame()
        if got is None or got.opcode == 8:
            assert got is None or got.close_code == 1013
            await trio.aclose_forcefully(client.stream)
            return None
    except (OSError, trio.BrokenResourceError):
        return None
    return client


async def _soon_admitted(port: int) -> RawClient:
    """The server learns on its own time that a socket ended, so a place is asked for until there is one."""
    with trio.fail_after(5):
        while True:
            client = await _is_admitted(port)
            if client is not None:
                return client
            await trio.sleep(0.01)


async def test_v46_unauthenticated_sockets_of_one_address_are_capped(open_server: OpenServer) -> None:
    assert WebSocketConfig().unauthenticated_per_address == 32
    async with open_server(unauthenticated_per_address=4) as port:
        held = []
        for _ in range(12):
            client = await _is_admitted(port)
            if client is not None:
                held.append(client)
        assert len(held) == 4
        # A place that becomes free is given again, and those who authenticate do not hold one.
        await trio.aclose_forcefully(held.pop().stream)
        again = await _soon_admitted(port)
        await again.send(frame(TEXT, again.connect_request(TOKEN)))
        assert (await again.read_message())["ok"]
        another = await _soon_admitted(port)
        for client in (*held, again, another):
            await trio.aclose_forcefully(client.stream)


async def test_ws_connections_in_all_are_capped(open_server: OpenServer) -> None:
    async with open_server(concurrent_connections=3) as port:
        held = []
        for _ in range(6):
            client = await _is_admitted(port)
            if client is not None:
                await client.send(frame(TEXT, client.connect_request(TOKEN)))
                assert (await client.read_message())["ok"]
                held.append(client)
        assert len(held) == 3
        for client in held:
            await client.assert_alive()
            await trio.aclose_forcefully(client.stream)
