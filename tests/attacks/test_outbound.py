"""V56: our own programs as the attacker's courier. A canary listens where the attacker wants the secret to go."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = "our-gateway-token-0123456789abcdef"
REMOTE = "our-remote-token-0123456789abcdef"
KEPT = "our-generated-token-0123456789abcdefghijklm"


class Canary:
    """Listens on loopback, takes all that comes, and answers with ``reply``."""

    def __init__(self, reply: bytes) -> None:
        self.heard = b""
        self.calls = 0
        self._reply = reply
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._sock.accept()
            except OSError:
                return
            self.calls += 1
            with peer, contextlib.suppress(OSError):
                peer.settimeout(1)
                self.heard += peer.recv(65536)
                peer.sendall(self._reply)
                while data := peer.recv(65536):
                    self.heard += data

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(5)


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def canary() -> Iterator[Canary]:
    listener = Canary(NOT_FOUND)
    yield listener
    listener.close()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    state = tmp_path / "state"
    (state / "credentials").mkdir(parents=True)
    state.chmod(0o700)
    (state / "credentials").chmod(0o700)
    config = {
        "gateway": {"auth": {"type": "token", "token": OURS}, "remote": {"url": "wss://far.example", "token": REMOTE}}
    }
    for name, text in (("openclaw.json", json.dumps(config)), ("credentials/gateway-token", KEPT)):
        (state / name).write_text(text)
        (state / name).chmod(0o600)
    return {
        "OPENCLAW_STATE_DIR": str(state),
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
    }


def _run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "openclaw_gateway", *arguments],
        env=environment, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        ("gateway", "call", "health"),
        ("gateway", "call", "status", "--json"),
        ("health",),
        ("devices", "list"),
        ("nodes", "list"),
    ],
    ids=" ".join,
)
def test_v56_our_secret_is_not_sent_to_a_url_of_the_caller(
    command: tuple[str, ...], canary: Canary, environment: dict[str, str]
) -> None:
    for scheme in ("ws", "http"):
        done = _run(environment, *command, "--url", f"{scheme}://127.0.0.1:{canary.port}/")
        assert done.returncode not in {0, 2}, done.stderr
    named = {**environment, "OPENCLAW_GATEWAY_URL": f"ws://127.0.0.1:{canary.port}"}
    done = _run(named, *command)
    assert done.returncode not in {0, 2}, done.stderr
    for secret in (OURS, REMOTE, KEPT):
        assert secret.encode() not in canary.heard
        assert secret not in done.stdout + done.stderr
    assert canary.calls == 0


def test_v56_a_secret_given_for_one_address_does_not_follow_a_redirect(
    canary: Canary, environment: dict[str, str]
) -> None:
    first = Canary(REDIRECT % canary.port)
    try:
        done = _run(
            environment, "gateway", "call", "health", "--url", f"ws://127.0.0.1:{first.port}", "--token", "given-for-it"
        )
        assert done.returncode == 1
        assert first.calls >= 1
    finally:
        first.close()
    assert canary.calls == 0
    for heard in (first.heard, canary.heard):
        for secret in (OURS, REMOTE, KEPT, "given-for-it"):
            assert secret.encode() not in heard


def test_v56_a_name_or_an_open_network_gets_no_cleartext(environment: dict[str, str]) -> None:
    for url in (
        "ws://gw.example.com",
        "ws://8.8.8.8",
        "ws://localhost.evil.example",
        "ws://127.0.0.1@evil.example",
        "http://evil",
    ):
        done = _run(environment, "gateway", "call", "health", "--url", url, "--token", "given-for-it")
        assert done.returncode == 1, url
        assert "unencrypted" in done.stderr or "must not hold a secret" in done.stderr, done.stderr
        assert "given-for-it" not in done.stdout + done.stderr


def test_v56_the_gateway_itself_dials_out_with_no_credentials() -> None:
    """The one outbound request of a running gateway on its own account (its self-probe) is a bare HEAD to its own
    listener. Model services are asked with their own keys (models/service.py; tests/agents/test_model_agent.py).
    """
    import ast

    package = ROOT / "openclaw_gateway"
    dialling = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in {"open_tcp_stream", "open_ssl_over_tcp_stream", "create_connection", "AsyncClient", "urlopen"}:
                dialling.add(path.relative_to(package).parts[0])
    # What calls out, by package. channels, models and hooks go where the configuration says, each with its own key.
    assert dialling <= {"client", "cli", "server", "ops", "testing", "channels", "models", "hooks"}
    operating = [path.name for path in (package / "ops").rglob("*.py") if "open_tcp_stream" in path.read_text()]
    assert operating == ["doctor_network.py"]
    server = [p for p in (package / "server").rglob("*.py") if "open_tcp_stream" in p.read_text()]
    assert [p.name for p in server] == ["listener.py"]
    text = server[0].read_text()
    assert "Authorization" not in text
    assert "token" not in text
