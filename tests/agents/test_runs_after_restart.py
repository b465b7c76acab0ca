"""Questions that waited when a process ended: the next one lists them, ends them on request, and loses none."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.agents.agent import EchoAgent, Emit
from openclaw_gateway.agents.records import Attachment, Delta, Outcome, RunRequest, Turn
from openclaw_gateway.agents.runs import waiting_runs
from openclaw_gateway.agents.runstate import ABORTED, FORGOTTEN, KIND, Run
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig, AuthConfig
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.queues import open_queues
from openclaw_gateway.queues import rows as queue_rows
from openclaw_gateway.store import StoreUnavailable, open_store
from openclaw_gateway.testing import connect_peer, open_memory_gateway
from openclaw_gateway.testing.peer import ScriptedPeer

TOKEN = "token-of-the-tests-of-restarts-0123456789"
ALL = ["operator.read", "operator.write", "operator.admin"]


class Gate:
    """In the place of the echo agent: says nothing until it is let."""

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.go = trio.Event()
        self.speaking = trio.Event()

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        self.turns.append(turn)
        self.speaking.set()
        await self.go.wait()
        emit(Delta(text=f"re {turn.request.text}"))
        return Outcome(model="gate")

    @property
    def asked(self) -> list[str]:
        return [turn.request.run_id for turn in self.turns]


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> list[Gate]:
    """The agents of one process after the other; the last one is asked."""
    found: list[Gate] = [Gate()]

    async def run(self: EchoAgent, turn: Turn, emit: Emit) -> Outcome:
        return await found[-1].run(turn, emit)

    monkeypatch.setattr(EchoAgent, "run", run)
    return found


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[tuple[Gateway, ScriptedPeer]]:
    agents = AgentsConfig(list=(AgentEntry(id="main", kind="echo"),))
    config = GatewayConfig(auth=AuthConfig(token=TOKEN), agents=agents, state_dir=path, port=0)
    with trio.fail_after(25):
        async with open_memory_gateway(config) as gateway, connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:
            yield gateway, peer


async def send(peer: ScriptedPeer, run_id: str, session: str = "main", **more: Any) -> None:
    await peer.request("chat.send", {"sessionKey": session, "message": f"q {run_id}", "idempotencyKey": run_id, **more})


async def three_wait(path: Path, gates: list[Gate]) -> None:
    """r1 is under way, r2 and r3 wait behind it, and the process ends."""
    async with opened(path) as (_, peer):
        for run in ("r1", "r2", "r3"):
            await send(peer, run)
        await gates[-1].speaking.wait()
    gates.append(Gate())


def told(history: dict[str, Any]) -> list[str]:
    return [entry["content"][0]["text"] for entry in history["messages"]]


async def test_s029_what_waited_before_a_restart_is_listed_and_waited_for(tmp_path: Path, gates: list[Gate]) -> None:
    await three_wait(tmp_path, gates)
    async with opened(tmp_path) as (_, peer):
        gate = gates[-1]
        await gate.speaking.wait()
        history = await peer.request("chat.history", {"sessionKey": "main", "inputRunIds": ["r2"]})
        assert [item["runId"] for item in history["pendingInputs"]["items"]] == ["r2", "r3"]
        assert history["pendingInputs"]["items"][0]["message"]["content"][0]["text"] == "q r2"
        assert history["inFlightRun"]["runId"] == "r1"
        assert history["inputReceipts"] == [{"runId": "r2", "state": "pending"}]
        (listed,) = (await peer.request("sessions.list", {}))["sessions"]
        assert (listed["status"], listed["activeRunIds"]) == ("running", ["r1", "r2", "r3"])
        assert (await peer.request("agent.wait", {"runId": "r3", "timeoutMs": 0}))["status"] == "timeout"
        again = await peer.request("chat.send", {"sessionKey": "main", "message": "q r2", "idempotencyKey": "r2"})
        assert again["status"] == "in_flight"
        gate.go.set()
        assert (await peer.request("agent.wait", {"runId": "r3", "timeoutMs": 9000}))["status"] == "ok"
        assert gate.asked == ["r1", "r2", "r3"]
        assert told(await peer.request("chat.history", {"sessionKey": "main"})) == [
            "q r1", "re q r1", "q r2", "re q r2", "q r3", "re q r3",
        ]  # fmt: skip


async def test_s029_what_waited_is_aborted_before_and_while_it_runs(tmp_path: Path, gates: list[Gate]) -> None:
    await three_wait(tmp_path, gates)
    async with opened(tmp_path) as (_, peer):
        gate = gates[-1]
        await gate.speaking.wait()
        done = await peer.request("chat.abort", {"sessionKey": "main", "runId": "r2"})
        assert done == {"ok": True, "aborted": True, "runIds": ["r2"]}
        history = await peer.request("chat.history", {"sessionKey": "main"})
        assert [item["runId"] for item in history["pendingInputs"]["items"]] == ["r3"]
        assert (await peer.request("chat.abort", {"sessionKey": "main", "runId": "r1"}))["runIds"] == ["r1"]
        for run in ("r1", "r2"):
            ended = await peer.request("agent.wait", {"runId": run, "timeoutMs": 9000})
            assert ended["stopReason"] == "aborted"
        gate.go.set()
        assert (await peer.request("agent.wait", {"runId": "r3", "timeoutMs": 9000}))["status"] == "ok"
        assert gate.asked == ["r1", "r3"]


async def test_s029_what_a_person_drops_from_the_queue_is_not_asked(tmp_path: Path, gates: list[Gate]) -> None:
    await three_wait(tmp_path, gates)
    async with opened(tmp_path) as (_, peer):
        await gates[-1].speaking.wait()
        listed = (await peer.request("queue.list", {"queue": "inbound", "state": "waiting"}))["messages"]
        assert [(one["kind"], one["lane"]) for one in listed] == [(KIND, "agent:main:main")] * 2
        await peer.request("queue.drop", {"ids": [listed[0]["id"]]})
        ended = await peer.request("agent.wait", {"runId": "r2", "timeoutMs": 9000})
        assert (ended["status"], "dropped" in ended["error"]) == ("error", True)
        gates[-1].go.set()
        assert (await peer.request("agent.wait", {"runId": "r3", "timeoutMs": 9000}))["status"] == "ok"
        assert gates[-1].asked == ["r1", "r3"]


@pytest.mark.parametrize("before", [True, False])
async def test_s029_an_abort_that_was_acknowledged_outlives_the_process(
    tmp_path: Path, gates: list[Gate], before: bool
) -> None:
    """Before the restart or after it, waiting or under way: a later process asks nobody."""
    await three_wait(tmp_path, gates)
    if not before:
        async with opened(tmp_path) as (_, peer):
            await gates[-1].speaking.wait()
            await peer.request("chat.abort", {"sessionKey": "main", "runId": "r3"})
        gates.append(Gate())
        aborted = {"r3"}
    else:
        async with open_store(tmp_path) as store, open_queues(store, "inbound", clock=lambda: 1) as (inbound,):
            ids = {one.dedupe: one.id for one in inbound.messages()}
            await inbound.reclassify({ids["run:r1"]: ABORTED, ids["run:r3"]: ABORTED})
        aborted = {"r1", "r3"}
    async with opened(tmp_path) as (_, peer):
        gate = gates[-1]
        await gate.speaking.wait()
        assert not aborted.intersection((await peer.request("sessions.list", {}))["sessions"][0]["activeRunIds"])
        gate.go.set()
        for run in ("r1", "r2", "r3"):
            ended = await peer.request("agent.wait", {"runId": run, "timeoutMs": 9000})
            assert (run in aborted) == (ended.get("stopReason") == "aborted")
        assert not aborted.intersection(gate.asked)
        history = await peer.request("chat.history", {"sessionKey": "main"})
        assert [text for text in told(history) if text.startswith("q")] == ["q r1", "q r2", "q r3"]


async def test_s028_what_was_reset_stays_away_from_the_next_transcript(tmp_path: Path, gates: list[Gate]) -> None:
    await three_wait(tmp_path, gates)
    async with opened(tmp_path) as (gateway, peer):
        await gates[-1].speaking.wait()
        await peer.request("sessions.reset", {"key": "main"})
        kinds = {one.kind for one in gateway.messaging.inbound.messages()}
        assert kinds <= {FORGOTTEN}
    gates.append(Gate())
    async with opened(tmp_path) as (gateway, peer):
        while gateway.messaging.inbound.messages():
            await trio.lowlevel.checkpoint()
        assert gates[-1].asked == []
        assert told(await peer.request("chat.history", {"sessionKey": "main"})) == []


async def test_an_abort_that_cannot_be_written_says_so_and_the_next_one_mends_it(
    tmp_path: Path, gates: list[Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as (gateway, peer):
        await send(peer, "r1")
        await send(peer, "r2")
        await gates[-1].speaking.wait()

        def fail(*args: object, **kwargs: object) -> None:
            raise StoreUnavailable("disk full")

        with monkeypatch.context() as broken:
            broken.setattr(queue_rows, "reclassify", fail)
            with pytest.raises(CallFailed, match="written"):
                await peer.request("chat.abort", {"sessionKey": "main", "runId": "r2"})
        await peer.request("chat.abort", {"sessionKey": "main", "runId": "r2"})
        kinds = {one.dedupe: one.kind for one in gateway.messaging.inbound.messages()}
        assert kinds == {"run:r1": KIND, "run:r2": ABORTED}
        gates[-1].go.set()
        assert (await peer.request("agent.wait", {"runId": "r2", "timeoutMs": 9000}))["stopReason"] == "aborted"
        assert gates[-1].asked == ["r1"]


async def test_a_session_that_is_only_in_waiting_questions_is_listed(
    tmp_path: Path, gates: list[Gate], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openclaw_gateway.messaging.INBOUND_CONCURRENCY", 1)
    async with opened(tmp_path) as (_, peer):
        await send(peer, "r1")
        await gates[-1].speaking.wait()
        await send(peer, "r2", session="second")
    gates.append(Gate())
    async with opened(tmp_path) as (_, peer):
        await gates[-1].speaking.wait()
        listed = (await peer.request("sessions.list", {}))["sessions"]
        shown = {one["key"]: (one["sessionId"] is None, one["status"], one["messageCount"]) for one in listed}
        assert shown["agent:main:second"] == (True, "running", 0)
        described = (await peer.request("sessions.describe", {"key": "second"}))["session"]
        assert described["activeRunIds"] == ["r2"]
        assert (await peer.request("chat.abort", {"sessionKey": "second"}))["runIds"] == ["r2"]
        assert len((await peer.request("sessions.list", {}))["sessions"]) == 1
        gates[-1].go.set()
        assert (await peer.request("agent.wait", {"runId": "r2", "timeoutMs": 9000}))["stopReason"] == "aborted"


async def test_cap_what_waits_is_held_without_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openclaw_gateway.queues.ledger.LOOK_BATCH", 2)
    with trio.fail_after(20):
        async with open_store(tmp_path) as store, open_queues(store, "inbound", clock=lambda: 1) as (inbound,):
            from openclaw_gateway.agents.records import encode_request
            from openclaw_gateway.queues import NewMessage

            for number in range(5):
                request = RunRequest(
                    run_id=f"r{number}", agent_id="main", session_key="agent:main:main", text="", source="test",
                    accepted_at_ms=number, attachments=(Attachment("image/png", "AAAA" * 1000, "a.png"),),
                )  # fmt: skip
                await inbound.put(NewMessage("lane", f"run:r{number}", "t", KIND, encode_request(request)))
            await inbound.put(NewMessage("lane", "broken", "t", KIND, b"[]"))
            await inbound.put(NewMessage("lane", "other", "t", "other", b"{}"))
            runs: list[Run] = await waiting_runs(inbound)
        assert [run.request.run_id for run in runs] == [f"r{number}" for number in range(5)]
        assert {len(one.data) for run in runs for one in run.request.attachments} == {0}
        assert runs[0].message_id is not None


VICTIM = """
import sys
from pathlib import Path
import trio
from openclaw_gateway import GatewayConfig
from openclaw_gateway.agents.agent import EchoAgent
from openclaw_gateway.config.schema import AgentEntry, AgentsConfig, AuthConfig
from openclaw_gateway.testing import connect_peer, open_memory_gateway

async def stuck(self, turn, emit):
    await trio.sleep_forever()

EchoAgent.run = stuck

async def main():
    agents = AgentsConfig(list=(AgentEntry(id="main", kind="echo"),))
    config = GatewayConfig(auth=AuthConfig(token=sys.argv[2]), agents=agents, state_dir=Path(sys.argv[1]), port=0)
    scopes = ["operator.read", "operator.write", "operator.admin"]
    async with open_memory_gateway(config) as gateway, connect_peer(gateway, token=sys.argv[2], scopes=scopes) as peer:
        for run in ("r1", "r2", "r3", "r4"):
            params = {"sessionKey": "main", "message": "q " + run, "idempotencyKey": run}
            await peer.request("chat.send", params)
        for run in sys.argv[3:]:
            await peer.request("chat.abort", {"sessionKey": "main", "runId": run})
        print("acknowledged", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.deadline(90)
@pytest.mark.parametrize("aborted", [["r3"], ["r1", "r4"]])
async def test_s029_kill_9_after_an_abort_was_acknowledged(
    tmp_path: Path, gates: list[Gate], aborted: list[str]
) -> None:
    argv = [sys.executable, "-c", VICTIM, str(tmp_path), TOKEN, *aborted]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 - killed in a moment
        assert process.stdout is not None
        line = process.stdout.readline()
        process.kill()
    assert line == "acknowledged\n"
    gates[-1].go.set()
    async with opened(tmp_path) as (_, peer):
        for run in ("r1", "r2", "r3", "r4"):
            ended = await peer.request("agent.wait", {"runId": run, "timeoutMs": 9000})
            wanted = "aborted" if run in aborted else None
            assert ended.get("stopReason") == wanted or (ended["status"] == "timeout" and wanted)
        assert sorted(gates[-1].asked) == sorted({"r1", "r2", "r3", "r4"}.difference(aborted))


@pytest.mark.parametrize("ended", [True, False])
async def test_v44_a_run_id_is_one_run_in_the_next_process_too(tmp_path: Path, gates: list[Gate], ended: bool) -> None:
    async with opened(tmp_path) as (_, peer):
        if ended:
            gates[-1].go.set()
        await send(peer, "r1")
        await gates[-1].speaking.wait()
        if ended:
            assert (await peer.request("agent.wait", {"runId": "r1", "timeoutMs": 9000}))["status"] == "ok"
    gates.append(Gate())
    async with opened(tmp_path) as (_, peer):
        params = {"sessionKey": "main", "message": "q r1", "idempotencyKey": "r1"}
        assert (await peer.request("chat.send", params))["status"] == ("ok" if ended else "in_flight")
        for other in ({"message": "another question"}, {"sessionKey": "elsewhere"}):
            with pytest.raises(CallFailed, match="idempotency"):
                await peer.request("chat.send", {**params, **other})
        if not ended:
            await gates[-1].speaking.wait()
        assert gates[-1].asked == ([] if ended else ["r1"])
