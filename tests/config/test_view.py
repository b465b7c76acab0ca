"""What may be shown, the JSON Schema, and that the documentation names every setting."""

from __future__ import annotations

import json
import re
from pathlib import Path

import attrs
import pytest

import openclaw_gateway
from openclaw_gateway.config import schema as schema_module
from openclaw_gateway.config.jsonschema import DESCRIPTIONS, json_schema
from openclaw_gateway.config.redact import MARKER
from openclaw_gateway.config.schema import ChannelConfig, GatewayConfig
from openclaw_gateway.config.settings import ALIASES, SECRETS, VALUE_ALIASES, collections, json_name, settings
from openclaw_gateway.config.view import UnknownPathError, effective, get_path, snapshot
from tests.config.conftest import SEED, Home

SECRET = "hunter2hunter2hunter2"
DOCUMENT = Path(openclaw_gateway.__path__[0]).parent / "docs" / "reference" / "configuration.md"


@pytest.fixture
def headings() -> set[str]:
    return set(re.findall(r"^#+ `([^`]+)`", DOCUMENT.read_text(), re.MULTILINE))


def test_docs_have_a_heading_for_every_setting_and_no_other(headings: set[str]) -> None:
    assert headings == set(settings()) | set(ALIASES)


def test_docs_name_defaults_as_the_schema_has_them() -> None:
    text = DOCUMENT.read_text()
    for path, setting in settings().items():
        section = text.split(f"`{path}`\n", 1)[1].split("\n#", 1)[0]
        if setting.required:
            assert "\nRequired.\n" in section, path
            continue
        shown = re.search(r"^Default: `([^`]*)`", section, re.MULTILINE)
        assert shown is not None, path
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        assert shown[1] == json.dumps(default), path


def test_every_field_of_every_class_is_a_setting() -> None:
    leaves = {path.rsplit(".", 1)[-1] for path in settings()}
    blocks = {part for path in settings() for part in path.split(".")[:-1]}
    for name in schema_module.__all__:
        for field in attrs.fields(getattr(schema_module, name)):
            if field.name not in {"state_dir", "extra"}:
                assert json_name(field.name) in leaves | blocks, (name, field.name)


def test_tables_name_real_settings() -> None:
    assert set(DESCRIPTIONS) == set(settings())
    assert set(ALIASES.values()) | set(VALUE_ALIASES) | SECRETS <= set(settings())
    assert not set(ALIASES) & set(settings())


def test_json_schema_has_every_setting() -> None:
    root = json_schema()
    json.dumps(root)
    for path, setting in settings().items():
        node, at = root, ""
        for part in path.split("."):
            if part == "*":
                node = node["items" if collections()[at].kind == "list" else "additionalProperties"]
            else:
                node = node["properties"][part]
            at = f"{at}.{part}".removeprefix(".")
        assert node["description"], path
        assert node.get("writeOnly", False) == setting.secret
        if setting.default is not None:
            assert node["default"] == (list(setting.default) if isinstance(setting.default, tuple) else setting.default)
    assert root["properties"]["gateway"]["properties"]["auth"]["properties"]["type"]["enum"] == [
        "token",
        "password",
        "none",
        "trusted-proxy",
    ]
    assert root["properties"]["gateway"]["properties"]["auth"]["properties"]["mode"]["deprecated"]
    assert root["additionalProperties"] is True


def test_s166_s171_paths_give_the_value_in_use(home: Home) -> None:
    loaded = home.load('{gateway: {auth: {mode: "none"}}, agents: {list: [{id: "a"}]}, channels: {slack: {mode: "x"}}}')
    assert get_path(loaded, "channels.telegram.dm.policy") == "pairing"
    assert get_path(loaded, "gateway.tailscale") == {"mode": "off", "resetOnExit": True}
    assert get_path(loaded, "gateway.port") == 18789
    assert get_path(loaded, "gateway.auth.mode") == get_path(loaded, "gateway.auth.type") == "none"
    assert get_path(loaded, "channels.slack.mode") == "x"
    assert get_path(loaded, "channels.slack.dmPolicy") == "pairing"
    assert get_path(loaded, "agents.list[0].id") == "a"


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("gateway.prot", "gateway.port"),
        ("port", "gateway.port"),
        ("gateway.tailscale.mod", "gateway.tailscale.mode"),
        ("channels.telegram.dm.polcy", "channels.telegram.dm.policy"),
        ("zzzzzz", None),
    ],
)
def test_unknown_paths_name_the_nearest(home: Home, path: str, meant: str | None) -> None:
    with pytest.raises(UnknownPathError) as caught:
        get_path(home.load("{}"), path)
    assert caught.value.nearest == meant


def test_auth4_v51_no_view_holds_a_secret(home: Home) -> None:
    home.env["GATEWAY_TOKEN"] = SECRET
    text = SEED.replace(
        "{\n  gateway",
        '{ channels: { telegram: { botToken: "%s" } }, env: { A_KEY: "x" }, // %s\n  gateway'.replace("%s", SECRET),
        1,
    )
    loaded = home.load(text)
    assert loaded.config.auth.token == SECRET
    for view in (
        snapshot(loaded),
        effective(loaded),
        get_path(loaded, "gateway"),
        get_path(loaded, "gateway.auth.token"),
    ):
        assert SECRET not in json.dumps(view)
    assert get_path(loaded, "gateway.auth.token") == MARKER
    assert "${GATEWAY_TOKEN}" in snapshot(loaded)["raw"]
    assert SECRET not in repr(loaded) + repr(loaded.config)


def test_config_get_has_the_shape_clients_read(home: Home) -> None:
    loaded = home.load("{gateway: {prot: 1, transports: {http: {port: 5}}}}")
    shown = snapshot(loaded, applied_hash="ab")
    assert {
        "path",
        "exists",
        "raw",
        "parsed",
        "sourceConfig",
        "resolved",
        "valid",
        "runtimeConfig",
        "config",
        "hash",
        "issues",
        "warnings",
        "legacyIssues",
        "includedPaths",
        "configRevisionHash",
        "appliedConfigHash",
    } <= shown.keys()
    assert (shown["valid"], shown["hash"], shown["appliedConfigHash"]) == (False, loaded.hash, "ab")
    assert shown["issues"][0]["path"] == "gateway.transports.http.port"
    assert "gateway.prot" in shown["warnings"][0]["message"]
    json.dumps(shown)


def test_effective_view_round_trips_through_a_load(home: Home) -> None:
    first = home.load(
        '{gateway: {port: 20000, trustedProxies: ["localhost"]}, channels: {telegram: {dm: {policy: "open"}}}}'
    )
    again = home.load(json.dumps(effective(first)))
    assert again.config == first.config
    assert not again.degraded


def test_an_empty_configuration_is_all_defaults() -> None:
    assert GatewayConfig().channels == {}
    assert ChannelConfig().dm.policy == "pairing"
