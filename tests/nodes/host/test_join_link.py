"""A join link: fetched once, read as a setup code, never followed elsewhere."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from openclaw_gateway.client import ConnectFailed
from openclaw_gateway.nodes.host.errors import NodeError
from openclaw_gateway.nodes.host.setupcode import fetch_join_link, is_join_link

CODE = json.dumps({"url": "ws://127.0.0.1:9", "bootstrapToken": "b" * 43, "expiresAtMs": 9_999_999_999_999})


@asynccontextmanager
async def open_http(status: str, body: str, heard: list[bytes]) -> AsyncIterator[str]:
    """A server that gives every request the same answer."""

    async def answer(stream: trio.SocketStream) -> None:
        heard.append(bytes(await stream.receive_some(4096)))
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await stream.send_all((head + body).encode())

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/j/abc"
        nursery.cancel_scope.cancel()


async def test_s091_a_join_link_gives_its_setup_code_and_sends_no_secret() -> None:
    heard: list[bytes] = []
    async with open_http("200 OK", CODE, heard) as link:
        assert is_join_link(link)
        setup = await fetch_join_link(link)
    assert (setup.url, setup.bootstrap_token) == ("ws://127.0.0.1:9", "b" * 43)
    assert heard[0].startswith(b"GET /j/abc HTTP/1.1\r\n")
    assert b"authorization" not in heard[0].lower()


@pytest.mark.parametrize(
    ("status", "body"),
    [("404 Not Found", '{"error":"not_found"}'), ("302 Found", CODE), ("200 OK", "<html>"), ("200 OK", "[]")],
)
async def test_a_used_or_wrong_link_is_refused(status: str, body: str) -> None:
    heard: list[bytes] = []
    async with open_http(status, body, heard) as link:
        with pytest.raises(NodeError):
            await fetch_join_link(link)
    assert len(heard) == 1


async def test_v56_a_link_that_would_be_fetched_in_the_open_is_refused() -> None:
    with pytest.raises(ConnectFailed, match="unencrypted"):
        await fetch_join_link("http://gateway.example/j/abc")
