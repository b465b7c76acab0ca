"""Close codes: one table, each with its advice, each documented (C24)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.close import CLOSE_CODES, MAX_REASON_BYTES, Close, CloseCode

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "close-codes.md"


def test_every_code_is_in_the_table() -> None:
    assert set(CLOSE_CODES) == set(CloseCode)


@pytest.mark.parametrize(
    ("code", "reconnect"), [(1000, True), (1001, True), (1008, False), (1012, True), (4001, False)]
)
def test_c24_the_table_says_whether_to_come_back(code: int, reconnect: bool) -> None:
    assert Close(CloseCode(code)).reconnect is reconnect


def test_c24_each_close_code_has_a_heading_that_agrees_with_the_table() -> None:
    text = DOCS.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\d+) [^\n]*\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == {str(int(code)) for code in CLOSE_CODES}
    for code, info in CLOSE_CODES.items():
        body = sections[str(int(code))]
        assert f"Reconnect: {'yes' if info.reconnect else 'no'}" in body
        assert info.meaning in body


@given(st.text())
def test_reason_fits_a_close_frame(reason: str) -> None:
    clipped = Close(CloseCode.POLICY, reason).reason
    assert len(clipped.encode("utf-8", "replace")) <= MAX_REASON_BYTES
    assert reason.encode("utf-8", "replace").startswith(clipped.encode("utf-8", "replace"))


def test_reason_is_clipped_between_characters() -> None:
    assert Close(CloseCode.POLICY, "a" + "ü" * 80).reason == "a" + "ü" * 61
