"""S090 and V39: a node that was told no address finds its gateway, and gives nothing to anybody else."""

from __future__ import annotations

import hashlib
import json
import shlex
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trustme

from openclaw_gateway.discovery.found import Known, Reach, Table, read_sighting
from openclaw_gateway.discovery.records import OPENCLAW_TYPE
from openclaw_gateway.nodes.host.destination import Asked
from openclaw_gateway.nodes.host.finding import _flags, judge_found, wants_to_look
from openclaw_gateway.nodes.host.keeping import Keeping
from tests.discovery.netns import Host, Lan, avahi, lan
from tests.discovery.running import gateway
from tests.discovery.test_found import OTHER_PIN, PIN, both, identity

FRONT = Path(__file__).with_name("tlsfront.py")
OPENCLAW = [sys.executable, "-m", "openclaw_gateway"]
OLD_URL = "wss://10.77.0.99:18790"


# --- the rule, without a network


def table(*known: Known, pin: str | None = PIN, seen: str | None = PIN, signed: bool = True, who: int = 1) -> Table:
    made = Table(known)
    made.update(both(identity(who), pin=pin, signed=signed))
    made.reached(Reach(ok=True, address="192.168.1.100", fingerprint=seen), 18789)
    return made


def test_s090_the_only_paired_gateway_with_a_pinned_certificate_is_used(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path / "node")
    keeping.keep(OLD_URL, "kept-token", None)
    kept = Known(device_id=identity(1).device_id, url=OLD_URL, source="the kept one")
    chosen = judge_found(table(kept).gateways, Asked(), {}, keeping)
    assert chosen is not None
    assert (chosen.url, chosen.tls_fingerprint, chosen.device_token) == (
        "wss://192.168.1.100:18789", PIN, "kept-token"
    )  # fmt: skip
    assert "kept-token" not in repr(chosen)


@pytest.mark.parametrize(
    "case",
    [
        "no TLS",
        "no TLS although a certificate was kept",
        "unknown",
        "another certificate than the kept one",
        "two of them",
        "a certificate only announced",
    ],
)
def test_v39_nothing_else_is_used_without_a_persons_word(tmp_path: Path, case: str) -> None:
    keeping = Keeping(tmp_path / "node")
    keeping.keep(OLD_URL, "kept-token", None)
    kept = Known(device_id=identity(1).device_id, url=OLD_URL)
    pinned = Known(tls_sha256=PIN, url=OLD_URL)
    made = {
        "no TLS": lambda: table(kept, pin=None, seen=None),
        "no TLS although a certificate was kept": lambda: table(
            attrs.evolve(kept, tls_sha256=PIN), pin=None, seen=None
        ),
        "unknown": lambda: table(kept, who=2),
        "another certificate than the kept one": lambda: table(pinned, signed=False, seen=OTHER_PIN),
        "a certificate only announced": lambda: table(pinned, signed=False, seen=None),
        "two of them": lambda: table(kept, Known(device_id=identity(2).device_id)),
    }[case]()
    if case == "two of them":
        made.update(both(identity(2), pin=OTHER_PIN, address="192.168.1.101"))
    assert judge_found(made.gateways, Asked(), {}, keeping) is None


@pytest.mark.parametrize("asked", [Asked(url="ws://127.0.0.1:1"), Asked(host="h"), Asked(port=1), Asked(tls=True)])
def test_s090_a_named_address_is_never_looked_past(asked: Asked) -> None:
    assert not wants_to_look(asked, {})
    assert not wants_to_look(Asked(), {"OPENCLAW_GATEWAY_URL": "ws://127.0.0.1:1"})
    assert wants_to_look(Asked(), {})


# --- the programs


@pytest.fixture
def net() -> Iterator[Lan]:
    with lan("node", "gate", "spoof") as made:
        yield made


def certificate(folder: Path, name: str) -> tuple[str, str]:
    """The file, and its fingerprint."""
    made = trustme.CA().issue_cert("openclaw.local")
    file = folder / f"{name}.pem"
    made.private_key_and_cert_chain_pem.write_to_path(str(file))
    der = ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode())
    return str(file), hashlib.sha256(der).hexdigest()


def front(host: Host, port: int, target: int, cert: str, record: Path) -> None:
    process = host.popen([sys.executable, str(FRONT), str(port), str(target), cert, str(record)])
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def announce(service: Any, name: str, port: int, fingerprint: str) -> None:
    service.publish(name, "_openclaw-gw._tcp", port, "role=gateway", "gatewayTls=1", f"gatewayTlsSha256={fingerprint}")


pytestmark = pytest.mark.deadline(90)  # several programs of ours start one after another


class Node:
    """``openclaw node run`` with a state directory of its own."""

    def __init__(self, host: Host, state: Path) -> None:
        self.host = host
        self.state = state
        state.mkdir(mode=0o700, exist_ok=True)
        self.env = {"OPENCLAW_STATE_DIR": str(state), "HOME": str(state)}

    def run_until(self, state: str, *words: str) -> dict[str, Any]:
        """Its report when it is in ``state``; then it is ended."""
        process = self.host.popen([*OPENCLAW, "node", "run", "--json", *words], env=self.env)
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            report: dict[str, Any] = json.loads(line)
            seen.append(report)
            if report["state"] == state and (state != "connecting" or report.get("reason")):
                process.send_signal(signal.SIGTERM)
                process.wait(10)
                return report
        raise AssertionError(f"never {state}: {seen} {process.stderr.read() if process.stderr else ''}")

    def refused_to_choose(self) -> subprocess.CompletedProcess[str]:
        return self.host.run([*OPENCLAW, "node", "run"], env=self.env, check=False)

    def move_the_kept_gateway(self) -> None:
        """As if it had got another address since."""
        path = self.state / "node" / "gateways.json"
        kept = json.loads(path.read_text())
        kept["gateways"][0]["url"] = OLD_URL
        path.write_text(json.dumps(kept))

    @property
    def kept(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads((self.state / "node" / "gateways.json").read_text())["gateways"]
        return rows


def test_s090_v39_a_gateway_that_moved_is_found_again_and_a_spoofed_one_gets_nothing(net: Lan, tmp_path: Path) -> None:
    node = Node(net["node"], tmp_path / "node")
    real, pin = certificate(tmp_path, "real")
    spoofed, _ = certificate(tmp_path, "spoofed")
    overheard, stolen = tmp_path / "overheard", tmp_path / "stolen"
    with gateway(net["gate"], tmp_path / "gate", bind="loopback") as running:
        token = (tmp_path / "gate" / "credentials" / "gateway-token").read_text().strip()
        front(net["gate"], 18790, running.port, real, overheard)
        url = f"wss://{net['gate'].address}:18790"
        first = ("--url", url, "--tls-fingerprint", pin, "--token", token)
        report = node.run_until("waiting-for-approval", *first)
        running.openclaw("devices", "approve", report["requestId"])
        assert node.run_until("connected", *first)["gateway"] == url
        device_token = node.kept[0]["deviceToken"]
        assert node.kept[0]["tlsFingerprint"] == pin
        # It moved; somebody else claims to be it, certificate's fingerprint and all.
        node.move_the_kept_gateway()
        front(net["spoof"], 18790, 0, spoofed, stolen)
        with avahi(net["spoof"], host_name="spoof") as elsewhere:
            announce(elsewhere, "spoofed", 18790, pin)
            got = b""
            while b"GET /health" not in got:  # it is looked at, on a slow machine in a later search, and gets no more
                assert node.run_until("connecting")["gateway"] == OLD_URL
                got = stolen.read_bytes() if stolen.exists() else b""
            assert b"Upgrade" not in got
            assert device_token.encode() not in got
            assert token.encode() not in got
            with avahi(net["gate"], host_name="gate") as here:
                announce(here, "moved", 18790, pin)
                report = node.run_until("connected")
        # Let in at another address than it was issued at, by the kept device token: no other secret was given.
        assert (report["gateway"], node.kept[0]["url"]) == (url, url)
        assert b"Upgrade: websocket" in overheard.read_bytes()
        assert b"Upgrade" not in stolen.read_bytes()


def test_v39_an_unknown_gateway_is_listed_with_the_command_and_nothing_is_sent(net: Lan, tmp_path: Path) -> None:
    node = Node(net["node"], tmp_path / "node")
    with gateway(net["gate"], tmp_path / "gate") as running:
        running.announced()
        done = node.refused_to_choose()
        assert done.returncode == 1
        assert "OpenClaw (" in done.stderr
        assert f"fix: openclaw node run --host {net['gate'].address} --port 18789" in done.stderr
        pending = json.loads(running.openclaw("devices", "list", "--json").stdout)["pending"]
        assert pending == []


def test_s090_the_identity_of_a_gateway_is_learned_from_the_connection_that_let_us_in(net: Lan, tmp_path: Path) -> None:
    node = Node(net["node"], tmp_path / "node")
    with gateway(net["gate"], tmp_path / "gate") as running:
        token = (tmp_path / "gate" / "credentials" / "gateway-token").read_text().strip()
        words = ("--host", net["gate"].address, "--token", token)
        report = node.run_until("waiting-for-approval", *words)
        running.openclaw("devices", "approve", report["requestId"])
        process = net["node"].popen([*OPENCLAW, "node", "run", "--json", *words], env=node.env)
        assert process.stdout is not None
        for _ in range(200):
            if (node.state / "node" / "gateways.json").exists() and node.kept[0].get("gatewayId"):
                break
            subprocess.run(["sleep", "0.05"], check=True)
        identity_file = tmp_path / "gate" / "credentials" / "gateway-identity.json"
        assert node.kept[0]["gatewayId"] == json.loads(identity_file.read_text())["deviceId"]


def test_v39_the_command_to_be_pasted_holds_nothing_that_a_shell_would_run() -> None:
    seen = read_sighting(
        service_type=OPENCLAW_TYPE, instance="x", domain="local.", host="a;reboot;$(id)`id`.local.", port=18789,
        addresses=[], txt=b"", now=0.0,
    )  # fmt: skip
    assert seen is not None
    made = Table()
    made.update([seen])
    words = shlex.split(_flags(made.gateways[0]), posix=True)
    assert words == ["--host", "a;reboot;$(id)`id`.local", "--port", "18789"]
    assert _flags(made.gateways[0]).startswith("--host 'a;reboot;$(id)`id`.local' ")
