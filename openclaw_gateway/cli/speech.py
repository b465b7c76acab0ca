"""``--protocol json|proto``: in which form a command talks to the gateway, whichever command it is.

Owns the option, once for ``openclaw`` itself (and ``OPENCLAW_PROTOCOL``) and once for each command that reaches the
gateway; the nearer one counts. It must not import what speaks: without the option nothing is loaded for it. Node hosts
speak JSON whatever is said here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

__all__ = ["PROTOCOL_VARIABLE", "protocol_option"]

PROTOCOL_VARIABLE: Final = "OPENCLAW_PROTOCOL"
_FORMS: Final = ("json", "proto")

_Command = TypeVar("_Command", bound=Callable[..., Any])


def protocol_option(envvar: str | None = None) -> Callable[[_Command], _Command]:
    """Adds the option; the command itself gets nothing from it."""
    return click.option(
        "--protocol", type=click.Choice(_FORMS), envvar=envvar, show_envvar=envvar is not None,
        expose_value=False, callback=_prefer,
        help="Talk to the gateway in JSON (the default) or Protocol Buffers.",
    )  # fmt: skip


def _prefer(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is None or ctx.resilient_parsing:
        return
    from openclaw_gateway.client.speech import preferred_form

    before = preferred_form.set(value)
    ctx.call_on_close(lambda: preferred_form.reset(before))
