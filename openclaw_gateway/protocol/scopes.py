"""Roles and scopes: what a connection may be granted, and when a granted set satisfies a needed one.

Pure data. Source: the scopes that OpenClaw's clients ask for (spec wire.md sections 2, 6, 8). Default-deny: an unknown
role or scope grants nothing; the empty set contains nothing (V22). ``operator.admin`` satisfies every operator scope
and no node method.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

__all__ = ["ADMIN", "KNOWN_OPERATOR_SCOPES", "ROLES", "grantable", "satisfies"]

ROLES: Final = frozenset({"operator", "node"})
ADMIN: Final = "operator.admin"
READ: Final = "operator.read"
WRITE: Final = "operator.write"
PAIRING: Final = "operator.pairing"
APPROVALS: Final = "operator.approvals"
QUESTIONS: Final = "operator.questions"
TALK_SECRETS: Final = "operator.talk.secrets"

KNOWN_OPERATOR_SCOPES: Final = frozenset({ADMIN, READ, WRITE, PAIRING, APPROVALS, QUESTIONS, TALK_SECRETS})


def grantable(requested: Iterable[str]) -> tuple[str, ...]:
    """The scopes out of ``requested`` that this gateway knows, in the order asked, each once."""
    return tuple(dict.fromkeys(scope for scope in requested if scope in KNOWN_OPERATOR_SCOPES))


def satisfies(granted: frozenset[str], needed: str) -> bool:
    """True where a connection that holds ``granted`` may use what needs the operator scope ``needed``.

    ``operator.write`` includes ``operator.read``, as OpenClaw's own gateway has it.
    """
    if needed not in KNOWN_OPERATOR_SCOPES:
        return False
    if ADMIN in granted or needed in granted:
        return True
    return needed == READ and WRITE in granted
