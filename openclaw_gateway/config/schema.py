"""The configuration tree: one frozen, keyword-only attrs class per block of openclaw.json.

Owns names, types and defaults; `accessblocks`, `agentblocks` and `hookblocks` have the blocks of these subjects, and
everybody imports them from here. `config.load` owns reading, `config.rules` owns what is allowed together. Times are
in the unit their name says (``_ms``) or seconds; sizes are bytes. Python names are the snake_case of the JSON names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs

from openclaw_gateway.config.accessblocks import (
    AuthConfig,
    AuthType,
    AutoApproveConfig,
    DirectMessageConfig,
    NodeCommandsConfig,
    NodesConfig,
    PairingConfig,
    PasswordPolicy,
    RefreshConfig,
    TrustedProxyConfig,
)
from openclaw_gateway.config.agentblocks import (
    AgentDefaults,
    AgentEntry,
    AgentsConfig,
    ChatCompletionsConfig,
    EndpointsConfig,
    HttpSurfaceConfig,
    ModelChoice,
    ModelEntry,
    ModelsConfig,
    ProviderConfig,
    SessionConfig,
    SessionResetConfig,
    TranscriptConfig,
)
from openclaw_gateway.config.hookblocks import HooksConfig
from openclaw_gateway.value import Value

__all__ = [
    "AgentDefaults",
    "AgentEntry",
    "AgentsConfig",
    "AuthConfig",
    "AutoApproveConfig",
    "ChannelConfig",
    "ChatCompletionsConfig",
    "ControlUiConfig",
    "CorsConfig",
    "DirectMessageConfig",
    "DiscoveryConfig",
    "EndpointsConfig",
    "GatewayConfig",
    "HttpConfig",
    "HttpSurfaceConfig",
    "ListenerConfig",
    "LoggingConfig",
    "MdnsConfig",
    "ModelChoice",
    "ModelEntry",
    "ModelsConfig",
    "NetworkConfig",
    "NodeCommandsConfig",
    "NodesConfig",
    "PairingConfig",
    "PasswordPolicy",
    "ProviderConfig",
    "RefreshConfig",
    "RemoteConfig",
    "RouteConfig",
    "SessionConfig",
    "SessionResetConfig",
    "TailscaleConfig",
    "TlsConfig",
    "TranscriptConfig",
    "TransportsConfig",
    "TrustedProxyConfig",
    "TunnelConfig",
    "WebSocketConfig",
    "WideAreaConfig",
]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class WebSocketConfig(Value):
    enabled: bool = True
    ping_interval_ms: int = 30_000
    ping_timeout_ms: int = 10_000
    max_message_size: int = 100 * 1024 * 1024
    concurrent_connections: int = 100
    unauthenticated_per_address: int = 32
    max_buffered_bytes: int = 50 * 1024 * 1024
    handshake_timeout_ms: int = 15_000
    tick_interval_ms: int = 30_000


@attrs.frozen(kw_only=True, eq=False, repr=False)
class CorsConfig(Value):
    enabled: bool = True
    origins: tuple[str, ...] = ("*",)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpConfig(Value):
    enabled: bool = True
    port: int | None = None  # must equal gateway.port; the seed names it twice
    cors: CorsConfig = attrs.field(factory=CorsConfig)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TransportsConfig(Value):
    websocket: WebSocketConfig = attrs.field(factory=WebSocketConfig)
    http: HttpConfig = attrs.field(factory=HttpConfig)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TailscaleConfig(Value):
    mode: Literal["off", "serve", "funnel"] = "off"
    reset_on_exit: bool = True
    port: int = 443  # of the tailnet's name; the funnel allows 443, 8443 and 10000
    socket: Path | None = None  # tailscaled's; None: where it usually is
    command: str | None = None  # the tailscale program, to be used instead of the socket


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TlsConfig(Value):
    enabled: bool = False
    auto_generate: bool = True  # make a certificate where none is configured
    cert_path: Path | None = None  # PEM, the gateway's own first
    key_path: Path | None = None
    ca_path: Path | None = None  # further authorities for client certificates
    client_auth: Literal["off", "optional", "required"] = "off"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NetworkConfig(Value):
    allow: tuple[str, ...] = ()  # CIDRs; empty: everybody who is not denied
    deny: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ListenerConfig(Value):
    """A listener beside the main one. What is None is as the main one has it."""

    name: str
    port: int
    bind: str = "loopback"
    tls: bool | None = None
    client_auth: Literal["off", "optional", "required"] | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None  # RPC methods (family.*) and HTTP paths that may be used; None: all
    scopes: tuple[str, ...] | None = None  # operator scopes that can be had here; None: all
    auth: AuthType | None = None
    proxy_protocol: bool = False


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ControlUiConfig(Value):
    enabled: bool = True
    root: Path | None = None  # the folder with the dashboard's index.html
    allowed_origins: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RouteConfig(Value):
    """One more way to the remote gateway."""

    transport: Literal["direct", "ssh", "tailnet"] | None = None  # None: ssh where ssh_target is given, else direct
    url: str | None = None
    remote_port: int | None = None  # the gateway's port as the ssh host sees it
    ssh_target: str | None = None
    ssh_identity: str | None = None
    ssh_host_key_policy: Literal["strict", "openssh"] = "strict"
    ssh_known_hosts: str | None = None
    tls_fingerprint: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class RemoteConfig(Value):
    transport: Literal["direct", "ssh", "tailnet"] | None = None
    url: str | None = None
    remote_port: int | None = None
    token: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    tls_fingerprint: str | None = None
    ssh_target: str | None = None
    ssh_identity: str | None = None
    ssh_host_key_policy: Literal["strict", "openssh"] = "strict"
    ssh_known_hosts: str | None = None
    routes: tuple[RouteConfig, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TunnelConfig(Value):
    """An ssh tunnel that the gateway keeps open."""

    name: str
    host: str
    direction: Literal["local", "remote"] = "remote"
    user: str | None = None
    port: int | None = None
    bind_port: int = 18789
    target_port: int | None = None  # None: this gateway (remote), 18789 over there (local)
    identity: str | None = None
    known_hosts: str | None = None
    host_key_policy: Literal["strict", "openssh"] = "strict"
    alive_interval: int = 60  # seconds
    enabled: bool = True


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ChannelConfig(Value):
    enabled: bool = True
    dm: DirectMessageConfig = attrs.field(factory=DirectMessageConfig)
    extra: Mapping[str, Any] = attrs.field(factory=dict, repr=False)  # what the channel's own adapter reads


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LoggingConfig(Value):
    level: Literal["debug", "info", "warning", "error"] = "info"
    max_bytes: int = 10 * 1024 * 1024
    backups: int = 5
    file: Path | None = None  # default: <state_dir>/logs/gateway.log
    console: bool = True


@attrs.frozen(kw_only=True, eq=False, repr=False)
class MdnsConfig(Value):
    mode: Literal["off", "minimal", "full"] = "minimal"  # what is said on the LAN about this gateway


@attrs.frozen(kw_only=True, eq=False, repr=False)
class WideAreaConfig(Value):
    domain: str | None = None  # the DNS zone that this gateway writes and that commands ask, with its last dot
    zone_file: Path | None = None  # default: <state_dir>/dns/openclaw.internal.db


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DiscoveryConfig(Value):
    mdns: MdnsConfig = attrs.field(factory=MdnsConfig)
    wide_area: WideAreaConfig = attrs.field(factory=WideAreaConfig)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class GatewayConfig(Value):
    """What `open_gateway` takes. The ``gateway`` block of openclaw.json at the top, its neighbours as fields."""

    bind: str = "loopback"  # loopback | lan | tailnet | auto | custom | an IP literal such as 0.0.0.0
    custom_bind_host: str | None = None  # with bind = custom
    port: int = 18789  # 0: any free port (embedding, tests)
    public_url: str | None = None  # the address under which other devices reach this gateway
    mode: Literal["local", "remote"] = "local"
    auth: AuthConfig = attrs.field(factory=AuthConfig)
    transports: TransportsConfig = attrs.field(factory=TransportsConfig)
    tailscale: TailscaleConfig = attrs.field(factory=TailscaleConfig)
    control_ui: ControlUiConfig = attrs.field(factory=ControlUiConfig)
    trusted_proxies: tuple[str, ...] = ()
    client_address_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"  # what those proxies write
    proxy_protocol: bool = False  # the main listener reads a PROXY header first; from trusted proxies only
    tls: TlsConfig = attrs.field(factory=TlsConfig)
    network: NetworkConfig = attrs.field(factory=NetworkConfig)
    listeners: tuple[ListenerConfig, ...] = ()
    pairing: PairingConfig = attrs.field(factory=PairingConfig)
    nodes: NodesConfig = attrs.field(factory=NodesConfig)
    remote: RemoteConfig = attrs.field(factory=RemoteConfig)
    tunnels: tuple[TunnelConfig, ...] = ()
    channels: Mapping[str, ChannelConfig] = attrs.field(factory=dict)
    discovery: DiscoveryConfig = attrs.field(factory=DiscoveryConfig)
    http: HttpSurfaceConfig = attrs.field(factory=HttpSurfaceConfig)
    agents: AgentsConfig = attrs.field(factory=AgentsConfig)
    models: ModelsConfig = attrs.field(factory=ModelsConfig)
    session: SessionConfig = attrs.field(factory=SessionConfig)
    hooks: HooksConfig = attrs.field(factory=HooksConfig)
    logging: LoggingConfig = attrs.field(factory=LoggingConfig)
    state_dir: Path | None = None  # None: nothing is kept on disk (embedding, tests)
