"""The responder against avahi, the kernel and other gateways: real processes in namespaces of their own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from openclaw_gateway.discovery.records import OPENCLAW_TYPE, SEED_TYPE
from tests.discovery.netns import Avahi, Host, Lan, avahi, lan
from tests.discovery.running import gateway

pytestmark = pytest.mark.deadline(90)


def resolved(listing: str) -> list[dict[str, str]]:
    """The ``=`` lines of ``avahi-browse -rpt``: one dictionary per row, TXT pairs among the fields."""
    rows = []
    for line in listing.splitlines():
        if line.startswith("="):
            _, interface, family, name, kind, _, host, address, port, txt = line.split(";", 9)
            pairs = dict(pair.split("=", 1) for pair in re.findall(r'"([^"]*)"', txt))
            rows.append(
                {"interface": interface, "family": family, "name": name, "type": kind, "host": host, "address": address}
                | {"port": port, **pairs}
            )
    return rows


@contextmanager
def multicasts(host: Host, *options: str) -> Iterator[subprocess.Popen[str]]:
    """tcpdump of every mDNS packet that ``host`` sees on eth0, a line each."""
    if not Path("/usr/bin/tcpdump").exists():
        pytest.skip("tcpdump is not installed")
    dump = host.popen(
        ["tcpdump", "-i", "eth0", "-n", "-l", "-tt", *options, "udp", "and", "dst", "port", "5353"],
        stderr=subprocess.PIPE,
    )
    assert dump.stderr is not None
    for line in dump.stderr:
        if "listening on" in line:
            break
    yield dump


def heard(dump: subprocess.Popen[str]) -> list[str]:
    """End it; every line that it printed."""
    dump.terminate()
    out, _ = dump.communicate(timeout=10)
    return [line for line in out.splitlines() if " IP" in line]


def listed(listener: Avahi, kind: str, count: int = 1) -> list[dict[str, str]]:
    """What avahi resolves, once it is ``count`` instances. It gives up after a second; a responder may take that long
    (RFC 6762 section 6).
    """
    deadline = time.monotonic() + 10
    while len(rows := resolved(listener.browse(kind))) < count:
        assert time.monotonic() < deadline, rows
    assert len(rows) == count, rows
    return rows


def gone(listener: Avahi, kind: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        # A goodbye is kept for a second by whoever hears it (RFC 6762 section 10.1), and listed with "-" behind.
        listing = listener.browse(kind)
        if not resolved(listing) or "\n-;" in listing:
            return True
    return False


def test_c3_avahi_lists_both_types_with_the_right_txt_and_goodbye_removes_them_at_once(tmp_path: Path) -> None:
    with lan("a", "b") as net, avahi(net["b"]) as listener, gateway(net["a"], tmp_path) as running:
        said = running.announced()
        rows = listed(listener, SEED_TYPE) + listed(listener, OPENCLAW_TYPE)
        assert [row["type"] for row in rows] == [SEED_TYPE, OPENCLAW_TYPE]
        seed, openclaw = rows
        identity = seed["id"]
        for row in rows:
            assert row["port"] == "18789"
            assert row["address"] == net["a"].address
            assert row["host"] == f"openclaw-{identity}.local" == said["host"]
            assert identity in row["name"]
        assert (seed["capabilities"], seed["auth"]) == ("gateway,agent", "token")
        assert re.fullmatch(r"\d+\.\d+\.\d+", seed["version"])
        assert openclaw["role"] == openclaw["transport"] == "gateway"
        assert openclaw["gatewayPort"] == "18789"
        assert openclaw["lanHost"] == f"openclaw-{identity}.local"
        assert openclaw["displayName"] == said["instance"]
        assert not {"cliPath", "sshPort", "tailnetDns", "gatewayTls"} & (openclaw.keys() | seed.keys())
        assert running.stop() < 5
        assert gone(listener, SEED_TYPE, 3)
        assert gone(listener, OPENCLAW_TYPE, 3)


def test_disc3_full_mode_tells_what_minimal_does_not(tmp_path: Path) -> None:
    with lan("a", "b") as net, avahi(net["b"]) as listener, gateway(net["a"], tmp_path, mode="full") as running:
        running.announced()
        (row,) = listed(listener, OPENCLAW_TYPE)
        assert row["sshPort"] == "22"
        assert row["displayName"] == net["a"].run(["hostname"]).stdout.strip()


def test_disc1_a_loopback_gateway_announces_nothing_and_loads_nothing(tmp_path: Path) -> None:
    with lan("a", "b") as net, multicasts(net["b"]) as dump:
        with gateway(net["a"], tmp_path, bind="loopback", mode=None) as running:
            said = running.discovery()
            maps = net["a"].run(["grep", "-c", "zeroconf", f"/proc/{running.process.pid}/maps"], check=False).stdout
        assert said["state"] == "off"
        assert "gateway.bind" in said["reason"]
        assert maps.strip() == "0"
        assert heard(dump) == []


def test_disc1_port_5353_taken_is_one_warning_and_ends_when_the_port_is_free(tmp_path: Path) -> None:
    hold = "import socket,time; s=socket.socket(2,2); s.bind(('',5353)); print('held',flush=True); time.sleep(60)"
    with lan("a") as net:
        holder = net["a"].popen([sys.executable, "-c", hold])
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with gateway(net["a"], tmp_path) as running:
            said = running.until(lambda seen: seen["state"] == "retrying")
            assert "5353" in said["reason"]
            assert "ready" in running.openclaw("doctor", check=False).stdout
            holder.terminate()
            running.announced()
            assert running.logged("cannot announce this gateway") == 1


def test_disc1_without_multicast_it_waits_and_says_so(tmp_path: Path) -> None:
    with lan("a") as net:
        net["a"].run(["ip", "link", "set", "eth0", "multicast", "off"])
        with gateway(net["a"], tmp_path) as running:
            said = running.until(lambda seen: seen["state"] == "waiting" and seen["reason"] != "starting")
            assert "multicast" in said["reason"]
            net["a"].run(["ip", "link", "set", "eth0", "multicast", "on"])
            running.announced()
            net["a"].run(["ip", "link", "set", "eth0", "down"])
            running.until(lambda seen: seen["state"] == "waiting")
            assert running.process.poll() is None


def test_disc1_an_address_that_comes_later_is_announced_within_two_seconds(tmp_path: Path) -> None:
    with lan("a", "b") as net, gateway(net["a"], tmp_path) as running:
        running.announced()
        with multicasts(net["b"]) as dump:
            net.plug("a", "eth1", "10.78.0.1/24")
            began = time.monotonic()
            assert dump.stdout is not None
            for line in dump.stdout:
                if "10.78.0.1.5353 >" in line:
                    break
            assert time.monotonic() - began <= 4.0  # two seconds, and what a busy machine adds
        said = running.until(lambda seen: len(seen["interfaces"]) == 2)
        assert [row["addresses"] for row in said["interfaces"]] == [["10.77.0.1"], ["10.78.0.1"]]


def test_disc1_one_more_address_is_told_at_once_and_without_a_goodbye(tmp_path: Path) -> None:
    with lan("a", "b") as net, gateway(net["a"], tmp_path) as running:
        running.announced()
        with multicasts(net["b"], "-vvv") as dump:
            net["a"].run(["ip", "addr", "add", "10.77.0.88/24", "dev", "eth0"])
            began = time.monotonic()
            assert dump.stdout is not None
            heard_before = []
            for line in dump.stdout:
                heard_before.append(line)
                if "A 10.77.0.88" in line:
                    break
            assert time.monotonic() - began <= 4.0  # as above
        assert any("[2m]" in line or "[1h15m]" in line for line in heard_before), "the times to live are shown"
        assert not [line for line in heard_before if "[0s]" in line and "PTR" in line]
        (row,) = running.discovery()["interfaces"]
        assert row["addresses"] == ["10.77.0.1", "10.77.0.88"]


def test_disc1_each_network_hears_its_own_address_only(tmp_path: Path) -> None:
    # RFC 6762 section 6.2: addresses of other interfaces MUST NOT be sent.
    with lan("a", "b") as net, lan("c", prefix="10.79.0") as other:
        _join(net, other)
        with avahi(net["b"]) as here, gateway(net["a"], tmp_path) as running:
            assert len(running.announced()["interfaces"]) == 2
            (row,) = listed(here, OPENCLAW_TYPE)
            assert row["address"] == net["a"].address
            with avahi(other["c"]) as there:
                (row,) = listed(there, OPENCLAW_TYPE)
                assert row["address"] == "10.79.0.100"


def _join(net: Lan, other: Lan) -> None:
    """Give ``net``'s host a an interface on the other segment."""
    name = net["a"].namespace
    for words in (
        f"-n {other['c'].namespace} link add lan1 type veth peer name eth1 netns {name}",
        f"-n {name} addr add 10.79.0.100/24 dev eth1",
        f"-n {name} link set eth1 up",
        f"-n {other['c'].namespace} link del eth0",
        f"-n {other['c'].namespace} link set lan1 name eth0",
        f"-n {other['c'].namespace} addr add 10.79.0.1/24 dev eth0",
        f"-n {other['c'].namespace} link set eth0 up",
    ):
        subprocess.run(["ip", *words.split()], check=True)


_ASK = """
import socket, struct, sys
name = b"".join(bytes([len(part)]) + part for part in (b"_openclaw-gw", b"_tcp", b"local")) + b"\\0"
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 0))
sock.settimeout(2)
sock.sendto(struct.pack(">6H", 7, 0, 1, 0, 0, 0) + name + struct.pack(">HH", 12, 1), (sys.argv[2], 5353))
try:
    print(len(sock.recv(9000)))
except TimeoutError:
    print(0)
"""


def test_disc3_only_who_is_on_the_link_gets_an_answer(tmp_path: Path) -> None:
    """RFC 6762 section 11, OpenClaw PR1882: nothing for the Internet to list, and no mirror for a forged source."""
    with lan("a", "b") as net, gateway(net["a"], tmp_path / "a") as running:
        running.announced()
        stranger = "192.0.2.5"  # behind a router
        net["b"].run(["ip", "addr", "add", f"{stranger}/32", "dev", "eth0"])
        net["a"].run(["ip", "route", "add", "default", "via", net["b"].address])
        net["b"].run(["ping", "-c1", "-W2", "-I", stranger, net["a"].address])

        def answer(source: str, target: str) -> int:
            return int(net["b"].run([sys.executable, "-c", _ASK, source, target]).stdout)

        assert answer(net["b"].address, "224.0.0.251") > 100
        assert answer(stranger, net["a"].address) == 0
        assert answer(net["b"].address, net["a"].address) == 0


def test_disc2_two_gateways_on_two_interfaces_of_one_lan_are_quiet(tmp_path: Path) -> None:
    with lan("a", "b") as net, avahi(net["b"]) as listener:
        net.plug("a", "eth1", "10.77.0.9/24")
        with (
            gateway(net["a"], tmp_path / "one") as one,
            gateway(net["a"], tmp_path / "two", port=18790) as two,
        ):
            assert len(one.announced()["interfaces"]) == len(two.announced()["interfaces"]) == 1
            rows = listed(listener, OPENCLAW_TYPE, 2)
            assert sorted(row["port"] for row in rows) == ["18789", "18790"]
            assert len({row["host"] for row in rows}) == 2
            with multicasts(net["b"]) as dump:
                time.sleep(18)  # the measured span itself: fewer than ten packets a minute
            packets = [line for line in heard(dump) if "10.77.0.2." not in line]
            assert len(packets) < 3, packets
            assert one.discovery()["renames"] == two.discovery()["renames"] == 0


def test_disc2_a_copy_of_this_gateway_gets_another_name_once(tmp_path: Path) -> None:
    with lan("a", "b", "c") as net, avahi(net["c"]) as listener, gateway(net["a"], tmp_path / "one") as one:
        first = one.announced()
        copied = tmp_path / "two" / "credentials"
        copied.mkdir(parents=True, mode=0o700)
        copied.parent.chmod(0o700)
        for file in (tmp_path / "one" / "credentials").iterdir():
            (copied / file.name).write_bytes(file.read_bytes())
            (copied / file.name).chmod(0o600)
        with gateway(net["b"], tmp_path / "two") as two:
            second = two.announced()
            assert second["renames"] == 1
            assert second["instance"] == f"{first['instance']} 2"
            assert second["host"] != first["host"]
            rows = listed(listener, OPENCLAW_TYPE, 2)
            assert {row["address"] for row in rows} == {net["a"].address, net["b"].address}


def test_rob1_a_network_that_comes_and_goes_a_hundred_times_leaves_the_gateway_well(tmp_path: Path) -> None:
    with lan("a", "b") as net, gateway(net["a"], tmp_path) as running:
        running.announced()
        flap = "for i in $(seq 100); do ip link set eth0 down; ip link set eth0 up; done"
        net["a"].run(["sh", "-c", flap])
        running.announced()
        assert running.process.poll() is None
        threads = net["a"].run(["sh", "-c", f"ls /proc/{running.process.pid}/task | wc -l"]).stdout
        assert int(threads) < 16
        assert running.logged('"level":"error"') == 0
        assert running.stop() < 5
