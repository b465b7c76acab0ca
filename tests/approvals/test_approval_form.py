"""The form of the approval page: read strictly, whatever comes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.approvals.form import STEPS, Form, is_form, read_form, request_in


def test_s091_a_form_is_read() -> None:
    body = b"step=show&request=0abd4ef7-3aa3-4747&secret=+s%26cret%C3%A9+&ticket="
    form = read_form(body)
    assert form == Form(step="show", request="0abd4ef7-3aa3-4747", secret="s&creté")
    assert "cret" not in repr(form)
    assert read_form(b"step=next&ticket=t1&request=r") == Form(step="next", request="r", ticket="t1")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"step", b"request=r1", b"step=",
        b"step=remove&request=r", b"step=show&step=approve", b"step=show&admin=1",
        b"step=show&request=%ff", b"step=show&request=r\xc3\xa9", b"step=show&secret=a&secret=b", b"{}",
        b"&".join(b"request=%d" % number for number in range(9)) + b"&step=show",
    ],
)  # fmt: skip
def test_what_is_not_this_form_is_none(body: bytes) -> None:
    assert read_form(body) is None


@pytest.mark.parametrize(
    "text", ["", "a b", "<script>", "r%00", "x" * 129, "\u202er1", "r1\n"[:2] + "\x07", "--latest", "-h"]
)
def test_a_request_that_is_no_id_is_nothing(text: str) -> None:
    from urllib.parse import quote

    assert request_in(f"request={quote(text)}".encode()) == ""
    form = read_form(f"step=show&request={quote(text)}".encode())
    assert form is not None
    assert form.request == ""


@pytest.mark.parametrize(
    ("query", "request_id"),
    [(b"request=r1", "r1"), (b"utm=x&request=r1", "r1"), (b"request=r1&request=r2", ""), (b"", ""), (b"token=t", "")],
)
def test_s091_the_address_names_the_request_and_nothing_else(query: bytes, request_id: str) -> None:
    assert request_in(query) == request_id


@given(st.binary(max_size=400))
def test_any_bytes_are_a_form_or_none(body: bytes) -> None:
    form = read_form(body)
    assert form is None or form.step in STEPS
    assert len(request_in(body)) <= 128


@pytest.mark.parametrize(
    ("kind", "is_one"),
    [
        (b"application/x-www-form-urlencoded", True),
        (b"Application/X-WWW-Form-URLencoded; charset=utf-8", True),
        (b"text/plain", False),
        (b"multipart/form-data; boundary=x", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_only_a_form_is_a_form(kind: bytes, is_one: bool) -> None:
    assert is_form(kind) is is_one
