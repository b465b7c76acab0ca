"""Model services, agents' programs and webhook targets that break in every way, again and again, behind one gateway.

Each fault: the person who asked is told, the next question is answered, nothing that was accepted is lost, and after
many of them there are as many tasks, files, children and queue rows as after the first.
"""

from __future__ import annotations

import gc
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from openclaw_gateway import Gateway, GatewayConfig
from openclaw_gateway.config.hookblocks import HooksConfig, OutboundHook
from openclaw_gateway.config.schema import (
    AgentDefaults,
    AgentEntry,
    AgentsConfig,
    AuthConfig,
    ModelChoice,
    ModelsConfig,
    ProviderConfig,
)
from openclaw_gateway.hooks import outbound
from openclaw_gateway.testing import connect_peer, open_memory_gateway
from tests.models.scripted import ScriptedService, open_service, sse

from .test_subprocess_agent import HEAD, gone

pytestmark = pytest.mark.deadline(120)

TOKEN = "token-of-the-chaos-of-agents-0123456789"
ALL = ["operator.read", "operator.write", "operator.admin"]
ROUNDS = 6
HALF = sse({"choices": [{"delta": {"content": "so far"}}]}, whole=False)
WHOLE = sse({"choices": [{"delta": {"content": "whole"}}]}, {"choices": [{"finish_reason": "stop"}]}, "[DONE]")

Say = Callable[[trio.SocketStream], Awaitable[None]]


@attrs.frozen
class Held:
    """What would grow if a fault left something behind."""

    tasks: int
    files: int
    children: int
    runs: int
    inbound: dict[str, int]


def _held(gateway: Gateway) -> Held:
    gc.collect()
    children = sum(len(path.read_text().split()) for path in Path("/proc/self/task").glob("*/children"))
    counts = gateway.messaging.inbound.counts
    return Held(
        tasks=trio.lowlevel.current_statistics().tasks_living,
        files=len(list(Path("/proc/self/fd").iterdir())),
        children=children,
        runs=len(gateway.messaging.runs.active()),
        inbound={state: counts[state] for state in ("waiting", "running", "dead")},
    )


async def _settled(gateway: Gateway, want: Held) -> Held:
    """What is held once what may still be closing is closed: as ``want``, or what stays for a second."""
    with trio.move_on_after(5):
        while _held(gateway) != want:  # noqa: ASYNC110 - the kernel's tables tell nobody
            await trio.sleep(0.05)
    return _held(gateway)


@asynccontextmanager
async def _talking(config: GatewayConfig) -> AsyncIterator[tuple[Gateway, Any]]:
    async with open_memory_gateway(config) as gateway, connect_peer(gateway, token=TOKEN, scopes=ALL) as peer:

        async def no_pause(seconds: float) -> None:
            await trio.lowlevel.checkpoint()

        gateway.messaging.models._pause = no_pause
        yield gateway, peer


async def _ask(peer: Any, key: str, **more: Any) -> dict[str, Any]:
    """One question; what ``agent.wait`` says of it in the end."""
    params = {"sessionKey": "main", "message": "hi", "idempotencyKey": key, **more}
    await peer.request("chat.send", params)
    waited: dict[str, Any] = await peer.request("agent.wait", {"runId": key, "timeoutMs": 60_000})
    peer.events.clear()
    return waited


# --- model services


async def _dies(stream: trio.SocketStream) -> None:
    await stream.send_all(HALF)


async def _is_reset(stream: trio.SocketStream) -> None:
    await stream.send_all(HALF)
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _hangs(stream: trio.SocketStream) -> None:
    await stream.send_all(HALF)
    await stream.receive_some(1)


async def _babbles(stream: trio.SocketStream) -> None:
    await stream.send_all(sse("{oops", "\x00", "[]", "null", '{"choices": 5}'))


async def _never_ends_a_line(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ")
    while True:
        await stream.send_all(b"x" * 65_536)


async def _speaks_no_http(stream: trio.SocketStream) -> None:
    await stream.send_all(b"SSH-2.0-OpenSSH_9.9\r\n\xff\xfe\r\n\r\n")


@pytest.mark.parametrize("fault", [_dies, _is_reset, _hangs, _babbles, _never_ends_a_line, _speaks_no_http])
async def test_rob1_a_model_service_that_breaks_is_told_and_leaves_nothing_behind(fault: Say) -> None:
    async with open_service() as service, _talking(_with_model(service, patience=1)) as (gateway, peer):
        before: Held | None = None
        for number in range(ROUNDS if fault is not _hangs else 3):
            service.answers[:] = [fault] * 5  # every try meets it
            told = await _ask(peer, f"bad {number}")
            assert told["status"] == "error", told
            assert told["error"]
            before = before or await _settled(gateway, _held(gateway))
        assert before is not None
        assert await _settled(gateway, before) == before
        gateway.messaging.configure(_with_model(service, patience=60))  # the service's rest ends with its settings
        service.answers[:] = [WHOLE]
        assert (await _ask(peer, "good"))["status"] == "ok"
        assert _held(gateway).inbound == {"waiting": 0, "running": 0, "dead": 0}


async def test_rob1_a_model_service_that_dies_in_the_middle_keeps_what_it_said() -> None:
    async with open_service(_dies, WHOLE) as service, _talking(_with_model(service, patience=60)) as (_, peer):
        assert (await _ask(peer, "bad"))["status"] == "error"
        history = await peer.request("chat.history", {"sessionKey": "main"})
        assert [entry["role"] for entry in history["messages"]] == ["user", "assistant"]
        assert history["messages"][1]["content"][0]["text"].startswith("so far")


def _with_model(service: ScriptedService, *, patience: int) -> GatewayConfig:
    provider = ProviderConfig(base_url=service.url, api_key="sk-of-the-tests-0123456789", timeout_seconds=patience)
    agents = AgentsConfig(
        defaults=AgentDefaults(model=ModelChoice(primary="one/m")), list=(AgentEntry(id="main"),)
    )  # fmt: skip
    return GatewayConfig(auth=AuthConfig(token=TOKEN), agents=agents, models=ModelsConfig(providers={"one": provider}))


# --- programs

PROGRAMS = {
    "killed": "say(type='text', text='so far'); os.kill(os.getpid(), 9)",
    "stopped": "say(type='text', text='so far'); os.kill(os.getpid(), 19)",
    "a flood of lines": "while True: say(type='text', text='x' * 60000)",
    "a line without end": "while True: sys.stdout.write('x' * 65536)",
    "a flood of log lines": "[sys.stderr.write('y' * 9000 + '\\n') for _ in range(3000)]; sys.exit(3)",
    "rubbish": "sys.stdout.buffer.write(bytes(range(256)) * 10 + b'\\n')",
    "closed its output and stays": "os.close(1); time.sleep(1000)",
}


@pytest.mark.parametrize("script", PROGRAMS.values(), ids=PROGRAMS.keys())
async def test_rob1_a_program_that_breaks_is_told_and_leaves_nothing_behind(script: str, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    noted = f"open({str(pids)!r}, 'a').write(str(os.getpid()) + '\\n')\n"
    flag = tmp_path / "well"
    whole = f"say(type='text', text='whole') if os.path.exists({str(flag)!r}) else exec({script!r})"
    command = (sys.executable, "-c", HEAD + noted + whole)
    agents = AgentsConfig(list=(AgentEntry(id="main", kind="subprocess", command=command),))
    async with _talking(GatewayConfig(auth=AuthConfig(token=TOKEN), agents=agents)) as (gateway, peer):
        before: Held | None = None
        waits = "os.kill(os.getpid(), 19)" in script or "sleep" in script
        for number in range(ROUNDS):
            told = await _ask(peer, f"bad {number}", **({"timeoutMs": 1500} if waits else {}))
            assert told["status"] in {"error", "timeout"}, told
            assert told["error"]
            before = before or await _settled(gateway, _held(gateway))
        assert before is not None
        assert await _settled(gateway, before) == before
        assert await gone(*map(int, pids.read_text().split()))
        flag.touch()
        assert (await _ask(peer, "good"))["status"] == "ok"
        assert _held(gateway).inbound == {"waiting": 0, "running": 0, "dead": 0}


# --- webhook targets


@pytest.mark.parametrize("fault", ["accepts and says nothing", "half a head", "resets"])
async def test_rob1_a_webhook_target_that_breaks_holds_its_events_and_nothing_else(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbound, "SEND_SECONDS", 0.3)
    broken, heard = True, set()

    async def serve(stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some(65_536)
        if not broken:
            heard.add(head.partition(b"webhook-id: ")[2].partition(b"\r\n")[0])
            await stream.send_all(b"HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n")
        elif fault == "half a head":
            await stream.send_all(b"HTTP/1.1 20")
            await stream.aclose()
        elif fault == "resets":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await stream.aclose()
        else:
            await stream.receive_some(1)

    async def serve_quietly(stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await serve(stream)
        except trio.BrokenResourceError:
            return

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve_quietly, 0)
        port = listeners[0].socket.getsockname()[1]
        hook = OutboundHook(
            name="ops", url=f"http://127.0.0.1:{port}/in", secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            events=("chat",), allow_private=True,
        )  # fmt: skip
        async with open_memory_gateway(GatewayConfig(hooks=HooksConfig(outbound=(hook,)))) as gateway:
            queue = gateway.messaging.outbound
            queue.rules = attrs.evolve(queue.rules, first_retry_ms=1, longest_retry_ms=1, max_attempts=100_000)
            while not gateway.events._subscriptions:
                await trio.lowlevel.checkpoint()
            for number in range(5):
                gateway.events.publish_nowait("chat", {"state": "final", "n": number})
            await _attempts(gateway, 3)
            before = _held(gateway).files
            await _attempts(gateway, 8)
            assert _held(gateway).files <= before + 2  # the try under way and its connection
            assert queue.counts["dead"] == 0
            (first,) = [one for one in queue.messages() if one.attempts]
            assert first.last_error
            broken = False
            monkeypatch.undo()
            with trio.fail_after(30):
                while queue.messages():  # noqa: ASYNC110 - an end of a message is told to its handler alone
                    await trio.sleep(0.01)
            assert len(heard) == 5  # each at least once: an answer that came too late is asked for again
        nursery.cancel_scope.cancel()


async def _attempts(gateway: Gateway, count: int) -> None:
    with trio.fail_after(30):
        while max((one.attempts for one in gateway.messaging.outbound.messages()), default=0) < count:  # noqa: ASYNC110
            await trio.sleep(0.01)
