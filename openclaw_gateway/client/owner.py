"""Asking the gateway that runs on a state directory, as the owner of that directory (PAIR-2).

Owns the client's end of the owner's door: one JSON line each way over ``<state>/run/owner.sock``. Synchronous: a
command asks once and is done. It must not know what a method means.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.errors import CallFailed, GatewayError
from openclaw_gateway.ops.ownersocket import connect_owner

__all__ = ["DoorShut", "ask_as_owner"]

_MAX_ANSWER: Final = 64 * 1024 * 1024


@attrs.define(eq=False)
class DoorShut(GatewayError):
    """No gateway holds the owner's door of this directory open, or it is not ours to use."""

    state_dir: Path

    def __str__(self) -> str:
        return f"no gateway answers the owner of {self.state_dir}"


def ask_as_owner(state_dir: Path, method: str, params: object = None, *, timeout: float = 10.0) -> Any:
    """The method's payload. ``timeout``: seconds of silence at most.

    Raises `DoorShut` (nothing was asked), `CallFailed` (the gateway's error) or `OSError` (the conversation broke off;
    the request may have been carried out).
    """
    sock = connect_owner(state_dir, timeout=timeout)
    if sock is None:
        raise DoorShut(state_dir)
    with sock:
        request = {"method": method, "params": {} if params is None else params}
        sock.sendall(msgspec.json.encode(request) + b"\n")
        answer = msgspec.json.decode(_read_line(sock))
    if answer.get("ok") is True:
        return answer.get("payload")
    error = answer.get("error") or {}
    raise CallFailed(
        str(error.get("code", "UNAVAILABLE")),
        str(error.get("message", "refused")),
        error.get("details"),
        error.get("retryable") is True,
        error.get("retryAfterMs"),
    )


def _read_line(sock: socket.socket) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = sock.recv(65536)
        if not chunk or len(line) > _MAX_ANSWER:
            raise ConnectionResetError(os.strerror(104), "the gateway ended the conversation")
        line += chunk
    return bytes(line)
