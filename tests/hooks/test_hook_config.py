"""Webhooks and logins as the configuration says them: what is off, what is closed, what is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from openclaw_gateway.config import LoadedConfig, load_config
from openclaw_gateway.config.structure import CLOSED, FATAL

LONG = "a-secret-of-its-own-0123456789"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / ".openclaw"
    folder.mkdir(mode=0o700)
    return folder


def load(state: Path, text: str) -> LoadedConfig:
    path = state / "openclaw.json"
    path.write_text(text.replace("LONG", LONG))
    path.chmod(0o600)
    return load_config(env={"HOME": str(state.parent)})


def test_everything_is_off_by_default(state: Path) -> None:
    config = load(state, "{}").config
    assert not config.hooks.enabled
    assert config.hooks.outbound == ()
    assert config.auth.oidc.issuer is None


def test_the_block_of_openclaws_documentation_loads(state: Path) -> None:
    loaded = load(
        state,
        """{hooks: {enabled: true, token: "LONG", path: "hooks/", allowedAgentIds: ["main"],
        allowRequestSessionKey: false, presets: ["gmail"], internal: {enabled: true},
        mappings: [{id: "b", match: {path: "/build/"}, action: "agent", wakeMode: "now", name: "Build",
        messageTemplate: "{{status}}", deliver: true, channel: "telegram", to: "1"}]}}""",
    )
    hooks = loaded.config.hooks
    assert (hooks.enabled, hooks.path, hooks.allowed_agent_ids) == (True, "/hooks", ("main",))
    assert hooks.mappings[0].match.path == "build"
    assert loaded.issues == ()


def test_a_secret_that_cannot_be_had_switches_off_what_needs_it_and_nothing_else(state: Path) -> None:
    loaded = load(
        state,
        """{gateway: {auth: {oidc: {issuer: "https://id.example", clientId: "c", clientSecret: "${NOT_SET}"}}},
        hooks: {enabled: true, token: "${NOT_SET_EITHER}"}}""",
    )
    assert not loaded.config.hooks.enabled
    assert loaded.config.auth.oidc.issuer is None
    paths = [issue.path for issue in loaded.issues]
    assert {"hooks.token", "gateway.auth.oidc.clientSecret"} <= set(paths)
    assert all(issue.severity != "fatal" for issue in loaded.issues)


@pytest.mark.parametrize(
    "text",
    [
        '{gateway: {auth: {token: "LONG"}}, hooks: {enabled: true, token: "LONG"}}',
        '{gateway: {auth: {type: "password", password: "LONG"}}, hooks: {enabled: true, token: "LONG"}}',
        '{gateway: {remote: {token: "LONG"}}, hooks: {enabled: true, token: "LONG"}}',
        '{gateway: {auth: {token: "LONG"}}, hooks: {enabled: true, mappings: [{secret: "LONG", textTemplate: "x"}]}}',
    ],
    ids=["token", "password", "remote", "mapping"],
)
def test_v42_secrets_that_are_shared_switch_webhooks_off(state: Path, text: str) -> None:
    loaded = load(state, text)
    assert not loaded.config.hooks.enabled
    assert any("also a secret of the gateway" in issue.message for issue in loaded.issues)
    assert not any(LONG in str(issue) for issue in loaded.issues)


@pytest.mark.parametrize("path", ["/", "", "/a//b", "/auth", "/v1/x", "/j", "/hooks/../x", "/hook s", "/%68ooks", 7])
def test_a_base_path_is_one_of_its_own(state: Path, path: object) -> None:
    written = f'"{path}"' if isinstance(path, str) else str(path)
    loaded = load(state, "{hooks: {path: " + written + "}}")
    assert loaded.config.hooks.path == "/hooks"
    assert [issue.path for issue in loaded.issues] == ["hooks.path"]


def test_what_decides_who_may_come_in_fails_closed() -> None:
    assert CLOSED["hooks.enabled"] is False
    assert CLOSED["hooks.allowedAgentIds"] == CLOSED["gateway.auth.oidc.allowUsers"] == ()
    secrets = {"hooks.token", "hooks.mappings.*.secret", "hooks.outbound.*.secret", "gateway.auth.oidc.clientSecret"}
    assert secrets <= FATAL


def test_login_settings_that_do_not_go_together_are_told(state: Path) -> None:
    loaded = load(state, '{gateway: {bind: "lan", auth: {token: "LONG", oidc: {issuer: "https://id.example"}}}}')
    assert [issue.path.rsplit(".", 1)[-1] for issue in loaded.issues] == ["clientId", "allowUsers", "redirectUri"]
    for issuer in ("http://id.example", "id.example", "https://u:p@id.example", "https://id.example?x=1"):
        loaded = load(state, '{gateway: {auth: {oidc: {issuer: "' + issuer + '"}}}}')
        assert loaded.config.auth.oidc.issuer is None
