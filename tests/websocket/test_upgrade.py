"""The way from HTTP to WebSocket (RFC 6455 section 4), and the limits before authentication."""

from __future__ import annotations

import contextlib
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from openclaw_gateway.config.schema import WebSocketConfig
from openclaw_gateway.server import upgrade

from .conftest import TOKEN, OpenServer
from .rawclient import CLOSE, PING, TEXT, RawClient, frame


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
    forms: tuple[dict[str, Any], ...] = (
        {"connection": "keep-alive, Upgrade"},
        {"connection": "upgrade", "upgrade": "WebSocket"},
        {"connection": "Upgrade, keep-alive", "cache_control": "no-cache", "pragma": "no-cache"},
    )
    for headers in forms:
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
    async with open_server(handshake_timeout_ms=300) as port, await _stranger(port) as client:
        with trio.fail_after(5):
            close = await client.read_close()
        assert (close.close_code, close.payload[2:]) == (1000, b"")


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_v46_silence_before_the_upgrade_ends_at_the_deadline(
    sent: bytes, open_server: OpenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert upgrade.KEEP_ALIVE_SECONDS <= 15
    monkeypatch.setattr(upgrade, "KEEP_ALIVE_SECONDS", 0.3)
    async with open_server() as port, await RawClient.dial(port) as client:
        # On a slow machine the end may come before what is sent, which then is answered with a reset.
        with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
            await client.send(sent)
            while await client.stream.receive_some(1024):
                pass


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


async def _stranger(port: int) -> RawClient:
    client = await RawClient.dial(port)
    await client.upgrade()
    await client.read_challenge()
    return client


async def _is_dropped(client: RawClient) -> bool:
    """Whether the server ended the connection; a ping tells, because the answer or the end comes at once."""
    try:
        await client.send(frame(PING, b"?"))
        return await client.read_frame() is None
    except (trio.BrokenResourceError, AssertionError):
        return True


async def test_v46_unauthenticated_sockets_of_one_address_are_capped(open_server: OpenServer) -> None:
    assert WebSocketConfig().unauthenticated_per_address == 32
    async with open_server(unauthenticated_per_address=4) as port, AsyncExitStack() as stack:
        admitted = await stack.enter_async_context(await RawClient.dial(port))
        await admitted.hello(TOKEN)
        strangers = [await stack.enter_async_context(await _stranger(port)) for _ in range(12)]
        # A newcomer is always answered; room is made by those who have been silent for longest.
        assert [await _is_dropped(stranger) for stranger in strangers] == [True] * 8 + [False] * 4
        # Those who authenticated hold no place and are never dropped for one.
        await admitted.assert_alive()
        await strangers[-1].send(frame(TEXT, strangers[-1].connect_request(TOKEN)))
        assert (await strangers[-1].read_message())["ok"]
        await stack.enter_async_context(await _stranger(port))
        assert not await _is_dropped(strangers[-2])


async def test_v46_half_open_sockets_that_never_upgrade_count_too(open_server: OpenServer) -> None:
    async with open_server(unauthenticated_per_address=4) as port, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(await RawClient.dial(port)) for _ in range(12)]
        client = await stack.enter_async_context(await RawClient.dial(port))
        await client.hello(TOKEN)
        with trio.fail_after(5):
            for each in silent[:8]:
                with contextlib.suppress(trio.BrokenResourceError):
                    assert await each.stream.receive_some(1) == b""


async def test_ws_connections_in_all_are_capped(open_server: OpenServer) -> None:
    async with open_server(concurrent_connections=3) as port, AsyncExitStack() as stack:
        held = [await stack.enter_async_context(await RawClient.dial(port)) for _ in range(3)]
        for client in held:
            await client.hello(TOKEN)
        async with await _stranger(port) as fourth:
            await fourth.send(frame(TEXT, fourth.connect_request(TOKEN)))
            reply = await fourth.read_message()
            assert (reply["ok"], reply["error"]["code"], reply["error"]["retryable"]) == (False, "UNAVAILABLE", True)
            assert (await fourth.read_close()).close_code == 1013
        for client in held:
            await client.assert_alive()
        # A place that becomes free is given again.
        await held[0].send(frame(CLOSE))
        await held[0].read_close()
        async with await RawClient.dial(port) as again:
            await again.hello(TOKEN)
