"""V49, V53, V55: processes and files. The gateway and its commands run as real processes under a careless umask."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from openclaw_gateway.ops.instance import Holder, read_holder, signal_holder

ROOT = Path(__file__).resolve().parents[2]


class Home:
    """A state directory, and the command line in it."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.state = folder / "state"
        self.cwd = folder / "cwd"
        self.config = self.state / "openclaw.json"
        self.env: dict[str, str] = {
            "OPENCLAW_STATE_DIR": str(self.state),
            "HOME": str(folder),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **variables,
        }
        self.state.mkdir(mode=0o700)
        self.cwd.mkdir()

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "openclaw_gateway", *arguments],
            env={**self.env, **(env or {})}, cwd=self.cwd, umask=0, text=True, capture_output=True, timeout=20,
            check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def gateway(self, port: int) -> Iterator[subprocess.Popen[str]]:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "openclaw_gateway", "gateway", "run", "--port", str(port)],
            env=self.env, cwd=self.cwd, umask=0, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            until = time.monotonic() + 10
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert child.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
            yield child
        finally:
            if child.poll() is None:
                child.terminate()
            child.communicate(timeout=10)

    def exposed(self) -> list[str]:
        """What somebody else on this host could read."""
        found = []
        for path in (self.state, *self.state.rglob("*")):
            mode = stat.S_IMODE(path.lstat().st_mode)
            if mode != (0o700 if path.is_dir() else 0o600):
                found.append(f"{path.relative_to(self.state)} {mode:o}")
        return found


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with us and must survive."""
    child = subprocess.Popen(["/bin/sleep", "60"])
    yield child
    child.kill()
    child.wait()


# --- V49


def _start_time(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def _forge(home: Home, **note: object) -> Path:
    path = home.state / "gateway.lock"
    path.write_text(json.dumps(note) + "\n")
    path.chmod(0o600)
    return path


def test_v49_a_note_that_names_a_stranger_stops_nobody(home: Home, bystander: subprocess.Popen[bytes]) -> None:
    """What a gateway killed with -9 leaves behind; its process id was given to somebody else, nobody holds the lock."""
    for start in (_start_time(bystander.pid), "1", None):
        _forge(home, pid=bystander.pid, startTime=start, port=1, url="ws://127.0.0.1:1")
        for command in (("gateway", "stop"), ("gateway", "stop", "--force")):
            done = home.run(*command)
            assert done.returncode == 0, done.stderr
            assert bystander.poll() is None
    assert read_holder(home.state) is None


def test_v49_a_held_lock_with_a_forged_note_signals_nobody(home: Home, bystander: subprocess.Popen[bytes]) -> None:
    path = _forge(home, pid=bystander.pid, startTime="1", port=1)
    with path.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for pid in (bystander.pid, 1, 0, -1, True, None):
            _forge(home, pid=pid, startTime="1", port=1)
            assert home.run("gateway", "stop", "--force").returncode != 0
            assert bystander.poll() is None


def test_v49_only_the_process_that_was_looked_at_is_signalled(home: Home, bystander: subprocess.Popen[bytes]) -> None:
    """Between the look and the signal the id went to somebody else."""
    holder = Holder(state_dir=home.state, pid=bystander.pid, start_time=_start_time(bystander.pid))
    assert not signal_holder(holder, signal.SIGKILL)  # it holds no lock
    path = _forge(home, pid=os.getpid(), startTime=_start_time(os.getpid()))
    with path.open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not signal_holder(holder, signal.SIGKILL)  # another one holds it
    assert bystander.poll() is None


def test_v49_stop_ends_the_real_holder(home: Home, port: int, bystander: subprocess.Popen[bytes]) -> None:
    with home.gateway(port) as gateway:
        done = home.run("gateway", "stop")
        assert done.returncode == 0, done.stderr
        assert gateway.wait(5) == 0
    assert bystander.poll() is None


# --- V53

TEXT = """{
  // kept
  gateway: {
    auth: { type: "token", token: "${THE_TOKEN}" },
    remote: { url: "wss://far.example", token: "${OTHER_TOKEN}" },
  },
  channels: { telegram: { botToken: "${BOT_TOKEN}", enabled: false } },
}
"""
VALUES = {
    "THE_TOKEN": "resolved-gateway-token-0123456789",
    "OTHER_TOKEN": "resolved-remote-token-0123456789",
    "BOT_TOKEN": "123456789:resolved-bot-token-0123456789abcdef",
}


def test_v53_config_set_keeps_references_and_resolves_none_into_any_file(home: Home) -> None:
    home.config.write_text(TEXT)
    home.config.chmod(0o600)
    for path, value in (
        ("gateway.port", "18999"),
        ("gateway.controlUi.allowedOrigins", '["https://a.example"]'),
        ("gateway.remote.url", "wss://farther.example"),
        ("channels.telegram.enabled", "true"),
        ("gateway.auth.type", "token"),
    ):
        done = home.run("config", "set", path, value, env=VALUES)
        assert done.returncode == 0, done.stderr
    assert home.run("config", "unset", "gateway.port", env=VALUES).returncode == 0
    text = home.config.read_text()
    for name in VALUES:
        assert "${" + name + "}" in text
    assert "// kept" in text
    for file in home.state.rglob("*"):
        if file.is_file():
            for value in VALUES.values():
                assert value.encode() not in file.read_bytes(), file


def test_v53_no_file_is_ever_readable_for_others(home: Home, port: int) -> None:
    """After start, edit, reload, stop, damage, restore and a restart, all with umask 0."""
    home.env.update(VALUES)
    home.config.write_text(TEXT)
    home.config.chmod(0o600)
    with home.gateway(port):
        assert home.exposed() == []
        assert home.run("config", "set", "gateway.nodes.invokeTimeoutMs", "31000").returncode == 0
        assert home.run("health").returncode == 0
        assert home.exposed() == []
    home.config.write_text("{ this is no configuration")
    home.config.chmod(0o644)
    home.config.chmod(0o600)
    with home.gateway(port):  # the last good configuration stands in
        assert home.run("config", "set", "gateway.port", "1").returncode != 0
        assert home.exposed() == []
    assert home.exposed() == []
    database = home.state / "gateway.db"
    assert database.exists()
    assert home.run("gateway", "start", "--port", str(port)).returncode == 0
    try:
        assert home.exposed() == []
    finally:
        assert home.run("gateway", "stop").returncode == 0
    assert home.exposed() == []


def test_v53_a_world_readable_configuration_is_closed_when_it_is_written(home: Home) -> None:
    home.env.update(VALUES)
    home.config.write_text(TEXT)
    home.config.chmod(0o666)
    assert home.run("config", "set", "gateway.port", "18999").returncode == 0
    assert home.exposed() == []


def test_v53_a_restored_database_is_private(home: Home, port: int) -> None:
    from openclaw_gateway.store import backups

    home.env.update(VALUES)
    home.config.write_text(TEXT)
    home.config.chmod(0o600)
    with home.gateway(port):
        pass
    database = home.state / "gateway.db"
    kept = home.state / "backups"
    kept.mkdir(mode=0o700, exist_ok=True)
    import sqlite3

    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("INSERT INTO devices VALUES ('d','k',NULL,NULL,'p','f','c','m',1,NULL)")
        db.execute("INSERT INTO device_roles VALUES ('d','operator','[]',1,'local',1,x'00',x'00',1,NULL,1,'127.0.0.1')")
        backups.take(db, kept, "daily", time.time_ns() // 1_000_000)
    database.write_bytes(b"damaged" * 1000)
    with home.gateway(port):
        assert home.exposed() == []
    assert list((home.state / "quarantine").iterdir())
    assert home.exposed() == []


# --- V55

EVIL_TOKEN = "token-of-the-repository-0123456789abc"


def test_v55_files_of_the_working_directory_decide_nothing(home: Home, port: int) -> None:
    """A repository that a person merely enters: .env files, a configuration, a state folder, modules of our names."""
    marker = home.cwd / "executed"
    lines = (
        f"OPENCLAW_GATEWAY_TOKEN={EVIL_TOKEN}\nOPENCLAW_CONFIG_PATH={home.cwd}/openclaw.json\nOPENCLAW_STATE_DIR={home.cwd}\n"
        "OPENCLAW_GATEWAY_PORT=1\nOPENCLAW_GATEWAY_URL=ws://127.0.0.1:1\n"
    )
    for name in (".env", ".env.local", ".openclaw.env", "openclaw.env"):
        (home.cwd / name).write_text(lines)
        (home.state / name).write_text(lines)
        (home.state / name).chmod(0o600)
    evil = {"gateway": {"bind": "0.0.0.0", "auth": {"type": "token", "token": EVIL_TOKEN}}}
    (home.cwd / "openclaw.json").write_text(json.dumps(evil))
    (home.cwd / ".openclaw").mkdir()
    (home.cwd / ".openclaw" / "openclaw.json").write_text(json.dumps(evil))
    for module in ("trio", "attrs", "json", "sitecustomize", "openclaw_gateway"):
        (home.cwd / f"{module}.py").write_text(f"open({str(marker)!r}, 'w')\nraise SystemExit('taken over')\n")
    with home.gateway(port):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            body = b'{"method":"health"}'
            sock.sendall(
                b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer %s\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (EVIL_TOKEN.encode(), len(body), body)
            )
            assert sock.recv(100).startswith(b"HTTP/1.1 401")
        done = home.run("config", "get", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["gateway"]["bind"] == "loopback"
        done = home.run("health", "--json")
        assert done.returncode == 0, done.stderr
        assert home.run("config", "file").stdout.strip() == str(home.config)
    # The background start, which spawns a process of its own, from the same folder.
    done = home.run("gateway", "start", "--port", str(port))
    assert done.returncode == 0, done.stderr
    assert home.run("gateway", "stop").returncode == 0
    assert not marker.exists()
