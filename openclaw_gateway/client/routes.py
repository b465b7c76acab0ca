"""The ways to a remote gateway, and in which order they are tried. Pure.

Owns turning ``gateway.remote`` into routes and ordering them. It must not dial, read files or know the time.

Invariants: a route comes from the configuration or a flag, never from discovery (attack V39); what may go unencrypted
is decided by `GatewayAddress` alone: over ssh the connection ends on loopback at both ends; TLS behind ssh needs a pin,
because no certificate names 127.0.0.1; the name of a route tells where it leads, so what is remembered about it cannot
be applied to another place. The order is the configured one, but the route that worked last comes first (RFC 8305
section 4 calls it history).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal

import attrs

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.errors import ConnectFailed

if TYPE_CHECKING:
    from openclaw_gateway.config.schema import RemoteConfig, RouteConfig
    from openclaw_gateway.tunnels.spec import TunnelSpec

__all__ = [
    "DEFAULT_PORT",
    "MAX_ROUTES",
    "REMEMBER_SECONDS",
    "STAGGER_SECONDS",
    "Route",
    "plan_routes",
    "preferred",
    "ssh_route",
]

DEFAULT_PORT: Final = 18789
MAX_ROUTES: Final = 8
STAGGER_SECONDS: Final = 0.25  # RFC 8305 section 5, "Connection Attempt Delay"
REMEMBER_SECONDS: Final = 86_400.0

Transport = Literal["direct", "ssh", "tailnet"]


@attrs.frozen(kw_only=True)
class Route:
    """``address`` is what is dialled; with ``tunnel`` that is its near end, whose port is known when it is open (0).

    ``name`` and ``source`` may be shown; ``tailnet``: the name has to lead into the tailnet.
    """

    name: str
    source: str
    transport: Transport
    address: GatewayAddress
    tls_fingerprint: str | None = None
    tunnel: TunnelSpec | None = None


def plan_routes(remote: RemoteConfig) -> tuple[Route, ...]:
    """Every route of ``gateway.remote``, in order: its own first, then ``routes``. () where none is configured.

    Raises `ConnectFailed` at ``address`` where one may not be used as it is written.
    """
    found: dict[str, Route] = {}
    if remote.url is not None or remote.ssh_target is not None:
        own = _route(remote, "config gateway.remote")
        found[own.name] = own
    for number, entry in enumerate(remote.routes[:MAX_ROUTES]):
        route = _route(entry, f"config gateway.remote.routes[{number}]")
        found.setdefault(route.name, route)
    return tuple(found.values())[:MAX_ROUTES]


def _route(entry: RemoteConfig | RouteConfig, source: str) -> Route:
    transport: Transport = entry.transport or ("ssh" if entry.ssh_target is not None else "direct")
    if transport == "ssh":
        return ssh_route(
            entry.ssh_target,
            source=source,
            url=entry.url,
            identity=entry.ssh_identity,
            host_key_policy=entry.ssh_host_key_policy,
            remote_port=entry.remote_port,
            tls_fingerprint=entry.tls_fingerprint,
            known_hosts=entry.ssh_known_hosts,
        )
    if entry.url is None:
        raise _refused(source, "names no url", f"openclaw config set {source.removeprefix('config ')}.url wss://<host>:18789")
    # Whether a name may be dialled unencrypted on the tailnet is seen when it is looked up.
    address = GatewayAddress.parse(entry.url, allow_insecure=transport == "tailnet")
    return Route(
        name=f"tailnet {address.url}" if transport == "tailnet" else address.url,
        source=f"{source}.url" if source == "config gateway.remote" else source,
        transport=transport,
        address=address,
        tls_fingerprint=entry.tls_fingerprint,
    )


def ssh_route(
    target: str | None,
    *,
    source: str,
    url: str | None = None,
    identity: str | None = None,
    host_key_policy: Literal["strict", "openssh"] = "strict",
    remote_port: int | None = None,
    tls_fingerprint: str | None = None,
    known_hosts: str | None = None,
) -> Route:
    """A route through ssh. The gateway's port over there: ``remote_port``, else that of ``url`` where it is written,
    else 18789; without ``target``, ssh goes to the host of ``url``. Raises `ConnectFailed` at ``address``.
    """
    from openclaw_gateway.tunnels.spec import TunnelRefused, TunnelSpec, parse_target

    far = GatewayAddress.parse(url, allow_insecure=True) if url is not None else None
    if target is None and (far is None or far.is_loopback):
        key = source.removeprefix("config ")
        raise _refused(source, "names no ssh host", f"openclaw config set {key}.sshTarget user@host")
    tls = far is not None and far.tls
    if tls and tls_fingerprint is None:
        fix = "give the fingerprint that openclaw gateway status shows over there as tlsFingerprint, or a ws:// url"
        raise _refused(source, "TLS behind ssh needs a pinned fingerprint", fix)
    written = far.port if far is not None and not _default_port(url or "") else None
    port = remote_port or written or DEFAULT_PORT
    try:
        to = parse_target(target if target is not None else str(far.host if far is not None else ""))
        spec = TunnelSpec(
            name="remote",
            target=to,
            direction="local",
            bind_port=0,
            target_port=port,
            identity=identity,
            host_key_policy=host_key_policy,
            known_hosts=known_hosts,
            alive_interval=1,  # a dead host is noticed within four seconds: another route is waiting
        )
    except TunnelRefused as error:
        raise _refused(source, error.message, error.fix) from error
    resource = far.resource if far is not None else "/"
    return Route(
        name=f"ssh {to} to port {port}{' with TLS' if tls else ''}",
        source=source,
        transport="ssh",
        address=GatewayAddress("127.0.0.1", 0, tls, resource),
        tls_fingerprint=tls_fingerprint,
        tunnel=spec,
    )


def _default_port(url: str) -> bool:
    """Whether a URL leaves the port out: then it says nothing about the gateway's."""
    from urllib.parse import urlsplit

    return urlsplit(url).port is None


def _refused(source: str, message: str, fix: str) -> ConnectFailed:
    return ConnectFailed(stage="address", url=source, message=message, fix=fix)


def preferred(routes: Sequence[Route], remembered: str | None, age: float | None) -> tuple[Route, ...]:
    """``routes`` with the remembered one first. ``age``: seconds since it worked; too old counts for nothing."""
    if remembered is None or age is None or not 0 <= age <= REMEMBER_SECONDS:
        return tuple(routes)
    return tuple(sorted(routes, key=lambda route: route.name != remembered))
