"""In which form frames travel: JSON, or Protocol Buffers by the subprotocol ``openclaw.v4.proto``.

Owns the choice and both forms as a client needs them. It must not know connections. Invariant: what a caller sends and
hears is the same value in either form. The Protocol Buffers runtime (7 MB) is imported when it is first asked for.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import cache
from typing import Any, Final, Literal, Protocol

import msgspec

__all__ = ["FORMS", "Form", "Frame", "Speech", "preferred_form", "speech_of"]

Form = Literal["json", "proto"]
FORMS: Final[tuple[Form, ...]] = ("json", "proto")

# What a connection speaks that was not told: how the command line's --protocol reaches every command.
preferred_form: ContextVar[Form] = ContextVar("preferred_form", default="json")


class Frame(msgspec.Struct):
    """A frame of the gateway."""

    type: str
    id: str | None = None
    ok: bool = False
    payload: Any = None
    error: dict[str, Any] | None = None
    event: str | None = None
    seq: int | None = None


class Speech(Protocol):
    """``subprotocol``: what to ask for in the upgrade, None for nothing."""

    @property
    def subprotocol(self) -> str | None: ...

    def request(self, id_: str, method: str, params: object) -> str | bytes:
        """One message; ``params`` None for none. Raises as msgspec does where they cannot be JSON."""

    def frame(self, message: str | bytes) -> Frame:
        """Raises `msgspec.DecodeError`, `ValueError` or `RecursionError` for what is not a frame."""


class _Json:
    subprotocol = None
    _encode = msgspec.json.Encoder().encode
    _decode = msgspec.json.Decoder(Frame).decode

    def request(self, id_: str, method: str, params: object) -> str:
        request: dict[str, Any] = {"type": "req", "id": id_, "method": method}
        if params is not None:
            request["params"] = params
        return self._encode(request).decode()

    def frame(self, message: str | bytes) -> Frame:
        return self._decode(message)


class _Proto:
    subprotocol = "openclaw.v4.proto"

    def __init__(self) -> None:
        from openclaw_gateway.protocol import protobuf

        self._encode = protobuf.encode_request
        self._decode = protobuf.decode_server_frame

    def request(self, id_: str, method: str, params: object) -> bytes:
        return self._encode(id_, method, params)

    def frame(self, message: str | bytes) -> Frame:
        if isinstance(message, str):
            raise ValueError("a text message where Protocol Buffers were agreed on")  # noqa: TRY004  the peer's fault
        return msgspec.convert(self._decode(message), Frame)


@cache
def speech_of(form: Form) -> Speech:
    """Raises `ValueError` for another form."""
    if form not in FORMS:
        raise ValueError(f"a connection speaks json or proto, not {form!r}")
    return _Proto() if form == "proto" else _Json()
