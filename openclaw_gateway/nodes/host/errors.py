"""What a node can fail with, as types with fields.

Owns the errors of the package. It must not print or decide. Invariant: no field holds a secret.
"""

from __future__ import annotations

from typing import Final

import attrs

from openclaw_gateway.errors import GatewayError

__all__ = ["CommandFailed", "NodeError", "NodeRefused"]

EXIT_REFUSED: Final = 78


@attrs.define(eq=False)
class NodeError(GatewayError):
    """The node cannot run as it was asked to. ``fix`` is the one command or act that mends it."""

    message: str
    fix: str | None = None

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}" if self.fix else self.message


@attrs.define(eq=False)
class NodeRefused(NodeError):
    """The gateway said no for good: trying again would hear the same. Exit code 78, so that no supervisor retries."""

    code: str | None = None
    exit_code: int = EXIT_REFUSED


@attrs.define(eq=False)
class CommandFailed(GatewayError):
    """A command was not carried out: ``{code, message}`` is what the gateway's caller reads."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
