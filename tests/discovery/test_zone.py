"""The zone text: laws over any facts, read back by dnspython; serials; and a real BIND (bind9) that serves it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import dns.zone
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from openclaw_gateway.client.discovery import discover
from openclaw_gateway.config.schema import WideAreaConfig
from openclaw_gateway.discovery.found import Known, Sighting, SightingKey
from openclaw_gateway.discovery.records import OPENCLAW_TYPE, SEED_TYPE, Announcement
from openclaw_gateway.discovery.service import Facts
from openclaw_gateway.discovery.signer import Signer
from openclaw_gateway.discovery.unicast import browse_domain, read_nameserver
from openclaw_gateway.discovery.widearea import LOOK_SECONDS, WideAreaService, make_zone, zone_path
from openclaw_gateway.discovery.zone import (
    Zone,
    content_hash,
    next_serial,
    normal_domain,
    read_hash,
    read_serial,
    zone_text,
)

FACTS = Facts(
    mode="minimal", listening=("0.0.0.0",), port=18789, version="3.0.0", auth="token",
    capabilities=("gateway", "agent", "channels"),
)  # fmt: skip
DOMAIN = "openclaw.internal."


def a_zone(**changes: object) -> Zone:
    made = Zone(
        domain=DOMAIN, instance="OpenClaw (0123456789ab)", host="openclaw-0123456789ab", port=18789,
        addresses=("100.64.0.9", "fd7a:115c:a1e0::9"), txt={OPENCLAW_TYPE: {"role": "gateway"}, SEED_TYPE: {}},
    )  # fmt: skip
    return attrs.evolve(made, **changes)  # type: ignore[arg-type]


# --- laws

_values = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60)


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1, max_size=15),
    st.dictionaries(st.text(alphabet="abcXYZ", min_size=1, max_size=9), _values, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_v39_whatever_is_said_the_zone_holds_exactly_that(instance: str, pairs: dict[str, str], serial: int) -> None:
    text = zone_text(a_zone(instance=instance, txt={SEED_TYPE: pairs}), serial)
    assert text.isascii()
    zone = dns.zone.from_text(text, origin=DOMAIN, relativize=False)
    (pointer,) = zone.find_rdataset(f"{SEED_TYPE}.{DOMAIN}", "PTR")
    assert pointer.target.labels[0] == instance.encode()
    (said,) = zone.find_rdataset(pointer.target, "TXT")
    assert list(said.strings) == ([f"{key}={value}".encode() for key, value in pairs.items()] or [b""])
    (service,) = zone.find_rdataset(pointer.target, "SRV")
    assert (service.port, str(service.target)) == (18789, f"openclaw-0123456789ab.{DOMAIN}")
    addresses = {record.address for kind in ("A", "AAAA") for record in zone.find_rdataset(service.target, kind)}
    assert addresses == {"100.64.0.9", "fd7a:115c:a1e0::9"}
    assert read_serial(text) == serial


@given(st.integers(0, 2**32 - 1), st.dates())
def test_the_serial_only_grows_in_serial_arithmetic(before: int, day: object) -> None:
    after = next_serial(before, f"{day:%Y%m%d}".zfill(8))
    assert 0 < (after - before) % 2**32 < 2**31


def test_the_first_serial_is_the_days_and_the_second_one_more() -> None:
    first = next_serial(None, "20270102")
    assert (first, next_serial(first, "20270102"), next_serial(first, "20270103")) == (
        2027010201,
        2027010202,
        2027010301,
    )


def test_the_hash_is_of_what_is_said_and_not_of_when() -> None:
    one = a_zone(txt={SEED_TYPE: {"id": "x", "pk": "k", "ts": "1", "sig": "s"}})
    later = a_zone(txt={SEED_TYPE: {"id": "x", "pk": "k", "ts": "2", "sig": "t"}})
    assert content_hash(one) == content_hash(later) == read_hash(zone_text(one, 7))
    assert content_hash(one) != content_hash(a_zone(txt={SEED_TYPE: {"id": "y", "pk": "k"}}))
    assert content_hash(one) != content_hash(attrs.evolve(one, addresses=("100.64.0.8",)))


@pytest.mark.parametrize(
    "bad", ["", ".", "a..b", "-a.b", "a b", "a\nb", "x" * 250, "box.local", "local", 'a".b', "ä.b"]
)
def test_what_is_no_domain_of_its_own_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="DNS"):
        normal_domain(bad)


def test_disc3_what_only_a_lan_understands_is_not_in_the_zone() -> None:
    said = trio.run(Signer(None).announcement, FACTS)
    zone = make_zone(DOMAIN, said, ("100.64.0.9",), full=False)
    text = zone_text(zone, 1)
    assert ".local" not in text
    assert not any(word in text for word in ("lanHost", "sshPort", "cliPath", "tailnetDns"))
    assert all(f"{key}=" in text for key in ("role", "gatewayPort", "version", "capabilities", "sig"))


@pytest.mark.parametrize(
    ("text", "read"),
    [("10.0.0.1", ("10.0.0.1", 53)), ("10.0.0.1:5353", ("10.0.0.1", 5353)), ("[fd00::1]:99", ("fd00::1", 99)),
     ("fd00::1", ("fd00::1", 53))],
)  # fmt: skip
def test_nameservers(text: str, read: tuple[str, int]) -> None:
    assert read_nameserver(text) == read


@pytest.mark.parametrize("text", ["", "dns.example", "10.0.0.1:0", "10.0.0.1:x", "[fd00::1", "10.0.0.1:99999"])
def test_what_is_no_nameserver_is_refused(text: str) -> None:
    if text == "[fd00::1":
        assert read_nameserver(text) == ("fd00::1", 53)
        return
    with pytest.raises(ValueError, match=r"not the address|no usable port"):
        read_nameserver(text)


# --- the file


class _Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class _Gateway:
    """What the service asks of a gateway."""

    def __init__(self, settings: WideAreaConfig, state_dir: Path, clock: _Clock) -> None:
        self.settings = settings
        self.facts = FACTS
        self.addresses: tuple[str, ...] = ("100.64.0.9",)
        self.signer = Signer(None, wall=clock)
        self.service = WideAreaService(
            lambda: self.settings, lambda: self.facts, self._announce, state_dir,
            addresses=lambda listening: self.addresses, clock=clock,
        )  # fmt: skip

    async def _announce(self) -> Announcement:
        return await self.signer.announcement(self.facts)

    async def written(self, path: Path) -> str:
        """The file after one more look."""
        await self.service.look()
        assert self.service.view()["fault"] is None
        return await trio.Path(path).read_text()


async def test_the_zone_file_follows_the_facts_and_only_them(tmp_path: Path) -> None:
    clock = _Clock()
    gateway = _Gateway(WideAreaConfig(domain=DOMAIN), tmp_path, clock)
    path = zone_path(gateway.settings, tmp_path)
    assert path == tmp_path / "dns" / "openclaw.internal.db"
    with trio.fail_after(30):
        first = await gateway.written(path)
        assert path.stat().st_mode & 0o777 == 0o644
        assert await gateway.written(path) == first
        gateway.addresses = ("100.64.0.10",)
        second = await gateway.written(path)
        assert "100.64.0.10" in second
        assert read_serial(second) == (read_serial(first) or 0) + 1
        assert gateway.service.view()["serial"] == read_serial(second)
        clock.now += 5 * 3600
        assert await gateway.written(path) == second
        clock.now += 2 * 3600  # the signature is renewed before it gets old
        third = await gateway.written(path)
        assert read_hash(third) == read_hash(second)
        assert (read_serial(third) or 0) > (read_serial(second) or 0)
        path.unlink()  # by somebody who tidied up
        assert read_hash(await gateway.written(path)) == read_hash(third)
        # After a restart of the gateway: the same zone is not written again.
        again = _Gateway(gateway.settings, tmp_path, clock)
        again.signer, again.addresses = gateway.signer, gateway.addresses
        kept = path.read_text()
        assert await again.written(path) == kept
    assert not list((tmp_path / "dns").glob(".*"))


async def test_rob1_what_cannot_be_written_is_told_and_the_old_zone_stays(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    gateway = _Gateway(WideAreaConfig(domain=DOMAIN, zone_file=tmp_path / "file" / "z.db"), tmp_path, _Clock())
    with trio.fail_after(30):
        await gateway.service.look()
        assert "cannot be written" in gateway.service.view()["fault"]
        gateway.settings = WideAreaConfig(domain=DOMAIN)
        path = tmp_path / "dns" / "openclaw.internal.db"
        before = await gateway.written(path)
        gateway.addresses = ()
        await gateway.service.look()
        assert "this host only" in gateway.service.view()["fault"]
        assert path.read_text() == before


async def test_the_service_looks_at_once_and_after_a_nudge_and_ends_with_a_cancel(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    gateway = _Gateway(WideAreaConfig(), tmp_path, _Clock())
    looks: list[float] = []

    async def look() -> None:
        looks.append(trio.current_time())

    gateway.service.look = look  # type: ignore[method-assign]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(gateway.service.serve)
        await wait_all_tasks_blocked()
        assert looks == []
        gateway.settings = WideAreaConfig(domain=DOMAIN)
        gateway.service.nudge()
        await wait_all_tasks_blocked()
        assert looks == [0.0]
        mock_clock.jump(LOOK_SECONDS)
        await wait_all_tasks_blocked()
        assert looks == [0.0, LOOK_SECONDS]
        nursery.cancel_scope.cancel()


# --- a real DNS server


@contextmanager
def named(folder: Path, text: str) -> Iterator[int]:
    """BIND with that zone on a port of 127.0.0.1, unprivileged paths only."""
    program = shutil.which("named")
    if program is None:
        pytest.skip("named is not installed: apt-get install bind9")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    (folder / "zone.db").write_text(text)
    (folder / "named.conf").write_text(
        f'options {{ directory "{folder}"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};\n'
        f' pid-file "{folder}/named.pid"; session-keyfile "{folder}/session.key"; recursion no;\n'
        f' dnssec-validation no; managed-keys-directory "{folder}"; }};\ncontrols {{ }};\n'
        f'zone "openclaw.internal" {{ type primary; file "{folder}/zone.db"; }};\n'
    )
    log = (folder / "named.log").open("w+")
    server = subprocess.Popen([program, "-g", "-n", "1", "-c", str(folder / "named.conf")], stderr=log)
    try:
        for _ in range(500):
            if server.poll() is not None or "all zones loaded" in (folder / "named.log").read_text():
                break
            subprocess.run(["sleep", "0.02"], check=True)
        assert server.poll() is None, (folder / "named.log").read_text()[-2000:]
        yield port
    finally:
        server.terminate()
        server.wait(10)
        log.close()


async def test_c3_a_real_bind_serves_the_zone_and_the_browser_finds_the_gateway_in_it(tmp_path: Path) -> None:
    said = await Signer(None).announcement(FACTS)
    zone = make_zone(DOMAIN, said, ("100.64.0.9", "fd7a:115c:a1e0::9"), full=False)
    known = Known(device_id=said.device_id)
    with trio.fail_after(60), named(tmp_path, zone_text(zone, 2027010201)) as port:
        async with discover(
            known=[known], multicast=False, domains=["openclaw.internal"], nameserver=f"127.0.0.1:{port}", probe=False
        ) as found:
            async for change in found:
                if len(change.gateway.service_types) == 2:
                    break
            (row,) = found.gateways
            assert found.problems == ()
    assert (row.trust, row.signature, row.signer) == ("paired", "signed", said.device_id)
    assert row.domains == (DOMAIN,)
    assert row.addresses == ("100.64.0.9", "fd7a:115c:a1e0::9")
    assert row.host == f"{said.host}.openclaw.internal"
    assert (row.advert.version, row.advert.capabilities) == ("3.0.0", ("gateway", "agent", "channels"))


async def test_v39_names_that_are_not_directly_below_the_type_are_not_followed(tmp_path: Path) -> None:
    said = await Signer(None).announcement(FACTS)
    text = zone_text(make_zone(DOMAIN, said, ("100.64.0.9",), full=False), 1)
    text += "_openclaw._tcp IN PTR x.y._openclaw._tcp\nx.y._openclaw._tcp IN SRV 0 0 1 ns1\n"
    text += "_openclaw._tcp IN PTR other\nother IN SRV 0 0 2 ns1\n"
    ports: set[int | None] = set()
    with trio.fail_after(60), named(tmp_path, text) as port, trio.CancelScope() as scope:

        def tell(seen: list[Sighting], lost: list[SightingKey]) -> None:
            ports.update(one.port for one in seen)
            if len(ports) == 3:
                scope.cancel()

        scope.deadline = trio.current_time() + 1
        await browse_domain(DOMAIN, tell, print, nameserver=f"127.0.0.1:{port}")
    assert ports == {18789}


async def _first_trouble(nameserver: str) -> str:
    """What keeps a browser of the domain from finding anything; it must have found nothing."""
    heard: list[object] = []
    told: list[str] = []
    with trio.CancelScope() as scope:

        def trouble(text: str) -> None:
            told.append(text)
            scope.cancel()

        await browse_domain(DOMAIN, lambda seen, lost: heard.append(seen), trouble, nameserver=nameserver)
    assert heard == []
    return told[0]


async def test_a_silent_server_and_an_unknown_domain_are_problems_and_not_errors(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent, trio.fail_after(20):
        silent.bind(("127.0.0.1", 0))
        said = await _first_trouble(f"127.0.0.1:{silent.getsockname()[1]}")
    assert said.startswith("openclaw.internal. cannot be looked up: no DNS server answered")
    empty = zone_text(a_zone(txt={}), 1)
    with trio.fail_after(30), named(tmp_path, empty) as port:
        assert await _first_trouble(f"127.0.0.1:{port}") == (
            "openclaw.internal. is not known to the DNS server that was asked"
        )


async def test_v39_a_server_that_answers_nonsense_harms_nothing() -> None:
    """Every datagram is answered with its own id and rubbish behind it."""
    nonsense = b"\x85\x80\x00\x01\xff\xff\x00\x00\x00\x00" + b"\xc0\x0c" * 50
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            rubbish = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            await rubbish.bind(("127.0.0.1", 0))

            async def answer() -> None:
                while True:
                    data, peer = await rubbish.recvfrom(4096)
                    await rubbish.sendto(data[:2] + nonsense, peer)

            nursery.start_soon(answer)
            assert "cannot be looked up" in await _first_trouble(f"127.0.0.1:{rubbish.getsockname()[1]}")
            nursery.cancel_scope.cancel()
        rubbish.close()
