"""Session keys: which conversation a message belongs to.

Owns the spelling of keys (OpenClaw's: ``agent:<agentId>:...``) and the way from a sender on a channel to one. Pure.

Invariants: two senders never share a session unless the configuration says so (``dmScope: main``) or they are in one
group; what a peer can choose (ids, thread names) cannot spell another session's key, because it is folded to one
segment; a key that is not ours to spell (no ``agent:`` in front) names a session of the default agent.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import Final, Literal

__all__ = [
    "MAIN",
    "MAX_KEY",
    "DmScope",
    "agent_of",
    "caller_key",
    "channel_key",
    "fresh_key",
    "hook_key",
    "main_key",
    "normal_key",
]

MAIN: Final = "main"
MAX_KEY: Final = 256

DmScope = Literal["main", "per-peer", "per-channel-peer", "per-account-channel-peer"]

_AGENT_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_PLAIN: Final = re.compile(r"[a-z0-9@._+-]{1,64}")


def is_agent_id(text: str) -> bool:
    """Whether a text can be the id of an agent: lower case letters, digits, ``_`` and ``-``, at most 64."""
    return _AGENT_ID.fullmatch(text) is not None


def main_key(agent_id: str) -> str:
    return f"agent:{agent_id}:{MAIN}"


def agent_of(key: str) -> str | None:
    """The agent that a key names; None where it is none of ours."""
    parts = key.split(":", 2)
    return parts[1] if len(parts) == 3 and parts[0] == "agent" and is_agent_id(parts[1]) else None


def normal_key(key: str, default_agent: str) -> str:
    """``main`` → ``agent:<default>:main``; a whole key as it is. Raises `ValueError` for what cannot be a key."""
    text = key.strip()
    if not text or len(text) > MAX_KEY or not text.isprintable() or any(char.isspace() for char in text):
        raise ValueError(f"a session key has 1 to {MAX_KEY} visible characters without spaces")
    if text.startswith("agent:"):
        if agent_of(text) is None or not text.split(":", 2)[2]:
            raise ValueError("a session key that names an agent is agent:<agentId>:<rest>")
        return text
    return f"agent:{default_agent}:{text}"


def channel_key(
    agent_id: str,
    *,
    channel: str,
    account: str,
    context: Literal["dm", "group"],
    peer: str,
    thread: str | None = None,
    scope: DmScope = "per-channel-peer",
) -> str:
    """The session of a message. ``peer``: the sender of a direct message, the group of any other."""
    if context == "group":
        key = f"agent:{agent_id}:{_segment(channel)}:group:{_segment(peer)}"
    elif scope == "main":
        key = main_key(agent_id)
    elif scope == "per-peer":
        key = f"agent:{agent_id}:direct:{_segment(peer)}"
    elif scope == "per-channel-peer":
        key = f"agent:{agent_id}:{_segment(channel)}:direct:{_segment(peer)}"
    else:
        key = f"agent:{agent_id}:{_segment(channel)}:{_segment(account)}:direct:{_segment(peer)}"
    return f"{key}:thread:{_segment(thread)}" if thread else key


def fresh_key(agent_id: str, tail: uuid.UUID) -> str:
    """The session of a conversation that somebody opened by hand; spelled as OpenClaw's pages spell theirs."""
    return f"agent:{agent_id}:dashboard:{tail}"


def hook_key(agent_id: str, name: str) -> str:
    return f"agent:{agent_id}:hook:{_segment(name)}"


def caller_key(agent_id: str, user: str) -> str:
    """The session of whoever a program that speaks OpenAI's API calls ``user``."""
    return f"agent:{agent_id}:openai-user:{_segment(user)}"


def _segment(text: str) -> str:
    """One segment, whatever a peer sent: as it is where it is plain, else its digest. ``~`` is not plain, so nobody can
    spell a digest.
    """
    if _PLAIN.fullmatch(text) is not None:
        return text
    return "~" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
