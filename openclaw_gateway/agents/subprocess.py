"""An agent that is somebody's own program: one process a run, JSON lines in and out.

Owns the protocol (version 1, docs/reference/agent-protocol.md), the program's life, and what it may cost. It must not
know what the program does, and the program learns nothing of the gateway but the turn.

Theory of operation. The program gets one line on its standard input, the turn, and then the end of input. It writes
lines until it says ``done`` or ends with status 0. A ``/bin/sh`` leads its process group and holds a pipe from this
process: when that closes, by whatever end of the run or of the gateway (kill -9 included), the whole group is killed.
PR_SET_PDEATHSIG would not do, see `nodes.host.process`.

Invariants: no shell ever reads the command (it reaches the guard as ``"$@"``); the environment holds what a program
needs to run (PATH, HOME, language, time zone) and what the configuration gives it, nothing else of the gateway's; when
`run` is left nothing of the group lives; lines, output and log lines have limits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, cast, get_args

import msgspec
import trio

from openclaw_gateway.agents.agent import Emit
from openclaw_gateway.agents.records import AgentFailed, Delta, ErrorKind, Message, Outcome, Turn, Usage
from openclaw_gateway.config.schema import AgentEntry
from openclaw_gateway.errors import flat_errors
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.wholetext import decode_whole

__all__ = ["MAX_LINE", "MAX_OUTPUT", "PROTOCOL_VERSION", "SubprocessAgent", "turn_line"]

PROTOCOL_VERSION: Final = 1
MAX_LINE: Final = 1024 * 1024
MAX_OUTPUT: Final = 16 * 1024 * 1024
MAX_PROCESSES: Final = 8  # of one agent at once; the next waits
MAX_LOGGED: Final = 50  # lines of a run's standard error
MAX_LOGGED_LINE: Final = 4_096
GRACE_SECONDS: Final = 2.0  # from ``done`` to the program's own end
LOG_SECONDS: Final = 0.5  # for the log lines of a program that has ended
REAP_SECONDS: Final = 2.0
_CHUNK: Final = 65_536
_KEPT: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV")

# /dev/fd/N opens the pipe anew with a number that every shell can spell. The watcher keeps the group from being empty
# until it is killed as a whole, so its id cannot change hands before.
_GUARD: Final = """\
exec 3<"/dev/fd/$1" || exit 126
shift
{ trap '' TERM INT HUP; read -r _ <&3; kill -KILL 0; } </dev/null >/dev/null 2>&1 &
trap : TERM INT HUP
exec 4>&2 2>/dev/null
(exec "$@" 2>&4 3<&- 4>&-)
exit $?
"""

log = get_logger("agents")


class SubprocessAgent:
    def __init__(self, entry: AgentEntry, *, env: Mapping[str, str] | None = None) -> None:
        self._entry = entry
        self._env = _environment(os.environ if env is None else env, entry.env)
        home = self._env.get("HOME", "")
        self._cwd = home if home and Path(home).is_dir() else "/"
        self._limit = trio.CapacityLimiter(MAX_PROCESSES)

    async def run(self, turn: Turn, emit: Emit) -> Outcome:
        """See `Agent.run`. Cancellation kills the program and all that it started."""
        argv = self._argv()
        async with self._limit, _started(argv, self._env, self._cwd) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            answer = _Answer(self._entry.id, emit)
            logged = trio.Event()
            with flat_errors():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_hand_over, process.stdin, turn_line(turn, self._entry.system_prompt))
                    nursery.start_soon(self._log, process.stderr, logged)
                    try:
                        with trio.CancelScope() as reading:
                            nursery.start_soon(_when_ended, process, reading)
                            await _read_lines(process.stdout, answer.take)
                        if answer.outcome is None:
                            status = await process.wait()
                            with trio.move_on_after(LOG_SECONDS):
                                await logged.wait()
                            if status != 0:
                                raise self._failed(f"ended with status {status}; its log lines say more")
                        else:
                            with trio.move_on_after(GRACE_SECONDS):
                                await process.wait()
                    except _BadLine as exc:
                        raise self._failed(str(exc)) from exc
                    finally:
                        nursery.cancel_scope.cancel()
        return answer.outcome or Outcome(model=f"subprocess/{self._entry.id}", usage=answer.usage)

    def _argv(self) -> list[str]:
        if not self._entry.command:
            raise self._failed("has no command: set agents.list[].command")
        name, *rest = self._entry.command
        found = shutil.which(name, path=self._env.get("PATH"))
        if found is None:
            raise self._failed(f"cannot be started: there is no program {name!r} on its PATH")
        return [str(Path(found).absolute()), *rest]

    def _failed(self, why: str) -> AgentFailed:
        return AgentFailed(f"the program of agent {self._entry.id} {why}")

    async def _log(self, stream: trio.abc.ReceiveStream, logged: trio.Event) -> None:
        """What the program writes on standard error goes to the log; beyond the limit it is read and dropped."""
        left = MAX_LOGGED

        def tell(line: bytes) -> bool:
            nonlocal left
            left -= 1
            if left >= 0:
                log.info("agent program said", agent=self._entry.id, reason=line.decode("utf-8", "replace"))
            return False

        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await _lines(stream, tell, longest=MAX_LOGGED_LINE, cut=True, most=None)
        logged.set()


class _BadLine(Exception):
    """The program wrote what the protocol does not know."""


class _Answer:
    """Takes a program's lines in their order. ``outcome`` once it said ``done``."""

    def __init__(self, agent_id: str, emit: Emit) -> None:
        self._model = f"subprocess/{agent_id}"
        self._emit = emit
        self.usage: Usage | None = None
        self.outcome: Outcome | None = None

    def take(self, line: bytes) -> bool:
        """Whether the answer is over. Raises `_BadLine`, and `AgentFailed` where the program says that it failed."""
        if not line.strip():
            return False
        try:
            said = decode_whole(msgspec.json.decode, line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise _BadLine("wrote a line that is no JSON") from exc
        if not isinstance(said, dict):
            raise _BadLine("wrote a line that is no JSON object")
        kind = said.get("type")
        text = said.get("text", "")
        if kind in ("text", "thinking", "status", "tool"):
            if not isinstance(text, str):
                raise _BadLine(f"wrote a {kind} whose text is no text")
            data = said.get("data")
            self._emit(Delta(kind, text, data if isinstance(data, dict) else None))
        elif kind == "usage":
            self.usage = Usage(*(_count(said, name) for name in ("input", "output", "cacheRead", "cacheWrite")))
        elif kind == "done":
            stop, model = said.get("stop"), said.get("model")
            self.outcome = Outcome(
                stop="length" if stop == "length" else "stop",
                model=model[:256] if isinstance(model, str) and model else self._model,
                usage=self.usage,
            )
            return True
        elif kind == "error":
            raise _told_failure(said)
        return False  # what a later version of the protocol may add


def _told_failure(said: dict[str, Any]) -> AgentFailed:
    message, kind = said.get("message"), said.get("kind")
    return AgentFailed(
        message[:1_000] if isinstance(message, str) and message else "the agent's program failed",
        kind=cast("ErrorKind", kind) if kind in get_args(ErrorKind) else "unknown",
        retryable=said.get("retryable") is True,
    )


def _count(said: dict[str, Any], name: str) -> int:
    value = said.get(name, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else 0


def turn_line(turn: Turn, system: str | None) -> bytes:
    """The one line that a program gets."""
    request = turn.request
    told = "\n\n".join(text for text in (system, request.system) if text)
    return (
        msgspec.json.encode(
            {
                "type": "turn",
                "version": PROTOCOL_VERSION,
                "runId": request.run_id,
                "agentId": request.agent_id,
                "sessionKey": request.session_key,
                "sessionId": turn.session.session_id,
                "text": request.text,
                "attachments": [_attachment(one) for one in request.attachments],
                "sender": {"id": request.sender, "name": request.sender_name},
                "channel": request.reply.channel if request.reply is not None else None,
                "system": told or None,
                "model": request.model or turn.session.model,
                "uncertain": turn.uncertain,
                "history": [_message(one) for one in turn.history],
            }
        )
        + b"\n"
    )


def _attachment(one: Any) -> dict[str, Any]:
    return {"mimeType": one.mime, "fileName": one.name, "content": one.data}


def _message(one: Message) -> dict[str, Any]:
    return {"role": one.role, "text": one.text, "timestamp": one.at_ms, "senderName": one.sender_name}


def _environment(ours: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in ours.items() if name in _KEPT or name.startswith("LC_")}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", **kept, **given, "OPENCLAW_AGENT_PROTOCOL": str(PROTOCOL_VERSION)}


@asynccontextmanager
async def _started(argv: list[str], env: Mapping[str, str], cwd: str) -> AsyncIterator[trio.Process]:
    """The program, guarded; killed with all that it started when this is left. Raises `AgentFailed`."""
    lifeline_end, lifeline = os.pipe()
    try:
        try:
            process = await trio.lowlevel.open_process(
                ["/bin/sh", "-c", _GUARD, "openclaw-agent-guard", str(lifeline_end), *argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
                pass_fds=(lifeline_end,),
            )
        except OSError as exc:
            raise AgentFailed(f"an agent's program cannot be started: {exc.strerror}") from exc
        finally:
            os.close(lifeline_end)
        try:
            yield process
        finally:
            await _end(process)
    finally:
        os.close(lifeline)


async def _end(process: trio.Process) -> None:
    # Not only where the leader lives: what it started may have outlived it, and the watcher keeps the group's id taken.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with trio.CancelScope(shield=True, deadline=trio.current_time() + REAP_SECONDS):
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()
        await process.wait()


async def _hand_over(stream: trio.abc.SendStream, line: bytes) -> None:
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.send_all(line)  # a program that does not read is within its rights
    await stream.aclose()


async def _when_ended(process: trio.Process, reading: trio.CancelScope) -> None:
    """What a program left running may hold its output open for ever; what is in it by then is enough."""
    await process.wait()
    reading.deadline = min(reading.deadline, trio.current_time() + LOG_SECONDS)


async def _read_lines(stream: trio.abc.ReceiveStream, take: Callable[[bytes], bool]) -> None:
    await _lines(stream, take, longest=MAX_LINE, cut=False, most=MAX_OUTPUT)


async def _lines(
    stream: trio.abc.ReceiveStream, take: Callable[[bytes], bool], *, longest: int, cut: bool, most: int | None
) -> None:
    """Give ``take`` each line until it says that it has enough. ``cut``: a line over ``longest`` is shortened instead
    of a `_BadLine`; ``most`` bytes in all."""
    held, size = bytearray(), 0
    async for chunk in stream:
        size += len(chunk)
        if most is not None and size > most:
            raise _BadLine(f"wrote more than {most} bytes")
        *ended, rest = bytes(chunk).split(b"\n")
        for piece in ended:
            held += piece
            if len(held) > longest and not cut:
                raise _BadLine(f"wrote a line of more than {longest} bytes")
            line = bytes(held[:longest])
            held.clear()
            if take(line):
                return
        held += rest
        if len(held) > longest:
            if not cut:
                raise _BadLine(f"wrote a line of more than {longest} bytes")
            del held[longest:]
    if held:
        take(bytes(held))
