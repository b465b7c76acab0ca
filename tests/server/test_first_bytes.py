"""What a connection begins with is judged the same, whether it came in one piece (read at once) or not (hypercorn)."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from openclaw_gateway.server import upgrade
from openclaw_gateway.server.upgrade import MAX_HEAD_BYTES, HttpServer, UpgradeRequest
from openclaw_gateway.server.wire import StreamWire

GOOD = (
    b"GET /ws?a=1 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HEADS = {
    "good": GOOD,
    "frames behind it": GOOD + b"\x81\x80abcd" * 40,
    "spelled otherwise": GOOD.replace(b"websocket", b"WebSocket").replace(b": Upgrade", b": keep-alive, upgrade"),
    "host twice": GOOD.replace(b"Host: h\r\n", b"Host: h\r\nHost: i\r\n"),
    "no host": GOOD.replace(b"Host: h\r\n", b""),
    "v57 h2c beside it": GOOD.replace(b"Host: h\r\n", b"Host: h\r\nUpgrade: h2c\r\n"),
    "v57 both lengths": GOOD.replace(b"Host: h\r\n", b"Host: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
    "two lengths that differ": GOOD.replace(b"Host: h\r\n", b"Host: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n"),
    "HTTP/1.0": GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "HTTP/2.0": GOOD.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "POST": GOOD.replace(b"GET", b"POST"),
    "small letters": GOOD.replace(b"GET", b"get"),
    "lines end in LF": GOOD.replace(b"\r\n", b"\n"),
    "v46 too long": GOOD.replace(b"Host: h\r\n", b"Host: h\r\nX: %b\r\n" % (b"x" * MAX_HEAD_BYTES)),
    "a header without a name": GOOD.replace(b"Host: h\r\n", b"Host: h\r\n: x\r\n"),
    "a NUL": GOOD.replace(b"Host: h\r\n", b"Host: h\r\nX: a\0b\r\n"),
    "a folded header": GOOD.replace(b"Host: h\r\n", b"Host: h\r\nX: a\r\n b\r\n"),
    "a space before the colon": GOOD.replace(b"Upgrade: ", b"Upgrade : "),
    "an empty line before": b"\r\n" + GOOD,
    "the word alone": b"GET /websocket HTTP/1.1\r\nHost: h\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "wants to be asked": GOOD.replace(b"Host: h\r\n", b"Host: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"),
}


# What is lenient here is h11; the handshake itself is judged later (server.connection).
TAKEN = {
    "good", "frames behind it", "spelled otherwise", "HTTP/2.0", "lines end in LF", "a folded header",
    "wants to be asked",
}  # fmt: skip


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _outcome(pieces: list[bytes]) -> tuple[UpgradeRequest | None, bytes]:
    """What was taken out, and what was answered before the peer hung up (the Date header left out)."""
    near, far = memory_stream_pair()
    taken: list[UpgradeRequest | None] = []
    answer = b""
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                taken.append(await HttpServer(_app).serve(StreamWire(near, ("192.0.2.1", 1))))
                await trio.aclose_forcefully(near)

            nursery.start_soon(serve)
            with suppress(trio.BrokenResourceError):  # answered and gone before it had heard it all
                for piece in pieces:
                    await far.send_all(piece)
                    await trio.testing.wait_all_tasks_blocked()
                await far.send_eof()
            while data := await far.receive_some():
                answer += data
    lines = [line for line in answer.split(b"\r\n") if not line.lower().startswith(b"date:")]
    return taken[0], b"\r\n".join(lines)


@pytest.mark.parametrize("name", HEADS)
async def test_v57_v46_a_head_in_one_piece_is_judged_as_in_two(name: str) -> None:
    head = HEADS[name]
    whole, cut = await _outcome([head]), await _outcome([head[:3], head[3:]])
    assert whole == cut
    assert (whole[0] is not None) == (name in TAKEN)


async def test_an_upgrade_in_one_piece_needs_no_hypercorn(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*args: object) -> None:
        raise AssertionError("hypercorn was asked")

    monkeypatch.setattr(upgrade, "_Connection", forbidden)
    taken, answer = await _outcome([GOOD + b"behind"])
    assert taken is not None
    assert (taken.target, taken.trailing, answer) == (b"/ws?a=1", b"behind", b"")
    assert taken.header(b"sec-websocket-version") == "13"


@given(st.binary(max_size=300), st.integers(0, len(GOOD)))
def test_v39_any_first_bytes_are_an_upgrade_or_none(noise: bytes, at: int) -> None:
    for data in (noise, GOOD[:at] + noise, GOOD[:at] + noise + GOOD[at:]):
        found = upgrade._upgrade_at_once(data)
        assert found is None or data.startswith(b"GET ")
