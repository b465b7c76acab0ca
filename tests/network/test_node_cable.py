"""LIVE-1, LIVE-5: the network cable of a node is pulled, half broken and put back, with real kernels on both ends.

The gateway, our node and OpenClaw's own each run in a namespace. Heartbeats are set to a second or two, so that the
tests take seconds; that the default schedule keeps the promised minute is asserted by its sum.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openclaw_gateway.config.schema import WebSocketConfig
from tests.interop.processes import Official
from tests.network.cable import Cable
from tests.network.machines import GatewayMachine, NodeMachine, Operator, await_that, environment, runs_below

PROMISED_SECONDS = 60.0
FAST = {"pingIntervalMs": 1000, "pingTimeoutMs": 1000, "tickIntervalMs": 1000}
Json = dict[str, Any]
StartNode = Callable[[], NodeMachine]


@pytest.fixture
def our_node(cable: Cable, tmp_path: Path) -> Iterator[StartNode]:
    folder = tmp_path / "node"
    folder.mkdir()
    command = [sys.executable, "-m", "openclaw_gateway"]
    extra = {"OPENCLAW_STATE_DIR": str(folder / "state")}
    started: list[NodeMachine] = []

    def start() -> NodeMachine:
        allow = [*command, "node", "allow", "sleep", "echo"]
        subprocess.run(allow, env=environment(folder, extra), check=True, capture_output=True, timeout=30)
        started.append(NodeMachine(cable, folder, command, extra))
        return started[-1]

    yield start
    for machine in started:
        machine.end()


@pytest.fixture
def official_node(cable: Cable, tmp_path: Path, official: Official) -> Iterator[StartNode]:
    folder = tmp_path / "node"
    extra = {
        "OPENCLAW_STATE_DIR": str(folder / "state"),
        "OPENCLAW_NO_RESPAWN": "1",
        "OPENCLAW_ALLOW_INSECURE_PRIVATE_WS": "1",  # it dials ws:// to a private address only with this
    }
    started: list[NodeMachine] = []

    def start() -> NodeMachine:
        started.append(NodeMachine(cable, folder, official.command, extra))
        return started[-1]

    yield start
    for machine in started:
        machine.end()


def _run(node_id: str, key: str, *argv: str, timeout_ms: int = 60_000) -> Json:
    params = {"command": list(argv)}
    return {
        "nodeId": node_id, "command": "system.run", "params": params, "idempotencyKey": key, "timeoutMs": timeout_ms
    }  # fmt: skip


def _connected(operator: Operator) -> bool:
    return any(row["connected"] for row in operator.call("node.list")["nodes"])


def _pulled_and_back(cable: Cable, gateway: GatewayMachine, start: StartNode, argv: tuple[str, ...]) -> None:
    """The whole story; ``argv`` sleeps for 4 s on the node."""
    gateway.start(**FAST)
    watcher, caller, other = gateway.operator(), gateway.operator(), gateway.operator()
    node = start()
    node_id = node.approved(watcher)

    first = caller.start("node.invoke", _run(node_id, "before", *argv))
    await_that("the program runs", lambda: runs_below(node.pid, argv), seconds=20, also=node.output)
    cable.pull()
    began = time.monotonic()
    await_that("the node is offline", lambda: not _connected(watcher), seconds=PROMISED_SECONDS, also=gateway.output)
    # One interval until a ping is due, the window for its pong, and the watchdog's own steps.
    assert time.monotonic() - began < 6.0
    failed = caller.answer(first)
    assert not failed["ok"], failed
    assert "node disconnected" in failed["error"]["message"], failed
    assert failed["error"]["details"]["nodeError"]["code"] == "DISCONNECTED", failed
    away = other.answer(other.start("node.invoke", _run(node_id, "away", "echo", "away")))
    assert not away["ok"]
    assert away["error"]["details"]["nodeError"]["code"] == "NOT_CONNECTED", away

    # The program on the node ends while nobody can hear of it.
    await_that("the program ended", lambda: not runs_below(node.pid, argv), seconds=20, also=node.output)
    cable.plug()
    await_that("the node is back by itself", lambda: _connected(watcher), seconds=PROMISED_SECONDS, also=node.output)
    later = other.answer(other.start("node.invoke", _run(node_id, "after", "/bin/echo", "after")))
    assert later["ok"], later
    assert later["payload"]["payload"]["stdout"].strip() == "after", later
    caller.call("health")  # whatever came for the first caller came before this answer
    other.call("health")
    assert [len(found) for found in (*caller.answers.values(), *other.answers.values())] == [1] * 5
    assert any("ping timeout" in str(record) for record in gateway.log()), gateway.output()


@pytest.mark.deadline(150)
def test_live1_the_cable_of_our_node_is_pulled_and_put_back(
    cable: Cable, gateway_machine: GatewayMachine, our_node: StartNode
) -> None:
    _pulled_and_back(cable, gateway_machine, our_node, ("sleep", "4"))


@pytest.mark.interop
@pytest.mark.deadline(240)
def test_live1_the_cable_of_openclaws_node_is_pulled_and_put_back(
    cable: Cable, gateway_machine: GatewayMachine, official_node: StartNode
) -> None:
    _pulled_and_back(cable, gateway_machine, official_node, ("/bin/sleep", "4"))


@pytest.mark.deadline(120)
def test_live1_a_late_answer_is_recorded_and_answers_nobody_else(
    cable: Cable, gateway_machine: GatewayMachine, our_node: StartNode
) -> None:
    """Half a cable: the request arrives, its answer does not until its caller has given up."""
    gateway = gateway_machine
    gateway.start(pingIntervalMs=60_000, pingTimeoutMs=60_000)  # the connection outlives the fault
    caller, other = gateway.operator(), gateway.operator()
    node = our_node()
    node_id = node.approved(caller)

    def which(name: str, key: str, timeout_ms: int) -> Json:
        params = {"bins": [name]}
        return {
            "nodeId": node_id, "command": "system.which", "params": params, "idempotencyKey": key,
            "timeoutMs": timeout_ms,
        }  # fmt: skip

    def told(text: str) -> list[Json]:
        return [record for record in gateway.log() if text in str(record)]

    assert other.call("node.invoke", which("sh", "warm", 15_000))["payload"]["bins"]["sh"]
    cable.break_right_to_left()
    ask = which("sh", "late", 1500)
    timed_out = caller.answer(caller.start("node.invoke", ask))
    assert not timed_out["ok"], timed_out
    assert timed_out["error"]["details"]["nodeError"]["code"] == "TIMEOUT", timed_out
    second = other.start("node.invoke", which("echo", "second", 30_000))
    assert not told("late result of a node")
    cable.mend_right_to_left()
    answered = other.answer(second)
    assert answered["ok"], answered
    assert set(answered["payload"]["payload"]["bins"]) == {"echo"}  # its own, not the late one
    await_that("the late result is recorded", lambda: told("late result of a node"), seconds=30, also=gateway.output)
    assert len(told("late result of a node")) == 1
    caller.call("health")
    other.call("health")
    assert all(len(found) == 1 for operator in (caller, other) for found in operator.answers.values())
    # Its key brings it to who asked, and only with what was asked: nothing runs twice.
    other_words = other.answer(other.start("node.invoke", {**ask, "params": {"bins": ["echo"]}}))
    assert other_words["error"]["details"]["code"] == "IDEMPOTENCY_CONFLICT", other_words
    polled = caller.answer(caller.start("node.invoke", ask))
    assert set(polled["payload"]["payload"]["bins"]) == {"sh"}, polled


def test_live5_the_default_schedule_keeps_the_promised_minute() -> None:
    """30 s until a ping is due, 10 s for its pong, and a watchdog that looks at least once a second."""
    defaults = WebSocketConfig()
    worst = (defaults.ping_interval_ms + defaults.ping_timeout_ms) / 1000 + 2 * 1.0
    assert worst < PROMISED_SECONDS
