"""Laws of cutting: nothing is lost, nothing is too long, fences are whole in every piece."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.channels.text import length, pieces

TEXTS = st.text(st.sampled_from("ab \n`😀é"), max_size=600)


@given(TEXTS, st.integers(0, 200))
def test_no_piece_is_empty_or_longer_than_the_limit(text: str, limit: int) -> None:
    for piece in pieces(text, limit):
        assert piece.strip()
        assert length(piece) <= max(limit, 64)
        assert length(piece) == len(piece.encode("utf-16-le")) // 2


@given(st.text(st.sampled_from("ab \n😀é`"), max_size=600).filter(lambda text: "```" not in text), st.integers(0, 200))
def test_the_pieces_hold_the_text_in_order(text: str, limit: int) -> None:
    assert "".join("".join(pieces(text, limit)).split()) == "".join(text.split())


@given(st.lists(st.sampled_from(["```\n", "word ", "a longer line of text\n", "x" * 90]), max_size=30))
def test_every_piece_has_whole_fences_and_all_words(parts: list[str]) -> None:
    text = "".join(parts)
    found = pieces(text, 100)
    assert all(piece.count("```") % 2 == 0 for piece in found)
    assert "".join("".join(found).replace("```", "").split()) == "".join(text.replace("```", "").split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n ", []),
        ("short", ["short"]),
        ("a" * 30 + "\n\n" + "b" * 40, ["a" * 30, "b" * 40]),
        ("one two " * 10, [("one two " * 7).strip(), ("one two " * 3).strip()]),
    ],
)
def test_cuts_are_at_paragraphs_then_words(text: str, expected: list[str]) -> None:
    assert pieces(text, 64) == expected


def test_an_emoji_counts_as_the_services_count() -> None:
    assert length("😀") == 2
    assert [length(piece) for piece in pieces("😀" * 100, 64)] == [56, 56, 56, 32]
