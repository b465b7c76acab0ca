"""The small GET that the command line probes with."""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

from openclaw_gateway.client import ConnectFailed, GatewayAddress
from openclaw_gateway.client.http import MAX_BODY, get


@asynccontextmanager
async def peer(answer: bytes, requests: list[bytes]) -> AsyncIterator[GatewayAddress]:
    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            requests.append(bytes(await stream.receive_some(65_536)))
            with contextlib.suppress(trio.BrokenResourceError):  # the client refuses what is too large
                await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        listeners: Any = await nursery.start(trio.serve_tcp, handle, 0)
        yield GatewayAddress.parse(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        nursery.cancel_scope.cancel()


async def test_get_reads_an_answer_and_sends_no_credentials() -> None:
    requests: list[bytes] = []
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A: b\r\n\r\n{"ok":true}'
    async with peer(answer, requests) as address:
        got = await get(address, "/health")
    assert (got.status, got.body, got.headers["x-a"]) == (200, b'{"ok":true}', "b")
    assert requests[0].startswith(b"GET /health HTTP/1.1\r\n")
    assert b"authorization" not in requests[0].lower()


async def test_v56_a_redirect_is_an_answer_like_any_other() -> None:
    async with peer(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", []) as address:
        assert (await get(address, "/health")).status == 302


@pytest.mark.parametrize("answer", [b"SSH-2.0-x\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab"])
async def test_what_is_not_http_fails_at_stage_http(answer: bytes) -> None:
    async with peer(answer, []) as address:
        with pytest.raises(ConnectFailed) as caught:
            await get(address, "/health")
    assert caught.value.stage == "http"


async def test_cap_body() -> None:
    big = b"x" * (MAX_BODY + 1)
    async with peer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(big) + big, []) as address:
        with pytest.raises(ConnectFailed, match="too large"):
            await get(address, "/health")


async def test_silence_ends_at_the_timeout(mock_clock: trio.testing.MockClock) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        mock_clock.jump(1)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        listeners: Any = await nursery.start(trio.serve_tcp, silent, 0)
        address = GatewayAddress.parse(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}")
        with pytest.raises(ConnectFailed) as caught:
            await get(address, "/health", timeout=0.1)
        assert caught.value.stage == "http"
        nursery.cancel_scope.cancel()
