"""A tailnet in memory: one node's state, its users and peers, and the rules of its serve configuration.

Owns what a genuine tailscaled decides: the shapes of status and whois (recorded from v1.90), ETags, foreground
sessions, port conflicts (since v1.92 the daemon's business), who may write. It must not know sockets, HTTP or Trio;
`fake_tailscaled` puts it behind them.

Invariants: what it answers with the default node and version 1.90.0-local is what the genuine daemon answered
(tests/tailscale/golden); a session that closes takes its claim with it; a configuration that leaves a session out
closes that session.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
from collections.abc import Callable
from typing import Any, Final

import attrs

__all__ = ["STATES", "ConfigRefused", "EtagMismatch", "FakeNode", "FakeUser", "TailnetModel"]

STATES: Final = (
    "NoState", "InUseOtherUser", "NeedsLogin", "NeedsMachineAuth", "Stopped", "Starting", "Running",
)  # fmt: skip
_NEVER: Final = "0001-01-01T00:00:00Z"
_PICTURE: Final = "https://tailscale.com/static/images/marketing/team-carney.jpg"
_FUNNEL_PORTS: Final = "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000"
_DEPRECATED: Final = (
    "HTTPS://TAILSCALE.COM/s/DEPRECATED-NODE-CAPS#see-https://github.com/tailscale/tailscale/issues/11508"
)
_TCP_FIELDS: Final = ("HTTPS", "HTTP", "TCPForward", "TerminateTLS", "ProxyProtocol")
_HANDLER_FIELDS: Final = ("Path", "Proxy", "Text", "AcceptAppCaps", "Redirect")


class EtagMismatch(Exception):
    """The configuration changed since it was read."""


class ConfigRefused(Exception):
    """The daemon does not take this configuration; the text is its own."""


@attrs.define(kw_only=True)
class FakeUser:
    id: int
    login: str
    name: str

    def profile(self) -> dict[str, Any]:
        return {"ID": self.id, "LoginName": self.login, "DisplayName": self.name, "ProfilePicURL": _PICTURE}


@attrs.define(kw_only=True)
class FakeNode:
    """A machine of the tailnet. ``source``: the loopback address from which its requests come in tests."""

    id: int
    name: str
    user: int
    ips: tuple[str, str]
    key: str
    source: str
    tags: tuple[str, ...] = ()
    endpoint: str = "10.99.0.2:42222"

    @property
    def stable_id(self) -> str:
        return f"TESTCTRL{self.id:08d}"


def _default_users() -> dict[int, FakeUser]:
    return {
        number: FakeUser(id=number, login=f"user-{number}@fake-control.example.net", name=f"User {number}")
        for number in (1, 2)
    }


def _default_peers() -> list[FakeNode]:
    return [
        FakeNode(
            id=2,
            name="phone",
            user=2,
            ips=("100.64.0.2", "fd7a:115c:a1e0:ab12:4843:cd96:6240:2"),
            key="70f862b4a16902bbc006770c65f6df2917f6b0af38ef13f5f42cb034a86e5351",
            source="127.0.0.2",
        )
    ]


def _default_self() -> FakeNode:
    return FakeNode(
        id=1,
        name="gw",
        user=1,
        ips=("100.64.0.1", "fd7a:115c:a1e0:ab12:4843:cd96:6240:1"),
        key="f0abb08d9f09685fe6d85a5e9b743a5720f47d36a8ee160398ba862cec42f45f",
        source="127.0.0.1",
    )


@attrs.define(eq=False)
class TailnetModel:
    """One node as its daemon sees it. ``on_session_closed`` hears of every session that a configuration replaced."""

    version: str = "1.92.3-fake"
    capability: int = 130
    state: str = "Running"
    auth_url: str = ""
    suffix: str = "tail-test.ts.net"
    tailnet: str = "fake-control.example.net"
    https: bool = True
    funnel: bool = True
    funnel_ports: tuple[int, ...] = (443, 8443, 10000)
    should_wait: bool = False  # query-feature: the command line blocks until HTTPS is enabled
    operator: int | None = attrs.field(factory=os.getuid)  # this user and root may write
    root_writes: bool = True  # False: a test that runs as root is taken for somebody else
    me: FakeNode = attrs.field(factory=_default_self)
    users: dict[int, FakeUser] = attrs.field(factory=_default_users)
    peers: list[FakeNode] = attrs.field(factory=_default_peers)
    config: dict[str, Any] = attrs.field(factory=dict)
    sessions: set[str] = attrs.field(factory=set)
    on_session_closed: Callable[[str], None] = lambda sid: None
    on_config: Callable[[], None] = lambda: None
    on_write: Callable[[], None] = lambda: None  # just before a write: what somebody else does in between

    # --- who and what

    @property
    def checks_conflicts(self) -> bool:
        """Since 1.92 the daemon looks after port conflicts; before, the command line did."""
        major, minor = self.version.split(".")[:2]
        return (int(major), int(minor)) >= (1, 92)

    @property
    def dns_name(self) -> str:
        return f"{self.me.name}.{self.suffix}"

    def may_write(self, uid: int) -> bool:
        return (uid == 0 and self.root_writes) or uid == self.operator

    def node_at(self, address: str) -> FakeNode | None:
        return next((node for node in (self.me, *self.peers) if address in node.ips), None)

    def node_from(self, source: str) -> FakeNode | None:
        """The machine whose requests come from this loopback address."""
        return next((node for node in (self.me, *self.peers) if node.source == source), None)

    # --- status and whois

    def status(self, *, peers: bool) -> dict[str, Any]:
        running = self.state in {"Running", "Starting", "Stopped"}
        out: dict[str, Any] = {"Version": self.version, "TUN": True, "BackendState": self.state}
        if running:
            out["HaveNodeKey"] = True
        out["AuthURL"] = self.auth_url
        up = self.state == "Running"
        out["TailscaleIPs"] = list(self.me.ips) if up else None
        out["Self"] = self._self() if running else _no_self()
        out["Health"] = [] if up else [self._complaint()]
        out["MagicDNSSuffix"] = self.suffix if up else ""
        out["CurrentTailnet"] = (
            {"Name": self.tailnet, "MagicDNSSuffix": self.suffix, "MagicDNSEnabled": True} if up else None
        )
        out["CertDomains"] = [self.dns_name] if up and self.https else None
        listed = up and peers
        out["Peer"] = {f"nodekey:{node.key}": self._peer(node) for node in self.peers} if listed else None
        out["User"] = {str(user.id): user.profile() for user in self.users.values()} if listed else None
        out["ClientVersion"] = None
        return out

    def _complaint(self) -> str:
        return "Tailscale is stopped." if self.state == "Stopped" else "Tailscale is starting. Please wait."

    def capabilities(self) -> list[str]:
        ports = "https://tailscale.com/cap/funnel-ports?ports=" + ",".join(map(str, self.funnel_ports))
        found = ["funnel"] if self.funnel else []
        found += ["https"] if self.https else []
        return [*found, *([ports] if self.funnel else [])]

    def _self(self) -> dict[str, Any]:
        caps = ["debug-disable-upnp", *self.capabilities()]
        return {
            "ID": self.me.stable_id,
            "PublicKey": f"nodekey:{self.me.key}",
            "HostName": self.me.name,
            "DNSName": f"{self.dns_name}.",
            "OS": "linux",
            "UserID": self.me.user,
            "TailscaleIPs": list(self.me.ips),
            "AllowedIPs": [f"{self.me.ips[0]}/32", f"{self.me.ips[1]}/128"],
            **({"Tags": list(self.me.tags)} if self.me.tags else {}),
            "Addrs": ["10.99.0.1:54603"],
            "CurAddr": "",
            "Relay": "test",
            "PeerRelay": "",
            "RxBytes": 0,
            "TxBytes": 0,
            "Created": _NEVER,
            "LastWrite": _NEVER,
            "LastSeen": _NEVER,
            "LastHandshake": _NEVER,
            "Online": self.state == "Running",
            "ExitNode": False,
            "ExitNodeOption": False,
            "Active": False,
            "PeerAPIURL": [f"http://{self.me.ips[0]}:58436", f"http://[{self.me.ips[1]}]:58436"],
            "TaildropTarget": 0,
            "NoFileSharingReason": "",
            "Capabilities": [_DEPRECATED, *caps],
            "CapMap": dict.fromkeys(caps),
            "InNetworkMap": True,
            "InMagicSock": False,
            "InEngine": False,
        }

    def _peer(self, node: FakeNode) -> dict[str, Any]:
        return {
            "ID": node.stable_id,
            "PublicKey": f"nodekey:{node.key}",
            "HostName": node.name,
            "DNSName": f"{node.name}.{self.suffix}.",
            "OS": "linux",
            "UserID": node.user,
            "TailscaleIPs": list(node.ips),
            "AllowedIPs": [f"{node.ips[0]}/32", f"{node.ips[1]}/128"],
            **({"Tags": list(node.tags)} if node.tags else {}),
            "Addrs": None,
            "CurAddr": node.endpoint,
            "Relay": "test",
            "PeerRelay": "",
            "RxBytes": 2020,
            "TxBytes": 3084,
            "Created": _NEVER,
            "LastWrite": "2026-11-23T06:38:51.720465269Z",
            "LastSeen": _NEVER,
            "LastHandshake": "2026-11-23T06:38:41.676377551Z",
            "Online": False,
            "ExitNode": False,
            "ExitNodeOption": False,
            "Active": True,
            "PeerAPIURL": [f"http://{node.ips[0]}:46590", f"http://[{node.ips[1]}]:1"],
            "TaildropTarget": 0,
            "NoFileSharingReason": "",
            "Capabilities": ["https", "funnel", _FUNNEL_PORTS],
            "CapMap": {"funnel": [], "https": [], _FUNNEL_PORTS: []},
            "InNetworkMap": True,
            "InMagicSock": True,
            "InEngine": True,
        }

    def whois(self, address: str) -> dict[str, Any] | None:
        """``address``: an IP, with or without a port. Raises `ValueError` where it is none."""
        try:
            ip = str(ipaddress.ip_address(address))
        except ValueError:
            host, _, port = address.rpartition(":")
            ip = str(ipaddress.ip_address(host.strip("[]")))
            if not port.isdigit():
                raise
        node = self.node_at(ip)
        if node is None or self.state != "Running":
            return None
        user = self.users[node.user]
        if node.tags:
            user = FakeUser(id=node.user, login="tagged-devices", name="Tagged Devices")
        found: dict[str, Any] = {
            "ID": node.id,
            "StableID": node.stable_id,
            "Name": f"{node.name}.{self.suffix}.",
            "User": node.user,
            "Key": f"nodekey:{node.key}",
            "KeyExpiry": _NEVER,
            "Machine": "mkey:803e359a7b47a14ebaa97c8a75c4afc60f5fc80a8c79979d43776ea5ff95d401",
            "DiscoKey": "discokey:f12cc56ad507addee851ac988fead55688ece27d176fe83dc2fd19aab459f513",
            "Addresses": [f"{node.ips[0]}/32", f"{node.ips[1]}/128"],
            "AllowedIPs": [f"{node.ips[0]}/32", f"{node.ips[1]}/128"],
            "Endpoints": [node.endpoint],
            "HomeDERP": 1,
            "Hostinfo": _hostinfo(node),
            "Created": _NEVER,
            **({"Tags": list(node.tags)} if node.tags else {}),
            "Cap": self.capability,
            "MachineAuthorized": True,
            "Capabilities": ["https", "funnel", _FUNNEL_PORTS],
            "CapMap": {"funnel": [], "https": [], _FUNNEL_PORTS: []},
            "ComputedName": node.name,
            "ComputedNameWithHost": node.name,
        }
        profile = user.profile()
        return {"Node": found, "UserProfile": profile, "CapMap": {"https://tailscale.com/cap/ingress": None}}

    def feature(self, feature: str) -> dict[str, Any]:
        """The answer of query-feature."""
        enabled = self.https if feature == "serve" else self.https and self.funnel
        if enabled:
            return {"Complete": True, "Text": "", "URL": "", "ShouldWait": False}
        url = f"https://login.tailscale.com/f/{feature}?node={self.me.stable_id}"
        text = f"{feature.capitalize()} is not enabled on your tailnet.\nTo enable, visit:\n\n         {url}\n"
        return {"Complete": False, "Text": text, "URL": url, "ShouldWait": self.should_wait}

    # --- the serve configuration

    def encoded(self) -> bytes:
        return json.dumps(self.config, separators=(",", ":"), ensure_ascii=False).encode()

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.encoded()).hexdigest()

    def set_config(self, given: Any, if_match: str) -> None:
        """Replace the configuration as the daemon does. Raises `EtagMismatch`, `ConfigRefused`."""
        self.on_write()
        if self.state not in {"Running", "Starting"}:
            raise ConfigRefused("updating config: netMap is nil")
        if if_match and if_match != self.etag:
            raise EtagMismatch
        incoming = _normal(given)
        if self.checks_conflicts:
            _check_update(self.config, incoming)
        before = self.config
        self.config = incoming
        for sid in before.get("Foreground", {}):
            if sid not in incoming.get("Foreground", {}):
                self.sessions.discard(sid)
                self.on_session_closed(sid)
        self.on_config()

    def close_session(self, sid: str) -> None:
        """The watch stream of a session ended: its claim goes."""
        self.sessions.discard(sid)
        claims = dict(self.config.get("Foreground", {}))
        if claims.pop(sid, None) is not None:
            rest = {key: value for key, value in self.config.items() if key != "Foreground"}
            self.config = {**rest, "Foreground": claims} if claims else rest
            self.on_config()

    def web_ports(self) -> dict[int, bool]:
        """Every port with a web handler, and whether it speaks TLS; foreground claims first."""
        found: dict[int, bool] = {}
        for part in (*self.config.get("Foreground", {}).values(), self.config):
            for port, handler in part.get("TCP", {}).items():
                if handler.get("HTTPS") or handler.get("HTTP"):
                    found.setdefault(int(port), bool(handler.get("HTTPS")))
        return found

    def web(self, host: str, port: int) -> tuple[dict[str, Any], bool] | None:
        """The handlers for ``host:port`` and whether the internet may use them; None: a Host that is not served."""
        name = f"{host}:{port}"
        for part in (*self.config.get("Foreground", {}).values(), self.config):
            if name in part.get("Web", {}):
                return part["Web"][name].get("Handlers", {}), bool(part.get("AllowFunnel", {}).get(name))
        return None


def _hostinfo(node: FakeNode) -> dict[str, Any]:
    return {
        "IPNVersion": "1.90.0-local",
        "BackendLogID": "9e6220f832b36d0579bf234f154f9b3aa40564c0e7928a0a627c581e8d3b4aa4",
        "OS": "linux",
        "OSVersion": "6.18.44-fc-v769",
        "Container": True,
        "Distro": "debian",
        "DistroVersion": "12.11",
        "DistroCodeName": "bookworm",
        "Desktop": False,
        "Hostname": node.name,
        "NoLogsNoSupport": True,
        "Machine": "x86_64",
        "GoArch": "amd64",
        "GoArchVar": "v1",
        "GoVersion": "go1.27.3-X:nojsonv2",
        "Services": [
            {"Proto": "peerapi4", "Port": 46590},
            {"Proto": "peerapi6", "Port": 1},
            {"Proto": "peerapi-dns-proxy", "Port": 1},
        ],
        "NetInfo": {
            "MappingVariesByDestIP": None,
            "HairPinning": None,
            "WorkingIPv6": False,
            "OSHasIPv6": True,
            "WorkingUDP": True,
            "WorkingICMPv4": False,
            "UPnP": None,
            "PMP": None,
            "PCP": None,
            "PreferredDERP": 1,
            "DERPLatency": {"1-v4": 0.000333562},
            "FirewallMode": "nft-default",
        },
        "Userspace": False,
        "UserspaceRouter": False,
        "AppConnector": False,
        "StateEncrypted": False,
    }


def _no_self() -> dict[str, Any]:
    return {
        "ID": "",
        "PublicKey": "nodekey:" + "0" * 64,
        "HostName": "vm",
        "DNSName": "",
        "OS": "linux",
        "UserID": 0,
        "TailscaleIPs": None,
        "Addrs": [],
        "CurAddr": "",
        "Relay": "",
        "PeerRelay": "",
        "RxBytes": 0,
        "TxBytes": 0,
        "Created": _NEVER,
        "LastWrite": _NEVER,
        "LastSeen": _NEVER,
        "LastHandshake": _NEVER,
        "Online": False,
        "ExitNode": False,
        "ExitNodeOption": False,
        "Active": False,
        "PeerAPIURL": None,
        "TaildropTarget": 0,
        "NoFileSharingReason": "",
        "InNetworkMap": False,
        "InMagicSock": False,
        "InEngine": False,
    }


# --- configuration, as Go's types read and write it: known members only, empty ones left out, maps sorted


def _normal(given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigRefused("decoding config: json: cannot unmarshal into Go value of type ipn.ServeConfig")
    out: dict[str, Any] = {}
    if given.get("TCP"):
        out["TCP"] = {
            port: {name: entry[name] for name in _TCP_FIELDS if entry.get(name)}
            for port, entry in sorted(given["TCP"].items())
        }
    if given.get("Web"):
        out["Web"] = {host: _normal_web(web) for host, web in sorted(given["Web"].items())}
    if given.get("Services"):
        out["Services"] = dict(sorted(given["Services"].items()))
    if given.get("AllowFunnel"):
        out["AllowFunnel"] = dict(sorted(given["AllowFunnel"].items()))
    if given.get("Foreground"):
        out["Foreground"] = {sid: _normal(part) for sid, part in sorted(given["Foreground"].items())}
    return out


def _normal_web(web: Any) -> dict[str, Any]:
    handlers = web.get("Handlers") or {}
    return {
        "Handlers": {
            mount: {name: handler[name] for name in _HANDLER_FIELDS if handler.get(name)}
            for mount, handler in sorted(handlers.items())
        }
    }


def _kind(handler: dict[str, Any]) -> str:
    if handler.get("HTTPS"):
        return "https"
    if handler.get("HTTP"):
        return "http"
    return "tls-terminated-tcp" if handler.get("TerminateTLS") else "tcp"


def _check_update(existing: dict[str, Any], incoming: dict[str, Any]) -> None:
    """The daemon's rules since 1.92: new claims on free ports only, no background over a claim, no change of type."""
    held = [part.get("TCP", {}) for part in existing.get("Foreground", {}).values()]
    top = existing.get("TCP", {})
    for sid, claim in incoming.get("Foreground", {}).items():
        if sid not in existing.get("Foreground", {}):
            for port in claim.get("TCP", {}):
                if port in top or any(port in part for part in held):
                    raise ConfigRefused(f"updating config: listener already exists for port {port}")
    for port, handler in incoming.get("TCP", {}).items():
        if any(port in part for part in held):
            raise ConfigRefused(f"updating config: foreground listener already exists for port {port}")
        if port in top and _kind(top[port]) != _kind(handler):
            kinds = f'want to serve "{_kind(handler)}", but port {port} is already serving "{_kind(top[port])}"'
            raise ConfigRefused(f"updating config: {kinds}")
