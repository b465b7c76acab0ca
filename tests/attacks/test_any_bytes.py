"""Any bytes, before and after the handshake, in any pieces: the gateway stays, says nothing wrong and logs no error."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from openclaw_gateway import Gateway
from openclaw_gateway.server import upgrade
from tests.websocket.rawclient import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawClient, frame

from .attacker import TOKEN, Attacker, legit_client_works, open_victim

budget = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

LINES = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n", b"POST /rpc HTTP/1.1\r\n", b"GET / HTTP/1.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"Host: localhost\r\n", b"Host: \x1b\r\n", b"Upgrade: websocket\r\n", b"Upgrade: h2c\r\n",
        b"Connection: Upgrade\r\n",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"Sec-WebSocket-Version: 13\r\n", b"Content-Length: 5\r\n",
        b"Sec-WebSocket-Protocol: \x01,\xff\r\n", b"Transfer-Encoding: chunked\r\n", b"Authorization: Bearer \xff\r\n",
        b"Origin: \xff\r\n", b"X-Forwarded-For: ,,,\r\n", b"Cookie: \x00\r\n", b"User-Agent: \x7f\x80\r\n",
        b"\r\n", b"5\r\nhello\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-x\r\n",
    ]
)  # fmt: skip
BEFORE = st.lists(LINES | st.binary(max_size=60), max_size=12).map(b"".join)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["id", "method"]), inner, max_size=5)
    ),
    max_leaves=12,
)
METHODS = st.sampled_from(["connect", "health", "status", "config.get", "logs.tail", "system-event", "x", "", "\x1b"])


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Something like a message of one of the dialects, or not."""
    import json

    kind = draw(st.sampled_from(["req", "rpc", "batch", "json", "bytes", "deep"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200))
    if kind == "deep":
        return b"[" * draw(st.integers(1, 20_000))
    value = draw(JSON)
    if kind == "req":
        value = {
            "type": draw(st.sampled_from(["req", "res", "event", ""])),
            "id": draw(st.text(max_size=9) | JSON),
            "method": draw(METHODS),
            "params": value,
        }
    elif kind in {"rpc", "batch"}:
        value = {
            "jsonrpc": draw(st.sampled_from(["2.0", "1.0"]) | JSON),
            "id": draw(JSON),
            "method": draw(METHODS | JSON),
            "params": value,
        }
        value = [value] * draw(st.integers(0, 3)) if kind == "batch" else value
    return json.dumps(value).encode("utf-8", "surrogatepass")


FRAMES = st.builds(
    frame,
    st.sampled_from([TEXT, TEXT, TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE, 0x3, 0xB]),
    messages(),
    fin=st.sampled_from([True, True, True, False]),
    rsv=st.sampled_from([0, 0, 0, 0, 1, 4]),
    mask=st.sampled_from([True, True, True, True, False]),
    length=st.sampled_from([None, None, None, None, None, 70_000, 1 << 62]),
)
AFTER = st.lists(FRAMES | st.binary(max_size=40), min_size=1, max_size=8).map(b"".join)
CUTS = st.lists(st.integers(0, 2000), max_size=6)


@pytest.fixture(autouse=True)
def quick_idle_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a request is given up after 15 s; that it is, is shown in tests/websocket."""
    monkeypatch.setattr(upgrade, "KEEP_ALIVE_SECONDS", 3.0)


def _pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True) if a < b]


async def _send_and_drain(client: RawClient, data: bytes, cuts: Sequence[int]) -> None:
    """Send in pieces, hang up our half, and read whatever comes to its end."""
    with contextlib.suppress(trio.BrokenResourceError, OSError):
        for piece in _pieces(data, cuts):
            await client.send(piece)
            await trio.lowlevel.checkpoint()
        await client.stream.send_eof()
        with trio.fail_after(10):
            while await client.stream.receive_some(65536):
                pass


async def _still_well(gateway: Gateway) -> None:
    await legit_client_works(gateway.port)
    assert gateway.health.heartbeats_enabled
    assert gateway._book.to_wire() == {"pending": [], "paired": []}


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@budget
@given(data=BEFORE, cuts=CUTS)
@example(data=UPGRADE + b"User-Agent: \x1b[2J\x7f\r\n\r\n", cuts=[])
@example(data=UPGRADE + b"Sec-WebSocket-Protocol: ,,\xff\r\nSec-WebSocket-Extensions: ;;=\r\n\r\n", cuts=[])
@example(data=UPGRADE + b"Origin: \xff\r\nOrigin: x\r\n\r\n\x81", cuts=[3, 40])
async def test_any_bytes_before_the_handshake(data: bytes, cuts: list[int]) -> None:
    async with open_victim() as gateway:
        async with await Attacker.at(gateway.port) as client:
            await _send_and_drain(client, data, cuts)
        await _still_well(gateway)


@budget
@given(data=AFTER, cuts=CUTS)
async def test_any_bytes_between_upgrade_and_connect(data: bytes, cuts: list[int]) -> None:
    async with open_victim() as gateway:
        async with await Attacker.at(gateway.port) as client:
            await client.open()
            await _send_and_drain(client, data, cuts)
        await _still_well(gateway)


@budget
@given(data=AFTER, cuts=CUTS, jsonrpc=st.booleans())
async def test_any_bytes_after_hello(data: bytes, cuts: list[int], jsonrpc: bool) -> None:
    async with open_victim() as gateway:
        async with await Attacker.at(gateway.port) as client:
            if jsonrpc:
                await client.open(path=f"/?token={TOKEN}")
                await client.send(frame(TEXT, b'{"method":"health","id":1}'))
                assert await client.read_frame() is not None
            else:
                assert (await client.connect(token=TOKEN, scopes=["operator.read"])).admitted
            await _send_and_drain(client, data, cuts)
        await _still_well(gateway)


@budget
@given(body=messages(), token=st.sampled_from([TOKEN, "wrong", ""]))
async def test_any_body_of_a_post(body: bytes, token: str) -> None:
    async with open_victim() as gateway:
        lines = f"Host: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n"
        head = f"POST /rpc HTTP/1.1\r\n{lines}\r\n"
        async with await Attacker.at(gateway.port) as client:
            await client.send(head.encode() + body)
            status, _ = await client.read_head()
            assert status in ({200, 204, 400} if token == TOKEN else {401})
        await _still_well(gateway)
