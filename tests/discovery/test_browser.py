"""The life of the browser: cancelled early, kept busy, flooded, and on a host whose networks change."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
import trio.testing

from openclaw_gateway.client.discovery import discover
from openclaw_gateway.discovery import browser, mdnsthread
from openclaw_gateway.discovery import probe as probing
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


class Quiet:
    """A zeroconf that hears nothing."""

    class cache:  # noqa: N801 - the name that zeroconf gives it
        cache: ClassVar[dict[str, object]] = {}


@pytest.mark.parametrize("fault", [browser._Flood, browser._Moved])
async def test_disc1_a_flood_in_the_moment_of_the_end_does_not_break_the_end(
    fault: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while listening was to begin anew: a group of both passed every handler, and the command ended with 1."""
    scope = trio.CancelScope()

    async def both_at_once(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        scope.cancel()
        raise fault

    monkeypatch.setattr(browser, "_open", Quiet)
    monkeypatch.setattr(browser, "_start", lambda zeroconf, pending: None)
    monkeypatch.setattr(browser, "_close", lambda zeroconf, browsers: None)
    monkeypatch.setattr(browser, "_watch", both_at_once)
    with scope:
        async with discover(probe=False) as found:
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert found.problems == ()


async def test_disc1_a_look_at_an_address_that_breaks_ends_no_search(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise IndexError("a fault of a library")

    async def one_answer(tell: browser.Tell, *_: Any, **__: Any) -> None:
        tell(both(identity(1)), [])
        await trio.sleep_forever()

    monkeypatch.setattr(probing, "probe", broken)
    monkeypatch.setattr(browser, "browse_multicast", one_answer)
    with trio.fail_after(10):
        async with discover() as found:
            assert (await anext(found)).kind == "added"
            while not found.problems:
                await trio.lowlevel.checkpoint()
            assert "IndexError" in found.problems[0]
            assert len(found.gateways) == 1
    assert any("looking at a gateway broke off" in record.getMessage() for record in caplog.records)
    caplog.clear()  # the error is what was asked for


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
