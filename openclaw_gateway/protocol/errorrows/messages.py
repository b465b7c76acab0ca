"""Errors of what people and programs write to agents and channels: sessions, queues, accounts.

Owns the rows that agents, sessions, the outbound queue and the channels answer with after hello; the connection stays
open. It must not know who may write at all (`pairing` has the senders).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from openclaw_gateway.protocol.errorrows import INVALID_REQUEST, UNAVAILABLE, ErrorRow

__all__ = ["ROWS"]

ROWS: Final[Mapping[str, ErrorRow]] = {
    "agent-unknown": ErrorRow(
        INVALID_REQUEST,
        "there is no agent {agent}",
        "No agent of that id is configured or registered.",
        "openclaw config get agents.list",
        detail="AGENT_UNKNOWN",
    ),
    "session-limit": ErrorRow(
        UNAVAILABLE,
        "there are {limit} sessions already",
        "The gateway keeps no more conversations than that.",
        "openclaw gateway call sessions.list, then sessions.delete for those that are not needed",
        detail="SESSION_LIMIT",
    ),
    "queue-full": ErrorRow(
        UNAVAILABLE,
        "too many messages are waiting; try again later",
        "The queue has no room: nothing of this message was accepted.",
        "openclaw queue list",
        detail="QUEUE_FULL",
        retryable=True,
        retry_after_ms=5000,
    ),
    "channel-unknown": ErrorRow(
        INVALID_REQUEST,
        "unknown channel: {channel} (there are: {known})",
        "No such account is configured and enabled.",
        "openclaw channels list",
        detail="CHANNEL_UNKNOWN",
    ),
    "channel-refused": ErrorRow(
        UNAVAILABLE,
        "{channel} could not be logged out: {reason}",
        "The service was asked to forget this gateway and did not; the account goes on as before.",
        "openclaw channels status --probe",
        detail="CHANNEL_REFUSED",
        retryable=True,
        retry_after_ms=5000,
    ),
    "queue-message-unknown": ErrorRow(
        INVALID_REQUEST,
        "no message {id} that could be changed",
        "It is done or dropped already, or it is being worked on right now.",
        "openclaw queue list",
        detail="QUEUE_MESSAGE_UNKNOWN",
    ),
}
