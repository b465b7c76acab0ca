"""Memory under churn (MEM-1) and on small hosts (MEM-2): a real process, its resident bytes, its tables."""

from __future__ import annotations

import json
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

from scripts.benchmarks.load import Session, request_frame, text_frame, throughput
from tests.attacks.attacker import Attacker

from .churn import churn, upgrade_bytes
from .running import MIB, Running, await_that, gateway

CAPS = {
    "strangers": 512,
    "sessions": 100,
    "ledger": 4096,
    "saidOnce": 256,
    "idempotency": 1000,
    "presence": 513,  # the gateway's own entry is one more
    "stability": 512,
    "methodViews": 128,  # 2 to the number of known scopes
    "logWatched": 256,
    "storeWaiting": 1024,
}
QUIET = {"wires": 1, "strangers": 0, "sessions": 1, "live": 1, "listeners": 1}  # whoever asks is one


def assert_within_caps(census: dict[str, Any]) -> None:
    over = {name: (census[name], cap) for name, cap in CAPS.items() if census[name] > cap}
    assert not over, over


def settled(call: Callable[..., Any]) -> dict[str, Any]:
    """The census once everybody who hung up is gone."""
    last: dict[str, Any] = {}

    def quiet() -> bool:
        last.update(call("soak.census"))
        return all(last[name] == value for name, value in QUIET.items())

    await_that(f"nobody is left but us: {last}", quiet)
    return last


def growth(running: Running, *, warm: int, count: int, frames: int, extra: int = 0) -> float:
    """Growth of resident memory over ``count`` connections of ``frames`` frames, as a part of what it was before."""
    churn(running.port, running.token, count=warm, frames=frames)
    with running.control() as call:
        before = settled(call)
    churn(running.port, running.token, count=count, frames=frames)
    if extra:
        frame = request_frame("1:x", "last-heartbeat")
        throughput(running.port, frame, token=running.token, clients=5, in_flight=16, seconds=20, maximum=extra)
    with running.control() as call:
        after = settled(call)
    assert_within_caps(after)
    assert after["tasks"] <= before["tasks"]
    grown = float(after["rss"] / before["rss"] - 1)
    print(f"rss {before['rss'] / MIB:.1f} -> {after['rss'] / MIB:.1f} MiB ({grown:+.2%}) over {count} connections")
    return grown


def test_mem1_3k_connections_and_50k_frames_leave_nothing(tmp_path: Path) -> None:
    with gateway(tmp_path, {"logging": {"console": False}}) as running:
        assert growth(running, warm=1000, count=3000, frames=10, extra=20_000) < 0.08


def test_mem1_the_measurement_finds_a_real_leak(tmp_path: Path) -> None:
    """The same gateway, keeping every session that ends: the bound of the test above must catch it."""
    with gateway(tmp_path, {"logging": {"console": False}}) as running:
        churn(running.port, running.token, count=1000, frames=2)
        with running.control() as call:
            before = settled(call)
            call("soak.leak")
            churn(running.port, running.token, count=1500, frames=2)
            after = settled(call)
        assert after["rss"] / before["rss"] - 1 > 2 * 0.08


@pytest.mark.soak
@pytest.mark.deadline(900)
def test_mem1_100k_connections_and_1m_frames_grow_less_than_5_percent(tmp_path: Path) -> None:
    with gateway(tmp_path, {"logging": {"console": False}}) as running:
        assert growth(running, warm=5000, count=100_000, frames=10) < 0.05


# --- every table at its cap


def address(number: int) -> str:
    return f"127.{1 + number // 62_500 % 250}.{number // 250 % 250}.{1 + number % 250}"


async def fail_from(port: int, first: int, count: int) -> None:
    """A wrong token from each of ``count`` addresses, behind as many forged proxies."""

    async def once(number: int) -> None:
        async with slots, await Attacker.at(port, source=address(number)) as client:
            headers = {"x_forwarded_for": f"203.0.113.{number % 250}"}
            outcome = await client.connect(token="wrong", scopes=[], headers=headers)
            assert not outcome.admitted

    slots = trio.CapacityLimiter(300)
    async with trio.open_nursery() as nursery:
        for number in range(first, first + count):
            nursery.start_soon(once, number)


def fill_presence(session: Session, count: int) -> None:
    for number in range(count):
        session.call("system-event", {"text": "here", "instanceId": f"i{number}"})


def fill_idempotency(session: Session, count: int) -> None:
    for number in range(count):
        session.call("soak.once", {"idempotencyKey": f"k{number}"})


async def test_mem1_every_table_keeps_to_its_cap_when_flooded(tmp_path: Path) -> None:
    """Some more than fits of everything that a stranger or a client can make the gateway remember."""
    await trio.to_thread.run_sync(flood, tmp_path, 500, 560, 1040)


@pytest.mark.soak
@pytest.mark.deadline(300)
async def test_mem1_every_table_is_full_and_no_fuller(tmp_path: Path) -> None:
    census = await trio.to_thread.run_sync(flood, tmp_path, 4500, 1200, 3000)
    assert census["ledger"] == CAPS["ledger"]


def flood(tmp_path: Path, failures: int, entries: int, keys: int) -> dict[str, Any]:
    with gateway(tmp_path, {"logging": {"console": False}}) as running, running.control() as call:
        session = running.session()
        fill_presence(session, entries)
        fill_idempotency(session, keys)
        session.close()
        trio.from_thread.run(fail_from, running.port, 0, failures)
        strangers = []
        for number in range(700):
            sock = socket.create_connection(("127.0.0.1", running.port), source_address=(address(number), 0))
            sock.sendall(upgrade_bytes(running.port))
            strangers.append(sock)
        await_that("all are counted", lambda: call("soak.census")["strangers"] >= CAPS["strangers"])
        full: dict[str, Any] = call("soak.census")
        for sock in strangers:
            sock.close()
        assert_within_caps(full)
        for name in ("strangers", "saidOnce", "idempotency", "presence", "stability"):
            assert full[name] >= CAPS[name] - 1, (name, full[name])
        assert full["ledger"] >= min(failures, CAPS["ledger"])
        print(full)
        settled(call)
        return full


# --- MEM-2


def test_mem2_idle_and_with_100_clients(tmp_path: Path) -> None:
    """The plain command, with the kernel refusing more than 128 MB of writable memory."""
    with gateway(tmp_path, {"logging": {"console": False}}, real=True) as running, ExitStack() as clients:
        limit = 128 * MIB
        resource.prlimit(running.pid, resource.RLIMIT_DATA, (limit, limit))
        idle = running.rss
        sessions = [running.session() for _ in range(100)]
        for session in sessions:
            clients.callback(session.close)
            for method in ("health", "status", "system-presence", "node.list"):
                assert session.call(method)["ok"]
        echo = text_frame(json.dumps({"type": "req", "id": "x", "method": "last-heartbeat", "params": {}}).encode())
        for session in sessions:
            session.socket.sendall(echo * 50)
        for session in sessions:
            for _ in range(50):
                session.receive_message()
        loaded = running.rss
        print(f"idle {idle / MIB:.1f} MiB, 100 clients {loaded / MIB:.1f} MiB")
        assert idle < 60 * 10**6
        assert loaded < 120 * 10**6
        assert running.http("/readyz")[0] == 200
