"""Loading: where from, precedence, interpolation, aliases, and what happens with every kind of fault."""

from __future__ import annotations

import copy
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from openclaw_gateway.config import ConfigError, ConfigIssue, GatewayConfig, config_path, load_config, state_dir
from openclaw_gateway.config.interpolate import Unresolved, fill
from openclaw_gateway.config.lastgood import read_good, remember_good
from openclaw_gateway.config.load import check_text
from openclaw_gateway.config.paths import last_good_path
from openclaw_gateway.config.settings import settings
from openclaw_gateway.config.structure import CLOSED
from tests.config.conftest import SEED, Home

SECRET = "a-token-of-some-length"


def fatal(home: Home, text: str, **overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        home.load(text, **overrides)
    assert caught.value.exit_code == 78
    return str(caught.value)


# --- where from ---


def test_paths_follow_the_environment(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert config_path(home) == tmp_path / ".openclaw" / "openclaw.json"
    assert config_path({**home, "OPENCLAW_STATE_DIR": "/var/oc"}) == Path("/var/oc/openclaw.json")
    both = {**home, "OPENCLAW_STATE_DIR": "/var/oc", "OPENCLAW_CONFIG_PATH": "~/my.json5"}
    assert config_path(both) == tmp_path / "my.json5"
    assert state_dir(both) == Path("/var/oc")
    assert state_dir({**home, "OPENCLAW_STATE_DIR": "  "}) == tmp_path / ".openclaw"


def test_no_file_gives_the_defaults(home: Home) -> None:
    loaded = home.load()
    assert not loaded.exists
    assert not loaded.degraded
    assert loaded.config == GatewayConfig(state_dir=home.state)
    assert not home.state.exists(), "reading makes nothing"


def test_v55_dot_env_is_never_read(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write(SEED)
    for directory in (home.root, home.state):
        (directory / ".env").write_text(
            "GATEWAY_TOKEN=planted\nOPENCLAW_GATEWAY_PORT=1\nOPENCLAW_CONFIG_PATH=/etc/passwd\n"
        )
        monkeypatch.chdir(directory)
        assert "GATEWAY_TOKEN" in fatal(home, SEED)


@pytest.mark.parametrize("kind", ["directory", "not utf-8", "unreadable"])
def test_a_file_that_cannot_be_read_is_not_an_absent_one(home: Home, kind: str) -> None:
    home.state.mkdir()
    if kind == "directory":
        home.file.mkdir()
    elif kind == "not utf-8":
        home.file.write_bytes(b'{"gateway": "\xff"}')
    else:
        home.file.symlink_to(home.file)
    with pytest.raises(ConfigError):
        load_config(env=home.env)


# --- the seed's blocks ---

SEED_BLOCKS = {
    "S036 basic": SEED,
    "S112 transports": """{ gateway: { transports: {
        websocket: { enabled: true, pingIntervalMs: 30000, pingTimeoutMs: 10000, maxMessageSize: 104857600 },
        http: { enabled: true, port: 18789, cors: { enabled: true, origins: ["*"] } } } } }""",
    "S126 tailscale": '{ gateway: { bind: "loopback", tailscale: { mode: "serve", resetOnExit: true } } }',
    "S129 funnel": """{ gateway: { bind: "loopback", tailscale: { mode: "funnel" },
        auth: { type: "password", passwordHash: "%s", allowTailscale: false } } }""",
    "S147 token life": """{ gateway: { auth: { type: "token", token: "${GATEWAY_TOKEN}", expiresIn: "24h",
        refresh: { enabled: true, maxUses: 1000 } } } }""",
    "S150 password": """{ gateway: { auth: { type: "password", passwordHash: "%s", policy: { minLength: 12,
        requireUppercase: true, requireLowercase: true, requireNumbers: true, requireSymbols: true,
        maxAge: "90d" } } } }""",
    "S082 channels": """{ channels: {
        telegram: { dm: { policy: "pairing", allowFrom: ["trusted-user-1", "trusted-user-2"] } },
        discord: { dm: { policy: "pairing", allowFrom: ["user-id-1", "user-id-2"] } } } }""",
}
BCRYPT = "$2b$10$" + "N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"


@pytest.mark.parametrize("name", SEED_BLOCKS)
def test_s036_s157_the_seeds_blocks_load_unchanged(home: Home, name: str) -> None:
    home.env["GATEWAY_TOKEN"] = SECRET
    loaded = home.load(SEED_BLOCKS[name].replace("%s", BCRYPT))
    assert not [issue for issue in loaded.issues if issue.severity != "warning"]
    assert loaded.ignored == ()
    assert not loaded.degraded


def test_s037_s157_values_arrive(home: Home) -> None:
    home.env["GATEWAY_TOKEN"] = SECRET
    config = home.load(SEED).config
    assert (config.bind, config.port, config.mode, config.auth.type, config.auth.token) == (
        "loopback",
        18789,
        "local",
        "token",
        SECRET,
    )
    config = home.load(SEED_BLOCKS["S147 token life"]).config
    assert (config.auth.expires_in, config.auth.refresh.max_uses) == (86_400, 1000)
    config = home.load(SEED_BLOCKS["S150 password"].replace("%s", BCRYPT)).config
    assert config.auth.policy is not None
    assert config.auth.policy.max_age == 90 * 86_400
    assert config.auth.password_hash == BCRYPT
    config = home.load(SEED_BLOCKS["S082 channels"]).config
    assert config.channels["telegram"].dm.allow_from == ("trusted-user-1", "trusted-user-2")
    config = home.load(SEED_BLOCKS["S126 tailscale"]).config
    assert (config.tailscale.mode, config.tailscale.reset_on_exit) == ("serve", True)


# --- environment ---


def test_s040_interpolation() -> None:
    env = {"A": "one", "B": "${A}", "EMPTY": ""}
    assert fill("x ${A} ${B}", env) == "x one ${A}", "a value is not searched again"
    assert fill("$${A} ${A}", env) == "${A} one"
    assert fill("${a-b} $A {A} ${}", env) == "${a-b} $A {A} ${}"
    unset = fill("${A} ${NOPE} ${EMPTY}", env)
    assert isinstance(unset, Unresolved)
    assert (str(unset), unset.names) == ("${A} ${NOPE} ${EMPTY}", ("NOPE", "EMPTY"))


def test_v17_an_unset_secret_never_falls_through(home: Home) -> None:
    home.env |= {"OPENCLAW_GATEWAY_TOKEN": "other-source-entirely", "OPENCLAW_GATEWAY_PASSWORD": "other"}
    said = fatal(home, SEED)
    assert "GATEWAY_TOKEN" in said
    assert "gateway.auth.token" in said
    assert "REMOTE" in fatal(home, '{gateway: {mode: "remote", remote: {url: "wss://h", token: "${REMOTE}"}}}')
    assert "PW" in fatal(home, '{gateway: {auth: {password: "${PW}"}}}')
    assert "is empty" in fatal(home, '{gateway: {auth: {token: ""}}}')


def test_v17_the_last_good_secret_does_not_come_back(home: Home) -> None:
    home.env["GATEWAY_TOKEN"] = SECRET
    assert remember_good(home.load(SEED))
    del home.env["GATEWAY_TOKEN"]
    assert "GATEWAY_TOKEN" in fatal(home, SEED)
    fatal(home, '{gateway: {auth: {type: "tokn"}}}')


@pytest.mark.parametrize(
    "block",
    ['{type: "token", token: "t-0123456789012345", password: "${UNSET}"}', '{type: "none", token: "${UNSET}"}'],
)
def test_proxy4_an_unset_secret_nobody_asks_for_does_not_abort(home: Home, block: str) -> None:
    loaded = home.load("{gateway: {auth: " + block + "}}")
    assert any("UNSET" in str(issue) and issue.severity == "warning" for issue in loaded.issues)


def test_env_reference_objects_count_as_references(home: Home) -> None:
    home.env["TOK"] = SECRET
    assert (
        home.load('{gateway: {auth: {token: {source: "env", provider: "default", id: "TOK"}}}}').config.auth.token
        == SECRET
    )
    assert "not supported" in fatal(home, '{gateway: {auth: {token: {source: "file", provider: "x", id: "/a"}}}}')


def test_an_unset_channel_secret_keeps_the_channel_off(home: Home) -> None:
    loaded = home.load('{channels: {telegram: {botToken: "${BOT}"}, discord: {}}}')
    assert not loaded.config.channels["telegram"].enabled
    assert loaded.config.channels["discord"].enabled
    assert [(issue.path, issue.unset) for issue in loaded.issues] == [("channels.telegram", ("BOT",))]


def test_precedence_flag_file_environment_default(home: Home) -> None:
    home.env["OPENCLAW_GATEWAY_PORT"] = "19001"
    assert home.load("{}").config.port == 19001
    assert home.load("{gateway: {port: 19002}}").config.port == 19002
    loaded = home.load("{gateway: {port: 19002, transports: {http: {port: 19002}}}}", gateway__port=19003)
    assert loaded.config.port == 19003
    assert loaded.overridden == {"gateway.port"}
    assert not loaded.degraded, "a flag for the port does not quarrel with the port's second name in the file"
    home.env["OPENCLAW_GATEWAY_PORT"] = "many"
    loaded = home.load("{}")
    assert (loaded.config.port, loaded.degraded) == (18789, True)


def test_a_faulty_flag_is_fatal(home: Home) -> None:
    assert "given as a flag" in fatal(home, "{}", gateway__port=99999)
    assert "given as a flag" in fatal(home, "{}", gateway__bind="nowhere")
    with pytest.raises(KeyError):
        home.load("{}", gateway__nothing=1)


def test_flags_may_use_openclaws_names(home: Home) -> None:
    assert home.load("{}", gateway__auth__mode="none").config.auth.type == "none"


# --- aliases ---


def test_c1_c5_c10_openclaws_names(home: Home) -> None:
    loaded = home.load("""{
        gateway: { auth: { mode: "none" }, nodes: { pairing: { autoApproveCidrs: ["192.168.1.0/24"] } } },
        channels: { telegram: { dmPolicy: "disabled", allowFrom: [123456] }, "my.own": { dmPolicy: "allowlist" } },
        logging: { level: "warn" },
    }""")
    config = loaded.config
    assert config.auth.type == "none"
    assert config.pairing.auto_approve.lan == ("192.168.1.0/24",)
    assert config.channels["telegram"].dm.policy == "closed"
    assert config.channels["telegram"].dm.allow_from == ("123456",)
    assert config.channels["my.own"].dm.policy == "allowlist"
    assert config.logging.level == "warning"
    assert loaded.ignored == ()
    assert not loaded.degraded


def test_c1_two_names_with_different_values_name_both(home: Home) -> None:
    said = fatal(home, '{gateway: {auth: {type: "token", mode: "none"}}}')
    assert "gateway.auth.type" in said
    assert "gateway.auth.mode" in said
    assert home.load('{gateway: {auth: {type: "none", mode: "none"}}}').config.auth.type == "none"
    loaded = home.load('{channels: {telegram: {dmPolicy: "open", dm: {policy: "closed"}}}}')
    assert loaded.config.channels["telegram"].dm.policy == "pairing"
    assert "dmPolicy" in str(loaded.issues[0])
    assert not home.load('{channels: {telegram: {dmPolicy: "disabled", dm: {policy: "closed"}}}}').degraded


def test_a_password_without_a_type_means_the_password(home: Home) -> None:
    assert home.load('{gateway: {auth: {password: "secret-secret"}}}').config.auth.type == "password"
    said = fatal(home, '{gateway: {auth: {password: "secret-secret", token: "t-0123456789012345"}}}')
    assert "both a token and a password" in said
    both = '{gateway: {auth: {password: "secret-secret", token: "t-0123456789012345"}}}'
    assert home.load(both, gateway__auth__token="from-a-flag-0123").config.auth.type == "token"
    assert home.load(both, gateway__auth__password="from-a-flag-0123").config.auth.type == "password"
    assert home.load(both, gateway__auth__mode="none").config.auth.type == "none"


# --- unknown keys and bad values ---


def test_cfg1_unknown_keys_cost_one_warning(home: Home) -> None:
    loaded = home.load("""{ skills: { defaults: {} }, mcp: {}, gateway: { prot: 1, portals: { enabled: true } },
        channels: { telegram: { dm: { polcy: "open" }, groups: {} } }, $schema: "x" }""")
    assert len(loaded.warnings) == 1
    for name in (
        "skills",
        "mcp",
        "gateway.prot (did you mean gateway.port?)",
        "gateway.portals",
        "channels.telegram.dm.polcy",
    ):
        assert name in loaded.warnings[0]
    assert not loaded.degraded
    assert loaded.config.channels["telegram"].extra == {"groups": {}}


def test_cfg1_bad_values_fall_back_to_last_good_then_default(home: Home) -> None:
    home.env["GATEWAY_TOKEN"] = SECRET
    assert remember_good(home.load("{gateway: {port: 20000, nodes: {invokeTimeoutMs: 5000}}}"))
    loaded = home.load(
        '{gateway: {port: "many", nodes: {invokeTimeoutMs: -1}, transports: {websocket: {pingIntervalMs: 1}}}}'
    )
    config = loaded.config
    assert (config.port, config.nodes.invoke_timeout_ms, config.transports.websocket.ping_interval_ms) == (
        20000,
        5000,
        30000,
    )
    assert loaded.degraded
    assert {issue.path for issue in loaded.issues} == {
        "gateway.port",
        "gateway.nodes.invokeTimeoutMs",
        "gateway.transports.websocket.pingIntervalMs",
    }
    assert "20000" in str(next(issue for issue in loaded.issues if issue.path == "gateway.port"))


def test_a_bad_value_never_reopens_a_door(home: Home) -> None:
    """The last good value of what decides who may come in may be exactly what the edit was to end."""
    assert remember_good(
        home.load("""{ gateway: { bind: "0.0.0.0", trustedProxies: ["10.0.0.1"],
        pairing: { autoApprove: { lan: ["10.0.0.0/24"], sharedSecret: "baseline" } } },
        channels: { telegram: { dm: { policy: "open", allowFrom: ["1"] } } } }""")
    )
    config = home.load("""{ gateway: { bind: "lopback", trustedProxies: 5,
        auth: { allowQueryToken: "no", expiresIn: "soon" },
        pairing: { autoApprove: { loopback: "no", lan: {}, sharedSecret: "of" } } },
        channels: { telegram: { dm: { policy: "clsed", allowFrom: 5 } } } }""").config
    assert config.bind == "loopback"
    assert config.trusted_proxies == ()
    assert config.pairing.auto_approve.lan == ()
    assert not config.pairing.auto_approve.loopback
    assert config.pairing.auto_approve.shared_secret == "off"
    assert not config.auth.allow_query_token
    assert config.auth.expires_in == 86_400
    assert config.channels["telegram"].dm.policy == "pairing"
    assert config.channels["telegram"].dm.allow_from == ()


def test_every_closed_value_belongs_to_a_setting() -> None:
    assert set(CLOSED) <= set(settings())


def test_net4_enum_faults_list_what_is_allowed(home: Home) -> None:
    loaded = home.load('{gateway: {bind: "lopback", tailscale: {mode: "Serv"}}}')
    bind, mode = loaded.issues
    assert bind.path == "gateway.bind"
    assert bind.allowed[:5] == ("loopback", "lan", "tailnet", "auto", "custom")
    assert bind.nearest == "loopback"
    assert mode.nearest == "serve"
    assert mode.fix == "openclaw config set gateway.tailscale.mode serve"


@pytest.mark.parametrize("block", ['"token"', "[]", "5", "true"])
def test_an_auth_block_that_is_none_is_fatal(home: Home, block: str) -> None:
    assert "gateway.auth" in fatal(home, "{gateway: {auth: " + block + "}}")


def test_a_broken_file_starts_from_the_last_good_one(home: Home) -> None:
    home.env["GATEWAY_TOKEN"] = SECRET
    assert remember_good(home.load(SEED.replace("18789", "20001")))
    broken = "{ gateway: { port: 1,, } }"
    loaded = home.load(broken)
    assert (loaded.config.port, loaded.config.auth.token) == (20001, SECRET)
    assert (loaded.raw, loaded.degraded) == (broken, True)
    assert len(loaded.issues) == 1
    assert "line 1, column 22" in loaded.issues[0].message


def test_a_broken_file_without_a_last_good_one_is_fatal(home: Home) -> None:
    said = fatal(home, "{ gateway: {\n  port: }")
    assert "line 2, column 9" in said
    assert str(home.file) in said


# --- last known good ---


def test_remember_good_is_private_whole_and_as_written(home: Home) -> None:
    home.env["GATEWAY_TOKEN"] = SECRET
    loaded = home.load(SEED)
    assert remember_good(loaded)
    kept = last_good_path(home.state)
    assert kept.read_text() == SEED, "${NAME} stays a reference (V53)"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert not remember_good(loaded), "only when it changed"
    assert not remember_good(home.load(SEED.replace("18789", '"x"'))), "not when something is not in use as written"
    assert read_good(home.state) == SEED


# --- properties ---


def _mutated(rng: random.Random, value: Any) -> Any:
    """One place somewhere in the tree replaced by something that does not belong there."""
    junk: list[Any] = [
        None,
        True,
        -1,
        10**30,
        0.5,
        "",
        "x",
        "\x00",
        [],
        {},
        [[]],
        {"a": 1},
        "999d",
        "${NOPE}",
        float("inf"),
        ["*"],
    ]
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        out = dict(value)
        action = rng.random()
        if action < 0.1:
            del out[key]
        elif action < 0.2:
            out[key + "x"] = out.pop(key)
        else:
            out[key] = _mutated(rng, out[key])
        return out
    return copy.deepcopy(rng.choice(junk))


WHOLE = {
    "gateway": {
        "bind": "lan",
        "port": 18789,
        "mode": "local",
        "customBindHost": "127.0.0.1",
        "auth": {
            "type": "token",
            "token": SECRET,
            "expiresIn": "24h",
            "policy": {"minLength": 12, "maxAge": "90d"},
            "refresh": {"enabled": True, "maxUses": 10},
            "allowTailscale": False,
            "allowQueryToken": True,
        },
        "transports": {
            "websocket": {"pingIntervalMs": 30000, "maxMessageSize": 1048576},
            "http": {"port": 18789, "cors": {"enabled": True, "origins": ["*"]}},
        },
        "tailscale": {"mode": "off"},
        "controlUi": {"allowedOrigins": ["https://a.example"]},
        "trustedProxies": ["10.0.0.1"],
        "pairing": {"autoApprove": {"lan": ["192.168.0.0/24"]}, "requestTtlMs": 300000},
        "nodes": {"invokeTimeoutMs": 1000},
        "remote": {"url": "wss://h:1", "token": SECRET},
    },
    "channels": {"telegram": {"enabled": True, "botToken": "1", "dm": {"policy": "open", "allowFrom": ["1"]}}},
    "logging": {"level": "info", "maxBytes": 1000000, "backups": 3, "console": True},
    "agents": {"list": []},
}


def test_cfg1_500_mutated_configs_never_crash(home: Home) -> None:
    rng = random.Random(20260)
    outcomes = {"ok": 0, "degraded": 0, "refused": 0}
    for _ in range(500):
        tree = _mutated(rng, WHOLE)
        if rng.random() < 0.5:
            tree = _mutated(rng, tree) if isinstance(tree, dict) else tree
        text = json.dumps(tree)
        outcome, issues = _outcome(home, text)
        outcomes[outcome] += 1
        kinds = {issue.severity for issue in issues}
        assert (outcome == "refused") == ("fatal" in kinds)
        assert outcome == "refused" or (outcome == "degraded") == ("fallback" in kinds)
        assert all(issue.path.startswith("gateway") or not issue.path for issue in issues if issue.severity == "fatal")
        assert SECRET not in " ".join(map(str, issues))
    assert min(outcomes.values()) > 20, outcomes


def _outcome(home: Home, text: str) -> tuple[str, tuple[ConfigIssue, ...]]:
    try:
        loaded = home.load(text)
    except ConfigError as error:
        return ("refused" if error.exit_code == 78 else "crashed"), error.issues
    assert SECRET not in repr(loaded) + " ".join(loaded.warnings)
    return ("degraded" if loaded.degraded else "ok"), loaded.issues


@given(seed=st.integers(0, 2**32))
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cfg2_validate_says_ok_exactly_when_a_start_would_run_as_written(home: Home, seed: int) -> None:
    text = json.dumps(_mutated(random.Random(seed), WHOLE))
    try:
        checked = check_text(text, env=home.env)
        validate_ok = not checked.degraded
    except ConfigError:
        validate_ok = False
    try:
        start_ok = not home.load(text).degraded
    except ConfigError:
        start_ok = False
    assert validate_ok == start_ok


def test_a_file_others_can_read_with_a_secret_in_it_is_told(home: Home) -> None:
    home.write('{gateway: {auth: {token: "t-0123456789012345"}}}', mode=0o644)
    (issue,) = home.load().issues
    assert issue.severity == "warning"
    assert issue.fix == f"chmod 600 '{home.file}'"
    home.env["GATEWAY_TOKEN"] = SECRET
    home.write(SEED, mode=0o644)
    assert home.load().issues == (), "a reference is no secret"


def test_lists_tables_and_reports_are_capped(home: Home) -> None:
    loaded = home.load(json.dumps({"gateway": {"trustedProxies": ["10.0.0.1"] * 1001}}))
    assert loaded.config.trusted_proxies == ()
    loaded = home.load(json.dumps({"channels": {f"c{n}": {} for n in range(300)}}))
    assert len(loaded.config.channels) == 200
    loaded = home.load(json.dumps({f"k{n}": 1 for n in range(1500)}))
    assert len(loaded.ignored) == 1000
    assert "and 980 more" in loaded.warnings[0]
    assert len(loaded.warnings[0]) < 1000


def test_a_pipe_in_place_of_the_file_does_not_hold_the_start_up(home: Home) -> None:
    home.state.mkdir()
    os.mkfifo(home.file)
    with pytest.raises(ConfigError, match="regular file"):
        home.load()


def test_hashes_follow_text_and_values(make_home: Callable[[str], Home]) -> None:
    home = make_home("a")
    home.env["GATEWAY_TOKEN"] = SECRET
    first = home.load(SEED)
    commented = home.load(SEED + "// note\n")
    assert first.hash != commented.hash
    assert first.resolved_hash == commented.resolved_hash
    assert home.load(SEED.replace("18789", "18790")).resolved_hash != first.resolved_hash


def test_loading_is_fast(home: Home) -> None:
    home.env["GATEWAY_TOKEN"] = SECRET
    home.load(SEED)
    best = min(_timed(home) for _ in range(20))
    assert best < 0.1, "orders of magnitude, not milliseconds: scripts/bench measures"


def _timed(home: Home) -> float:
    start = time.perf_counter()
    home.load()
    return time.perf_counter() - start
