"""What the error table tells people to run or read is there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from openclaw_gateway.cli.complaints import explain
from openclaw_gateway.cli.main import cli
from openclaw_gateway.client import errors as client_errors
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.protocol.errors import ERRORS, hinted, wire_error

ROOT = Path(__file__).resolve().parent.parent
FIXES = {**{name: row.fix for name, row in ERRORS.items()}, **client_errors._FIXES}


def unknown_word(text: str) -> str | None:
    """The first word after ``openclaw`` that names no command of its group; None where all do."""
    group: click.Command = cli
    context = click.Context(cli)
    for word in text.split():
        if not isinstance(group, click.Group):
            return None
        if not re.fullmatch(r"[a-z][a-z-]*", word):
            return None if group is not cli else word
        found = group.get_command(context, word)
        if found is None:
            return word
        group = found
    return None


def test_the_check_itself_finds_what_is_not_there() -> None:
    assert unknown_word("connect <setup code>") == "connect"
    assert unknown_word("devices explode <id>") == "explode"
    assert unknown_word("devices approve <requestId>") is None


@pytest.mark.parametrize("name", FIXES)
def test_m5_every_command_and_page_that_a_fix_names_exists(name: str) -> None:
    fix = FIXES[name]
    for command in re.findall(r"\bopenclaw ((?:[a-z][a-z-]*|<[^>]*>)(?: [a-z][a-z-]*)*)", fix):
        if command not in {"command", "command against another host makes one"}:  # "any openclaw command"
            assert unknown_word(command) is None, fix
    for page in re.findall(r"docs/[\w/.-]+\.md", fix):
        assert (ROOT / page).is_file(), page


@pytest.mark.parametrize("key", ["first-not-connect", "connection-limit", "shutting-down"])
def test_m6_an_error_of_the_handshake_carries_the_fix_of_its_row(key: str) -> None:
    error = hinted(wire_error(key))
    assert (error.details or {})["remediationHint"] == ERRORS[key].fix
    assert hinted(error) is error


def test_m6_the_gateways_own_hint_comes_before_the_clients_table() -> None:
    details = {"code": "AUTH_TOKEN_MISMATCH", "remediationHint": "do this", "hint": "or that"}
    assert client_errors.fix_for(details) == "do this"
    assert client_errors.fix_for({"code": "AUTH_TOKEN_MISMATCH"}) == client_errors._FIXES["AUTH_TOKEN_MISMATCH"]


@pytest.mark.parametrize(
    ("details", "fix"),
    [
        ({"code": "QUEUE_MESSAGE_UNKNOWN"}, "\n  fix: openclaw queue list"),
        ({"code": "CHANNEL_UNKNOWN"}, "\n  fix: openclaw channels list"),
        ({"code": "CHANNEL_UNKNOWN", "remediationHint": "do this"}, "\n  fix: do this"),
        ({"code": "PAIRING_CHANGED"}, ""),  # two rows, two fixes: none is better than the wrong one
        ({"code": "NOTHING"}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_m5_a_command_gives_the_fix_of_the_row_where_the_gateway_sent_only_its_code(
    details: dict[str, object] | None, fix: str
) -> None:
    text, exit_code = explain(CallFailed("INVALID_REQUEST", "no", details=details))
    assert (text, exit_code) == (f"openclaw: the gateway refused: no{fix}", 1)
