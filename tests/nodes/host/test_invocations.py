"""Requests of a gateway: bounded, answered once, cancelled for good, whatever is sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.client.errors import ClientClosed
from openclaw_gateway.errors import CallFailed
from openclaw_gateway.nodes.host import invocations as module
from openclaw_gateway.nodes.host.commands import COMMANDS, make_handlers
from openclaw_gateway.nodes.host.errors import CommandFailed, NodeError
from openclaw_gateway.nodes.host.exec_policy import ExecPolicy, policy_path, save_policy
from openclaw_gateway.nodes.host.invocations import (
    MAX_PARAMS_BYTES,
    MAX_REMEMBERED,
    MAX_RUNNING,
    Handler,
    Invocation,
    Invocations,
)
from openclaw_gateway.nodes.host.lookup import resolve_program, search_path
from openclaw_gateway.nodes.host.system_run import MAX_ARGUMENTS, MAX_OUTPUT_BYTES, MAX_PROGRAMS

NODE = "node-1"


@attrs.define
class FakeGateway:
    """Hears what the node says, in order."""

    said: list[tuple[str, Any]] = attrs.field(factory=list)
    fault: Exception | None = None
    wake: trio.Event = attrs.field(factory=trio.Event)

    async def call(self, method: str, params: Any = None, *, timeout: float | None = 30.0) -> Any:
        await trio.lowlevel.checkpoint()
        self.said.append((method, params))
        self.wake.set()
        self.wake = trio.Event()
        if self.fault is not None:
            raise self.fault
        return {"ok": True}

    @property
    def results(self) -> dict[str, Any]:
        return {params["id"]: params for method, params in self.said if method == "node.invoke.result"}

    async def result(self, id_: str) -> Any:
        while id_ not in self.results:
            await self.wake.wait()
        return self.results[id_]


def request(id_: str, command: str, params: object = None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"id": id_, "nodeId": NODE, "command": command, **more}
    return found if params is None else {**found, "paramsJSON": json.dumps(params)}


@attrs.define
class Bench:
    gateway: FakeGateway
    node: Invocations
    nursery: trio.Nursery

    async def ask(self, command: str, params: object = None, id_: str = "i1", **more: Any) -> Any:
        self.node.take(self.nursery, request(id_, command, params, **more))
        return await self.gateway.result(id_)

    async def payload(self, command: str, params: object = None, **more: Any) -> Any:
        result = await self.ask(command, params, **more)
        assert result["ok"], result
        return json.loads(result["payloadJSON"])

    async def error(self, command: str, params: object = None, **more: Any) -> tuple[str, str]:
        result = await self.ask(command, params, **more)
        assert not result["ok"], result
        return result["error"]["code"], result["error"]["message"]


@asynccontextmanager
async def open_bench(handlers: Mapping[str, Handler]) -> AsyncIterator[Bench]:
    async with trio.open_nursery() as nursery:
        gateway = FakeGateway()
        yield Bench(gateway, Invocations(gateway, handlers, NODE), nursery)
        nursery.cancel_scope.cancel()


async def hang(_: Invocation, params: dict[str, Any]) -> Any:
    await trio.sleep_forever()


async def echo(_: Invocation, params: dict[str, Any]) -> Any:
    return params


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return policy_path(tmp_path / "node")


@pytest.fixture
def handlers(tmp_path: Path) -> Mapping[str, Handler]:
    return make_handlers(tmp_path / "node")


def allow(policy: Path, *names: str, **more: Any) -> None:
    save_policy(policy, ExecPolicy(programs=tuple(str(resolve_program(name, search_path())) for name in names), **more))


# --- taking, answering, cancelling


async def test_s089_a_command_is_answered_with_its_payload() -> None:
    async with open_bench({"echo": echo}) as bench:
        result = await bench.ask("echo", {"a": [1]})
        assert result == {"id": "i1", "nodeId": NODE, "ok": True, "payloadJSON": '{"a":[1]}'}


async def test_id_node_command_and_params_suffice_and_so_do_no_params() -> None:
    async with open_bench({"echo": echo}) as bench:
        assert await bench.payload("echo") == {}
        assert await bench.payload("echo", id_="i2", paramsJSON="null") == {}


@pytest.mark.parametrize("payload", [None, 1, [], {}, {"id": 1}, {"id": "x", "nodeId": "other", "command": "echo"}])
async def test_what_is_no_request_or_not_ours_is_dropped(payload: object) -> None:
    async with open_bench({"echo": echo}) as bench:
        bench.node.take(bench.nursery, payload)
        bench.node.cancel(payload)
        await bench.payload("echo")
        assert len(bench.gateway.said) == 1


async def test_unknown_commands_and_bad_parameters_are_refused() -> None:
    async with open_bench({"echo": echo}) as bench:
        assert await bench.error("nope") == ("INVALID_REQUEST", "this node has no command nope")
        for number, text in enumerate(["{", "[]", '"x"', "[" * 100_000, "\ud800"]):
            code, _ = await bench.error("echo", id_=f"b{number}", paramsJSON=text)
            assert code == "INVALID_REQUEST"
        code, message = await bench.error("echo", id_="big", paramsJSON='"' + "x" * MAX_PARAMS_BYTES + '"')
        assert str(MAX_PARAMS_BYTES) in message


@pytest.mark.parametrize("params", [{"approved": True}, {"a": [{"b": {"approvalDecision": "allow-once"}}]}])
async def test_v30_nobody_approves_in_parameters(params: object) -> None:
    async with open_bench({"echo": echo}) as bench:
        code, message = await bench.error("echo", params)
        assert code == "INVALID_REQUEST"
        assert "reserved" in message


async def test_cancelled_means_stopped_and_never_answered() -> None:
    async with open_bench({"hang": hang, "echo": echo}) as bench:
        bench.node.take(bench.nursery, request("i1", "hang"))
        await trio.testing.wait_all_tasks_blocked()
        assert bench.node.running == 1
        bench.node.cancel({"invokeId": "i1", "nodeId": NODE})
        await bench.payload("echo", id_="i2")
        await trio.testing.wait_all_tasks_blocked()
        assert bench.node.running == 0
        assert set(bench.gateway.results) == {"i2"}


async def test_a_repeated_id_is_carried_out_once() -> None:
    calls = 0

    async def count(_: Invocation, params: dict[str, Any]) -> Any:
        nonlocal calls
        calls += 1
        return calls

    async with open_bench({"count": count}) as bench:
        assert await bench.payload("count") == 1
        bench.node.take(bench.nursery, request("i1", "count"))
        await trio.testing.wait_all_tasks_blocked()
        assert (calls, len(bench.gateway.said)) == (1, 1)


async def test_what_was_refused_for_now_may_be_asked_again() -> None:
    async def busy(_: Invocation, params: dict[str, Any]) -> Any:
        raise CommandFailed(module.NOT_READY, "later")

    async with open_bench({"busy": busy}) as bench:
        assert (await bench.error("busy"))[0] == "NODE_NOT_READY"
        bench.node.take(bench.nursery, request("i1", "busy"))
        await trio.testing.wait_all_tasks_blocked()
        assert len(bench.gateway.said) == 2


async def test_commands_at_once_are_bounded_and_the_rest_is_told_to_come_back() -> None:
    async with open_bench({"hang": hang}) as bench:
        for number in range(MAX_RUNNING):
            bench.node.take(bench.nursery, request(f"h{number}", "hang"))
        assert (await bench.error("hang", id_="over"))[0] == "NODE_NOT_READY"
        for number in range(10 * MAX_RUNNING):  # a flood makes no more tasks either
            bench.node.take(bench.nursery, request(f"f{number}", "hang"))
        assert len(bench.nursery.child_tasks) <= 3 * MAX_RUNNING
        assert bench.node.running == MAX_RUNNING


async def test_remembered_ids_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bench({"echo": echo}) as bench:
        for number in range(MAX_REMEMBERED + 50):
            await bench.ask("echo", id_=f"i{number}")
        assert bench.node.remembered == MAX_REMEMBERED


async def test_node1_a_command_that_ignores_its_deadline_is_ended(autojump_clock: trio.testing.MockClock) -> None:
    async with open_bench({"hang": hang}) as bench:
        began = trio.current_time()
        code, _ = await bench.error("hang", timeoutMs=2000)
        assert code == "TIMEOUT"
        assert 2 <= trio.current_time() - began <= 6


@pytest.mark.expect_error_log("node command failed")
async def test_a_command_that_breaks_answers_its_caller_and_hurts_nobody() -> None:
    async def broken(_: Invocation, params: dict[str, Any]) -> Any:
        raise ZeroDivisionError("secret detail")

    async with open_bench({"broken": broken, "echo": echo}) as bench:
        code, message = await bench.error("broken")
        assert code == "INTERNAL"
        assert "secret" not in message
        assert await bench.payload("echo", id_="i2") == {}


async def test_a_result_that_is_too_large_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_RESULT_BYTES", 100)
    async with open_bench({"echo": echo}) as bench:
        assert (await bench.error("echo", {"a": "x" * 100}))[0] == "RESULT_TOO_LARGE"


@pytest.mark.parametrize("fault", [CallFailed("INVALID_REQUEST", "late"), ClientClosed(1006, "gone")])
async def test_an_answer_that_nobody_takes_is_no_trouble(fault: Exception) -> None:
    async with open_bench({"echo": echo}) as bench:
        bench.gateway.fault = fault
        bench.node.take(bench.nursery, request("i1", "echo"))
        await trio.testing.wait_all_tasks_blocked()
        bench.gateway.fault = None
        assert await bench.payload("echo", id_="i2") == {}


@given(
    st.recursive(st.none() | st.booleans() | st.text(max_size=5), lambda c: st.lists(c) | st.dictionaries(st.text(), c))
)
async def test_any_payload_is_survived(payload: object) -> None:
    async with open_bench({"echo": echo}) as bench:
        bench.node.take(bench.nursery, payload)
        bench.node.cancel(payload)
        assert await bench.payload("echo") == {}


# --- the commands


async def test_s097_the_table_is_what_is_offered(tmp_path: Path) -> None:
    assert tuple(make_handlers(tmp_path)) == COMMANDS
    assert tuple(make_handlers(tmp_path, ["system.which"])) == ("system.which",)
    with pytest.raises(NodeError, match=r"no command system\.reboot"):
        make_handlers(tmp_path, ["system.reboot"])


async def test_system_which_finds_what_there_is(handlers: Mapping[str, Handler]) -> None:
    async with open_bench(handlers) as bench:
        found = await bench.payload("system.which", {"bins": ["sh", "no-such-program", "../bin/sh", "/bin/sh", ""]})
        assert set(found["bins"]) == {"sh"}
        assert (await bench.error("system.which", {"bins": "sh"}, id_="i2"))[0] == "INVALID_REQUEST"
        assert (await bench.error("system.which", {"bins": ["a"] * 129}, id_="i3"))[0] == "INVALID_REQUEST"


async def test_nothing_runs_until_this_machine_allows_it(handlers: Mapping[str, Handler], policy: Path) -> None:
    async with open_bench(handlers) as bench:
        code, message = await bench.error("system.run", {"command": ["uname", "-s"]})
        assert code == "SYSTEM_RUN_DENIED"
        assert f"openclaw node allow {resolve_program('uname', search_path())}" in message
        allow(policy, "uname")  # while the node runs
        result = await bench.payload("system.run", {"command": ["uname", "-s"]}, id_="i2")
        assert (result["exitCode"], result["success"], result["timedOut"]) == (0, True, False)
        assert result["stdout"].strip() == "Linux"


async def test_the_exec_event_comes_before_the_result(handlers: Mapping[str, Handler], policy: Path) -> None:
    allow(policy, "cat")
    params = {"command": ["cat", "/no such file"], "runId": "run-7", "sessionKey": "agent:main:main"}
    async with open_bench(handlers) as bench:
        result = await bench.payload("system.run", params)
        assert (result["exitCode"], result["success"]) == (1, False)
        assert [method for method, _ in bench.gateway.said] == ["node.event", "node.invoke.result"]
        told = bench.gateway.said[0][1]
        assert told["event"] == "exec.finished"
        event = json.loads(told["payloadJSON"])
        assert "No such file" in event.pop("output")
        assert event == {
            "sessionKey": "agent:main:main", "runId": "run-7", "host": "node", "command": "cat '/no such file'",
            "exitCode": 1, "timedOut": False, "success": False, "suppressNotifyOnExit": False,
        }  # fmt: skip


async def test_a_gateway_that_knows_no_exec_events_gets_its_result_all_the_same(
    handlers: Mapping[str, Handler], policy: Path
) -> None:
    allow(policy, "true")
    async with open_bench(handlers) as bench:
        bench.gateway.fault = CallFailed("INVALID_REQUEST", "unknown method: node.event")
        assert (await bench.payload("system.run", {"command": ["true"]}))["exitCode"] == 0


async def test_the_programs_own_time_and_the_callers_both_hold(handlers: Mapping[str, Handler], policy: Path) -> None:
    allow(policy, "sleep")
    async with open_bench(handlers) as bench:
        result = await bench.payload("system.run", {"command": ["sleep", "100"], "timeoutMs": 200})
        assert (result["timedOut"], result["exitCode"], result["success"]) == (True, None, False)
        began = trio.current_time()
        result = await bench.payload("system.run", {"command": ["sleep", "100"]}, id_="i2", timeoutMs=700)
        assert result["timedOut"]
        assert trio.current_time() - began < 20  # of the hundred that the program would take


async def test_output_over_the_bound_is_marked(handlers: Mapping[str, Handler], policy: Path) -> None:
    allow(policy, "head")
    params = {"command": ["head", "-c", str(MAX_OUTPUT_BYTES + 1), "/dev/zero"]}
    async with open_bench(handlers) as bench:
        result = await bench.payload("system.run", params)
        assert (result["truncated"], len(result["stdout"])) == (True, MAX_OUTPUT_BYTES)
        event = json.loads(bench.gateway.said[0][1]["payloadJSON"])
        assert len(event["output"]) <= 20_000


async def test_programs_at_once_are_bounded(handlers: Mapping[str, Handler], policy: Path) -> None:
    allow(policy, "sleep")
    async with open_bench(handlers) as bench:
        for number in range(MAX_PROGRAMS):
            bench.node.take(bench.nursery, request(f"s{number}", "system.run", {"command": ["sleep", "100"]}))
        await trio.testing.wait_all_tasks_blocked()
        assert (await bench.error("system.run", {"command": ["sleep", "0"]}, id_="over"))[0] == "NODE_NOT_READY"


@pytest.mark.parametrize(
    "params",
    [
        {}, {"command": []}, {"command": [""]}, {"command": "uname -a"}, {"command": ["uname"] * (MAX_ARGUMENTS + 1)},
        {"command": ["uname", "x" * 200_000]}, {"command": ["uname", "a\0b"]},
        {"command": ["uname"], "cwd": "relative"},
        {"command": ["uname"], "cwd": "/no/such/folder"}, {"command": ["uname"], "env": {"A\0": "b"}},
        {"command": ["uname"], "env": {f"LC_{n}": "" for n in range(65)}}, {"command": [1]},
    ],
)  # fmt: skip
async def test_v54_malformed_runs_are_refused(
    handlers: Mapping[str, Handler], policy: Path, params: dict[str, Any]
) -> None:
    allow(policy, "uname")
    async with open_bench(handlers) as bench:
        assert (await bench.error("system.run", params))[0] == "INVALID_REQUEST"


async def test_a_program_gets_a_plain_environment(
    handlers: Mapping[str, Handler], policy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENCLAW_GATEWAY_TOKEN", "secret-of-the-node")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    allow(policy, "env", env=("MINE",))
    async with open_bench(handlers) as bench:
        params = {"command": ["env"], "env": {"MINE": "1", "LANG": "xx"}, "cwd": str(tmp_path)}
        result = await bench.payload("system.run", params)
        assert "secret-of-the-node" not in result["stdout"]
        assert "LD_LIBRARY_PATH" not in result["stdout"]
        assert {"MINE=1", "LANG=xx"} <= set(result["stdout"].splitlines())
        for number, name in enumerate(["OTHER", "LD_PRELOAD", "PATH"]):
            code, _ = await bench.error("system.run", {"command": ["env"], "env": {name: "x"}}, id_=f"e{number}")
            assert code == "SYSTEM_RUN_DENIED"


def break_policy(policy: Path) -> None:
    policy.parent.mkdir(mode=0o700)
    policy.write_text("{mode: 'allow', oops")
    policy.chmod(0o600)


@pytest.mark.expect_error_log("exec policy cannot be used")
async def test_a_policy_that_cannot_be_read_denies_everything(handlers: Mapping[str, Handler], policy: Path) -> None:
    break_policy(policy)
    async with open_bench(handlers) as bench:
        assert (await bench.error("system.run", {"command": ["true"]}))[0] == "SYSTEM_RUN_DENIED"
        assert (await bench.error("fs.listDir", {"path": "/"}, id_="i2"))[0] == "SYSTEM_RUN_DENIED"


async def test_fs_list_dir_stays_inside_the_roots(
    handlers: Mapping[str, Handler], policy: Path, tmp_path: Path
) -> None:
    (tmp_path / "root" / "inner").mkdir(parents=True)
    allow(policy, roots=(str((tmp_path / "root").resolve()),))
    async with open_bench(handlers) as bench:
        listing = await bench.payload("fs.listDir", {})
        assert [entry["name"] for entry in listing["entries"]] == ["inner"]
        assert (await bench.error("fs.listDir", {"path": str(tmp_path)}, id_="i2"))[0] == "FS_DENIED"


async def test_v52_a_notification_is_shown_without_a_desktop(
    handlers: Mapping[str, Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    async with open_bench(handlers) as bench:
        params = {"title": "Hi", "body": "a\x1b[31mb", "sound": None}
        assert (await bench.payload("system.notify", params))["shown"] in {"log", "terminal"}
        assert (await bench.error("system.notify", {}, id_="i2"))[0] == "INVALID_REQUEST"


async def test_v54_a_notification_makes_no_options(
    handlers: Mapping[str, Handler], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    tool = tmp_path / "notify-send"
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {said}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("DISPLAY", ":99")
    async with open_bench(handlers) as bench:
        params = {"title": "--icon=/etc/shadow", "body": "x\n--y", "priority": "timeSensitive"}
        assert (await bench.payload("system.notify", params))["shown"] == "desktop"
    lines = said.read_text().splitlines()
    assert lines == ["--app-name=OpenClaw", "--urgency=critical", "--", "--icon=/etc/shadow", "x --y"]
