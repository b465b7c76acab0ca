"""The doctor's look at being found on the LAN: mode, surroundings, interfaces, and UDP port 5353.

Takes the `Patient` and gives one finding. Sends nothing: it binds the port, sharing it as mDNS programs do, and lets
go.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

from openclaw_gateway.ops.doctor_checks import found

if TYPE_CHECKING:
    from openclaw_gateway.ops.doctor import Finding, Patient

__all__ = ["discovery", "port_fault"]

MDNS_PORT: Final = 5353


def discovery(patient: Patient) -> list[Finding]:
    """Whether others on the LAN can find this gateway, and why not. Never worse than a warning: it serves all the same
    (DISC-1).
    """
    if patient.loaded is None or patient.loaded.config.mode == "remote":
        return []
    from openclaw_gateway.config.rules import is_loopback_bind
    from openclaw_gateway.discovery.environment import why_not_here
    from openclaw_gateway.discovery.interfaces import list_interfaces
    from openclaw_gateway.discovery.lans import plan_lans, why_no_lan
    from openclaw_gateway.server.addresses import BindFailed, bind_addresses

    config = patient.loaded.config
    mode = config.discovery.mdns.mode
    if mode == "off":
        return [found("discovery", "ok", "off: discovery.mdns.mode")]
    if is_loopback_bind(config):
        return [found("discovery", "ok", "off: the gateway listens on this host only, there is nobody to be found by")]
    try:
        hosts = bind_addresses(config)
    except BindFailed as error:
        return [found("discovery", "warn", f"nothing to announce: {error.reason}", "openclaw config get gateway.bind")]
    reason = why_not_here(patient.env)
    if reason is not None:
        return [found("discovery", "ok", f"off: {reason}")]
    interfaces = list_interfaces()
    lans = plan_lans(interfaces, hosts)
    if not lans:
        return [found("discovery", "warn", why_no_lan(interfaces, hosts), "ip address")]
    fault = port_fault()
    if fault is not None:
        return [found("discovery", "warn", f"cannot be announced: {fault}", f"ss -ulpn 'sport = :{MDNS_PORT}'")]
    places = ", ".join(f"{lan.interface} ({', '.join(lan.addresses)})" for lan in lans)
    return [found("discovery", "ok", f"{mode}, announced on {places}")]


def port_fault(port: int = MDNS_PORT) -> str | None:
    """Why UDP ``port`` cannot be shared, None where it can."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return f"UDP port {port} is taken by a program that does not share it"
            return error.strerror or str(error)
    return None
