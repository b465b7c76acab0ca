"""The commands that speak to a gateway: a real one, and a scripted one for what a real one does not do."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.cli.program import ROOT, Program, free_port
from tests.scripted_gateway import ScriptedGateway, open_scripted_gateway

pytestmark = pytest.mark.deadline(60)


@pytest.fixture(scope="module")
def openclaw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = Program(tmp_path_factory.mktemp("gateway") / "state")
    with program.started():
        yield program


# --- a real gateway -------------------------------------------------------------------------------------------------


def test_s158_obs1_status_has_a_row_for_each_part_of_the_way(openclaw: Program) -> None:
    done = openclaw("status")
    assert done.returncode == 0, done.stdout
    rows = [line.split()[:2] for line in done.stdout.splitlines()[1:7]]
    assert rows == [[name, "ok"] for name in ("process", "port", "http", "websocket", "auth", "scope")]
    assert openclaw.secret not in done.stdout
    assert "credentials/gateway-token" in done.stdout  # AUTH-1: the source of the secret


def test_status_json_has_openclaws_keys(openclaw: Program) -> None:
    for command in (("status", "--json"), ("gateway", "status", "--json"), ("status", "--json", "--deep")):
        done = openclaw(*command)
        assert done.returncode == 0, done.stderr
        body = json.loads(done.stdout)
        assert body["rpc"]["ok"] is True
        assert body["port"]["status"] == "busy"
        assert body["gateway"]["pid"] == openclaw.pid
        assert body["channelSummary"] == []
        assert body["sessions"]["byAgent"] == []
        gateway = body["gateway"]
        assert (gateway["mode"], gateway["reachable"], gateway["error"]) == ("local", True, None)
        assert gateway["url"] == gateway["probeUrl"]
        assert {"urlSource", "connectLatencyMs", "self", "controlUiLinks"} <= gateway.keys()
        assert gateway["bindHost"] == "127.0.0.1"
        assert body["os"]["label"].startswith(body["os"]["platform"])
        assert (body["rpc"]["kind"], body["rpc"]["capability"]) == ("read", "read_only")
        assert body["rpc"]["version"] == gateway["version"]
        assert body["config"]["daemon"] == body["config"]["cli"]
        assert (body["service"]["loaded"], body["extraServices"], body["port"]["hints"]) == (False, [], [])
        assert body["cli"]["entrypoint"]
        assert openclaw.secret not in done.stdout


def test_health_for_people_and_programs(openclaw: Program) -> None:
    assert openclaw("health").stdout.startswith("Gateway: ok")
    for command in (("health", "--json"), ("gateway", "health", "--json")):
        assert json.loads(openclaw(*command).stdout)["ok"] is True


def test_probe(openclaw: Program) -> None:
    done = openclaw("gateway", "probe", "--json")
    assert done.returncode == 0
    body = json.loads(done.stdout)
    assert body["ok"]
    assert body["targets"][0]["connect"]["rpcOk"]
    assert body["targets"][0]["presence"]
    assert body["targets"][0]["self"]["reason"] == "self"
    assert (body["primaryTargetId"], body["warnings"]) == ("localLoopback", [])
    assert body["discovery"] == {"timeoutMs": 0, "count": 0, "beacons": []}
    assert body["network"]["localLoopbackUrl"] == body["targets"][0]["url"]


def test_call(openclaw: Program) -> None:
    done = openclaw("gateway", "call", "system-presence", "--json")
    assert isinstance(json.loads(done.stdout), list)
    failed = openclaw("gateway", "call", "no.such.method")
    assert failed.returncode == 1
    assert "unknown method: no.such.method" in failed.stderr
    assert "fix: openclaw gateway call status" in failed.stderr
    assert "Traceback" not in failed.stderr
    wrong = openclaw("gateway", "call", "health", "--params", "[1]")
    assert wrong.returncode == 2


def test_devices_and_nodes(openclaw: Program) -> None:
    assert json.loads(openclaw("devices", "list", "--json").stdout) == {"pending": [], "paired": []}
    assert "No device is paired" in openclaw("devices", "list").stdout
    assert json.loads(openclaw("nodes", "list", "--json").stdout)["nodes"] == []
    assert json.loads(openclaw("nodes", "status", "--json").stdout)["nodes"] == []
    assert openclaw("nodes", "list").stdout == "No nodes.\n"


def test_s161_logs_carry_the_words_people_grep_for(openclaw: Program) -> None:
    openclaw("health")
    openclaw("health", "--token", "wrong-token-wrong-token")
    text = openclaw("logs").stdout
    assert "connect" in text
    assert "disconnect" in text
    assert "auth" in text
    meta, *lines = [json.loads(line) for line in openclaw("logs", "--json", "-n", "3").stdout.splitlines()]
    assert (meta["type"], meta["sourceKind"]) == ("meta", "file")
    assert meta["cursor"] == meta["size"] > 0
    assert len(lines) == 3
    assert all({"time", "level", "subsystem", "event", "message", "raw"} <= set(line) for line in lines)
    assert {line["type"] for line in lines} == {"log"}


def test_s176_logs_follow(openclaw: Program) -> None:
    command = [*openclaw.argv, "logs", "--follow", "--interval", "100", "-n", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=openclaw.environment, text=True) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()
            openclaw("health", "--token", "follow-me-wrong-token")
            while "refused" not in (line := process.stdout.readline()):
                assert line, "the output ended"
        finally:
            process.terminate()


def test_a_wrong_token_is_told_apart_from_a_gateway_that_is_down(openclaw: Program) -> None:
    done = openclaw("status", "--token", "this-token-is-wrong-1234")
    assert done.returncode == 1
    rows = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:] if line.startswith("  ")}
    assert (rows["http"], rows["websocket"], rows["auth"], rows["scope"]) == ("ok", "ok", "FAILED", "-")
    assert "unreachable" not in done.stdout
    assert "this-token-is-wrong-1234" not in done.stdout
    asked = openclaw("health", "--token", "this-token-is-wrong-1234")
    assert asked.returncode == 1
    assert "fix: " in asked.stderr


def test_doctor_is_content_with_a_healthy_gateway(openclaw: Program) -> None:
    done = openclaw("doctor", "--json")
    assert done.returncode == 0, done.stdout
    body = json.loads(done.stdout)
    checks = {finding["check"]: finding["state"] for finding in body["checks"]}
    assert (body["schemaVersion"], body["checksRun"], body["checksSkipped"]) == (1, len(checks), 0)
    assert {row["checkId"] for row in body["findings"]} == {name for name, state in checks.items() if state != "ok"}
    assert checks["gateway"] == "ok"
    assert checks["secret"] == "ok"
    assert openclaw.secret not in done.stdout


def test_auth1_doctor_fails_where_the_two_sides_have_different_secrets(openclaw: Program) -> None:
    elsewhere = Program(openclaw.state, {"OPENCLAW_GATEWAY_TOKEN": "another-token-that-is-long-enough"})
    done = elsewhere("doctor", "--json")
    assert done.returncode == 1
    findings = [finding for finding in json.loads(done.stdout)["checks"] if finding["state"] == "fail"]
    assert [finding["check"] for finding in findings] == ["gateway"]
    assert "OPENCLAW_GATEWAY_TOKEN" in findings[0]["text"]
    assert "another-token" not in done.stdout


@pytest.mark.parametrize(
    ("command", "code", "kind"),
    [
        (("health", "--url", "ws://127.0.0.1:1", "--token", "x" * 24), 1, "tcp"),
        (("health", "--token", "json-wrong-token-json-wrong"), 1, "AUTH_TOKEN_MISMATCH"),
        (("gateway", "call", "no.such.method"), 1, "INVALID_REQUEST"),
        (("config", "get", "no.such.path"), 1, "config"),
        (("status", "--port", "99999"), 2, "usage"),
        (("devices", "approve"), 1, "nothing-approved"),
        (("devices", "approve", "ffffffff"), 1, None),
        (("tokens", "revoke", "nobody"), 1, None),
        (("pairing", "approve", "zzzzzzzz"), 1, None),
    ],
)
def test_m4_a_failure_under_json_is_json_on_stdout(
    openclaw: Program, command: tuple[str, ...], code: int, kind: str | None
) -> None:
    done = openclaw(*command, "--json")
    body = json.loads(done.stdout)
    assert (done.returncode, body["ok"]) == (code, False), done.stdout
    assert body["error"]["message"]
    assert body["error"]["type"] == (kind or body["error"]["type"])


def test_m6_a_foreign_address_is_not_mended_by_starting_this_hosts_gateway(openclaw: Program) -> None:
    for command in ("health", "status", "logs"):
        done = openclaw(command, "--url", "ws://127.0.0.1:1", "--token", "x" * 24)
        assert done.returncode == 1
        assert "check the address and port" in done.stdout + done.stderr
        assert "openclaw gateway start" not in done.stdout + done.stderr


def test_m6_what_keeps_a_gateway_from_starting_comes_with_a_fix(openclaw: Program, tmp_path: Path) -> None:
    taken = json.loads(openclaw("status", "--json").stdout)["gateway"]["port"]
    other = Program(tmp_path / "state")
    for arguments, fix in (
        (("--port", str(taken)), f"openclaw gateway run --port {taken + 1}"),
        (("--port", "0", "--bind", "203.0.113.9"), "openclaw config set gateway.bind"),
        (("--bind", "foo"), "fix: give gateway.bind one of: loopback, lan"),
    ):
        done = other("gateway", "run", *arguments)
        assert done.returncode in {1, 78}
        assert fix in done.stderr
    nowhere = Program(Path("/proc/nope"))("gateway", "run", "--port", "0")
    assert (nowhere.returncode, "fix: export OPENCLAW_STATE_DIR=" in nowhere.stderr) == (1, True)


def test_config_validate_says_valid(openclaw: Program) -> None:
    assert json.loads(openclaw("config", "validate", "--json").stdout)["valid"] is True


# --- no gateway -----------------------------------------------------------------------------------------------------


def test_obs1_unreachable_is_said_only_where_tcp_or_http_fail(tmp_path: Path) -> None:
    openclaw = Program(tmp_path / "state", {"OPENCLAW_GATEWAY_PORT": str(free_port())})
    done = openclaw("status")
    assert done.returncode == 1
    assert "unreachable" in done.stdout
    assert "fix: openclaw gateway start" in done.stdout
    asked = openclaw("health")
    assert asked.returncode == 1
    assert "nothing listens there" in asked.stderr
    assert not openclaw.state.exists()  # a command that only looks makes nothing


def test_logs_of_a_gateway_that_is_down_come_from_its_file(tmp_path: Path) -> None:
    openclaw = Program(tmp_path / "state", {"OPENCLAW_GATEWAY_PORT": str(free_port())})
    with openclaw.foreground("--port", "0"):
        pass
    done = openclaw("logs")
    assert done.returncode == 0, done.stderr
    assert "gateway stopped" in done.stdout
    assert "does not answer" in done.stderr


def test_v56_a_url_gets_no_configured_secret(openclaw: Program) -> None:
    done = openclaw("health", "--url", "ws://127.0.0.1:1")
    assert done.returncode == 1
    assert "--token or --password" in done.stderr
    by_env = Program(openclaw.state, {"OPENCLAW_GATEWAY_URL": "ws://127.0.0.1:1"})("health")
    assert by_env.returncode == 1
    assert "OPENCLAW_GATEWAY_TOKEN" in by_env.stderr
    public = openclaw("health", "--url", "ws://gw.example.org", "--token", "abc")
    assert public.returncode == 1
    assert "wss://gw.example.org" in public.stderr


def test_usage_errors_exit_with_2_and_help(tmp_path: Path) -> None:
    openclaw = Program(tmp_path / "state")
    wrong = openclaw("gatway")
    assert wrong.returncode == 2
    assert "Did you mean gateway?" in wrong.stderr
    assert openclaw("status", "--port", "99999").returncode == 2
    assert openclaw("--version").stdout.startswith("openclaw ")


def test_debug_alone_shows_a_traceback(tmp_path: Path) -> None:
    openclaw = Program(tmp_path / "state", {"OPENCLAW_GATEWAY_PORT": str(free_port())})
    assert "Traceback" not in openclaw("health").stderr
    assert "Traceback" in openclaw("--debug", "health").stderr


def test_output_into_a_closed_pipe_is_no_error(openclaw: Program) -> None:
    line = f"{sys.executable} -m openclaw_gateway logs -n 5000 | head -c 10"
    done = subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, env=openclaw.environment, check=False, timeout=20
    )
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(shell: str, tmp_path: Path) -> None:
    done = Program(tmp_path / "state")("completion", shell)
    assert done.returncode == 0
    assert "_OPENCLAW_COMPLETE" in done.stdout


def test_completion_completes_without_loading_commands(tmp_path: Path) -> None:
    environment = {"_OPENCLAW_COMPLETE": "bash_complete", "COMP_WORDS": "openclaw gateway st", "COMP_CWORD": "2"}
    done = Program(tmp_path / "state", environment)()
    assert done.stdout.split() == ["plain,start", "plain,stop", "plain,status"]


HEAVY = [
    "trio", "attr", "cattrs", "msgspec", "json5", "rich", "httpx", "hypercorn", "websockets", "trio_websocket",
    "cryptography", "bcrypt",
]  # fmt: skip


def run_python(script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)


def test_perf3_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom openclaw_gateway.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\ncli.main(['gateway', '--help'], standalone_mode=False)\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = run_python(script)
    assert done.stdout.splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("module", ["status", "call", "logs", "devices", "nodes", "rows"])
def test_perf3_commands_leave_the_server_and_the_slow_libraries_alone(module: str) -> None:
    script = (
        f"import sys\nimport openclaw_gateway.cli.{module}, openclaw_gateway.client.resolve, trio_websocket\n"
        "print([name for name in ('rich', 'httpx', 'hypercorn', 'cryptography', 'bcrypt', 'json5', 'asyncio', "
        "'openclaw_gateway.app') if name in sys.modules])"
    )
    done = run_python(script)
    assert done.stdout.strip() == "[]"


# --- a scripted gateway ---------------------------------------------------------------------------------------------


async def ask(gateway: ScriptedGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The program, while the scripted gateway serves in this very process."""
    program = Program(Path("/nonexistent-state"))
    command = [*program.argv, *arguments, "--url", gateway.url, "--token", "t"]
    run = partial(trio.run_process, capture_stdout=True, capture_stderr=True, check=False, env=program.environment)
    done = await run(command)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


async def test_v52_names_of_peers_cannot_steer_the_terminal() -> None:
    hostile = "\x1b]0;owned\x07\r\nfake: approve me"
    answers = {
        "device.pair.list": {
            "pending": [{"requestId": "r1", "deviceId": "d" * 64, "displayName": hostile, "role": hostile}],
            "paired": [{"deviceId": "e" * 64, "displayName": hostile, "roles": [hostile]}],
        },
        "node.list": {"nodes": [{"nodeId": "n", "displayName": hostile, "connected": True}]},
        "node.pair.list": {"pending": [{"requestId": "r2", "nodeId": "n2", "displayName": hostile}], "paired": []},
    }
    async with open_scripted_gateway(ScriptedGateway(answers)) as gateway:
        for command in (("devices", "list"), ("nodes", "list"), ("nodes", "status")):
            done = await ask(gateway, *command)
            assert done.returncode == 0, done.stderr
            assert "\x1b" not in done.stdout
            assert "\nfake" not in done.stdout
            assert "owned" in done.stdout


async def test_least_privilege_scopes_are_asked_for() -> None:
    answers = {"health": {"ok": True}, "device.pair.list": {}, "node.list": {}, "x.y": 1}
    async with open_scripted_gateway(ScriptedGateway(answers)) as gateway:
        for command in (("health",), ("devices", "list"), ("nodes", "status"), ("gateway", "call", "x.y")):
            assert (await ask(gateway, *command)).returncode == 0
    assert [connect["scopes"] for connect in gateway.connects] == [
        ["operator.read"],
        ["operator.pairing"],
        ["operator.read", "operator.pairing"],
        ["operator.admin"],
    ]
    assert {(connect["client"]["id"], connect["client"]["mode"]) for connect in gateway.connects} == {("cli", "cli")}


async def test_a_refusal_shows_the_gateways_fix() -> None:
    refusal = {
        "code": "NOT_PAIRED", "message": "pairing required: device is not approved yet",
        "details": {"code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "req-42"},
    }  # fmt: skip
    async with open_scripted_gateway(ScriptedGateway(refusal=refusal)) as gateway:
        done = await ask(gateway, "health")
    assert done.returncode == 1
    assert "openclaw devices approve req-42" in done.stderr


async def test_an_unhealthy_gateway_exits_with_1() -> None:
    async with open_scripted_gateway(ScriptedGateway({"health": {"ok": False}})) as gateway:
        done = await ask(gateway, "health")
    assert (done.returncode, "NOT ok" in done.stdout) == (1, True)


async def test_a_timeout_is_told() -> None:
    async with open_scripted_gateway(ScriptedGateway(challenge=None)) as gateway:
        done = await ask(gateway, "health", "--timeout", "300")
    assert done.returncode == 1
    assert "0.3 s" in done.stderr
