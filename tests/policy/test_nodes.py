"""Command policy: kinds by pinned metadata, ceilings, scopes, reserved fields. All pure."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.nodes import (
    CEILINGS,
    NODE_EVENTS,
    NodePolicy,
    approve_scopes,
    exec_capable,
    invoke_scope,
    node_kind,
    reserved_field,
)

DANGEROUS = (
    "camera.snap camera.clip camera.ptz.control screen.record contacts.add calendar.add reminders.add health.summary "
    "sms.send sms.search codex.exec-server.stdio.v1 file.read dir.list workspace.skills nope"
)


@pytest.mark.parametrize(
    ("platform", "family", "client", "kind"),
    [
        ("linux", "Linux", "node-host", "cli"),
        ("linux", "", "openclaw-linux", "linux"),
        ("macOS 15.1", "Mac", "openclaw-macos", "macos"),
        ("darwin", "", "node-host", "macos"),
        ("iOS 18.4.0", "iPhone", "openclaw-ios", "ios"),
        ("ipados", "iPad", "openclaw-ios", "ios"),
        ("android", "Pixel 9", "openclaw-android", "android"),
        ("win32", "Windows", "node-host", "windows"),
        ("watchos", "", "openclaw-watchos", "watchos"),
        ("", "Linux", "node-host", "unknown"),
        ("ios", "Linux", "node-host", "unknown"),  # they contradict each other
        ("plan9", "", "node-host", "unknown"),
        ("l\u0456nux", "", "node-host", "unknown"),  # a Cyrillic letter
        (" LINUX ", "linux", "node-host", "cli"),
    ],
)
def test_v31_the_kind_comes_from_normalised_metadata(platform: str, family: str, client: str, kind: str) -> None:
    assert node_kind(platform, family, client) == kind


def test_default_deny_and_the_dangerous_need_an_opt_in() -> None:
    bare, opted = NodePolicy(), NodePolicy(allow=frozenset({"camera.snap"}))
    for dangerous in DANGEROUS.split():
        assert not any(bare.permits(dangerous, kind) for kind in CEILINGS)
    assert all(opted.permits("camera.snap", kind) for kind in CEILINGS)
    for kind in ("ios", "android", "watchos", "unknown"):
        assert not bare.permits("system.run", kind)


def test_deny_always_wins_and_names_are_exact() -> None:
    policy = NodePolicy(allow=frozenset({"system.run"}), deny=frozenset({"system.run"}))
    assert policy.ceiling(["system.run", "system.which", "system.which", "System.Run"], "cli") == ("system.which",)


@pytest.mark.parametrize(
    ("commands", "scope"),
    [
        ((), ()),
        (("system.notify",), ("operator.write",)),
        (("camera.list", "location.get"), ("operator.write",)),
        (("system.notify", "system.run"), ("operator.admin",)),
        (("system.which",), ("operator.admin",)),
        (("fs.listDir",), ("operator.admin",)),
        (("system.execApprovals.set",), ("operator.admin",)),
        (("codex.exec-server.stdio.v1",), ("operator.admin",)),
        (("my.shell",), ("operator.admin",)),
    ],
)
def test_v20_what_runs_programs_takes_an_administrator(commands: tuple[str, ...], scope: tuple[str, ...]) -> None:
    assert approve_scopes(commands) == ("operator.pairing", *scope)
    assert any(map(exec_capable, commands)) == (scope == ("operator.admin",))


def test_relaying_some_commands_takes_an_administrator_each_time() -> None:
    assert invoke_scope("system.run") == "operator.write"
    for command in ("browser.proxy", "browser.proxy.upload.v1", "fs.listDir", "terminal.upload"):
        assert invoke_scope(command) == "operator.admin"
    assert invoke_scope("system.execApprovals.set") == "operator.admin"


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"approved": True}, "/approved"),
        ({"a": {"b": [{"c": {"approvalDecision": "allow"}}]}}, "/a/b/c/approvalDecision"),
        ({"Approved": 1}, "/Approved"),
        ({"ap_pro-ved": 1}, "/ap_pro-ved"),
        ({"approved\u200b": 1}, "/approved\u200b"),
        ({"execApprovalId": "x"}, "/execApprovalId"),
        ({"systemRunPlan": {}}, "/systemRunPlan"),
        ({"deep": {"runId": "r"}}, "/deep/runId"),
        ([[{"approved": True}]], "/approved"),
    ],
)
def test_v30_reserved_fields_are_found_at_any_depth_and_spelling(params: Any, field: str) -> None:
    assert reserved_field(params, "system.run") == field


def test_v30_a_run_id_is_only_overlooked_where_the_gateway_replaces_it() -> None:
    assert reserved_field({"command": ["ls"], "runId": "mine"}, "system.run") is None
    assert reserved_field({"runId": "mine"}, "system.which") == "/runId"
    assert reserved_field({"run_id": "mine"}, "system.run") == "/run_id"


def test_v30_a_policy_file_and_plain_values_are_no_fields() -> None:
    assert reserved_field({"file": {"approvals": []}}, "system.execApprovals.set") is None
    assert reserved_field({"command": ["git", "approved", "--approve"]}, "system.run") is None
    assert reserved_field("approved", "x") is None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=20,
)


@given(_json, st.lists(st.sampled_from(["a", "b", 0]), max_size=6))
def test_v30_wherever_it_is_hidden_it_is_found(value: Any, path: list[Any]) -> None:
    nested: Any = {"approved": True, "rest": value}
    for step in path:
        nested = [nested] if step == 0 else {step: nested}
    assert reserved_field(nested, "system.run") is not None


def test_v30_nesting_cannot_exhaust_the_search() -> None:
    deep: Any = {"approved": True}
    for _ in range(100_000):
        deep = [deep]
    assert reserved_field(deep, "x") == "/approved"


def test_v32_the_events_of_a_node_are_a_closed_list() -> None:
    assert {
        "exec.started",
        "exec.finished",
        "exec.denied",
        "node.host.stats",
        "node.presence.alive",
        "node.presence.activity",
    } == NODE_EVENTS
