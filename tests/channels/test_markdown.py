"""Laws of the Markdown for Telegram: whatever an agent writes, the tags are Telegram's, balanced, and text is text."""

from __future__ import annotations

import time
from html import unescape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.channels.markdown import telegram_html


class Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=False)
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in {"b", "i", "s", "pre", "code", "a"}
        assert [name for name, _ in attributes] == (["href"] if tag == "a" else [])
        assert not {"pre", "code"} & set(self.open), "nothing stands inside of code"
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        assert "<" not in data
        self.text += data

    def handle_entityref(self, name: str) -> None:
        self.text += unescape(f"&{name};")

    def handle_charref(self, name: str) -> None:
        self.text += unescape(f"&#{name};")


MARKS = st.lists(
    st.sampled_from(
        ["**", "*", "__", "_", "~~", "`", "```", "\n", "# ", "[", "](http://a.b/", ")", "<b>", "&amp;", "x", " ", '"',
         "\0", "0", "https://", "</a>", "(", "py"]
    ),
    max_size=40,
)  # fmt: skip


@given(MARKS)
def test_the_result_is_always_balanced_and_escaped(parts: list[str]) -> None:
    reader = Reader(telegram_html("".join(parts)))
    assert not reader.open


@given(st.text(max_size=200))
def test_any_text_at_all_is_balanced(text: str) -> None:
    assert not Reader(telegram_html(text)).open


@given(st.text(st.sampled_from('ab <>&"\n'), max_size=100))
def test_text_without_marks_comes_back_as_it_was(text: str) -> None:
    assert Reader(telegram_html(text)).text == text


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("**bold** and *it*", "<b>bold</b> and <i>it</i>"),
        ("__bold__ _it_ ~~gone~~", "<b>bold</b> <i>it</i> <s>gone</s>"),
        ("snake_case_name 2*3*4", "snake_case_name 2*3*4"),
        ("# Title #\ntext", "<b>Title</b>\ntext"),
        ("`a<b`", "<code>a&lt;b</code>"),
        ("```python\nx = '**no**'\n```", "<pre>x = '**no**'</pre>"),
        ("[a & b](https://x.y/?a=1&b=2)", '<a href="https://x.y/?a=1&amp;b=2">a &amp; b</a>'),
        ("[x](javascript:alert(1))", "[x](javascript:alert(1))"),
        ("**a `b` c**", "<b>a <code>b</code> c</b>"),
    ],
)
def test_marks_become_tags(text: str, html: str) -> None:
    assert telegram_html(text) == html


@pytest.mark.parametrize(
    "hostile", ["#" + " " * 4000 + "x", "**a " * 1000, "[" * 4000, "`" * 4095, "_a" * 2000, "[a](http://" * 300]
)
def test_hostile_texts_take_no_time(hostile: str) -> None:
    began = time.process_time()
    telegram_html(hostile)
    assert time.process_time() - began < 0.5
