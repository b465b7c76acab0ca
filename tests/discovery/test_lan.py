"""Finding gateways as a person does it: the command line in one network namespace, everybody else in others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import attrs
import pytest

from openclaw_gateway.cli.discover import PROBE_WAIT_SECONDS, _Lines
from openclaw_gateway.discovery.found import MAX_INSTANCES, Change, FoundGateway, Reach, Table
from openclaw_gateway.pairing.identity import load_gateway_identity
from tests.discovery.netns import Host, Lan, avahi, lan
from tests.discovery.running import gateway
from tests.discovery.test_found import both, identity

HOSTILE = Path(__file__).with_name("hostile.py")
OPENCLAW = [sys.executable, "-m", "openclaw_gateway"]
SEED_TXT = ("version=3.0.0", "capabilities=gateway,agent,channels", "auth=token")
MAX_RSS_KIB = 120_000


pytestmark = pytest.mark.deadline(90)  # several programs of ours start one after another


@pytest.fixture
def net() -> Iterator[Lan]:
    with lan("a", "b", "c") as made:
        yield made


class Looker:
    """The command line on a host, with a state directory of its own."""

    def __init__(self, host: Host, state: Path) -> None:
        state.mkdir(mode=0o700, exist_ok=True)
        self.host = host
        self.env = {"OPENCLAW_STATE_DIR": str(state), "HOME": str(state), "OPENCLAW_WIDE_AREA_DOMAIN": ""}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.host.run([*OPENCLAW, *words], env=self.env, check=False)

    def measured(self, *words: str) -> tuple[subprocess.CompletedProcess[str], int]:
        """`run`, and the most memory that it had (KiB): its own, not that of whatever other tests ran before."""
        script = (
            "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode; "
            "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); sys.exit(code)"
        )
        done = self.host.run([sys.executable, "-c", script, *OPENCLAW, *words], env=self.env, check=False)
        done.stderr, _, peak = done.stderr.rpartition("peak ")
        return done, int(peak)

    def found(self, *words: str) -> dict[str, Any]:
        done = self.run("gateway", "discover", "--json", *words)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def watch(self) -> Watch:
        return Watch(self.host.popen([*OPENCLAW, "devices", "discover", "--watch", "--json"], env=self.env))


class Watch:
    """``devices discover --watch --json``, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: SimpleQueue[str] = SimpleQueue()
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def until(self, event: str, seconds: float, **wanted: object) -> float:
        """Wait for a change of that kind whose beacon has these values. How long it took."""
        began = time.monotonic()
        seen = []
        while (left := began + seconds - time.monotonic()) > 0:
            try:
                change = json.loads(self._lines.get(timeout=left))
            except Empty:
                break
            seen.append((change["event"], {key: change["beacon"].get(key) for key in wanted}))
            if change["event"] == event and all(change["beacon"].get(key) == value for key, value in wanted.items()):
                return time.monotonic() - began
        raise AssertionError(f"no {event} {wanted} within {seconds} s, but {seen}")

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10)


def test_s105_s106_s163_the_lines_of_the_seed_byte_for_byte(net: Lan, tmp_path: Path) -> None:
    looker = Looker(net["a"], tmp_path / "a")
    with avahi(net["b"], host_name="openclaw") as neighbour:
        neighbour.publish("Our gateway", "_openclaw._tcp", 18789, *SEED_TXT)
        done = looker.run("devices", "discover")
        assert done.stdout == (
            "Found OpenClaw Gateway:\n"
            f"  Host: openclaw.local ({net['b'].address}:18789)\n"
            "  Capabilities: gateway, agent, channels\n"
            "  Version: v3.0.0\n"
        )
        assert done.returncode == 0
        assert "Trust: unknown (not signed)" in done.stderr
        assert looker.run("gateway", "discover").stdout == done.stdout


def test_c8_the_keys_of_openclaws_own_json(net: Lan, tmp_path: Path) -> None:
    looker = Looker(net["a"], tmp_path / "a")
    txt = ("role=gateway", "transport=gateway", "gatewayPort=18789", "displayName=Bibliothek", "lanHost=box.local",
           "sshPort=22", "cliPath=/usr/bin/openclaw", "tailnetDns=box.ts.net")  # fmt: skip
    with avahi(net["b"], host_name="box") as neighbour:
        neighbour.publish("box gateway", "_openclaw-gw._tcp", 18789, *txt)
        told = looker.found()
    assert {"timeoutMs", "domains", "count", "beacons"} <= told.keys()
    assert (told["timeoutMs"], told["domains"], told["count"]) == (2000, ["local."], 1)
    beacon = told["beacons"][0]
    expected = {
        "instanceName": "box gateway", "displayName": "Bibliothek", "host": "box.local", "port": 18789,
        "lanHost": "box.local", "tailnetDns": "box.ts.net", "cliPath": "/usr/bin/openclaw", "role": "gateway",
        "transport": "gateway", "gatewayPort": 18789, "sshPort": 22, "domain": "local.",
        "wsUrl": "ws://box.local:18789",
    }  # fmt: skip
    assert {key: beacon[key] for key in expected} == expected
    assert beacon["txt"]["lanHost"] == "box.local"


def test_disc1_our_own_gateway_is_one_row_goes_with_its_goodbye_and_kill_9_is_noticed(net: Lan, tmp_path: Path) -> None:
    """Both types, both address families: one row, signed; a node's memory of the identity makes it paired."""
    looker = Looker(net["a"], tmp_path / "a")
    with gateway(net["b"], tmp_path / "b") as running:
        running.announced()
        known_as = load_gateway_identity(running.state).device_id
        stranger = looker.found()["beacons"]
        assert [(row["trust"], row["signature"], row["signer"], row["reachable"]) for row in stranger] == [
            ("unknown", "signed", known_as, True)
        ]
        assert sorted(stranger[0]["serviceTypes"]) == ["_openclaw-gw._tcp", "_openclaw._tcp"]
        node = tmp_path / "a" / "node"
        node.mkdir(mode=0o700)
        kept = {"url": f"ws://{net['b'].address}:18789", "deviceToken": "x" * 20, "usedAtMs": 1, "gatewayId": known_as}
        (node / "gateways.json").write_text(json.dumps({"version": 1, "gateways": [kept]}))
        (node / "gateways.json").chmod(0o600)
        done = looker.run("devices", "discover")
        assert "Trust: paired, proved by its signature" in done.stderr
        assert "x" * 20 not in done.stdout + done.stderr
        watch = looker.watch()
        watch.until("added", 10)
        running.stop()
        assert watch.until("removed", 5) < 3
    with gateway(net["b"], tmp_path / "b") as running:
        running.announced()
        watch.until("changed", 20, reachable=True, trust="paired")
        running.process.kill()
        watch.until("changed", 15, reachable=False)
        assert watch.end() == 0


def test_v39_another_gateway_at_the_known_place_is_shown_as_a_different_key(net: Lan, tmp_path: Path) -> None:
    looker = Looker(net["a"], tmp_path / "a")
    node = tmp_path / "a" / "node"
    node.mkdir(mode=0o700)
    kept = {"url": f"ws://{net['b'].address}:18789", "deviceToken": "x", "usedAtMs": 1, "gatewayId": "ab" * 32}
    (node / "gateways.json").write_text(json.dumps({"version": 1, "gateways": [kept]}))
    with gateway(net["b"], tmp_path / "impostor") as running:
        running.announced()
        done = looker.run("devices", "discover")
        assert "DIFFERENT KEY than a gateway that let this machine's node in" in done.stderr
        running.stop()


@pytest.mark.parametrize("instances", [100, 10_000])
def test_v39_disc1_a_hostile_neighbour_leaves_the_browser_bounded_and_the_terminal_safe(
    net: Lan, tmp_path: Path, instances: int
) -> None:
    looker = Looker(net["a"], tmp_path / "a")
    attacker = net["c"].popen([sys.executable, str(HOSTILE), net["c"].address, "60", str(instances)])
    assert attacker.stdout is not None
    assert attacker.stdout.readline() == "sending\n"
    told = looker.found("--timeout", "3000")
    shown, peak = looker.measured("devices", "discover", "--timeout", "3000")
    attacker.kill()
    attacker.wait(5)
    assert 2 < told["count"] <= MAX_INSTANCES
    assert all(row["trust"] == "unknown" for row in told["beacons"])
    if instances > 2048:
        assert any("more than 2048 names" in problem for problem in told["problems"])
    for text in (shown.stdout, shown.stderr):
        bad = {char for char in text if char != "\n" and unicodedata.category(char) in {"Cc", "Cf", "Cs"}}
        assert bad == set()
    lines = shown.stdout.splitlines()
    assert len(lines) == 4 * lines.count("Found OpenClaw Gateway:")  # nobody added a line of his own
    assert "Traceback" not in shown.stderr
    assert 10_000 < peak < MAX_RSS_KIB


def test_nothing_found_says_why_and_what_to_do(net: Lan, tmp_path: Path) -> None:
    looker = Looker(net["a"], tmp_path / "a")
    done = looker.run("devices", "discover", "--timeout", "500")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("openclaw: no gateway was found in 0.5 s\n")
    assert "no wide-area domain is set" in done.stderr
    assert done.stderr.count("  fix: openclaw ") == 1
    assert looker.run("gateway", "discover", "--timeout", "500").returncode == 0
    assert looker.found("--timeout", "500")["beacons"] == []


def test_disc1_without_any_network_it_says_so_and_ends_in_time(tmp_path: Path) -> None:
    with lan("lonely") as net:
        subprocess.run(["ip", "-n", net["lonely"].namespace, "link", "set", "lo", "down"], check=True)
        subprocess.run(["ip", "-n", net["lonely"].namespace, "link", "set", "eth0", "down"], check=True)
        began = time.monotonic()
        done = Looker(net["lonely"], tmp_path / "a").run("devices", "discover", "--timeout", "1000")
        assert time.monotonic() - began < 8
    assert done.returncode == 1
    assert "openclaw: no gateway was found" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [(("--domain", "box.local"), "local is the domain of multicast DNS"), (("--domain", "a b"), "is not a DNS name"),
     (("--domain", "x.internal", "--nameserver", "dns.example"), "is not the address of a DNS server"),
     (("--nameserver", "10.0.0.1"), "--nameserver needs a domain"), (("--timeout", "0"), "0 is not in the range")],
)  # fmt: skip
def test_wrong_usage_is_told_before_anything_is_sent(
    net: Lan, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    done = Looker(net["a"], tmp_path / "a").run("devices", "discover", *words)
    assert done.returncode == 2
    assert said in done.stderr


def test_v39_a_name_that_the_terminal_cannot_show_hides_nobody(net: Lan, tmp_path: Path) -> None:
    looker = Looker(net["a"], tmp_path / "a")
    looker.env["PYTHONIOENCODING"] = "latin-1"
    with avahi(net["b"]) as neighbour:
        neighbour.publish("\u65e5\u672c", "_openclaw._tcp", 18789, "version=3.0.\u65e5", "auth=token")
        done = looker.run("devices", "discover")
        assert (done.returncode, "Version: v3.0.\\u65e5" in done.stdout) == (0, True), done.stderr


def test_s106_a_link_local_address_that_is_heard_first_is_not_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def row(*addresses: str) -> FoundGateway:
        table = Table()
        table.update(attrs.evolve(one, addresses=addresses) for one in both(identity(1)))
        table.reached(Reach(ok=True, address=addresses[0]), 18789)
        return table.gateways[0]

    view = _Lines(watch=False)
    view.take(Change("added", row("fe80::1%2")), 0.0)
    view.look(0.3)
    assert capsys.readouterr().out == ""
    view.take(Change("changed", row("10.0.0.5", "fe80::1%2")), 0.4)
    view.look(0.4)
    assert "(10.0.0.5:18789)" in capsys.readouterr().out
    view.take(Change("added", attrs.evolve(row("fe80::1%2"), key="alone")), 0.0)
    view.look(PROBE_WAIT_SECONDS)
    assert "([fe80::1%2]:18789)" in capsys.readouterr().out  # where there is no other it is shown all the same
