"""The facts behind ``openclaw remote advise``, looked up on this host.

Owns looking; `policy.advice` decides. Invariants: dials nothing but this host's own gateway and its ssh port; within
`SECONDS`; what cannot be found out counts as not there.
"""

from __future__ import annotations

import getpass
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from openclaw_gateway.policy.advice import Facts, Purpose

__all__ = ["gather_facts"]

SECONDS: Final = 4.0
_SOCKET: Final = Path("/var/run/tailscale/tailscaled.sock")


def gather_facts(env: Mapping[str, str], purpose: Purpose) -> Facts:
    """What there is, for that purpose. Takes up to some seconds; writes nothing. Raises `ConfigError`."""
    import trio

    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.config.secrets import resolve_auth
    from openclaw_gateway.ops.doctor_network import ask_gateway, ssh_answers
    from openclaw_gateway.server.addresses import in_container, own_tailnet_address
    from openclaw_gateway.server.ownaddresses import own_lan_addresses

    loaded = load_config(env=env)
    config = loaded.config
    auth = resolve_auth(config, state_dir(env), env, overridden=loaded.overridden, create=False)

    async def look() -> tuple[dict[str, Any], bool]:
        sshd = False
        with trio.move_on_after(1):
            sshd = await ssh_answers()
        with trio.move_on_after(SECONDS):
            _, status, _, _ = await ask_gateway(env)
            return status, sshd
        return {}, sshd

    status, sshd = trio.run(look)
    tailscale = status.get("tailscale") or {}
    on_tailnet = own_tailnet_address() is not None or tailscale.get("state") in {"serving", "claiming"}
    installed = shutil.which("tailscale", path=env.get("PATH")) is not None or _SOCKET.exists()
    return Facts(
        purpose=purpose,
        tailscale="running" if on_tailnet else "installed" if installed else "absent",
        serving=tailscale.get("url") if tailscale.get("mode") == "serve" else None,
        sshd=sshd,
        user=_user(),
        host=socket.gethostname(),
        port=config.port,
        auth=auth.type,
        public_url=config.public_url,
        trusted_proxies=bool(config.trusted_proxies),
        lan=bool(own_lan_addresses()),
        tls=config.tls.enabled,
        container=in_container(),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "<user>"
