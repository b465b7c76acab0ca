"""Names of agents, senders, users, scopes, methods and commands, and lists of them.

Owns which spelling each may have. It must not know whether the thing exists. Invariant: a name is exact; a star stands
only where it is said what it stands for (`ceiling`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from openclaw_gateway.config.issues import nearest
from openclaw_gateway.config.values import plain
from openclaw_gateway.config.values.plain import BadValueError
from openclaw_gateway.protocol.scopes import KNOWN_OPERATOR_SCOPES

__all__ = [
    "agent_id",
    "ceiling",
    "commands",
    "header",
    "headers",
    "identity_scopes",
    "login_scopes",
    "scopes",
    "senders",
    "user",
    "users",
]


def senders(value: Any, path: str) -> tuple[str, ...]:
    def one(entry: Any) -> tuple[str, ...]:
        if isinstance(entry, int) and not isinstance(entry, bool):
            return (str(entry),)  # OpenClaw's files hold Telegram ids as numbers
        return (plain.text(entry),)

    return plain.entries(value, path, one)


def agent_id(value: Any, path: str) -> str:
    if not isinstance(value, str) or re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", value) is None:
        raise BadValueError("must be lower case letters, digits, _ and -, at most 64")
    return value


def commands(value: Any, path: str) -> tuple[str, ...]:
    """Exact names: a pattern would look effective and match nothing."""

    def one(entry: Any) -> tuple[str, ...]:
        if not isinstance(entry, str) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", entry) is None:
            raise BadValueError("must be the exact name of a node command, such as system.run")
        return (entry,)

    return plain.entries(value, path, one)


def ceiling(value: Any, path: str) -> tuple[str, ...]:
    """RPC methods by exact name or ``family.*``, HTTP paths by exact path or ``/folder/*``."""

    def one(entry: Any) -> tuple[str, ...]:
        if not isinstance(entry, str) or re.fullmatch(r"/?[A-Za-z0-9._/-]{0,126}\*?", entry) is None or not entry:
            raise BadValueError("must be a method such as health, a family such as node.*, or a path such as /join/*")
        if entry.endswith("*") and not entry.endswith((".*", "/*")):
            raise BadValueError("a star stands for what comes behind a dot or a slash", nearest=entry[:-1] + ".*")
        return (entry,)

    return plain.entries(value, path, one)


def scopes(value: Any, path: str) -> tuple[str, ...]:
    known = sorted(KNOWN_OPERATOR_SCOPES)

    def one(entry: Any) -> tuple[str, ...]:
        if not isinstance(entry, str) or entry not in KNOWN_OPERATOR_SCOPES:
            hint = nearest(entry, known) if isinstance(entry, str) else None
            raise BadValueError(f"must be one of {', '.join(known)}", nearest=hint)
        return (str(entry),)

    return plain.entries(value, path, one)


def login_scopes(value: Any, path: str) -> tuple[str, ...]:
    def one(entry: Any) -> tuple[str, ...]:
        if not isinstance(entry, str) or entry not in KNOWN_OPERATOR_SCOPES:
            told = entry if isinstance(entry, str) else ""
            known = tuple(sorted(KNOWN_OPERATOR_SCOPES))
            raise BadValueError("is no operator scope", known, nearest(told, known))
        return (entry,)

    return plain.entries(value, path, one)


def header(entry: Any) -> tuple[str, ...]:
    if not isinstance(entry, str) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", entry.strip()) is None:
        raise BadValueError("must be the name of an HTTP header, such as x-forwarded-user")
    return (entry.strip().lower(),)


def headers(value: Any, path: str) -> tuple[str, ...]:
    return plain.entries(value, path, header)


def users(value: Any, path: str) -> tuple[str, ...]:
    return plain.entries(value, path, lambda entry: (user(entry),))


def user(entry: Any) -> str:
    text = plain.text(entry).strip()
    if not text or len(text) > 256 or "," in text:
        raise BadValueError("must be a user as the proxy names them, without a comma")
    return text


def identity_scopes(value: Any, path: str) -> Mapping[str, tuple[str, ...]]:
    """A map from user to scopes. One faulty user makes it faulty as a whole: CLOSED then gives nobody anything."""
    if not isinstance(value, dict):
        raise BadValueError('must be a block such as { "nick@example.com": ["operator.read"] }')
    if len(value) > plain.MAX_LIST:
        raise BadValueError(f"has more than {plain.MAX_LIST} users")
    return {user(name): scopes(granted, path) for name, granted in value.items()}
