"""Why a request of OpenAI's API is refused. Pure; raised by whoever reads a part of one."""

from __future__ import annotations

import attrs

__all__ = ["BadAsk"]


@attrs.define(eq=False)
class BadAsk(ValueError):
    """A request that is refused with ``status`` and these words. ``param`` names what is wrong, ``code`` how."""

    message: str
    param: str | None = None
    status: int = 400
    code: str | None = None

    def __str__(self) -> str:
        return self.message
