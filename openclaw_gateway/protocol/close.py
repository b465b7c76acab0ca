"""Every close code this gateway sends or understands: one table, each with "may the client come back?".

Pure data (design rule 9: a close is a value). Sources: RFC 6455 section 7.4, the IANA WebSocket close code registry,
and for 4xxx what OpenClaw's clients were seen to send and honour (spec wire.md section 5). Invariant: every `Close`
that leaves the gateway has its code in `CLOSE_CODES`, and its reason is at most 123 bytes of UTF-8 (RFC 6455 section
5.5).
"""

from __future__ import annotations

from enum import IntEnum

import attrs

from openclaw_gateway.value import Value

__all__ = ["CLOSE_CODES", "Close", "CloseCode", "CloseCodeInfo"]

MAX_REASON_BYTES = 123


class CloseCode(IntEnum):
    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005  # never sent: stands for an empty Close frame
    ABNORMAL = 1006  # never sent: stands for a connection that broke
    INVALID_DATA = 1007
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    TICK_TIMEOUT = 4000  # sent by clients: no frame for two tick intervals
    DEVICE_REMOVED = 4001
    CONNECT_FAILED = 4008  # sent by the Control UI


@attrs.frozen(eq=False, repr=False)
class CloseCodeInfo(Value):
    name: str
    reconnect: bool
    meaning: str


CLOSE_CODES: dict[CloseCode, CloseCodeInfo] = {
    CloseCode.NORMAL: CloseCodeInfo("normal", True, "Done; or nothing was said before the handshake deadline."),
    CloseCode.GOING_AWAY: CloseCodeInfo("going away", True, "The page was left or the host is going down."),
    CloseCode.PROTOCOL_ERROR: CloseCodeInfo(
        "protocol error", False, "The peer broke RFC 6455, or shares no protocol version with this gateway."
    ),
    CloseCode.UNSUPPORTED_DATA: CloseCodeInfo("unsupported data", False, "A kind of frame this gateway does not read."),
    CloseCode.NO_STATUS: CloseCodeInfo("no status", True, "An empty Close frame; clients use it for a normal goodbye."),
    CloseCode.ABNORMAL: CloseCodeInfo("abnormal", True, "The connection broke without a Close frame; never sent."),
    CloseCode.INVALID_DATA: CloseCodeInfo(
        "invalid data",
        False,
        "A text message that is not UTF-8, or a message that is no Protocol Buffers where those were agreed on.",
    ),
    CloseCode.POLICY: CloseCodeInfo(
        "policy", False, "Refused: authentication, pairing, origin, schema or a slow consumer; the reason says which."
    ),
    CloseCode.TOO_BIG: CloseCodeInfo("too big", False, "A message over the limit stated in hello-ok.policy."),
    CloseCode.INTERNAL_ERROR: CloseCodeInfo("internal error", True, "A bug on this side; logged with its stack."),
    CloseCode.SERVICE_RESTART: CloseCodeInfo("service restart", True, "The gateway stops or restarts."),
    CloseCode.TRY_AGAIN_LATER: CloseCodeInfo("try again later", True, "Connection limit reached, or still starting."),
    CloseCode.TICK_TIMEOUT: CloseCodeInfo("tick timeout", True, "Sent by clients that heard nothing for two ticks."),
    CloseCode.DEVICE_REMOVED: CloseCodeInfo("device removed", False, "The device or its token was removed or rotated."),
    CloseCode.CONNECT_FAILED: CloseCodeInfo(
        "connect failed", False, "Sent by the Control UI when connect was refused."
    ),
}


def _clip(reason: str) -> str:
    raw = reason.encode("utf-8", "replace")
    if len(raw) <= MAX_REASON_BYTES:
        return reason
    return raw[:MAX_REASON_BYTES].decode("utf-8", "ignore")


@attrs.frozen(eq=False, repr=False)
class Close(Value):
    """Why a connection ends: the code and reason of the Close frame. The reason is clipped to what RFC 6455 carries."""

    code: CloseCode
    reason: str = attrs.field(default="", converter=_clip)

    @property
    def reconnect(self) -> bool:
        return CLOSE_CODES[self.code].reconnect
