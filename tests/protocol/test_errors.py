"""The error table: complete rows, documented, and the texts that clients match on."""

from __future__ import annotations

import re
import string
from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway.protocol.errorrows import ErrorRow, credentials, handshake, messages, nodes, tokens
from openclaw_gateway.protocol.errors import ERRORS, assembled, wire_error

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
BLANKS = {
    "fault": "F",
    "hint": "H",
    "incident": "I",
    "limit": 1,
    "method": "m",
    "role": "node",
    "scope": "operator.read",
    "seconds": 1.0,
}


@pytest.mark.parametrize("key", sorted(ERRORS))
def test_row_is_complete_and_can_be_filled_in(key: str) -> None:
    row = ERRORS[key]
    assert row.meaning.endswith(".")
    assert row.fix
    used = {name for _, name, _, _ in string.Formatter().parse(row.message) if name}
    blanks: dict[str, Any] = {name: BLANKS.get(name, "x") for name in used}
    error = wire_error(key, **blanks)
    assert error.key == key
    assert "key" not in error.to_wire()
    assert "{" not in error.message.replace("${", "")


def test_a_name_stands_in_one_area_alone() -> None:
    assert assembled(nodes.ROWS, messages.ROWS) == {**nodes.ROWS, **messages.ROWS}
    with pytest.raises(ValueError, match="there twice: node-busy"):
        assembled(nodes.ROWS, messages.ROWS, {"node-busy": nodes.ROWS["node-busy"]})


@pytest.mark.parametrize("area", [handshake, credentials], ids=["handshake", "credentials"])
def test_what_turns_a_connect_away_says_how_the_connection_closes(area: Any) -> None:
    rows: dict[str, ErrorRow] = area.ROWS
    assert rows
    assert [key for key, row in rows.items() if row.close is None] == []


@pytest.mark.parametrize("area", [nodes, messages, tokens], ids=["nodes", "messages", "tokens"])
def test_what_a_method_answers_with_leaves_the_connection_open(area: Any) -> None:
    rows: dict[str, ErrorRow] = area.ROWS
    assert rows
    assert [key for key, row in rows.items() if row.close is not None] == []


def test_each_row_has_a_heading_that_agrees_with_the_table() -> None:
    text = DOCS.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### ([a-z-]+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(ERRORS)
    for key, row in ERRORS.items():
        body = sections[key]
        for fact in (
            row.code,
            row.message.replace("{{", "{").replace("}}", "}"),
            row.meaning,
            row.fix,
            row.detail or "",
        ):
            assert fact in body, (key, fact)


@pytest.mark.parametrize(
    ("key", "code", "message", "detail", "close"),
    [
        ("first-not-connect", "INVALID_REQUEST", "invalid handshake: first request must be connect", None, 1008),
        ("protocol-mismatch", "INVALID_REQUEST", "protocol mismatch", "PROTOCOL_MISMATCH", 1002),
        ("invalid-role", "INVALID_REQUEST", "invalid role", None, 1008),
        ("device-identity-required", "NOT_PAIRED", "device identity required", "DEVICE_IDENTITY_REQUIRED", 1008),
        ("device-id-mismatch", "INVALID_REQUEST", "device identity mismatch", "DEVICE_AUTH_DEVICE_ID_MISMATCH", 1008),
        (
            "device-signature-stale",
            "INVALID_REQUEST",
            "device signature expired",
            "DEVICE_AUTH_SIGNATURE_EXPIRED",
            1008,
        ),
        ("device-nonce-missing", "INVALID_REQUEST", "device nonce required", "DEVICE_AUTH_NONCE_REQUIRED", 1008),
        ("device-nonce-mismatch", "INVALID_REQUEST", "device nonce mismatch", "DEVICE_AUTH_NONCE_MISMATCH", 1008),
        ("device-signature", "INVALID_REQUEST", "device signature invalid", "DEVICE_AUTH_SIGNATURE_INVALID", 1008),
        (
            "auth-device-token-mismatch",
            "INVALID_REQUEST",
            "unauthorized: device token mismatch (rotate/reissue device token)",
            "AUTH_DEVICE_TOKEN_MISMATCH",
            1008,
        ),
        (
            "auth-scope-mismatch",
            "INVALID_REQUEST",
            "unauthorized: device token scope mismatch (re-pair or approve scope upgrade)",
            "AUTH_SCOPE_MISMATCH",
            1008,
        ),
        ("pairing-not-paired", "NOT_PAIRED", "pairing required: device is not approved yet", "PAIRING_REQUIRED", 1008),
        ("gateway-starting", "UNAVAILABLE", "gateway starting; retry shortly", None, 1013),
    ],
)
def test_texts_that_official_clients_match_on(
    key: str, code: str, message: str, detail: str | None, close: int
) -> None:
    row = ERRORS[key]
    assert (row.code, row.message, row.detail, row.close) == (code, message, detail, close)
