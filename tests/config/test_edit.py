"""Changing the text: comments, references, styles stay; the marker never gets in."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from openclaw_gateway.config.edit import EditError, merge_patch, parse_path, set_value, unset_value
from openclaw_gateway.config.json5 import loads
from openclaw_gateway.config.redact import MARKER, MarkerRefusedError
from tests.config.test_json5 import BLOCKS, documents

TEXT = """\
// OpenClaw
{
  // the gateway
  gateway: {
    bind: "loopback",  // local only
    port: 18789,
    auth: { type: "token", token: "${GATEWAY_TOKEN}" }, // auth
  },
  channels: {
    telegram: { dm: { policy: "pairing" } } // tg
  }
}
"""


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_cfg5_v53_a_value_is_replaced_in_its_place() -> None:
    assert changed(TEXT, set_value(TEXT, "gateway.port", 18790)) == (["    port: 18789,"], ["    port: 18790,"])


def test_v53_a_new_member_leaves_reference_and_comment() -> None:
    out = set_value(TEXT, "gateway.auth.expiresIn", "24h")
    assert 'auth: { type: "token", token: "${GATEWAY_TOKEN}", expiresIn: "24h" }, // auth' in out


def test_a_new_block_takes_the_style_around_it() -> None:
    assert changed(TEXT, set_value(TEXT, "gateway.tailscale.mode", "serve")) == (
        [],
        ["    tailscale: {", '      mode: "serve"', "    },"],
    )
    out = set_value(TEXT, "channels.discord.dm.policy", "open")
    assert 'telegram: { dm: { policy: "pairing" } }, // tg\n    discord: {\n' in out


def test_a_new_file_is_strict_json() -> None:
    assert json.loads(set_value("", "gateway.port", 1)) == {"gateway": {"port": 1}}
    assert json.loads(set_value('{"gateway":{"port":1}}', "gateway.bind", "lan"))["gateway"] == {
        "port": 1,
        "bind": "lan",
    }


def test_a_block_is_merged_so_that_what_is_equal_keeps_its_text() -> None:
    out = set_value(
        TEXT, "gateway", {"bind": "lan", "port": 18789, "auth": {"type": "token", "token": "${GATEWAY_TOKEN}"}}
    )
    assert changed(TEXT, out) == (['    bind: "loopback",  // local only'], ['    bind: "lan",  // local only'])
    assert set_value(TEXT, "gateway.port", 18789) == TEXT


def test_c1_c10_a_setting_is_changed_under_the_name_the_file_has() -> None:
    assert (
        set_value('{gateway: {auth: {mode: "token"}}}', "gateway.auth.type", "none")
        == '{gateway: {auth: {mode: "none"}}}'
    )
    assert (
        set_value('{gateway: {auth: {type: "token"}}}', "gateway.auth.mode", "none")
        == '{gateway: {auth: {type: "none"}}}'
    )
    text = '{channels: {telegram: {dmPolicy: "open"}}}'
    assert set_value(text, "channels.telegram.dm.policy", "pairing") == text.replace("open", "pairing")
    assert unset_value(text, "channels.telegram.dm.policy") == ("{channels: {telegram: {}}}", True)


@pytest.mark.parametrize(
    ("text", "path", "left"),
    [
        ('{"a": 1, "b": 2}', "b", '{"a": 1 }'),
        ('{"a": 1, "b": 2}', "a", '{"b": 2}'),
        ('{\n  "a": 1,\n  "b": 2\n}', "b", '{\n  "a": 1\n}'),
        ('{\n  "a": 1,\n  "b": 2\n}', "a", '{\n  "b": 2\n}'),
        ("{\n  a: 1, // one\n  b: 2, // two\n}", "a", "{\n  b: 2, // two\n}"),
        ("{a: 1, a: 2}", "a", "{}"),
        ("{\r\n  a: 1,\r\n  b: 2\r\n}", "b", "{\r\n  a: 1\r\n}"),
    ],
)
def test_unset(text: str, path: str, left: str) -> None:
    out, found = unset_value(text, path)
    assert found
    assert loads(out) == loads(left)
    assert out.replace(" ", "") == left.replace(" ", "")
    if '"' in text:
        json.loads(out)


def test_unset_of_what_is_not_there() -> None:
    assert unset_value(TEXT, "gateway.nothing") == (TEXT, False)


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("a.b", ("a", "b")),
        ("a[0].b", ("a", "0", "b")),
        ('a["x.y"].z', ("a", "x.y", "z")),
        ("a['b']", ("a", "b")),
        ("a.0", ("a", "0")),
    ],
)
def test_paths(path: str, steps: tuple[str, ...]) -> None:
    assert parse_path(path) == steps


@pytest.mark.parametrize("bad", ["", ".", "a..b", "a[", "a[x]", 'a["b]', "a]", ".".join("a" * 40)])
def test_bad_paths(bad: str) -> None:
    with pytest.raises(EditError):
        parse_path(bad)


@pytest.mark.parametrize("path", ["gateway.port.x", "gateway.auth.type.y", "channels[0]", "list[5]"])
def test_a_value_is_no_block(path: str) -> None:
    text = TEXT.replace("// OpenClaw\n{", "// OpenClaw\n{ list: [1],")
    with pytest.raises(EditError):
        set_value(text, path if path != "channels[0]" else "list[0].x", 1)


def test_broken_text_is_never_edited() -> None:
    with pytest.raises(EditError, match="line 1"):
        set_value("{a:", "b", 1)
    with pytest.raises(EditError):
        set_value("[1]", "b", 1)


def test_auth4_a_bare_marker_is_refused() -> None:
    for path in ("gateway.auth.token", "gateway.bind", "channels.telegram.botToken"):
        with pytest.raises(MarkerRefusedError):
            set_value(TEXT, path, MARKER)
    with pytest.raises(MarkerRefusedError):
        set_value(TEXT, "gateway.auth.token", f"x{MARKER}")


def test_auth4_a_block_with_markers_keeps_what_is_there() -> None:
    assert set_value(TEXT, "gateway.auth", {"type": "token", "token": MARKER}) == TEXT
    out = set_value(TEXT, "gateway.auth", {"type": "token", "token": MARKER, "expiresIn": "1h"})
    assert "${GATEWAY_TOKEN}" in out
    assert merge_patch(TEXT, {"gateway": {"auth": {"token": MARKER}}}) == TEXT
    with pytest.raises(MarkerRefusedError):
        set_value(TEXT, "gateway.auth", {"type": "password", "password": MARKER})
    with pytest.raises(MarkerRefusedError):
        set_value(TEXT, "gateway", {MARKER: 1})


def test_rfc7396_merge_patch() -> None:
    patch = {"gateway": {"port": None, "nothing": None, "tailscale": {"mode": "serve", "x": None}}, "channels": None}
    out = merge_patch(TEXT, patch)
    value = loads(out)
    assert "channels" not in value
    assert value["gateway"] == {
        "bind": "loopback",
        "auth": {"type": "token", "token": "${GATEWAY_TOKEN}"},
        "tailscale": {"mode": "serve"},
    }
    assert "// local only" in out


SCALARS = (
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
)
NEW = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab. $é", max_size=3), inner, max_size=3),
    max_leaves=6,
)
STEPS = st.lists(st.sampled_from(["a", "b", "c", "dd"]), min_size=1, max_size=3)


@given(documents(BLOCKS), STEPS, NEW)
@settings(max_examples=100, deadline=None)
def test_setting_changes_exactly_one_value(document: tuple[Any, str], steps: list[str], new: Any) -> None:
    before, text = document
    wanted = copy.deepcopy(before)
    holder = wanted
    for step in steps[:-1]:
        if holder.get(step) is None:
            holder[step] = {}
        assume(isinstance(holder[step], dict))
        holder = holder[step]
    holder[steps[-1]] = new
    after = set_value(text, ".".join(steps), new)
    assert json.dumps(loads(after), sort_keys=True) == json.dumps(wanted, sort_keys=True)
    assert after.count("x */") >= text.count("x */") or isinstance(before.get(steps[0]), dict | list)


@given(documents(BLOCKS))
@settings(max_examples=100, deadline=None)
def test_unsetting_removes_exactly_one_key(document: tuple[Any, str]) -> None:
    before, text = document
    assume(before)
    key = sorted(before)[0]
    after, found = unset_value(text, f'["{key}"]')
    assert found
    assert loads(after) == {name: value for name, value in before.items() if name != key}


def reference_merge(target: Any, patch: Any) -> Any:
    """RFC 7396 section 2, as the RFC has it."""
    if not isinstance(patch, dict):
        return patch
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = reference_merge(out.get(key), value)
    return out


TREE = st.dictionaries(
    st.sampled_from("abc"),
    st.recursive(SCALARS, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_size=3,
)


@given(TREE, TREE)
@settings(max_examples=80, deadline=None)
def test_rfc7396_agrees_with_the_reference(target: Any, patch: Any) -> None:
    assert loads(merge_patch(json.dumps(target, indent=2), patch)) == reference_merge(target, patch)
