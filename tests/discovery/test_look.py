"""Reading what a network answers: total, bounded, and only what was asked for."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.discovery.look import question, read_answers

NAME = "OpenClaw (ab12cd34ef56)._openclaw._tcp.local."
NAMES = (NAME,)


def labels(*parts: bytes) -> bytes:
    return b"".join(bytes([len(part)]) + part for part in parts)


OWNER = labels(b"OpenClaw (ab12cd34ef56)", b"_openclaw", b"_tcp", b"local") + b"\0"


def response(owner: bytes = OWNER, *, ttl: int = 120, kind: int = 33, flags: int = 0x8400, count: int = 1) -> bytes:
    rdata = struct.pack(">HHH", 0, 0, 18789) + labels(b"host", b"local") + b"\0"
    record = owner + struct.pack(">HHIH", kind, 0x8001, ttl, len(rdata)) + rdata
    return struct.pack(">HHHHHH", 0, flags, 0, count, 0, 0) + record * count


def test_an_answer_is_read_with_and_without_compression() -> None:
    assert read_answers(response(), NAMES) == [(18789, "host.local.")]
    echoed = question(NAMES)
    head = struct.pack(">HHHHHH", 0, 0x8400, 1, 1, 0, 0)
    compressed = head + echoed[12:] + response(b"\xc0\x0c")[12:]
    assert read_answers(compressed, NAMES) == [(18789, "host.local.")]


def test_disc2_what_is_no_answer_is_none() -> None:
    assert read_answers(question(NAMES), NAMES) == []
    assert read_answers(response(flags=0), NAMES) == []
    assert read_answers(response(ttl=0), NAMES) == []
    assert read_answers(response(kind=16), NAMES) == []
    assert read_answers(response(labels(b"other", b"local") + b"\0"), NAMES) == []


def test_v39_loops_and_lies_end() -> None:
    loop = struct.pack(">HHHHHH", 0, 0x8400, 0, 1, 0, 0) + b"\xc0\x0c"
    assert read_answers(loop, NAMES) == []
    assert len(read_answers(response(count=60_000 // 64), NAMES)) <= 64
    assert read_answers(response()[:-4], NAMES) == []


@given(st.binary(max_size=600))
def test_v39_any_bytes_are_answers_or_none(data: bytes) -> None:
    for packet in (data, response()[:12] + data, response()[: 12 + len(OWNER)] + data):
        assert all(0 <= port < 65536 and isinstance(target, str) for port, target in read_answers(packet, NAMES))
