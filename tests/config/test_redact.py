"""No secret leaves, whatever block it stands in; nothing else is hidden."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.config.json5 import loads
from openclaw_gateway.config.redact import (
    MARKER,
    MarkerRefusedError,
    is_secret_key,
    redact,
    redact_raw,
    refuse_marker,
    restore,
    secret_values,
)
from tests.config.test_json5 import documents

SECRET = "hunter2hunter2"

HIDDEN: list[Any] = [
    {"gateway": {"auth": {"token": SECRET}}},
    {"gateway": {"auth": {"password": SECRET, "passwordHash": SECRET}}},
    {"gateway": {"remote": {"token": SECRET, "password": SECRET}}},
    {"channels": {"telegram": {"botToken": SECRET}}},
    {"channels": {"slack": {"accounts": {"a": {"appToken": SECRET, "signingSecret": SECRET}}}}},
    {"channels": {"my.own": {"api_key": SECRET}}},
    {"models": {"providers": {"x": {"apiKey": SECRET, "headers": {"X-Api-Key": SECRET, "Authorization": SECRET}}}}},
    {"env": {"vars": {"OPENAI_API_KEY": SECRET, "GH_TOKEN": SECRET}}},
    {"hooks": {"token": SECRET, "tokens": [SECRET, SECRET]}},
    {"mcp": {"servers": {"a": {"args": ["--token", SECRET, f"--api-key={SECRET}"]}}}},
    {"web": {"proxy": f"http://user:{SECRET}@proxy:8080"}},
    {"web": {"url": f"https://h/x?token={SECRET}"}},
    {"web": {"url": f"wss://h/#access_token={SECRET}"}},
    {"credentials": {"user": SECRET, "deep": {"er": [SECRET]}}},
    {"plugins": {"x": {"clientSecret": SECRET, "privateKey": SECRET, "cookie": SECRET, "webhookUrl": SECRET}}},
    {"note": f"sk-{SECRET}"},
    {"note": f"ghp_{SECRET}"},
    {"note": "123456789:AA" + SECRET * 3},
    {"note": f"Bearer {SECRET}"},
    {"gateway": {"auth": {"token": ["x", {"y": SECRET}]}}},
]


@pytest.mark.parametrize("tree", HIDDEN, ids=[str(tree)[:50] for tree in HIDDEN])
@pytest.mark.parametrize("as_written", [False, True])
def test_auth4_v51_secrets_are_hidden_everywhere(tree: Any, as_written: bool) -> None:
    assert SECRET not in str(redact(tree, as_written=as_written))
    assert SECRET not in redact_raw(str(tree))
    assert any(SECRET in secret for secret in secret_values(tree))


SHOWN: list[Any] = [
    {
        "gateway": {
            "pairing": {"autoApprove": {"sharedSecret": "baseline"}},
            "auth": {"type": "token", "allowQueryToken": True},
        }
    },
    {"agents": {"maxTokens": 4096, "contextTokens": 5, "tokenizer": "x", "passwordChangedAt": "2026"}},
    {"a": {"token": "", "secret": None, "password": True}},
    {"a": {"botToken": {"source": "env", "provider": "default", "id": "BOT"}}},
    {"url": "https://host/path?page=2#part", "model": "openai/gpt", "list": ["--verbose", "yes"]},
    {"gateway": {"remote": {"url": "wss://host:18789"}}},
]


@pytest.mark.parametrize("tree", SHOWN, ids=[str(tree)[:50] for tree in SHOWN])
def test_what_is_no_secret_stays(tree: Any) -> None:
    assert redact(tree) == tree


def test_v53_a_reference_is_shown_as_written_and_hidden_once_resolved() -> None:
    tree = {"gateway": {"auth": {"token": "${GATEWAY_TOKEN}"}}}
    assert redact(tree, as_written=True) == tree
    assert redact(tree)["gateway"]["auth"]["token"] == MARKER
    half = {"gateway": {"auth": {"token": "x${GATEWAY_TOKEN}"}}}
    assert redact(half, as_written=True)["gateway"]["auth"]["token"] == MARKER
    escaped = {"gateway": {"auth": {"token": "$${GATEWAY_TOKEN}"}}}
    assert redact(escaped, as_written=True)["gateway"]["auth"]["token"] == MARKER, "that is the text itself"


@pytest.mark.parametrize(
    "key", ["token", "botToken", "BOT_TOKEN", "x-api-key", "clientSecrets", "passphrase", "sessionCookie"]
)
def test_secret_keys(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize(
    "key", ["type", "tokenize", "maxTokens", "secretary", "keyboard", "passwordChangedAt", "policy", "publicKey"]
)
def test_other_keys(key: str) -> None:
    assert not is_secret_key(key)


def test_text_keeps_everything_but_the_secrets() -> None:
    raw = '{ a: 1, // note\n  token: "' + SECRET + '", /* b */ c: [1, 2], token: "' + SECRET + '2" }'
    assert redact_raw(raw) == raw.replace(f'"{SECRET}2"', f'"{MARKER}"').replace(f'"{SECRET}"', f'"{MARKER}"')


def test_text_that_cannot_be_read_is_not_shown() -> None:
    assert redact_raw('{ token: "' + SECRET) == ""


@pytest.mark.parametrize(
    "comment",
    [
        f'// token: "{SECRET}"',
        f"/* password = {SECRET} */",
        f"// old one was {SECRET}",
        "// sk-" + SECRET,
        f"// https://u:{SECRET}@h/",
    ],
)
def test_comments_are_searched_too(comment: str) -> None:
    shown = redact_raw("{\n" + comment + "\n  token: '" + SECRET + "' }")
    assert SECRET not in shown
    assert loads(shown) == {"token": MARKER}


@given(documents())
def test_redacting_text_and_value_agree(document: tuple[Any, str]) -> None:
    value, text = document
    assert loads(redact_raw(text)) == redact(value, as_written=True)


TREES = st.recursive(
    st.text(max_size=5) | st.integers() | st.booleans() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["token", "apiKey", "a", "b", "url"]), inner, max_size=4)
    ),
    max_leaves=10,
)


@given(TREES)
def test_auth4_restore_undoes_redact(tree: Any) -> None:
    assert restore(redact(tree), tree) == tree
    assert restore(redact(tree, as_written=True), tree) == tree


@given(TREES)
def test_auth4_nothing_restored_holds_a_marker(tree: Any) -> None:
    try:
        refuse_marker(restore(redact(tree), {}))
    except MarkerRefusedError:
        assert redact(tree) != tree


def test_auth4_a_marker_does_not_follow_a_moved_list_entry() -> None:
    present = {"hooks": [{"id": "a", "token": "one"}, {"id": "b", "token": "two"}]}
    shown = redact(present)
    assert restore(shown, present) == present
    for moved in (list(reversed(shown["hooks"])), shown["hooks"][1:], [*shown["hooks"], {"token": MARKER}]):
        with pytest.raises(MarkerRefusedError):
            restore({"hooks": moved}, present)
