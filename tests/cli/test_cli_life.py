"""Starting, stopping and restarting real processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from openclaw_gateway.ops.instance import read_holder
from openclaw_gateway.server.certificates import make_pair
from openclaw_gateway.server.ownaddresses import own_lan_addresses
from tests.cli.program import Program, free_port

pytestmark = pytest.mark.deadline(90)


@pytest.fixture
def openclaw(tmp_path: Path) -> Program:
    return Program(tmp_path / "state")


def health(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=3) as answer:
        status: int = answer.status
        return status


def test_s173_s174_start_then_stop(openclaw: Program) -> None:
    port = free_port()
    began = time.monotonic()
    started = openclaw("gateway", "start", "--port", str(port), "--json")
    assert started.returncode == 0, started.stderr
    assert time.monotonic() - began < 20  # two starts of Python on a busy machine; it waits for nothing else
    facts = json.loads(started.stdout)
    assert facts["result"] == "started"
    assert facts["pid"] == openclaw.pid
    assert health(port) == 200
    again = openclaw("gateway", "start")
    assert again.returncode == 0
    assert f"runs already: ws://127.0.0.1:{port}" in again.stdout
    other = openclaw("gateway", "start", "--port", str(port + 1))
    assert other.returncode == 1
    assert f"--port {port + 1} was not applied" in other.stderr
    assert f"ws://127.0.0.1:{port}" in other.stderr
    assert openclaw("gateway", "start", "--port", str(port), "--bind", "localhost").returncode == 0
    stopped = openclaw("gateway", "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert f"port {port} is free" in stopped.stdout
    assert openclaw.pid is None
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
    nothing = openclaw("gateway", "stop", "--json")
    assert (nothing.returncode, json.loads(nothing.stdout)["result"]) == (0, "not-running")


def test_life2_kill_9_then_start_at_once(openclaw: Program) -> None:
    with openclaw.started() as port:
        first = openclaw.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        started = openclaw("gateway", "start", "--port", str(port))
        assert started.returncode == 0, started.stderr
        assert openclaw.pid not in {None, first}


def test_life2_v49_a_suspended_holder_is_named_and_not_killed_unasked(openclaw: Program) -> None:
    with openclaw.started():
        pid = openclaw.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            refused = openclaw("gateway", "start")
            assert refused.returncode == 1
            assert time.monotonic() - began < 20  # it does not wait for whom it asks
            assert f"kill -CONT {pid}" in refused.stderr
            run = openclaw("gateway", "run")
            assert run.returncode == 1
            assert str(pid) in run.stderr
            shown = openclaw("status", "--timeout", "500")
            assert shown.returncode == 1
            assert "is suspended" in shown.stdout
            stop = openclaw("gateway", "stop")
            assert stop.returncode == 1
            assert "openclaw gateway stop --force" in stop.stderr
            assert openclaw.pid == pid
        finally:
            forced = openclaw("gateway", "stop", "--force")
        assert forced.returncode == 0, forced.stderr
        assert openclaw.pid is None


def test_v49_stop_never_signals_a_process_that_does_not_hold_the_lock(openclaw: Program) -> None:
    innocent = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        openclaw.state.mkdir(mode=0o700)
        note = {"pid": innocent.pid, "startTime": "1", "port": 1}
        (openclaw.state / "gateway.lock").write_text(json.dumps(note))
        assert openclaw("gateway", "stop", "--force").returncode == 0
        assert innocent.poll() is None
    finally:
        innocent.communicate(b"")


def test_a_foreign_process_on_the_port_is_named(openclaw: Program) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        done = openclaw("gateway", "start", "--port", str(port))
        assert done.returncode == 1
        assert f"process {os.getpid()}" in done.stderr
        assert f"--port {port + 1}" in done.stderr
        run = openclaw("gateway", "run", "--port", str(port))
        assert run.returncode == 1
        assert f"process {os.getpid()}" in run.stderr
        assert "Traceback" not in run.stderr
    assert openclaw.pid is None


def test_life1_restart_keeps_the_process(openclaw: Program) -> None:
    with openclaw.started() as port:
        pid = openclaw.pid
        for _ in range(3):
            done = openclaw("gateway", "restart")
            assert done.returncode == 0, done.stderr
            assert openclaw.pid == pid
            assert health(port) == 200


def test_restart_starts_what_does_not_run_and_leaves_what_could_not_start(openclaw: Program) -> None:
    openclaw.config(f"{{gateway: {{port: {free_port()}}}}}")
    assert openclaw("gateway", "restart").returncode == 0
    try:
        pid = openclaw.pid
        assert pid is not None
        (openclaw.state / "config" / "last-good.json5").unlink(missing_ok=True)
        openclaw.config("{ gateway: { auth: { type: 'password' } } }")
        refused = openclaw("gateway", "restart")
        assert refused.returncode == 78
        assert openclaw.pid == pid
    finally:
        openclaw("gateway", "stop", "--force")


def test_cfg1_an_unsafe_configuration_exits_with_78(openclaw: Program) -> None:
    openclaw.config("{ gateway: { auth: { type: 'password' } } }")
    for command in (("gateway", "run"), ("gateway", "start"), ("gateway",)):
        done = openclaw(*command)
        assert done.returncode == 78, done.stderr
        assert "password" in done.stderr
        assert "fix:" in done.stderr
        assert "Traceback" not in done.stderr


def test_run_in_the_foreground_tells_where_and_never_the_token(openclaw: Program) -> None:
    port = free_port()
    with openclaw.foreground("--port", str(port)) as process:
        assert process.stdout is not None
        told = "".join(process.stdout.readline() for _ in range(6))
        assert "credentials/gateway-token" in told
        assert told.count("openclaw ") == 3
        assert health(port) == 200
        process.terminate()
        out, err = process.communicate(timeout=10)
        assert process.returncode == 0
        assert openclaw.secret not in told + out + err
    assert openclaw.pid is None
    assert openclaw.secret not in (openclaw.state / "logs" / "gateway.log").read_text()


@pytest.mark.parametrize("bind", ["lan", "::"])
def test_net4_what_is_printed_can_be_typed_in_whatever_it_is_bound_to(openclaw: Program, bind: str) -> None:
    """``0.0.0.0`` and ``::`` are no addresses: what they stand for is named."""
    port = free_port()
    assert openclaw("config", "set", "gateway.publicUrl", "https://claw.example.com").returncode == 0
    try:
        started = openclaw("gateway", "start", "--port", str(port), "--bind", bind, "--json")
        assert started.returncode == 0, started.stderr
        facts = json.loads(started.stdout)
        assert facts["url"] == f"ws://127.0.0.1:{port}"
        assert facts["elsewhere"][-1] == "wss://claw.example.com"
        assert set(facts["elsewhere"][:-1]) >= {f"ws://{own}:{port}" for own in own_lan_addresses() if ":" not in own}
        again, restarted = openclaw("gateway", "start"), openclaw("gateway", "restart")
        status = openclaw("status")
        holder = read_holder(openclaw.state)
        assert holder is not None
        assert list(holder.elsewhere) == facts["elsewhere"]
        out = (openclaw.state / "logs" / "gateway.out").read_text()
    finally:
        openclaw("gateway", "stop", "--force")
    for said in (again.stdout, restarted.stdout, out):
        assert f"ws://127.0.0.1:{port}" in said
        assert "wss://claw.example.com" in said
    for said in (started.stdout, again.stdout, restarted.stdout, status.stdout, out):
        assert not re.search(r"//(0\.0\.0\.0|\[::\])", said), said


def test_sigint_ends_it_with_0_too(openclaw: Program) -> None:
    with openclaw.foreground("--port", "0") as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0


def test_s164_the_process_is_found_by_its_name(openclaw: Program) -> None:
    with openclaw.foreground("--port", "0") as process:
        line = Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b"\0", b" ")
        assert b"openclaw" in line
        assert Path(f"/proc/{process.pid}/comm").read_text().strip() == "openclaw"


def wait_for_log(openclaw: Program, text: str) -> str:
    path = openclaw.state / "logs" / "gateway.log"
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if path.exists() and text in path.read_text():
            return path.read_text()
        time.sleep(0.02)
    raise AssertionError(f"{text!r} never appeared in the log: {path.read_text()}")


def test_sighup_takes_a_changed_configuration_over(openclaw: Program) -> None:
    port = free_port()
    openclaw.config(f"{{gateway: {{port: {port}}}}}")
    with openclaw.foreground() as process:
        openclaw.config(f"{{gateway: {{port: {port}, transports: {{websocket: {{concurrentConnections: 7}}}}}}}}")
        process.send_signal(signal.SIGHUP)
        assert "concurrentConnections" in wait_for_log(openclaw, "configuration applied")
        limits = json.loads(openclaw("status", "--json").stdout)["connections"]["limit"]
        assert limits == 7
        assert openclaw.pid == process.pid


def test_cfg3_commands_follow_a_port_that_was_changed(openclaw: Program) -> None:
    old, new = free_port(), free_port()
    openclaw.config(f"{{gateway: {{port: {old}}}}}")
    with openclaw.foreground() as process:
        assert openclaw("config", "set", "gateway.port", str(new)).returncode == 0
        process.send_signal(signal.SIGHUP)
        wait_for_log(openclaw, "configuration applied")
        holder = read_holder(openclaw.state)
        assert holder is not None
        assert (holder.port, holder.bind, holder.url) == (new, "loopback", f"ws://127.0.0.1:{new}")
        shown = openclaw("status")
        assert shown.returncode == 0, shown.stdout
        assert re.search(r"config +ok +applied", shown.stdout)
        stopped = openclaw("gateway", "stop")
        assert stopped.returncode == 0
        assert f"port {new} is free" in stopped.stdout


def test_cfg1_cfg4_status_says_what_of_the_file_is_not_in_use(openclaw: Program) -> None:
    port = free_port()
    openclaw.config(f"{{gateway: {{port: {port}, nodes: {{invokeTimeoutMs: 'soon'}}}}}}")
    with openclaw.foreground() as process:
        shown = openclaw("status", "--json")
        rows = {row["name"]: row for row in json.loads(shown.stdout)["rows"]}
        assert "gateway.nodes.invokeTimeoutMs" in rows["config"]["text"]
        openclaw.config(f"{{gateway: {{port: {port}, nodes: {{invokeTimeoutMs: 'later'}}}}}}")
        process.send_signal(signal.SIGHUP)
        wait_for_log(openclaw, "SIGHUP")
        facts = json.loads(openclaw("status", "--json").stdout)
        rows = {row["name"]: row for row in facts["rows"]}
        assert rows["config"]["state"] == "unknown"
        assert "is not applied (gateway.nodes.invokeTimeoutMs)" in rows["config"]["text"]
        assert facts["config"]["fileHash"] != facts["config"]["appliedHash"]


def test_net7_the_hint_is_the_first_line_of_the_log(tmp_path: Path) -> None:
    openclaw = Program(tmp_path / "state", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"})
    with openclaw.foreground("--port", "0"):
        first = json.loads((openclaw.state / "logs" / "gateway.log").read_text().splitlines()[0])
    assert "a published port cannot work" in first["event"]
    assert first["fix"] == "openclaw config set gateway.bind lan"


@pytest.mark.parametrize("option", ["--token", "--password"])
@pytest.mark.parametrize("command", [("gateway", "run"), ("status",), ("gateway", "call", "health")])
def test_auth1_an_empty_secret_is_wrong_usage(openclaw: Program, command: tuple[str, ...], option: str) -> None:
    done = openclaw(*command, option, "")
    assert done.returncode == 2
    assert f"{option}: is empty" in done.stderr


def test_sd_notify_ready_and_stopping(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        openclaw = Program(tmp_path / "state", {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        with openclaw.foreground("--port", "0") as process:
            assert manager.recv(100) == b"READY=1"
            process.terminate()
            assert manager.recv(100) == b"STOPPING=1"
            assert process.wait(timeout=10) == 0


def test_force_takes_over_from_the_gateway_that_runs(openclaw: Program) -> None:
    with openclaw.started() as port:
        first = openclaw.pid
        with openclaw.foreground("--port", str(port), "--force") as process:
            assert openclaw.pid == process.pid != first


def test_life3_stop_sees_that_something_starts_it_again(openclaw: Program) -> None:
    loop = "while :; do %s -m openclaw_gateway gateway run --port %d >/dev/null 2>&1; done"
    port = free_port()
    shell = subprocess.Popen(
        ["/bin/sh", "-c", loop % (sys.executable, port)], env=openclaw.environment, start_new_session=True
    )
    try:
        until = time.monotonic() + 10
        while openclaw.pid is None and time.monotonic() < until:
            time.sleep(0.02)
        stopped = openclaw("gateway", "stop")
        assert stopped.returncode == 1
        assert "starts it again" in stopped.stderr
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        assert openclaw("gateway", "stop", "--force").returncode == 0


def test_files_that_start_makes_are_private(openclaw: Program) -> None:
    with openclaw.started():
        modes = {path: path.stat().st_mode & 0o077 for path in openclaw.state.rglob("*") if not path.is_symlink()}
    assert modes
    assert not any(modes.values()), modes


def test_a_working_directory_cannot_plant_modules(openclaw: Program, tmp_path: Path) -> None:
    trap = tmp_path / "cwd"
    trap.mkdir()
    (trap / "trio.py").write_text("raise SystemExit('planted')")
    port = free_port()
    command = [sys.executable, "-P", "-m", "openclaw_gateway", "gateway", "start", "--port", str(port)]
    done = subprocess.run(command, cwd=trap, env=openclaw.environment, capture_output=True, text=True, check=False)
    try:
        assert done.returncode == 0, done.stderr
        assert re.search(r"is up: ws://127\.0\.0\.1:\d+", done.stdout)
    finally:
        openclaw("gateway", "stop", "--force")


def test_start_and_restart_know_a_gateway_that_speaks_tls(openclaw: Program) -> None:
    openclaw.config("{gateway: {tls: {enabled: true}}}")
    with openclaw.started() as port:
        again = openclaw("gateway", "restart")
        assert again.returncode == 0, again.stderr
        assert f"wss://127.0.0.1:{port}" in again.stdout
        plain = openclaw("status", "--url", f"ws://127.0.0.1:{port}", "--token", "x")
        assert "this port speaks TLS alone" in plain.stdout
        assert f"fix: openclaw status --url wss://127.0.0.1:{port}" in plain.stdout


def test_start_knows_a_gateway_that_refuses_this_hosts_addresses(openclaw: Program) -> None:
    openclaw.config("{gateway: {network: {allow: ['192.0.2.0/24']}}}")
    with openclaw.started():
        assert openclaw("gateway", "restart").returncode == 0


def test_doctor_and_status_say_what_the_certificate_lacks(openclaw: Program, tmp_path: Path) -> None:
    gone = tmp_path / "gone.pem"
    openclaw.config(f"{{gateway: {{tls: {{enabled: true, certPath: '{gone}', keyPath: '{gone}'}}}}}}")
    with openclaw.started():
        said = openclaw("doctor")
        assert said.returncode == 1, said.stdout
        assert "not ready: tls" in said.stdout
        assert f"fallback: {gone}: there is no such certificate file" in said.stdout
        make_pair(gone, tmp_path / "key.pem", ["127.0.0.1"])
        gone.write_bytes(gone.read_bytes() + (tmp_path / "key.pem").read_bytes())
        until = time.monotonic() + 10
        while "tls        ok" not in (seen := openclaw("status").stdout):
            assert time.monotonic() < until, seen
        gone.write_text("half a file")  # what is in use is found by this host's commands all the same
        until = time.monotonic() + 10
        while "kept" not in (seen := openclaw("status").stdout):
            assert "not the pinned one" not in seen
            assert time.monotonic() < until, seen


def test_s163_discover_names_this_hosts_own_gateway_that_nobody_can_hear_of(openclaw: Program) -> None:
    with openclaw.started() as port:
        nothing = openclaw("devices", "discover", "--timeout", "200")
        if nothing.returncode == 0:
            pytest.skip("another gateway is announced on this network")
        assert f"this host's own gateway (ws://127.0.0.1:{port}) listens on loopback only" in nothing.stderr
        assert "fix: openclaw config set gateway.bind lan" in nothing.stderr


def test_doctor_network_shows_the_certificate_that_is_required(openclaw: Program) -> None:
    openclaw.config("{gateway: {tls: {enabled: true}}}")
    with openclaw.started() as port:
        pin = json.loads(openclaw("status", "--json").stdout)["tls"]["fingerprint"]
        argv = ["node", "run", "--host", "127.0.0.1", "--port", str(port), "--tls", "--tls-fingerprint", pin]
        node = subprocess.Popen(
            [*openclaw.argv, *argv], env={**openclaw.environment, "OPENCLAW_GATEWAY_TOKEN": openclaw.secret},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until = time.monotonic() + 15
            while (made := openclaw("devices", "cert")).returncode != 0:
                assert time.monotonic() < until, made.stderr
        finally:
            node.terminate()
            node.wait(10)
        assert openclaw("config", "set", "gateway.tls.clientAuth", "required").returncode == 0
        assert openclaw("gateway", "restart").returncode == 0  # so that it is applied for certain
        report = openclaw("doctor", "--network", "--json")
        assert json.loads(report.stdout)["trouble"] is None
        assert report.returncode == 0, report.stdout
