"""The owner's door: whoever owns the state directory can always decide who is paired (PAIR-2).

A command line that lacks scopes, a device token or the secret cannot be asked to get them approved by somebody who has
them: there may be nobody. So the gateway listens on a Unix socket inside its private state directory; being able to
reach it, as the same user, is the authority (`ops.ownersocket`), and pairing is all it opens (`rpc.owner`).

Owns the conversation: one JSON line each way. Invariants: at most `MAX_CALLERS` at once, `MAX_LINE` bytes, `SECONDS`
seconds; whatever a caller does ends its own conversation only; nothing of it is reachable over a network.
"""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.ops.ownersocket import listen_owner, owner_socket, peer_is_owner
from openclaw_gateway.ops.statedir import StateDirUnsafe
from openclaw_gateway.protocol.errors import WireError, wire_error
from openclaw_gateway.rpc.dispatch import Dispatcher
from openclaw_gateway.rpc.owner import OwnerCaller, owner_call
from openclaw_gateway.rpc.table import CallError

__all__ = ["serve_owner_door"]

MAX_CALLERS: Final = 8
MAX_LINE: Final = 64 * 1024
SECONDS: Final = 40.0

log = get_logger("pairing")


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    method: str
    params: msgspec.Raw = msgspec.Raw(b"{}")


async def serve_owner_door(
    state_dir: Path, dispatcher: Dispatcher, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve until cancelled; ``started`` once the door is open. A door that cannot be opened is logged and left shut:
    everything else works without it. The socket's file is gone afterwards."""
    try:
        sock = listen_owner(state_dir)
    except (OSError, StateDirUnsafe) as exc:
        log.warning("pairing: the owner's door stays shut", file=str(owner_socket(state_dir)), error=str(exc))
        sock = None
    task_status.started()
    if sock is None:
        return
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    numbers = itertools.count(1)
    limiter = trio.CapacityLimiter(MAX_CALLERS)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            if limiter.available_tokens < 1:
                return
            try:
                async with limiter:
                    await _converse(stream, dispatcher, OwnerCaller(f"owner-{next(numbers)}"))
            except Exception as exc:  # one conversation's end, never the door's (design rule 5)
                log.exception("pairing: the owner's door failed a caller", exc=exc)

    try:
        await trio.serve_listeners(serve, [listener])
    finally:
        with contextlib.suppress(OSError):
            owner_socket(state_dir).unlink()


async def _converse(stream: trio.SocketStream, dispatcher: Dispatcher, caller: OwnerCaller) -> None:
    """One question, one answer."""
    with trio.move_on_after(SECONDS), contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        if not peer_is_owner(stream.socket):
            return
        line = await _read_line(stream)
        if line is None:
            return
        await stream.send_all(await _answer(line, dispatcher, caller))


async def _read_line(stream: trio.SocketStream) -> bytes | None:
    line = bytearray()
    while b"\n" not in line:
        chunk = await stream.receive_some(MAX_LINE + 1 - len(line)) if len(line) <= MAX_LINE else b""
        if not chunk:
            return None
        line += chunk
    return bytes(line.partition(b"\n")[0])


async def _answer(line: bytes, dispatcher: Dispatcher, caller: OwnerCaller) -> bytes:
    method = ""
    try:
        request = msgspec.json.decode(line, type=_Request)
        method = request.method
        payload = await owner_call(dispatcher, caller, method, request.params)
        return _line({"ok": True, "payload": payload})
    except CallError as exc:
        return _refusal(exc.error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _refusal(wire_error("invalid-frame", fault="one JSON object on one line: method, params"))
    except (TypeError, ValueError, OverflowError) as exc:
        return _refusal(dispatcher.unencodable(method, exc))


def _refusal(error: WireError) -> bytes:
    return _line({"ok": False, "error": error.to_wire()})


def _line(value: Any) -> bytes:
    return msgspec.json.encode(value) + b"\n"
