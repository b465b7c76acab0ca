"""``system.run``: an argv carried out under this machine's policy.

Owns the parameters, the environment a program gets and the shape of the result (spec wire.md section 7, item 4). It
must not know how a process is held (`process`) or what is allowed (`exec_policy`). Invariants: no shell, ever: a text
instead of a list is refused; the program that was judged is the file that runs (its real path); a program sees the
node's plain environment plus variables that the policy lets a caller set; ``exec.finished`` goes out before the
result.
"""

from __future__ import annotations

import os
import shlex
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from openclaw_gateway.nodes.host.errors import CommandFailed, NodeError
from openclaw_gateway.nodes.host.exec_policy import ExecPolicy, check_env, check_program, load_policy
from openclaw_gateway.nodes.host.invocations import NOT_READY, Invocation
from openclaw_gateway.nodes.host.lookup import resolve_program, search_path
from openclaw_gateway.nodes.host.process import Outcome, run_program
from openclaw_gateway.ops.log import get_logger

__all__ = ["MAX_ARGUMENTS", "MAX_ARGV_BYTES", "MAX_OUTPUT_BYTES", "MAX_PROGRAMS", "plain_environment", "system_run"]

MAX_PROGRAMS: Final = 16
MAX_ARGUMENTS: Final = 1024
MAX_ARGV_BYTES: Final = 128 * 1024
MAX_VARIABLES: Final = 64
MAX_OUTPUT_BYTES: Final = 256 * 1024  # of each stream
EVENT_OUTPUT_CHARS: Final = 20_000
_MARGIN_SECONDS: Final = 0.25  # so that our answer to a slow program is there before the caller gives up
_INHERITED: Final = ("HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "XDG_RUNTIME_DIR")
_ON_TIMEOUT: Final = "stopped: the time was over"

log = get_logger("node")


class _Params(msgspec.Struct):
    command: list[str]
    cwd: str | None = None
    env: dict[str, str] | None = None
    timeoutMs: int | None = None  # noqa: N815  as on the wire
    sessionKey: str | None = None  # noqa: N815
    runId: str | None = None  # noqa: N815
    suppressNotifyOnExit: bool | None = None  # noqa: N815


def plain_environment() -> dict[str, str]:
    """What every program gets of the node's own environment: no secrets, nothing that steers other programs."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    kept.update({name: value for name, value in os.environ.items() if name.startswith("LC_")})
    return {**kept, "PATH": search_path()}


def system_run(policy_file: Path) -> Callable[[Invocation, dict[str, Any]], Awaitable[dict[str, Any]]]:
    """The handler, with its own cap of `MAX_PROGRAMS` at once."""
    running = 0

    async def handle(invocation: Invocation, given: dict[str, Any]) -> dict[str, Any]:
        nonlocal running
        params = _read(given)
        argv, cwd, env = _judge(params, load_or_refuse(policy_file))
        if running >= MAX_PROGRAMS:
            raise CommandFailed(NOT_READY, f"{MAX_PROGRAMS} programs run on this node already")
        running += 1
        try:
            seconds = max(0.0, invocation.deadline - trio.current_time() - _MARGIN_SECONDS)
            if params.timeoutMs is not None and params.timeoutMs > 0:
                seconds = min(seconds, params.timeoutMs / 1000)
            outcome = await run_program(argv, cwd=cwd, env=env, seconds=seconds, max_bytes=MAX_OUTPUT_BYTES)
        except OSError as error:
            raise CommandFailed("SYSTEM_RUN_FAILED", f"{argv[0]}: {error.strerror or 'cannot be started'}") from error
        finally:
            running -= 1
        result = _result(outcome)
        await invocation.tell("exec.finished", _finished(params, result))
        return result

    return handle


def load_or_refuse(policy_file: Path) -> ExecPolicy:
    """The policy, or a refusal that says that it cannot be used."""
    try:
        return load_policy(policy_file)
    except NodeError as error:
        log.error("exec policy cannot be used", file=str(policy_file), error=error.message)
        raise CommandFailed("SYSTEM_RUN_DENIED", error.message) from error


def _read(given: dict[str, Any]) -> _Params:
    try:
        params = msgspec.convert(given, _Params)
    except msgspec.ValidationError as error:
        raise CommandFailed("INVALID_REQUEST", f"system.run: {error}") from error
    argv = params.command
    if not argv or not argv[0]:
        raise CommandFailed("INVALID_REQUEST", "system.run: command must be a list: the program, then its arguments")
    if len(argv) > MAX_ARGUMENTS or sum(len(word.encode("utf-8", "replace")) + 1 for word in argv) > MAX_ARGV_BYTES:
        raise CommandFailed(
            "INVALID_REQUEST", f"system.run: over {MAX_ARGUMENTS} arguments or {MAX_ARGV_BYTES} bytes of them"
        )
    texts = [*argv, params.cwd or "", *(params.env or {}), *(params.env or {}).values()]
    if any("\0" in text for text in texts):
        raise CommandFailed("INVALID_REQUEST", "system.run: a NUL byte is in no argument, folder or variable")
    if params.env is not None and len(params.env) > MAX_VARIABLES:
        raise CommandFailed("INVALID_REQUEST", f"system.run: over {MAX_VARIABLES} variables")
    return params


def _judge(params: _Params, policy: ExecPolicy) -> tuple[list[str], str, dict[str, str]]:
    """(argv, cwd, env) that may run. Raises `CommandFailed`."""
    env = plain_environment()
    if policy.mode == "deny":
        check_program(policy, Path("/"))
    real = resolve_program(params.command[0], env["PATH"])
    if real is None:
        raise CommandFailed("SYSTEM_RUN_FAILED", f"{params.command[0][:256]}: no such program on this node")
    check_program(policy, real)
    for name, value in (params.env or {}).items():
        check_env(policy, name)
        env[name] = value
    cwd = params.cwd or env.get("HOME") or "/"
    if not cwd.startswith("/") or not Path(cwd).is_dir():
        raise CommandFailed("INVALID_REQUEST", "system.run: cwd must be an absolute path of a folder on this node")
    return [str(real), *params.command[1:]], cwd, env


def _result(outcome: Outcome) -> dict[str, Any]:
    return {
        "exitCode": outcome.exit_code,
        "timedOut": outcome.timed_out,
        "success": outcome.exit_code == 0,
        "stdout": outcome.stdout.decode("utf-8", "replace"),
        "stderr": outcome.stderr.decode("utf-8", "replace"),
        "error": _ON_TIMEOUT if outcome.timed_out else None,
        "truncated": outcome.truncated,
    }


def _finished(params: _Params, result: dict[str, Any]) -> dict[str, Any]:
    output = "\n".join(text for text in (result["stdout"], result["stderr"], result["error"]) if text).strip()
    event = {
        "sessionKey": params.sessionKey or "node",
        "runId": params.runId or str(uuid.uuid4()),
        "host": "node",
        "command": shlex.join(params.command)[:EVENT_OUTPUT_CHARS],
        "timedOut": result["timedOut"],
        "success": result["success"],
        "output": output[-EVENT_OUTPUT_CHARS:],
        "suppressNotifyOnExit": params.suppressNotifyOnExit is True,
    }
    return event if result["exitCode"] is None else {**event, "exitCode": result["exitCode"]}
