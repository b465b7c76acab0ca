"""Which interfaces there are, and being told of a change, with the kernel's word and without."""

from __future__ import annotations

import sys
from contextlib import aclosing

import pytest
import trio
import trio.testing

from openclaw_gateway.discovery import interfaces
from openclaw_gateway.discovery.interfaces import Interface, list_interfaces, watch_interfaces
from tests.discovery.netns import lan

ETH = Interface(name="eth0", index=2, up=True, multicast=True, addresses=(("10.0.0.5", 24),))


def test_the_loopback_interface_is_there() -> None:
    (lo,) = [row for row in list_interfaces() if row.loopback]
    assert lo.up
    assert ("127.0.0.1", 8) in lo.addresses


def test_the_kernel_and_ifaddr_agree_on_addresses() -> None:
    elsewhere = {text for row in interfaces._from_ifaddr() for text, _ in row.addresses}
    assert {text for row in list_interfaces() for text, _ in row.addresses if ":" not in text} <= elsewhere


async def test_disc1_where_the_kernel_tells_nothing_it_is_asked_each_second(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    now: list[tuple[Interface, ...]] = [(), (), (), (ETH,)]
    async with aclosing(watch_interfaces(lambda: now.pop(0) if len(now) > 1 else now[0])) as changes:
        assert await anext(changes) == ()
        assert await anext(changes) == (ETH,)
        assert trio.current_time() == pytest.approx(3 * interfaces.POLL_SECONDS)


SEES = """
import trio
from openclaw_gateway.discovery.interfaces import watch_interfaces
async def main():
    async for found in watch_interfaces():
        print([(row.name, row.up, row.multicast, [text for text, _ in row.addresses if ":" not in text])
               for row in found if not row.loopback], flush=True)
trio.run(main)
"""


def test_disc1_the_kernel_tells_of_addresses_cables_and_multicast() -> None:
    with lan("a") as net:
        watcher = net["a"].popen([sys.executable, "-c", SEES])
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "[('eth0', True, True, ['10.77.0.1'])]\n"
        net["a"].run(["ip", "addr", "add", "10.77.0.77/24", "dev", "eth0"])
        assert watcher.stdout.readline() == "[('eth0', True, True, ['10.77.0.1', '10.77.0.77'])]\n"
        net["a"].run(["ip", "link", "set", "eth0", "multicast", "off"])
        assert watcher.stdout.readline() == "[('eth0', True, False, ['10.77.0.1', '10.77.0.77'])]\n"
        net["a"].run(["ip", "link", "set", "eth0", "down"])
        assert "('eth0', False" in watcher.stdout.readline()
