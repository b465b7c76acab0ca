"""Whois, remembered: lifetimes, caps, one question per address, and what happens when nobody answers."""

from __future__ import annotations

import trio
import trio.testing

from openclaw_gateway.policy.tailnet import TailnetClaim, TailnetPerson
from openclaw_gateway.tailscale import identity
from openclaw_gateway.tailscale.identity import Identities
from openclaw_gateway.tailscale.localapi import DaemonUnreachable
from openclaw_gateway.tailscale.protocol import NodeStatus

NODE = NodeStatus(state="Running", dns_name="gw.x.ts.net", node_id="n1", addresses=("100.64.0.1",))


def claim(address: str = "100.64.0.2", login: str = "u@x") -> TailnetClaim:
    return TailnetClaim(address=address, login=login)


class Whois:
    """A daemon's answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate: trio.Event | None = None
        self.fault = False
        self.person: TailnetPerson | None = TailnetPerson(node_id="n2", login="u@x")

    async def __call__(self, address: str) -> TailnetPerson | None:
        self.asked.append(address)
        if self.gate is not None:
            await self.gate.wait()
        if self.fault:
            raise DaemonUnreachable("gone")
        return self.person


def identities(whois: Whois, node: NodeStatus | None = NODE) -> Identities:
    made = Identities(whois, lambda: node)
    made.provable = True
    return made


async def test_an_answer_is_good_for_a_minute(autojump_clock: trio.testing.MockClock) -> None:
    whois = Whois()
    known = identities(whois)
    for _ in range(3):
        assert (await known.vouch(claim(), {})).ok
    assert len(whois.asked) == 1
    await trio.sleep(identity.KNOWN_SECONDS + 1)
    assert (await known.vouch(claim(), {})).ok
    assert len(whois.asked) == 2
    known.forget()
    assert (await known.vouch(claim(), {})).ok
    assert len(whois.asked) == 3


async def test_a_failure_and_a_nobody_are_good_for_five_seconds(autojump_clock: trio.testing.MockClock) -> None:
    for fault in (True, False):
        whois = Whois()
        whois.fault, whois.person = fault, None
        known = identities(whois)
        reason = "tailscale_unavailable" if fault else "tailscale_whois_failed"
        assert (await known.vouch(claim(), {})).reason == reason
        await trio.sleep(4)
        assert (await known.vouch(claim(), {})).reason == reason
        assert len(whois.asked) == 1
        whois.fault, whois.person = False, TailnetPerson(node_id="n2", login="u@x")
        await trio.sleep(1.5)
        assert (await known.vouch(claim(), {})).ok


async def test_a_daemon_that_hangs_costs_five_seconds_and_lets_nobody_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
    whois = Whois()
    whois.gate = trio.Event()
    began = trio.current_time()
    assert (await identities(whois).vouch(claim(), {})).reason == "tailscale_unavailable"
    assert trio.current_time() - began <= identity.WHOIS_SECONDS + 0.1


async def test_many_who_ask_for_one_address_are_one_question(autojump_clock: trio.testing.MockClock) -> None:
    whois = Whois()
    whois.gate = trio.Event()
    known, verdicts = identities(whois), []

    async def one() -> None:
        verdicts.append((await known.vouch(claim(), {})).ok)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        whois.gate.set()
    assert verdicts == [True] * 20
    assert len(whois.asked) == 1


async def test_an_answer_that_was_under_way_when_the_tailnet_changed_is_not_kept(
    autojump_clock: trio.testing.MockClock,
) -> None:
    whois = Whois()
    whois.gate = trio.Event()
    known, reasons = identities(whois), []

    async def one() -> None:
        reasons.append((await known.vouch(claim(), {})).reason)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        known.forget()
        whois.gate.set()
    assert reasons == ["tailscale_unavailable"]
    assert len(known) == 0
    assert (await known.vouch(claim(), {})).ok
    assert len(whois.asked) == 2


async def test_memory_and_questions_under_way_are_capped(autojump_clock: trio.testing.MockClock) -> None:
    whois = Whois()
    known = identities(whois)
    for number in range(identity.MAX_ENTRIES + 50):
        await known.vouch(claim(f"100.64.{number // 250}.{number % 250}"), {})
    assert len(known) == identity.MAX_ENTRIES
    whois.gate = trio.Event()
    whois.asked.clear()
    refused = []

    async def one(number: int) -> None:
        refused.append((await known.vouch(claim(f"100.65.0.{number}"), {})).reason)

    async with trio.open_nursery() as nursery:
        for number in range(identity.MAX_LOOKUPS + 5):
            nursery.start_soon(one, number)
        await trio.testing.wait_all_tasks_blocked()
        assert len(whois.asked) == identity.MAX_LOOKUPS
        assert refused == ["tailscale_unavailable"] * 5
        whois.gate.set()


async def test_v36_without_proof_of_who_connects_nobody_is_believed() -> None:
    whois = Whois()
    known = identities(whois)
    known.provable = False
    assert (await known.vouch(claim(), {})).reason == "tailscale_unprovable"
    assert whois.asked == []


async def test_where_this_machine_is_not_known_nobody_is(autojump_clock: trio.testing.MockClock) -> None:
    for node in (None, NodeStatus(state="Stopped", node_id="n1"), NodeStatus(state="Running")):
        assert (await identities(Whois(), node).vouch(claim(), {})).reason == "tailscale_unavailable"
