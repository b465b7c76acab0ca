"""Texts that are no Unicode are mended, and nothing else is touched."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol import frames, jsonrpc, wholetext
from openclaw_gateway.protocol.wholetext import decode_whole, mend_json, whole, whole_value

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()))  # lone halves too
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


def is_whole(text: str) -> bool:
    return not any(0xD800 <= ord(char) <= 0xDFFF for char in text)


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("plain", "plain"),
        ("ä€😀", "ä€😀"),
        ("\ud83d", "\ufffd"),
        ("a\ude00b\ud83d", "a\ufffdb\ufffd"),
        ("\ud83d\ude00", "😀"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d\ude00", "\ufffd😀"),
    ],
)
def test_a_half_that_stands_alone_is_replaced(text: str, mended: str) -> None:
    assert whole(text) == mended
    assert decode_whole(msgspec.json.decode, json.dumps(text)) == mended, "escaped"
    raw = b'"%b"' % text.encode("utf-8", "surrogatepass")
    assert is_whole(decode_whole(msgspec.json.decode, raw)), "raw, as some programs write it"


@pytest.mark.parametrize(
    ("raw", "mended"),
    [
        (rb'"\\ud83d"', "\\ud83d"),  # an escaped backslash, and a name that only looks like a half
        (rb'"\\\ud83d"', "\\\ufffd"),
        (rb'"\\\\ud83d\ude00"', "\\\\ud83d\ufffd"),
        (rb'"\n\ud83d\u0041\"\ude00"', '\n\ufffdA"\ufffd'),
        (rb'"\ud83d\uDE00\udbff\uDFFF"', "😀\U0010ffff"),
        (b'"a\xffb\xc3"', "a\ufffdb\ufffd"),
        (b'"\xed\xa0\xbd!"', "\ufffd\ufffd\ufffd!"),
        (b'{"\\ud83d": "\xff"}', {"\ufffd": "\ufffd"}),
    ],
)
def test_only_what_stands_for_a_character_is_replaced(raw: bytes, mended: Any) -> None:
    assert decode_whole(msgspec.json.decode, raw) == mended


@given(ANY_JSON)
def test_law_whatever_json_can_spell_is_read_and_can_be_written(value: Any) -> None:
    read = decode_whole(msgspec.json.decode, json.dumps(value))
    again = msgspec.json.encode(read)
    assert mend_json(again) is None, "what is mended stays as it is"
    assert read == whole_value(value)


@given(ANY_TEXT)
def test_law_a_mended_text_is_whole_and_as_long_at_most(text: str) -> None:
    mended = whole(text)
    assert is_whole(mended)
    assert whole(mended) == mended
    assert len(mended) <= len(text)
    assert mended == text or not is_whole(text)


@given(st.binary(max_size=80))
def test_law_any_bytes_are_read_or_malformed(data: bytes) -> None:
    try:
        value = decode_whole(msgspec.json.decode, data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        assert not isinstance(frames.decode_request(data), frames.Request)
    else:
        assert msgspec.json.decode(msgspec.json.encode(value)) == value


def test_what_is_malformed_stays_so() -> None:
    for raw in (b'{"a":', b'"\\ud83', b'"\\x"', b"\xff", b'"\\ud83d'):
        with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
            decode_whole(msgspec.json.decode, raw)


def test_cap_what_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mend_json(b'"' + b"\\ud83d" * wholetext.MAX_ESCAPES + b'"') is not None
    assert mend_json(b'"' + b"\\ud83d" * (wholetext.MAX_ESCAPES + 1) + b'"') is None
    monkeypatch.setattr(wholetext, "MAX_MENDED", 10)
    assert mend_json(b'"\xffxxxxxx"') is not None
    assert mend_json(b'"\xffxxxxxxxx"') is None
    deep: Any = "\ud83d"
    for _ in range(wholetext.MAX_DEPTH + 5):
        deep = [deep]
    assert "\ud83d" not in str(whole_value(deep))


def test_requests_of_both_dialects_are_read() -> None:
    request = frames.decode_request(b'{"type":"req","id":"1","method":"m","params":{"text":"a\\ud83d"}}')
    assert isinstance(request, frames.Request)
    assert msgspec.json.decode(request.params) == {"text": "a\ufffd"}
    call = jsonrpc.decode_message(b'{"jsonrpc":"2.0","id":1,"method":"m","params":{"text":"a\\ud83d"}}')
    assert isinstance(call, jsonrpc.Call)
    assert msgspec.json.decode(call.params) == {"text": "a\ufffd"}
    batch = jsonrpc.decode_message(b'[{"id":1,"method":"m","params":["\\ude00"]},{"id":2,"method":"m"}]')
    assert isinstance(batch, jsonrpc.Batch)
    assert [isinstance(item, jsonrpc.Call) for item in batch.items] == [True, True]
    assert jsonrpc.sniff(b'{"type":"req","id":"\\ud83d"}') == "openclaw"
