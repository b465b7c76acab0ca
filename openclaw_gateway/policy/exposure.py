"""Which of the doors to a gateway should not be open as they are.

Pure: a door as it was found (address, TLS, round trip, what is asked for) and what the configuration says go in; who
may use it, the verdict and the one command that mends it come out. It must not know how a door was found
(`ops.doctor_network`).

Invariants: what is open to more than this host without authentication, or to the internet in clear, fails; nothing is
called fine that was not seen to answer; every warning and failure has a fix.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final, Literal

import attrs

from openclaw_gateway.policy.addresses import canonical_ip, is_loopback
from openclaw_gateway.value import Value

__all__ = ["Door", "DoorKind", "Judgement", "Posture", "judge_door", "kind_of_address"]

DoorKind = Literal["loopback", "lan", "public", "tailnet", "serve", "funnel", "proxy", "tunnel", "ssh", "mdns"]
State = Literal["ok", "warn", "fail"]

STRONG_TOKEN: Final = 24
_TAILNET: Final = (("100.64.0.0", 10), ("fd7a:115c:a1e0::", 48))
_TLS: Final = "openclaw config set gateway.tls.enabled true --confirm 60s"
_ALLOW: Final = 'openclaw config set gateway.network.allow \'["<address or network>", "localhost"]\' --confirm 60s'


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Door(Value):
    """One address at which the gateway can be reached, as it was found.

    ``answers``: the gateway (for ssh: a server) spoke there just now, without a PROXY header; None: it was not asked.
    ``auth`` None: the door is somebody else's (ssh). ``network``: somebody is kept out by address. ``fingerprint``:
    SHA-256 of the certificate in hex, with ``tls``.
    """

    kind: DoorKind
    url: str
    listener: str = "main"
    answers: bool | None = None
    fault: str | None = None
    round_trip_ms: float | None = None
    tls: bool = False
    fingerprint: str | None = None
    auth: str | None = "token"
    network: bool = False
    proxy_only: bool = False  # it wants a PROXY header, from gateway.trustedProxies alone
    scopes: tuple[str, ...] | None = None
    methods: tuple[str, ...] | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Posture(Value):
    """What the configuration says, as far as doors go. ``token_length`` None: no token, or its length is not known."""

    trusted_proxies: bool = False
    token_length: int | None = None
    container: bool = False


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Judgement(Value):
    state: State
    who: str
    why: str | None = None
    fix: str | None = None


def kind_of_address(text: str) -> DoorKind:
    """loopback, tailnet, lan (private, link-local) or public, by the address alone."""
    address = canonical_ip(text)
    if address is None or is_loopback(text):
        return "loopback" if address is not None else "public"
    for network, length in _TAILNET:
        base = ip_address(network)
        bits = 128 if isinstance(base, IPv6Address) else 32
        if base.version == address.version and int(address) >> (bits - length) == int(base) >> (bits - length):
            return "tailnet"
    return "public" if address.is_global else "lan"


_WHO: Final = {
    "none": "everybody who reaches it",
    "token": "devices that are paired; the token pairs or opens more",
    "password": "devices that are paired; the password pairs or opens more",
    "trusted-proxy": "people whom a trusted proxy names, and devices that are paired",
}
_FROM: Final = {
    "loopback": "programs on this host",
    "lan": "this network",
    "public": "the internet",
    "tailnet": "the tailnet",
    "serve": "the tailnet",
    "funnel": "the internet",
    "proxy": "whoever reaches the proxy",
    "tunnel": "whoever reaches the tunnel's other end",
    "ssh": "whoever has an account here",
    "mdns": "this network (the announcement alone)",
}


def judge_door(door: Door, posture: Posture) -> Judgement:
    """Who may use a door, and whether it should stand open."""
    if door.proxy_only:
        who = "proxies in gateway.trustedProxies alone, for their clients"
        if door.answers:
            fix = "openclaw gateway restart, then: openclaw logs"
            return Judgement(state="fail", who=who, why="answers without a PROXY header", fix=fix)
        return Judgement(state="ok", who=who)
    who = _FROM[door.kind] + (f": {_WHO.get(door.auth, door.auth)}" if door.auth is not None else "")
    if door.scopes is not None:
        who += f"; at most {', '.join(door.scopes) or 'no scope'}"
    if door.methods is not None:
        who += f"; only {', '.join(door.methods) or 'no method'}"
    if door.kind in ("ssh", "mdns"):
        return Judgement(state="ok", who=who)
    fault = _unsafe(door, posture)
    if fault is not None:
        return Judgement(state="fail", who=who, why=fault[0], fix=fault[1])
    if door.network and door.answers is False and door.fault is not None and _RESET in door.fault:
        return Judgement(state="ok", who=who, why="this host's own address is not on its list")
    if door.answers is False and (door.kind == "loopback" or not door.network):
        return _silent(door, who)
    fault = _doubtful(door, posture)
    if fault is not None:
        return Judgement(state="warn", who=who, why=fault[0], fix=fault[1])
    return Judgement(state="ok", who=who)


def _unsafe(door: Door, posture: Posture) -> tuple[str, str] | None:
    """What must not be, whether anybody answers there or not, and what mends it."""
    if door.auth == "none" and door.kind != "loopback":
        return "nobody is asked who they are", "openclaw config set gateway.auth.type token --confirm 60s"
    if door.kind == "funnel" and door.auth == "token" and (posture.token_length or 0) < STRONG_TOKEN:
        why = f"the internet can guess at a token of less than {STRONG_TOKEN} characters"
        return why, "openclaw config set gateway.tailscale.mode serve --confirm 60s"
    if door.kind == "public" and not door.tls:
        return "open to the internet in clear: whoever is on the way reads the token", _TLS
    if door.kind == "proxy" and not door.tls:
        return "published in clear", "openclaw config set gateway.publicUrl https://<name>"
    return None


def _doubtful(door: Door, posture: Posture) -> tuple[str, str] | None:
    if door.kind == "public" and not door.network:
        return "the whole internet may try", _ALLOW
    if door.kind == "lan" and door.auth == "trusted-proxy" and not door.network:
        return "the port is open beside the proxy", _ALLOW
    if door.kind == "lan" and not door.tls:
        return "in clear: whoever is on this network can read along", _TLS
    if door.kind == "proxy" and not posture.trusted_proxies:
        why = "no proxy is trusted: its clients have no address and no encryption here"
        return why, "openclaw config set gateway.trustedProxies '[\"<address of the proxy>\"]'"
    return None


_RESET: Final = "reset by peer"  # what a connection that is refused by address gets
_SILENT_FIXES: Final = {
    "proxy": "start the proxy, or: openclaw config unset gateway.publicUrl",
    "serve": "openclaw status   (says what tailscale lacks)",
    "funnel": "openclaw status   (says what tailscale lacks)",
    "tunnel": "openclaw logs",
}


def _silent(door: Door, who: str) -> Judgement:
    # This host's own firewall may be what keeps a LAN address from itself; a loopback one has no such excuse.
    state: State = "fail" if door.kind == "loopback" else "warn"
    why = "does not answer" + (f": {door.fault}" if door.fault else "")
    fix = _SILENT_FIXES.get(door.kind, "openclaw gateway restart, or look at this host's firewall")
    return Judgement(state=state, who=who, why=why, fix=fix)
