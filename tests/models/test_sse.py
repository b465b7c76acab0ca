"""Server-sent events as a law: however the bytes are cut, the events are the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.models.sse import SseEvent, SseParser, SseTooLarge


def read(*chunks: bytes, max_event: int = 1 << 20) -> list[SseEvent]:
    parser = SseParser(max_event=max_event)
    return [event for chunk in chunks for event in parser.feed(chunk)]


def test_the_standards_examples() -> None:
    text = b": a comment\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n"
    assert read(text) == [SseEvent("first event"), SseEvent("second event")]  # the third never ends
    assert read(b"data\n\ndata\ndata\n\ndata:") == [SseEvent(""), SseEvent("\n")]
    assert read(b"data:test\n\ndata: test\n\n") == [SseEvent("test"), SseEvent("test")]
    assert read(b"event: add\r\ndata: 7\rdata: 8\n\r\n") == [SseEvent("7\n8", "add")]


def test_a_byte_order_mark_and_bytes_that_are_no_text() -> None:
    assert read(b"\xef\xbb\xbfdata: a\n\ndata: \xff\xfe\n\n") == [SseEvent("a"), SseEvent("\ufffd\ufffd")]


@pytest.mark.parametrize("text", [b"data: " + b"x" * 200, b"data: xxxxxxxxx\n" * 20, b"x" * 200 + b"\n"])
def test_cap_one_event_is_held_at_most(text: bytes) -> None:
    with pytest.raises(SseTooLarge):
        read(text, max_event=100)


def test_the_cap_is_of_one_event_not_of_the_stream() -> None:
    assert len(read(b"data: 0123456789\n\n" * 1000, max_event=100)) == 1000


LINES = st.lists(
    st.sampled_from([b"data: a", b"data:b", b"event: x", b"", b": c", b"id: 1", b"data: \xc3\xa4", b"junk", b"\xff"]),
    max_size=20,
)


@given(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"]), st.data())
def test_law_any_cutting_gives_the_same_events(lines: list[bytes], ending: bytes, data: st.DataObject) -> None:
    text = b"".join(line + ending for line in lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    places = [0, *cuts, len(text)]
    pieces = [text[start:end] for start, end in pairwise(places)]
    assert read(*pieces) == read(text) == read(*[bytes([byte]) for byte in text])


@given(st.binary(max_size=400), st.integers(1, 60))
def test_law_any_bytes_give_events_or_the_one_error(text: bytes, limit: int) -> None:
    try:
        events = read(text, max_event=limit)
    except SseTooLarge:
        return
    assert all(len(event.data) <= limit for event in events)
