"""``openclaw config …`` as a person uses it: arguments, output, exit codes."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from openclaw_gateway.cli.config import config
from openclaw_gateway.config.redact import MARKER
from tests.config.conftest import SEED, Home


@pytest.fixture
def run(home: Home, monkeypatch: pytest.MonkeyPatch) -> object:
    for name in ("OPENCLAW_CONFIG_PATH", "OPENCLAW_STATE_DIR", "OPENCLAW_GATEWAY_PORT", "GATEWAY_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home.root))

    def command(*arguments: str) -> Result:
        return CliRunner().invoke(config, arguments)

    return command


class Run:
    """For the type checker: what the fixture is."""

    def __call__(self, *arguments: str) -> Result: ...  # type: ignore[empty-body]


def test_s166_s171_get(home: Home, run: Run) -> None:
    home.write('{gateway: {port: 20000, auth: {token: "hunter2hunter2hunter2"}}}')
    assert run("get", "gateway.port").stdout == "20000\n"
    assert run("get", "channels.telegram.dm.policy").stdout == "pairing\n"
    assert run("get", "channels.telegram.dm.policy", "--json").stdout == '"pairing"\n'
    tailscale = json.loads(run("get", "gateway.tailscale").stdout)
    assert (tailscale["mode"], tailscale["resetOnExit"]) == ("off", True)
    assert run("get", "gateway.controlUi.enabled").stdout == "true\n"
    assert run("get", "gateway.auth.token").stdout == f"{MARKER}\n"
    everything = run("get")
    assert everything.exit_code == 0
    assert json.loads(everything.stdout)["gateway"]["port"] == 20000
    assert "hunter2" not in everything.output


def test_get_of_an_unknown_path_names_the_nearest(run: Run) -> None:
    result = run("get", "gateway.prot")
    assert result.exit_code == 1
    assert "did you mean gateway.port?" in result.stderr
    assert "fix: openclaw config get gateway.port" in result.stderr


@pytest.mark.parametrize(
    ("path", "value", "stored"),
    [
        ("gateway.port", "18790", 18790),
        ("gateway.bind", "0.0.0.0", "0.0.0.0"),
        ("gateway.auth.token", "1234567890123456", "1234567890123456"),
        ("gateway.auth.token", "${SOME_VARIABLE}", "${SOME_VARIABLE}"),
        ("gateway.auth.expiresIn", "24h", "24h"),
        ("gateway.trustedProxies", "['10.0.0.1',]", ["10.0.0.1"]),
        ("gateway.controlUi.enabled", "false", False),
        ("gateway.auth.allowTailscale", "true", True),
    ],
)
def test_set_parses_json5_else_text(home: Home, run: Run, path: str, value: str, stored: object) -> None:
    result = run("set", path, value)
    assert result.exit_code == 0, result.output
    tree = json.loads(home.file.read_text())
    for step in path.split("."):
        tree = tree[step]
    assert tree == stored


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ('"24h"', "24h"), ('"1d"', "1d"), ('"90d"', "90d"), ('"1h30m"', "1h30m"), ("86400", "86400"),
        ('"500ms"', "500ms"), ('"soon"', "24h"),
    ],
)  # fmt: skip
def test_a_duration_is_shown_as_one_writes_it(home: Home, run: Run, written: str, shown: str) -> None:
    home.write(f"{{gateway: {{auth: {{expiresIn: {written}}}}}}}")
    assert run("get", "gateway.auth.expiresIn").stdout.strip() == shown
    assert json.loads(run("get", "--json").stdout)["gateway"]["auth"]["expiresIn"] in {shown, 86400}
    assert run("set", "gateway.auth.expiresIn", shown).exit_code == 0
    assert "86400.0" not in home.file.read_text()
    assert run("get", "gateway.auth.expiresIn").stdout.strip() == shown


def test_cfg5_set_keeps_comments_and_references(home: Home, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_TOKEN", "a-token-of-some-length")
    home.write(SEED)
    assert run("set", "gateway.port", "18790").exit_code == 0
    assert home.file.read_text() == SEED.replace("18789", "18790")
    assert run("unset", "gateway.port").exit_code == 0
    assert "// local only" in home.file.read_text()
    assert run("unset", "gateway.port").exit_code == 1


def test_set_refuses_what_a_start_would_refuse(home: Home, run: Run) -> None:
    result = run("set", "gateway.auth.type", "password")
    assert result.exit_code == 78
    assert "passwordHash" in result.stderr
    assert "fix: openclaw config set" in result.stderr
    result = run("set", "gateway.bind", "lopback")
    assert result.exit_code == 78
    assert "did you mean loopback?" in result.stderr
    assert "Nothing was changed." in result.stderr
    assert not home.file.exists()


def test_m5_a_refused_value_is_not_answered_with_taking_out_what_is_there(home: Home, run: Run) -> None:
    assert run("set", "gateway.port", "18790").exit_code == 0
    before = home.file.read_text()
    result = run("set", "gateway.port", "abc")
    assert result.exit_code == 78
    assert "must be a whole number" in result.stderr
    assert "unset" not in result.stderr
    assert home.file.read_text() == before


def test_cfg_set_says_that_a_setting_is_unknown_here(home: Home, run: Run) -> None:
    result = run("set", "gateway.prt", "18790")
    assert result.exit_code == 0
    assert "no such setting: gateway.prt (did you mean gateway.port?)" in result.stderr
    assert "fix: openclaw config unset gateway.prt" in result.stderr
    assert json.loads(run("set", "gateway.prt", "{ deeper: 1 }", "--json").stdout)["ignored"] == [
        "gateway.prt (did you mean gateway.port?)"
    ]
    result = run("set", "gateway.port", "18790")  # what is ignored elsewhere in the file is no matter of this setting
    assert "no such setting" not in result.stderr
    assert "ignored" not in json.loads(run("set", "gateway.port", "18791", "--json").stdout)
    assert run("unset", "gateway.prt").stderr == ""


def test_auth4_set_refuses_the_marker(home: Home, run: Run) -> None:
    result = run("set", "gateway.auth.token", MARKER)
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert not home.file.exists()


def test_auth4_get_then_set_of_a_block_changes_nothing(home: Home, run: Run) -> None:
    text = '{gateway: {remote: {url: "wss://h:1", token: "hunter2hunter2hunter2"}}}'
    home.write(text)
    shown = json.loads(run("get", "gateway.remote").stdout)
    result = run("set", "gateway.remote", json.dumps({key: shown[key] for key in ("url", "token")}))
    assert result.exit_code == 0
    assert home.file.read_text() == text


def test_cfg2_validate(home: Home, run: Run) -> None:
    home.write("{gateway: {prot: 1}}")
    result = run("validate")
    assert (result.exit_code, "gateway.prot" in result.stderr) == (0, True)
    home.write("{gateway: {port: 99999}}")
    assert run("validate").exit_code == 1
    home.write('{gateway: {auth: {token: "${NOT_SET_ANYWHERE}"}}}')
    result = run("validate", "--json")
    assert result.exit_code == 78
    said = json.loads(result.stdout)
    assert (said["ok"], said["issues"][0]["path"], said["issues"][0]["severity"]) == (
        False,
        "gateway.auth.token",
        "fatal",
    )
    home.write("{gateway:")
    result = run("validate")
    assert result.exit_code == 78
    assert "line 1, column 10" in result.stderr


def test_file_and_schema(home: Home, run: Run) -> None:
    assert run("file").stdout == f"{home.file}\n"
    assert json.loads(run("schema").stdout)["title"] == "openclaw.json"


@pytest.mark.parametrize("arguments", [("set", "gateway.port"), ("get", "a", "b"), ("nothing",), ("get", "--nothing")])
def test_wrong_usage_is_2(run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_place_that_cannot_be_written_is_told(home: Home, run: Run) -> None:
    home.state.write_text("a file where the directory should be")
    result = run("set", "gateway.port", "1")
    assert result.exit_code == 1
    assert "error:" in result.stderr
