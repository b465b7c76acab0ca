"""The JSON5 reader: grammar, positions, limits, and json-five as a second opinion."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import json5 as json_five
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from openclaw_gateway.config.json5 import MAX_BYTES, MAX_DEPTH, Json5Error, Node, loads, parse

ACCEPTED: list[tuple[str, Any]] = [
    ("{}", {}),
    ("{a: 1, 'b': 2, \"c\": 3,}", {"a": 1, "b": 2, "c": 3}),
    ("// note\n{ /* one */ a /* two */ : /* three */ 1 } // end", {"a": 1}),
    ("[1, +2, -3, .5, 5., 1e3, -0x1F, 0]", [1, 2, -3, 0.5, 5.0, 1000.0, -31, 0]),
    ("[Infinity, -Infinity]", [math.inf, -math.inf]),
    ("'a\\\nb'", "ab"),
    ("'a\\\r\nb'", "ab"),
    ("'it\\'s \\x41\\u0042\\n\\0'", "it's AB\n\0"),
    ('"\\ud83d\\ude00"', "\U0001f600"),
    ("'\u2028'", "\u2028"),
    ("{été: true, $x_1: false, \\u0061b: null}", {"été": True, "$x_1": False, "ab": None}),
    ("\ufeff\u00a0\u3000{a:1}", {"a": 1}),
    ("{a: 1, a: 2}", {"a": 2}),
    ("{__proto__: 1}", {"__proto__": 1}),
]

REFUSED: list[tuple[str, int, int]] = [
    ("", 1, 1),
    ("{a:", 1, 4),
    ("{a: 1,\n b 2}", 2, 4),
    ("{a: 1} x", 1, 8),
    ("[1, 2", 1, 6),
    ("[1,,2]", 1, 4),
    ("[,]", 1, 2),
    ("{,}", 1, 2),
    ("{a: 1 b: 2}", 1, 7),
    ('{\n  "a": "x\n  y"\n}', 2, 10),
    ("'abc", 1, 1),
    ("/* open", 1, 1),
    ("{a: 012}", 1, 5),
    ("{a: 0x}", 1, 5),
    ("{a: 1abc}", 1, 5),
    ("{a: tru}", 1, 5),
    ("{1a: 1}", 1, 2),
    ("{a: '\\x4'}", 1, 6),
    ("{a: '\\8'}", 1, 6),
    ('{a: "\\ud83d"}', 1, 5),
    ('"\\ud800"', 1, 1),
    ("+", 1, 1),
    ("[" + "9" * 500 + ".]", 1, 2),
]


@pytest.mark.parametrize(("text", "value"), ACCEPTED, ids=[text[:20] for text, _ in ACCEPTED])
def test_s041_accepted_json5(text: str, value: Any) -> None:
    assert loads(text) == value
    assert parse(text).value == value


def test_s041_not_a_number_is_a_number() -> None:
    assert math.isnan(loads("[NaN]")[0])


@pytest.mark.parametrize(("text", "line", "column"), REFUSED, ids=[text[:20] for text, *_ in REFUSED])
def test_refused_with_its_place(text: str, line: int, column: int) -> None:
    with pytest.raises(Json5Error) as caught:
        loads(text)
    assert (caught.value.line, caught.value.column) == (line, column)


@pytest.mark.parametrize("text", ["{token: hunter2}", "{hunter2}", "{a: 12hunter2}", "{a: 'x' hunter2: 1", "[hunter2]"])
def test_an_error_never_repeats_the_text(text: str) -> None:
    with pytest.raises(Json5Error) as caught:
        loads(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("opening", ["[", '{"a":', "{a:"])
def test_depth_is_capped(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    assert loads(opening * MAX_DEPTH + "1" + closing * MAX_DEPTH) is not None
    for depth in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(Json5Error, match="nested deeper"):
            loads(opening * depth + "1" + closing * depth)


def test_size_is_capped_in_bytes() -> None:
    with pytest.raises(Json5Error, match="over 8 MiB"):
        loads('"' + "x" * MAX_BYTES + '"')
    with pytest.raises(Json5Error, match="over 8 MiB"):
        loads('"' + "\U0001f600" * (MAX_BYTES // 4) + '"')


def test_positions_of_members() -> None:
    text = '{ a: { "b" : [1, 2] , }, c: 3 }'
    root = parse(text)
    a, c = root.members
    assert text[a.value.start : a.value.end] == '{ "b" : [1, 2] , }'
    (b,) = a.value.members
    assert (b.quote, a.quote) == ('"', "")
    assert [text[item.start : item.end] for item in b.value.items] == ["1", "2"]
    assert text[b.comma or 0] == text[a.comma or 0] == ","
    assert c.comma is None


@given(st.text(max_size=60) | st.text(alphabet="{}[]:,'\"\\/*0x1eE.+-aNIu \n", max_size=40))
@settings(max_examples=400, deadline=None)
def test_any_text_gives_a_value_or_json5error(text: str) -> None:
    line, column = 1, 1
    try:
        loads(text)
    except Json5Error as error:
        line, column = error.line, error.column
    assert line >= 1
    assert 1 <= column <= len(text) + 1


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False, width=32)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.from_regex(r"[A-Za-z_$][\w$]{0,5}", fullmatch=True).filter(str.isascii), inner, max_size=4)
    ),
    max_leaves=12,
)


BLOCKS = st.dictionaries(st.sampled_from(["a", "b", "c", "dd", "$e"]), VALUES, max_size=4)


@st.composite
def documents(draw: st.DrawFn, values: st.SearchStrategy[Any] = VALUES) -> tuple[Any, str]:
    """A value, and one of the many ways to write it."""
    gap = st.sampled_from(["", " ", "\n", "\t", "/* x */", "// y\n"])
    comma = st.sampled_from(["", ","])

    def write(value: Any) -> str:
        if isinstance(value, dict):
            members = [
                f"{key if draw(st.booleans()) else json.dumps(key)}{draw(gap)}:{draw(gap)}{write(inner)}"
                for key, inner in value.items()
            ]
            tail = draw(comma) if members else ""
            return "{" + draw(gap) + ("," + draw(gap)).join(members) + tail + draw(gap) + "}"
        if isinstance(value, list):
            tail = draw(comma) if value else ""
            return "[" + ",".join(draw(gap) + write(inner) + draw(gap) for inner in value) + tail + "]"
        if isinstance(value, str) and draw(st.booleans()):
            return "'" + json.dumps(value)[1:-1].replace('\\"', '"').replace("'", "\\'") + "'"
        return json.dumps(value)

    value = draw(values)
    return value, draw(gap) + write(value) + draw(gap)


@given(documents())
@settings(max_examples=150, deadline=None)
def test_every_way_of_writing_a_value_reads_the_same(document: tuple[Any, str]) -> None:
    value, text = document
    assert loads(text) == value
    assert _values(parse(text)) == value


@given(documents())
@settings(max_examples=60, deadline=None)
def test_json_five_agrees(document: tuple[Any, str]) -> None:
    value, text = document
    # json-five 1.1.2 leaves an escaped pair as two halves; ECMA-404 section 9 says that it is one character
    assume(re.search(r"\\ud[89ab]", text, re.IGNORECASE) is None)
    # and takes a bare key such as e0 for an exponent and a bare key such as Infinity for a number
    assume(re.search(r"[{,\s/][eE]\d|[{,\s/](Infinity|NaN|null|true|false)\w*\s*[:/]", text) is None)
    assert json_five.loads(text) == loads(text) == value


def _values(node: Node) -> Any:
    """The value rebuilt from the members and items, which must say the same as ``value``."""
    if isinstance(node.value, dict):
        return {member.key: _values(member.value) for member in node.members}
    if isinstance(node.value, list):
        return [_values(item) for item in node.items]
    return node.value
