"""Everything that can raise, raises (ROB-1): the same process, the same clients, and /readyz that tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks.load import request_frame

from .running import await_that, gateway
from .victim import PARTS

CONFIG = {"logging": {"console": False}}


def chaos(tmp_path: Path, times: int) -> None:
    config = {**CONFIG, "gateway": {"transports": {"websocket": {"tickIntervalMs": 1000}}}}
    hurried = {"OPENCLAW_SOAK_TURN": "0.03"}
    with gateway(tmp_path, config, env=hurried) as running, running.control() as call:
        clients = [running.session() for _ in range(20)]
        before = call("soak.census")
        for part in PARTS:
            call("soak.trip", {"part": part, "times": times})
        began = time.monotonic()

        def all_tripped() -> bool:
            if call("soak.tripped")["config"] < times:
                # Its watcher brings a change a second at most: the change is brought by hand, through what it calls.
                reply = clients[0].call("soak.poke-config")
                assert not reply["ok"]
            for client in clients:  # which also takes the events that came meanwhile
                assert client.call("health")["ok"]
            for method in ("soak.fail", "soak.fail-inline"):
                assert clients[-1].call(method)["error"]["code"] == "UNAVAILABLE"
            return all(count >= times for count in call("soak.tripped").values())

        await_that(f"each part has raised {times} times", all_tripped, seconds=60 + times)
        print(f"{times} faults in each of {len(PARTS)} parts within {time.monotonic() - began:.1f} s")
        assert running.process.poll() is None
        await_that("all is well again", lambda: running.http("/readyz")[0] == 200)
        for client in clients:
            assert client.call("health")["ok"]
        after = call("soak.census")
        assert after["sessions"] == before["sessions"] == 21
        assert after["tasks"] <= before["tasks"]
        for client in clients:
            client.close()
    log = (tmp_path / "state" / "logs" / "gateway.log").read_text()
    assert '"event":"task failed, restarting"' in log
    assert "BrokenOnPurpose" in log


def test_rob1_faults_in_every_service_and_handler_leave_the_clients_alone(tmp_path: Path) -> None:
    chaos(tmp_path, 5)


@pytest.mark.soak
def test_rob1_100_faults_in_every_service_and_handler(tmp_path: Path) -> None:
    chaos(tmp_path, 100)


@pytest.mark.parametrize("part", ["heartbeat", "loop"])
def test_rob1_readyz_names_what_is_down_and_forgets_it_when_it_is_back(part: str, tmp_path: Path) -> None:
    """With the real waits: a second after the first fault the part runs again."""
    with gateway(tmp_path, CONFIG) as running, running.control() as call:
        assert running.http("/readyz")[0] == 200
        call("soak.trip", {"part": part})
        seen: list[Any] = []
        await_that("it is down", down(lambda: running.http("/readyz"), seen))
        assert seen[-1][1]["failing"] == [part]
        assert seen[-1][1]["parts"][part] == "failed: BrokenOnPurpose"
        assert running.http("/health")[0] == 200
        await_that("it is back", lambda: running.http("/readyz")[0] == 200)


def down(ask: Callable[[], tuple[int, Any]], seen: list[Any]) -> Callable[[], bool]:
    def is_down() -> bool:
        seen.append(ask())
        return bool(seen[-1][0] == 503)

    return is_down


def test_rob1_a_failing_config_watch_is_restarted_by_a_real_change_of_the_file(tmp_path: Path) -> None:
    with gateway(tmp_path, CONFIG) as running, running.control() as call:
        call("soak.trip", {"part": "config"})
        running.program.config('{"logging": {"console": false}, "gateway": {"nodes": {"invokeTimeoutMs": 5000}}}')
        await_that("the change met the fault", lambda: call("soak.tripped")["config"] == 1)
        await_that("the watcher is down", lambda: "config" in running.http("/readyz")[1]["failing"])
        await_that("the watcher is back", lambda: running.http("/readyz")[0] == 200)
        log = tmp_path / "state" / "logs" / "gateway.log"
        running.program.config('{"logging": {"console": false}, "gateway": {"nodes": {"invokeTimeoutMs": 6000}}}')
        await_that("the next change is taken over", lambda: '"event":"configuration applied"' in log.read_text())


def test_rob1_100_pending_calls_that_die_with_their_client_leave_nothing(tmp_path: Path) -> None:
    with gateway(tmp_path, CONFIG) as running, running.control() as call:
        before = call("soak.census")["tasks"]
        for _ in range(5):
            clients = [running.session() for _ in range(20)]
            for client in clients:
                client.socket.sendall(request_frame("pending", "soak.hang"))
            await_that("they hang", lambda: call("soak.census")["hanging"] == 20)
            for client in clients:
                client.close()
            await_that("they are gone", lambda: (now := call("soak.census"))["tasks"] <= before and not now["hanging"])
