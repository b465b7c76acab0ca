"""OpenClaw's own clients over wss:// with a pinned certificate: the package, the command line, the node host."""

from __future__ import annotations

import hashlib
import json
import signal
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import REFERENCE, TOKEN, GatewayProcess, Official, wait_until
from .test_gateway_client import facts_of

WRONG = "ab" * 32


class TlsGateway(GatewayProcess):
    """A gateway that speaks TLS with a certificate of its own making."""

    def __init__(self, folder: Path, official: Official) -> None:
        super().__init__(folder, official)
        path = folder / "openclaw.json"
        config = json.loads(path.read_text())
        config["gateway"]["tls"] = {"enabled": True}
        path.write_text(json.dumps(config))

    @property
    def url(self) -> str:
        return f"wss://127.0.0.1:{self.port}"

    @property
    def fingerprint(self) -> str:
        pem = ssl.get_server_certificate(("127.0.0.1", self.port))
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.output()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with urllib.request.urlopen(
                f"https://127.0.0.1:{self.port}/readyz", timeout=1, context=context
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def tls_gateway(tmp_path_factory: pytest.TempPathFactory, official: Official) -> Iterator[TlsGateway]:
    gateway = TlsGateway(tmp_path_factory.mktemp("tls-gateway"), official)
    try:
        gateway.start()
        yield gateway
    finally:
        code = gateway.stop()
    assert code == 0 or REFERENCE, gateway.output()


def test_s132_the_gateway_client_package_connects_with_the_pin_and_not_with_another(
    official: Official, tls_gateway: TlsGateway
) -> None:
    done = official.script("gateway_client.mjs", "requests", tls_gateway.url, TOKEN, tls_gateway.fingerprint)
    facts = facts_of(done.out)
    assert any(row["fact"] == "hello" for row in facts), done.text
    replies = {row["method"]: row["ok"] for row in facts if row["fact"] == "reply"}
    assert replies["health"] is True
    assert any(row["fact"] == "many" and row["count"] == 200 for row in facts), done.text
    refused = official.script("gateway_client.mjs", "wrong-token", tls_gateway.url, TOKEN, WRONG)
    said = " ".join(row["message"] for row in facts_of(refused.out) if row["fact"] == "connect-error")
    assert "fingerprint mismatch" in said, refused.text


@pytest.mark.deadline(180)
def test_s132_the_command_line_reaches_a_pinned_remote_gateway(official: Official, tls_gateway: TlsGateway) -> None:
    remote = {"url": tls_gateway.url, "token": TOKEN, "tlsFingerprint": tls_gateway.fingerprint}
    done = official.cli("gateway", "call", "health", "--json", config={"gateway": {"mode": "remote", "remote": remote}})
    assert done.code == 0, done.text
    assert done.json["ok"] is True
    wrong = {**remote, "tlsFingerprint": WRONG}
    done = official.cli("gateway", "call", "health", "--json", config={"gateway": {"mode": "remote", "remote": wrong}})
    assert done.code != 0, done.text


@pytest.mark.deadline(180)
def test_s132_the_node_host_connects_with_tls_and_a_pin(official: Official, tls_gateway: TlsGateway) -> None:
    process = official.start_node_host(
        tls_gateway.port, "--tls", "--tls-fingerprint", tls_gateway.fingerprint, "--display-name", "Pinned Node"
    )
    lines: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        lines.extend(process.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        wait_until(
            "the node is connected",
            lambda: "client=node-host" in tls_gateway.output(),
            seconds=60,
            also=lambda: tls_gateway.output()[-3000:] + "".join(lines)[-2000:],
        )
        assert process.poll() is None, "".join(lines)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join(10)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
