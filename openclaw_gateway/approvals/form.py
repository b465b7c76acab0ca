"""What comes in: the address of the approval page and the body of its form, read strictly.

Pure: bytes in, a value or None out. Invariants: a field that is there twice, that nobody knows, or that is no UTF-8
makes the whole form none; nothing in here is kept, and what a person typed as his credential is in no repr.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

import attrs

from openclaw_gateway.value import Value

__all__ = ["CONTENT_TYPE", "STEPS", "Form", "is_form", "read_form", "request_in"]

CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
STEPS: Final = ("show", "approve", "reject", "next")
_FIELDS: Final = frozenset({"step", "request", "secret", "ticket"})
# The page tells commands with the id in them to type on the gateway's host: it must not be one of their options.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:][A-Za-z0-9._:-]{0,127}")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Form(Value):
    """``request`` is "" where what was sent is no request id; ``secret`` and ``ticket`` are None where left empty."""

    step: str
    request: str = ""
    secret: str | None = attrs.field(default=None, repr=False)
    ticket: str | None = attrs.field(default=None, repr=False)


def is_form(content_type: bytes) -> bool:
    """Whether a Content-Type header says that a body is a form's (WHATWG URL section 5)."""
    return content_type.partition(b";")[0].strip().lower() == CONTENT_TYPE.encode()


def read_form(body: bytes) -> Form | None:
    """The form in a body; None where it is not one of ours."""
    fields = _fields(body)
    if fields is None or not _FIELDS.issuperset(fields) or fields.get("step") not in STEPS:
        return None
    return Form(
        step=fields["step"],
        request=_request_id(fields.get("request", "")),
        # As with Authorization: what a paste brought along around it is not part of it.
        secret=fields.get("secret", "").strip() or None,
        ticket=fields.get("ticket") or None,
    )


def request_in(query: bytes) -> str:
    """The request id that an address names; "" where it names none. Other parameters do not matter."""
    fields = _fields(query)
    return _request_id(fields.get("request", "")) if fields is not None else ""


def _fields(data: bytes) -> dict[str, str] | None:
    try:
        pairs = parse_qsl(
            data.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=8
        )
    except ValueError:  # UnicodeDecodeError is one, too
        return None
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else None


def _request_id(text: str) -> str:
    text = text.strip()
    return text if _REQUEST_ID.fullmatch(text) else ""
