"""The life of the browser: cancelled early, kept busy, flooded, and on a host whose networks change."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from openclaw_gateway.client.discovery import discover
from openclaw_gateway.discovery import browser, mdnsthread
from openclaw_gateway.discovery.browser import MAX_HEARD, _Heard, _Pending, _Resolver, browse_multicast
from openclaw_gateway.discovery.found import Sighting, SightingKey
from tests.discovery.netns import Lan, lan
from tests.discovery.running import gateway
from tests.discovery.test_found import both, identity
from tests.discovery.test_lan import HOSTILE, Looker

pytestmark = pytest.mark.deadline(90)

KEY = ("local.", "_openclaw._tcp", "n")


class State:
    name = "Added"


@pytest.fixture
def net() -> Iterator[Lan]:
    with lan("a", "b", "c") as made:
        yield made


async def test_disc1_a_browser_that_is_cancelled_while_it_opens_ends_without_a_fault_or_a_thread() -> None:
    before = set(threading.enumerate())
    with trio.CancelScope() as scope:
        scope.cancel()
        await browse_multicast(lambda seen, lost: None, lambda text: None)
    assert scope.cancelled_caught
    left = [thread.name for thread in set(threading.enumerate()) - before if "zeroconf" in thread.name.lower()]
    assert left == []


async def test_disc1_a_browser_that_listened_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(5):
            await nursery.start(browse_multicast, lambda seen, lost: None, lambda text: None)
        nursery.cancel_scope.cancel()
    left = [thread.name for thread in set(threading.enumerate()) - before if "zeroconf" in thread.name.lower()]
    assert left == []


@pytest.mark.parametrize("fault", ["EventLoopBlocked", "NotRunningException"])
async def test_rob1_a_question_that_zeroconf_cannot_ask_costs_that_question(fault: str) -> None:
    import zeroconf

    class Info:
        def request(self, zeroconf_: object, ms: float) -> bool:
            raise getattr(zeroconf, fault)

    async with trio.open_nursery() as nursery:
        resolver = _Resolver(None, lambda seen, lost: None, time.time, nursery)  # type: ignore[arg-type]
        resolver._asking.add(("t", "n"))
        await resolver._ask(Info(), ("t", "n"), KEY)  # type: ignore[arg-type]
        assert resolver._asking == set()


async def test_rob1_a_name_that_is_noted_while_names_are_taken_does_no_harm() -> None:
    class Slow(dict[tuple[str, str], bool]):
        """Another name comes between looking for the first key and getting it."""

        def __iter__(self) -> Iterator[tuple[str, str]]:
            keys = super().__iter__()
            noting = threading.Thread(target=pending.note, args=(None, "t", "late", State))
            noting.start()
            noting.join(0.05)
            late.append(noting)
            return keys

    late: list[threading.Thread] = []
    pending = _Pending(lambda: None)
    pending._names = Slow({("t", "early"): True})
    assert pending.take() == [(("t", "early"), True)]
    for thread in late:
        thread.join()
    pending._names = dict.copy(pending._names)
    assert pending.take() == [(("t", "late"), True)]


def test_disc1_what_a_new_beginning_does_not_hear_is_taken_back_and_what_is_remembered_has_a_limit() -> None:
    told: list[tuple[list[Sighting], list[SightingKey]]] = []
    heard = _Heard(lambda seen, lost: told.append((seen, lost)))
    one, other = both(identity(1))[0], both(identity(2))[0]
    heard.begin()
    heard.tell([one, other], [])
    assert heard.forget() == []
    assert len(told) == 1
    heard.begin()
    heard.tell([one], [])
    assert heard.forget() == [one.key]
    assert told[-1] == ([], [other.key])
    heard.forget()
    assert len(told) == 3
    heard._keys = {(str(number), "", ""): 0 for number in range(MAX_HEARD)}
    heard.tell([one], [])
    assert len(heard._keys) == MAX_HEARD


async def test_rob1_a_way_to_look_that_breaks_is_told_and_begins_again(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[float] = []

    async def broken(*_: Any, **__: Any) -> None:
        tries.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        raise IndexError("a fault of a library")

    monkeypatch.setattr(browser, "browse_multicast", broken)
    async with discover(probe=False) as found:
        await trio.sleep(25)
        assert len(tries) == 3
        assert len(found.problems) == 1
        assert "IndexError" in found.problems[0]
    caplog.clear()  # the errors are what was asked for


async def test_rob1_a_discovery_thread_that_is_closed_before_it_runs_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop while zeroconf is still being imported."""
    thread = mdnsthread.MdnsThread()
    with trio.CancelScope() as scope:
        scope.cancel()
        await thread.start()
    with trio.fail_after(10):
        await thread.aclose()
    assert not thread._thread.is_alive()


def test_disc1_a_network_that_comes_later_is_listened_to_as_well(net: Lan, tmp_path: Path) -> None:
    net["a"].run(["ip", "link", "set", "eth0", "down"])
    with gateway(net["b"], tmp_path / "b") as running:
        watch = Looker(net["a"], tmp_path / "a").watch()
        time.sleep(1.5)
        net["a"].run(["ip", "link", "set", "eth0", "up"])
        watch.until("added", 20, port=running.port)
    watch.end()


def test_disc1_a_flood_does_not_outlive_itself_in_the_list(net: Lan, tmp_path: Path) -> None:
    watch = Looker(net["a"], tmp_path / "a").watch()
    attacker = net["c"].popen([sys.executable, str(HOSTILE), net["c"].address, "4", "10000"])
    attacker.wait(20)
    with gateway(net["b"], tmp_path / "b", port=18777):
        watch.until("added", 40, port=18777)
    watch.end()
