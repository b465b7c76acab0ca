"""The responder's states, with the network, the kernel and zeroconf played by the test, on a clock moved by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
from trio.testing import MockClock

from openclaw_gateway.discovery.beacon import RENEW_SECONDS
from openclaw_gateway.discovery.claims import Claim
from openclaw_gateway.discovery.interfaces import Interface
from openclaw_gateway.discovery.lans import Lan
from openclaw_gateway.discovery.look import Answer
from openclaw_gateway.discovery.responder import (
    LOOK_SECONDS,
    MAX_RENAMES,
    PARKED_SECONDS,
    RENAME_WINDOW_SECONDS,
    RETRY_SECONDS,
    Renames,
    Responder,
)
from openclaw_gateway.discovery.service import Facts
from openclaw_gateway.discovery.signer import Signer

ETH0 = Interface(name="eth0", index=2, up=True, multicast=True, addresses=(("10.0.0.5", 24),))
ETH1 = Interface(name="eth1", index=3, up=True, multicast=True, addresses=(("10.1.0.5", 24),))
DOCKER = Interface(name="docker0", index=4, up=True, multicast=True, addresses=(("172.17.0.1", 16),))
FACTS = Facts(mode="minimal", listening=("0.0.0.0",), port=18789, version="0.1.0", auth="token")


@attrs.define(eq=False, slots=False)
class World:
    """What the responder meets: ``failing`` interfaces, the answers to a look, and all that was announced."""

    interfaces: tuple[Interface, ...] = (ETH0,)
    failing: dict[str, str] = attrs.field(factory=dict)
    others: list[Answer] = attrs.field(factory=list)
    taken: str = ""  # the instance that ``others`` answer for; "": any
    echo: bool = True
    announced: list[tuple[Claim, ...]] = attrs.field(factory=list)
    looks: list[float] = attrs.field(factory=list)
    facts: Facts = FACTS
    leapt: float = 0.0  # of the clock on the wall

    def _wall(self) -> float:
        return 1_000_000 + self.leapt + trio.current_time()

    def __attrs_post_init__(self) -> None:
        self.send, self.receive = trio.open_memory_channel[tuple[Interface, ...]](8)
        self.responder = Responder(
            lambda: self.facts, Signer(None, wall=self._wall),
            watch=self._watch, look=self._look, open_thread=self._thread, wall=self._wall,
        )  # fmt: skip

    async def _watch(self) -> AsyncGenerator[tuple[Interface, ...], None]:
        yield self.interfaces
        async for interfaces in self.receive:
            yield interfaces

    async def _look(self, lan: Lan, names: tuple[str, ...], *, seconds: float) -> tuple[Answer, ...]:
        await trio.sleep(seconds)
        self.looks.append(trio.current_time())
        claims = self.announced[-1] if self.announced else ()
        said = {service.full_name for claim in claims for service in claim.services}
        own = (Answer(lan.addresses[0], 18789, "own."),) if self.echo and said & set(names) else ()
        asked = not self.taken or any(name.startswith(f"{self.taken}._") for name in names)
        return (*own, *(self.others if asked else ()))

    async def announce(self, claims: Sequence[Claim], /) -> dict[str, str]:
        await trio.lowlevel.checkpoint()
        self.announced.append(tuple(claim for claim in claims if claim.lan.interface not in self.failing))
        return {name: why for name, why in self.failing.items() if any(claim.lan.interface == name for claim in claims)}

    @asynccontextmanager
    async def _thread(self) -> AsyncIterator[World]:
        try:
            yield self
        finally:
            self.announced.append(())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Responder]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.responder.serve)
            yield self.responder
            nursery.cancel_scope.cancel()

    @property
    def instances(self) -> list[str]:
        return [claim.services[0].full_name.split("._")[0] for claims in self.announced for claim in claims]


async def test_disc1_five_tries_with_growing_waits_then_parked(autojump_clock: MockClock) -> None:
    world = World(failing={"eth0": "UDP port 5353 is taken"})
    async with world.running() as responder:
        await trio.sleep(sum(RETRY_SECONDS) * 1.2 + 10)
        assert responder.state == "parked"
        assert "5353" in responder.view()["text"]
        assert len(world.announced) == 1 + len(RETRY_SECONDS)
        await trio.sleep(PARKED_SECONDS / 2)
        assert len(world.announced) == 1 + len(RETRY_SECONDS)
        world.failing.clear()
        await trio.sleep(PARKED_SECONDS)
        assert responder.view()["state"] == "announcing"


async def test_disc1_a_trouble_is_one_warning(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    world = World(failing={"eth0": "UDP port 5353 is taken"})
    async with world.running():
        await trio.sleep(2 * PARKED_SECONDS)
    assert [record.levelname for record in caplog.records if "cannot announce" in record.getMessage()] == ["WARNING"]


async def test_disc1_parked_ends_when_the_network_changes_and_not_for_a_container_bridge(
    autojump_clock: MockClock,
) -> None:
    world = World(failing={"eth0": "no such device"})
    async with world.running() as responder:
        await trio.sleep(sum(RETRY_SECONDS) * 1.2 + 10)
        tries = len(world.announced)
        await world.send.send((ETH0, DOCKER))
        await trio.sleep(5)
        assert (responder.state, len(world.announced)) == ("parked", tries)
        world.failing.clear()
        await world.send.send((ETH0, ETH1, DOCKER))
        await trio.sleep(5)
        assert responder.state == "announcing"
        assert [claim.lan.interface for claim in world.announced[-1]] == ["eth0", "eth1"]


async def test_disc1_one_network_that_fails_does_not_hinder_the_other(autojump_clock: MockClock) -> None:
    world = World(interfaces=(ETH0, ETH1), failing={"eth1": "no such device"})
    async with world.running() as responder:
        await trio.sleep(1.5)
        assert responder.state == "retrying"
        assert [row["name"] for row in responder.view()["interfaces"]] == ["eth0"]


async def test_disc1_dropped_multicast_is_one_warning_and_shows_in_status(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(echo=False)
    async with world.running() as responder:
        await trio.sleep(3 * LOOK_SECONDS)
        assert "not seen by ourselves on eth0" in responder.view()["text"]
        world.echo = True
        await trio.sleep(LOOK_SECONDS + 2)
        assert "last seen by ourselves" in responder.view()["text"]
    assert sum("does not come back" in record.getMessage() for record in caplog.records) == 1


async def test_disc1_a_network_is_asked_once_in_two_minutes(autojump_clock: MockClock) -> None:
    world = World()
    async with world.running():
        await trio.sleep(3600)
    assert len(world.looks) < 3600 / LOOK_SECONDS + 4


async def test_disc2_at_most_three_renames_an_hour_while_the_name_is_taken(autojump_clock: MockClock) -> None:
    world = World(others=[Answer("10.0.0.1", 1, "thief.")])
    async with world.running() as responder:
        await trio.sleep(RENAME_WINDOW_SECONDS - 10)
        assert responder.state == "parked"
        assert "taken by 10.0.0.1" in responder.view()["text"]
        assert responder.view()["renames"] == MAX_RENAMES
        assert world.instances == []  # nothing was ever announced under a name that somebody else holds
        await world.send.send((ETH0, ETH1))  # provoking the network does not provoke renames
        await trio.sleep(5)
        assert responder.view()["renames"] <= MAX_RENAMES


async def test_disc2_an_own_echo_on_another_interface_is_no_conflict(autojump_clock: MockClock) -> None:
    echoes = [Answer("10.1.0.5", 18789, "own."), Answer("10.0.0.5", 18789, "own.")]
    world = World(interfaces=(ETH0, ETH1), others=echoes)
    async with world.running() as responder:
        await trio.sleep(LOOK_SECONDS * 3)
        assert (responder.state, responder.view()["renames"]) == ("announcing", 0)


@pytest.mark.parametrize(("source", "renames"), [("10.0.0.1", 1), ("10.0.0.9", 0)])
async def test_disc2_of_two_copies_the_lower_address_keeps_the_name(
    source: str, renames: int, autojump_clock: MockClock
) -> None:
    world = World()
    async with world.running() as responder:
        await trio.sleep(10)
        first = world.taken = world.instances[-1]
        world.others.append(Answer(source, 18789, "copy."))
        await trio.sleep(LOOK_SECONDS + 5)
        assert responder.state == "announcing"
        assert responder.view()["renames"] == renames
        assert (world.instances[-1] == first) == (renames == 0)


async def test_a_beacon_is_renewed_and_changed_facts_are_announced(autojump_clock: MockClock) -> None:
    world = World()
    async with world.running() as responder:
        await trio.sleep(10)
        first = world.announced[-1]
        await trio.sleep(RENEW_SECONDS)
        second = world.announced[-1]
        assert first[0].place == second[0].place
        assert first[0].services != second[0].services
        world.facts = attrs.evolve(FACTS, auth="password")
        responder.nudge()
        await trio.sleep(1)
        assert b"auth=password" in world.announced[-1][0].services[0].txt
    assert world.announced[-1] == ()


@pytest.mark.parametrize("leap", [86_400.0, -86_400.0])
async def test_a_beacon_follows_the_clock_on_the_wall(autojump_clock: MockClock, leap: float) -> None:
    """A machine that slept, or whose clock was set after the start: others judge the signature by theirs."""
    world = World()
    async with world.running():
        await trio.sleep(10)
        first = world.announced[-1][0].services
        world.leapt = leap
        await trio.sleep(LOOK_SECONDS + 10)
        assert world.announced[-1][0].services != first


def test_disc2_the_number_of_renames_is_capped_by_the_hour() -> None:
    renames = Renames()
    assert [renames.take(float(second)) for second in range(10)] == [True] * MAX_RENAMES + [False] * 7
    assert renames.number == 1 + MAX_RENAMES
    assert renames.take(RENAME_WINDOW_SECONDS)
    assert not renames.take(RENAME_WINDOW_SECONDS)
    assert renames.count(RENAME_WINDOW_SECONDS) == MAX_RENAMES


async def test_disc1_a_network_that_comes_later_is_looked_at_at_once(autojump_clock: MockClock) -> None:
    world = World()
    async with world.running() as responder:
        await trio.sleep(LOOK_SECONDS + 10)  # in the middle of the pause between two looks
        await world.send.send(())
        await trio.sleep(1)
        assert responder.state == "waiting"
        await world.send.send((ETH0, ETH1))
        await trio.sleep(5)
        assert [row["lastSeenMsAgo"] is not None for row in responder.view()["interfaces"]] == [True, True]
