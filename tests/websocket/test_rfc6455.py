"""RFC 6455 as a table over a real socket: what a session must survive, what must end it, and with which code."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import pairwise

import pytest
import trio

from .conftest import MAX_MESSAGE, TOKEN
from .rawclient import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawClient, close_payload, frame

CALL = '{"type":"req","id":"é—😀","method":"last-heartbeat"}'.encode()
BAD_UTF8 = {
    "lone-continuation": b"\x80",
    "overlong": b"\xc0\xaf",
    "surrogate": b"\xed\xa0\x80",
    "beyond-10ffff": b"\xf4\x90\x80\x80",
    "truncated": b"\xf0\x9f\x98",
    "never-a-byte": b"\xff",
}


def fragments(payload: bytes, cuts: Sequence[int], opcode: int = TEXT, *, between: bytes = b"") -> bytes:
    """`payload` as fragments cut at `cuts`, with the bytes `between` after each but the last (RFC 6455 section 5.4)."""
    edges = [0, *cuts, len(payload)]
    pieces = [payload[a:b] for a, b in pairwise(edges)]
    out = b""
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        out += frame(CONTINUATION if number else opcode, piece, fin=last) + (b"" if last else between)
    return out


ANSWERED = {
    "one-frame": frame(TEXT, CALL),
    "binary": frame(BINARY, CALL),
    "two-fragments": fragments(CALL, [5]),
    "binary-fragments": fragments(CALL, [5, 9], BINARY),
    "empty-first-fragment": fragments(CALL, [0]),
    "empty-middle-and-last-fragment": fragments(CALL, [7, 7, len(CALL)]),
    "a-fragment-for-every-byte": fragments(CALL, range(1, len(CALL))),
    "unsolicited-pong-before": frame(PONG, b"nobody asked") + frame(TEXT, CALL),
    "pong-between-fragments": fragments(CALL, [5], between=frame(PONG)),
    "text-that-is-not-json-is-ignored": frame(TEXT, b"{") + frame(TEXT, CALL),
    "binary-junk-is-ignored": frame(BINARY, b"\xff\x00\xfe") + frame(TEXT, CALL),
}


@pytest.mark.parametrize("name", ANSWERED)
async def test_ws_message_forms_are_answered(name: str, port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.hello(TOKEN)
        await client.send(ANSWERED[name])
        reply = await client.read_message()
        assert (reply["id"], reply["ok"]) == ("é—😀", True), reply
        await client.assert_alive()


async def test_ws_valid_utf8_may_be_split_at_every_byte(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.hello(TOKEN)
        for cut in range(len(CALL) + 1):
            await client.send(fragments(CALL, [cut]))
            reply = await client.read_message()
            assert reply["id"] == "é—😀", (cut, reply)


async def test_ws_bytes_may_arrive_one_at_a_time(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.hello(TOKEN)
        for byte in frame(TEXT, CALL) + frame(PING, b"drip"):
            await client.send(bytes([byte]))
            await trio.lowlevel.checkpoint()
        assert (await client.read_message())["id"] == "é—😀"
        pong = await client.read_frame()
        assert pong is not None
        assert (pong.opcode, pong.payload) == (PONG, b"drip")


@pytest.mark.parametrize("size", [0, 1, 125])
@pytest.mark.parametrize("authenticated", [False, True])
async def test_ws_ping_is_answered_with_its_payload(size: int, authenticated: bool, port: int) -> None:
    async with await RawClient.dial(port) as client:
        if authenticated:
            await client.hello(TOKEN)
        else:
            await client.upgrade()
            await client.read_challenge()
        await client.send(frame(PING, b"p" * size))
        pong = await client.read_frame()
        assert pong is not None
        assert (pong.opcode, pong.payload) == (PONG, b"p" * size)


async def test_ws_pings_between_fragments_do_not_wait_for_the_message(port: int) -> None:
    pieces = fragments(CALL, [3, 8]), len(frame(TEXT, CALL[:3], fin=False)), len(frame(CONTINUATION, CALL[3:8]))
    data, first, second = pieces[0], pieces[1], pieces[1] + pieces[2]
    async with await RawClient.dial(port) as client:
        await client.hello(TOKEN)
        for part in (data[:first], data[first:second]):
            await client.send(part + frame(PING, b"mid"))
            pong = await client.read_frame()
            assert pong is not None
            assert (pong.opcode, pong.payload) == (PONG, b"mid")
        await client.send(data[second:])
        assert (await client.read_message())["id"] == "é—😀"


async def test_ws_pings_in_one_burst_with_a_fragmented_message_are_all_answered(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.hello(TOKEN)
        await client.send(fragments(CALL, [3, 8], between=frame(PING, b"mid")))
        got = [await client.read_frame() for _ in range(3)]
        assert sorted(each.opcode for each in got if each is not None) == [TEXT, PONG, PONG]


VIOLATIONS = {
    "unmasked-text": frame(TEXT, CALL, mask=False),
    "unmasked-ping": frame(PING, mask=False),
    "unmasked-close": frame(CLOSE, close_payload(1000), mask=False),
    **{f"reserved-bit-{bit}": frame(TEXT, CALL, rsv=bit) for bit in (1, 2, 4, 7)},
    **{f"reserved-bit-{bit}-on-ping": frame(PING, rsv=bit) for bit in (1, 2, 4)},
    "reserved-bit-on-continuation": frame(TEXT, CALL[:4], fin=False) + frame(CONTINUATION, CALL[4:], rsv=4),
    **{f"reserved-opcode-{opcode}": frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"control-{opcode}-over-125-bytes": frame(opcode, b"x" * 126) for opcode in (PING, PONG)},
    "close-over-125-bytes": frame(CLOSE, close_payload(1000, b"x" * 124)),
    **{f"fragmented-control-{opcode}": frame(opcode, b"", fin=False) for opcode in (CLOSE, PING, PONG)},
    "continuation-without-start": frame(CONTINUATION, CALL),
    "continuation-after-a-finished-message": frame(TEXT, CALL) + frame(CONTINUATION, b"more"),
    "text-inside-a-fragmented-message": frame(TEXT, CALL[:4], fin=False) + frame(TEXT, CALL),
    "binary-inside-a-fragmented-message": frame(BINARY, CALL[:4], fin=False) + frame(BINARY, CALL, fin=False),
    "close-payload-of-one-byte": frame(CLOSE, b"\x03"),
    **{
        f"close-code-{code}": frame(CLOSE, close_payload(code))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("name", VIOLATIONS)
async def test_ws_violation_ends_with_1002(name: str, port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.hello(TOKEN)
        await client.send(VIOLATIONS[name])
        assert (await client.read_close()).close_code == 1002


async def test_ws_violation_ends_with_1002_before_authentication(port: int) -> None:
    for name, data in VIOLATIONS.items():
        if name == "continuation-after-a-finished-message":
            continue  # its first message already ends an unauthenticated session
        async with await RawClient.dial(port) as client:
            await client.upgrade()
            await client.read_challenge()
            await client.send(data)
            assert (await client.read_close()).close_code == 1002, name


@pytest.mark.parametrize("name", BAD_UTF8)
async def test_ws_bad_utf8_ends_with_1007_wherever_it_is_split(name: str, port: int) -> None:
    bad = b'{"type":"req","id":"' + BAD_UTF8[name] + b'","method":"last-heartbeat"}'
    near = range(19, 22 + len(BAD_UTF8[name]))
    for data in (frame(TEXT, bad), *(fragments(bad, [cut]) for cut in near), fragments(bad, near)):
        async with await RawClient.dial(port) as client:
            await client.hello(TOKEN)
            await client.send(data)
            assert (await client.read_close()).close_code == 1007


async def test_ws_text_that_ends_inside_a_character_ends_with_1007(port: int) -> None:
    for data in (frame(TEXT, b'"\xf0\x9f\x98'), fragments(b'"\xf0\x9f\x98', [2])):
        async with await RawClient.dial(port) as client:
            await client.hello(TOKEN)
            await client.send(data)
            assert (await client.read_close()).close_code == 1007


async def test_ws_bad_utf8_in_a_close_reason_ends_with_1007(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.hello(TOKEN)
        await client.send(frame(CLOSE, close_payload(1000, b"\xc0\xaf")))
        assert (await client.read_close()).close_code == 1007


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
async def test_ws_close_code_is_echoed(code: int, port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.hello(TOKEN)
        await client.send(frame(CLOSE, close_payload(code, "auf Wiedersehen ✓".encode())))
        assert (await client.read_close()).close_code == code


async def test_ws_empty_close_is_echoed_empty(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.hello(TOKEN)
        await client.send(frame(CLOSE))
        assert (await client.read_close()).payload == b""


async def test_ws_nothing_after_a_close_frame_is_carried_out(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.hello(TOKEN)
        await client.send(frame(CLOSE, close_payload(1000)) + frame(TEXT, CALL) + frame(PING, b"late"))
        while (got := await client.read_frame()) is not None and got.opcode != CLOSE:
            assert got.opcode == TEXT
            assert got.json["type"] == "event", got
        assert got is not None
        assert got.close_code == 1000
        assert await client.read_frame() is None


def padded_call(size: int) -> bytes:
    head, tail = b'{"type":"req","id":"big","method":"health","params":{},"pad":"', b'"}'
    return head + b"x" * (size - len(head) - len(tail)) + tail


async def test_ws1_message_at_the_limit_is_read_and_the_limit_is_told(port: int) -> None:
    for data in (frame(TEXT, padded_call(MAX_MESSAGE)), fragments(padded_call(MAX_MESSAGE), [100_000, 250_000])):
        async with await RawClient.dial(port) as client:
            hello = await client.hello(TOKEN)
            assert hello["policy"]["maxPayload"] == MAX_MESSAGE
            await client.send(data)
            assert (await client.read_message())["id"] == "big"
            await client.assert_alive()


async def _pour(client: RawClient, data: bytes) -> None:
    with contextlib.suppress(trio.BrokenResourceError):  # it may stop reading; what counts is what it said before
        await client.send(data)


FORMS = ["one-over", "much-over", "fragments", "endless-fragments", "length-only", "length-2-63"]


@pytest.mark.parametrize("form", FORMS)
async def test_ws1_oversize_message_gets_a_flushed_1009(form: str, port: int) -> None:
    many = frame(CONTINUATION, b"x" * 10_000, fin=False) * (MAX_MESSAGE // 10_000 + 50)
    data = {
        "one-over": frame(TEXT, padded_call(MAX_MESSAGE + 1)),
        "much-over": frame(TEXT, padded_call(MAX_MESSAGE * 6)),
        "fragments": fragments(padded_call(MAX_MESSAGE + 1), [150_000]),
        "endless-fragments": frame(TEXT, b"x", fin=False) + many,
        "length-only": frame(TEXT, b"", length=1 << 40),
        "length-2-63": frame(TEXT, b"", length=(1 << 63) - 1),
    }[form]
    async with await RawClient.dial(port) as client, trio.open_nursery() as nursery:
        await client.hello(TOKEN)
        nursery.start_soon(_pour, client, data)
        assert (await client.read_close()).close_code == 1009
        nursery.cancel_scope.cancel()


async def test_ws1_pre_authentication_limit_is_64_kib(port: int) -> None:
    async with await RawClient.dial(port) as client:
        await client.upgrade()
        await client.read_challenge()
        connect = client.connect_request(TOKEN)
        await client.send(frame(TEXT, connect[:-1] + b" " * (65_536 - len(connect)) + b"}"))
        assert (await client.read_message())["ok"]
    for data in (frame(TEXT, b" " * 65_537), fragments(b" " * 65_537, [40_000]), frame(TEXT, b"", length=1 << 40)):
        async with await RawClient.dial(port) as client:
            await client.upgrade()
            await client.read_challenge()
            await _pour(client, data)
            close = await client.read_close()
            assert (close.close_code, close.payload[2:]) == (1009, b"")
