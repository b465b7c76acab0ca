"""What ssh is given: targets, hosts, users, files, the names of tunnels.

Owns nothing but the way to `tunnels.spec`, where what ssh would get is judged; it is loaded when there is a tunnel. It
must not start one. Invariant: nothing passes that ssh could read as an option.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from openclaw_gateway.config.values import plain
from openclaw_gateway.config.values.plain import BadValueError

__all__ = ["host", "key_file", "target", "tunnel_name", "user"]


def target(value: Any, path: str) -> str:
    from openclaw_gateway.tunnels.spec import parse_target

    return str(_tunnels(parse_target, value))


def host(value: Any, path: str) -> str:
    from openclaw_gateway.tunnels.spec import parse_target

    host = plain.text(value)
    target = _tunnels(parse_target, host if ":" not in host else f"[{host}]")
    if target.user is not None or target.port is not None:
        raise BadValueError("is a host alone; user and port have settings of their own")
    return str(target.host)


def user(value: Any, path: str) -> str:
    from openclaw_gateway.tunnels.spec import parse_target

    return str(_tunnels(parse_target, f"{plain.text(value)}@host").user)


def key_file(value: Any, path: str) -> str:
    from openclaw_gateway.tunnels.spec import check_file

    return str(_tunnels(check_file, str(Path(plain.text(value)).expanduser())))


def tunnel_name(value: Any, path: str) -> str:
    from openclaw_gateway.tunnels.spec import check_name

    return str(_tunnels(check_name, value))


def _tunnels(read: Callable[[str], Any], value: Any) -> Any:
    """What a reader of `tunnels.spec` makes of ``value``: what ssh would get is judged in one place."""
    from openclaw_gateway.tunnels.spec import TunnelRefused

    try:
        return read(plain.text(value))
    except TunnelRefused as error:
        raise BadValueError(error.message) from error
