"""What can be wrong with a configuration, as values.

Owns `ConfigIssue` (one fault: where, what, what would be right, which command mends it) and `ConfigError` (a
configuration that must not be started with). Knows nothing of files, the schema or the command line.

Invariants: neither ever carries a secret, so both may be printed, logged and sent. ``fatal`` means that starting
would be unsafe; ``fallback`` that another value took the place of the one written; ``warning`` that the value was
taken as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final, Literal

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.value import Value

__all__ = ["EXIT_CONFIG", "ConfigError", "ConfigIssue", "Severity", "nearest"]

Severity = Literal["fatal", "fallback", "warning"]

EXIT_CONFIG: Final = 78  # EX_CONFIG of sysexits.h: a supervisor must not retry


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ConfigIssue(Value):
    """One fault. ``path`` is the dotted path in the file ("" for the file as a whole).

    ``unset`` names the environment variables that were missing: the fault may lie in this shell and not in the file.
    """

    path: str
    message: str
    severity: Severity = "fallback"
    allowed: tuple[str, ...] = ()
    nearest: str | None = None
    fix: str | None = None
    unset: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.path}: {self.message}" if self.path else self.message
        if self.allowed:
            text += f" (allowed: {', '.join(self.allowed)})"
        if self.nearest is not None:
            text += f"; did you mean {self.nearest}?"
        return text

    def to_wire(self) -> dict[str, object]:
        """The issue as `config.get`, ``config validate --json`` and the doctor show it."""
        out: dict[str, object] = {"path": self.path, "message": self.message, "severity": self.severity}
        if self.allowed:
            out["allowedValues"] = list(self.allowed)
        if self.nearest is not None:
            out["nearest"] = self.nearest
        if self.fix is not None:
            out["fix"] = self.fix
        return out


@attrs.define(eq=False)
class ConfigError(GatewayError):
    """The configuration cannot be used. ``issues`` lists every fault found, the fatal ones first; exit code 78."""

    issues: tuple[ConfigIssue, ...]
    exit_code: int = EXIT_CONFIG

    def __str__(self) -> str:
        return "; ".join(str(issue) for issue in self.issues)


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like ``word``, or None when nothing is like it at all."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.55)
    return by_lower[matches[0]] if matches else None
