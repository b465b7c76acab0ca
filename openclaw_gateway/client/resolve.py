"""Which gateway a command speaks to, and with which secret.

Owns the order of the sources for both, and the rule that a secret goes only where it belongs (attack V56): the
secrets of the configuration and of the token file go to this host's own gateway, those of ``gateway.remote`` to the
remote one; an address that was named by hand or by the environment gets only a secret that was named the same way. It
must not dial.

Address: ``--url`` > ``--port`` > ``OPENCLAW_GATEWAY_URL`` > the routes of ``gateway.remote`` (mode remote) > this
host's gateway, always over loopback (requirements NET-6, PAIR-7) at the port that the running gateway holds, else the
configured one. Secret of this host's gateway: flags, else what `config.secrets.resolve_auth` gives the server itself
(requirement AUTH-1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.handshake import Credentials
from openclaw_gateway.config.load import LoadedConfig, load_config
from openclaw_gateway.config.paths import state_dir
from openclaw_gateway.config.rules import PASSWORD_VARIABLE, TOKEN_VARIABLE
from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.secrets import fingerprint, resolve_auth
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.instance import read_holder

if TYPE_CHECKING:
    from openclaw_gateway.client.routes import Route
    from openclaw_gateway.client.tls import ClientCertificate

__all__ = ["URL_VARIABLE", "Target", "TargetError", "local_host", "own_certificate", "resolve_target"]

URL_VARIABLE = "OPENCLAW_GATEWAY_URL"
CLIENT_CERTIFICATE = "client-cert.pem"
CLIENT_KEY = "client-key.pem"
OWN_CERTIFICATE = Path("tls") / "gateway-cert.pem"
CERTIFICATE_IN_USE = Path("tls") / "in-use.pem"


@attrs.define(eq=False)
class TargetError(GatewayError):
    """No address or secret can be chosen. ``fix`` is what to do about it."""

    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}"


@attrs.frozen(kw_only=True)
class Target:
    """``secret_source`` and ``fingerprint`` may be shown; ``local``: this host's own gateway.

    With ``routes`` the address is only the first one's, and where to dial is known inside `route_dial.open_route`; what
    that hands out has none, but says ``via`` which it came, and with ``tunnel`` (ssh's pid, port over there) how.
    ``state``: the directory for what a client of another host's gateway keeps.
    """

    address: GatewayAddress
    source: str
    credentials: Credentials
    secret_source: str
    fingerprint: str | None
    local: bool
    tls_fingerprint: str | None = None
    client_certificate: ClientCertificate | None = None
    loaded: LoadedConfig | None = None
    routes: tuple[Route, ...] = ()
    via: str | None = None
    tunnel: tuple[int, int] | None = None
    state: Path | None = None

    @property
    def url(self) -> str:
        return self.address.url

    @property
    def shown(self) -> str:
        """Where it leads, for a person: through a tunnel the address alone says nothing."""
        if self.via is not None:
            return self.via
        return self.routes[0].name if self.routes else self.url


def local_host(config: GatewayConfig) -> str:
    """The address at which this host reaches its own gateway: always loopback, and 127.0.0.1 unless it is bound to
    another loopback address alone."""
    host = config.custom_bind_host if config.bind == "custom" else config.bind
    try:
        literal = ipaddress.ip_address(str(host))
    except ValueError:
        return "127.0.0.1"
    return str(literal) if literal.is_loopback else "127.0.0.1"


def resolve_target(
    *,
    env: Mapping[str, str],
    url: str | None = None,
    token: str | None = None,
    password: str | None = None,
    port: int | None = None,
    tls_fingerprint: str | None = None,
    ssh: str | None = None,
    ssh_identity: str | None = None,
) -> Target:
    """Choose. Reads a few small files, dials nothing, writes nothing. ``ssh``: through a tunnel to user@host[:port].

    Raises `TargetError`, `ConnectFailed` (an address that may not be used) or `ConfigError`.
    """
    given = Credentials(token=token, password=password)
    if ssh is not None:
        target = _through(ssh, ssh_identity, env=env, url=url, given=given, port=port, pin=tls_fingerprint)
    else:
        target = _resolve(env=env, url=url, given=given, port=port)
    if not target.local:
        target = attrs.evolve(target, state=state_dir(env))
    tls = target.address.tls or any(route.address.tls for route in target.routes)
    return attrs.evolve(
        target,
        tls_fingerprint=tls_fingerprint or target.tls_fingerprint,
        client_certificate=own_certificate(state_dir(env)) if tls else None,
    )


def _through(
    ssh: str, identity: str | None, *, env: Mapping[str, str], url: str | None, given: Credentials, port: int | None,
    pin: str | None,
) -> Target:  # fmt: skip
    """Through an ssh host named by hand. The configured secret goes along where the configuration names that very host
    for the remote gateway, else a secret has to be named by hand too (attack V56)."""
    from openclaw_gateway.client.routes import plan_routes, ssh_route

    loaded = load_config(env=env)
    remote = loaded.config.remote
    route = ssh_route(ssh, source="flag --ssh", url=url, identity=identity, remote_port=port, tls_fingerprint=pin)
    kept = Credentials()
    if loaded.config.mode == "remote":
        known = [planned.tunnel.target for planned in plan_routes(remote) if planned.tunnel is not None]
        if route.tunnel is not None and route.tunnel.target in known:
            kept = Credentials(token=remote.token, password=remote.password)
    chosen, source = _choose(given, kept, "config gateway.remote")
    if not chosen.to_wire():
        raise TargetError("the gateway behind --ssh needs a secret of its own", "give --token or --password")
    target = _target(route.address, route.source, chosen, source, local=False, pin=pin, loaded=loaded)
    return attrs.evolve(target, routes=(route,))


def _remote(loaded: LoadedConfig, given: Credentials) -> Target:
    from openclaw_gateway.client.routes import plan_routes

    remote = loaded.config.remote
    routes = plan_routes(remote)
    if not routes:
        raise TargetError(
            "gateway.mode is remote, but gateway.remote names no gateway",
            "openclaw config set gateway.remote.url wss://<host>:18789, or: openclaw config set gateway.mode local",
        )
    configured = Credentials(token=remote.token, password=remote.password)
    chosen, source = _choose(given, configured, "config gateway.remote")
    first = routes[0]
    target = _target(
        first.address, first.source, chosen, source, local=False, pin=first.tls_fingerprint, loaded=loaded
    )  # fmt: skip
    if len(routes) == 1 and first.transport == "direct":
        return target  # nothing to choose, and nothing to open
    return attrs.evolve(target, routes=routes, tls_fingerprint=None)  # each route has its own


def _resolve(*, env: Mapping[str, str], url: str | None, given: Credentials, port: int | None) -> Target:
    if url is not None:
        return _named(url, "flag --url", given, "--token or --password", env=None)
    named = env.get(URL_VARIABLE, "").strip()
    if port is None and named:
        return _named(named, f"environment {URL_VARIABLE}", given, f"set {TOKEN_VARIABLE} as well", env=env)
    loaded = load_config(env=env)
    config = loaded.config
    directory = state_dir(env)
    if port is None and config.mode == "remote":
        return _remote(loaded, given)
    host, number, where, tls = _local_address(config, directory, port)
    shown = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
    address = GatewayAddress.parse(f"{'wss' if tls else 'ws'}://{shown}", allow_insecure=True)
    pins = _own_pins(config, directory) if tls else None
    own = resolve_auth(config, directory, env, overridden=loaded.overridden, create=False)
    from_env = Credentials(password=env.get(PASSWORD_VARIABLE) or None)
    kept = Credentials(token=own.token, password=own.password)
    if own.type == "password" and kept.password is None:
        kept, own_source = from_env, f"environment {PASSWORD_VARIABLE}" if from_env.password else own.source
    else:
        own_source = own.source
    chosen, source = _choose(given, kept, own_source)
    return _target(address, where, chosen, source, local=True, pin=pins, loaded=loaded)


def own_certificate(directory: Path) -> ClientCertificate | None:
    """The client certificate that `openclaw devices cert` keeps for this host; None where there is none."""
    from openclaw_gateway.client.tls import ClientCertificate

    found = ClientCertificate(directory / "identity" / CLIENT_CERTIFICATE, directory / "identity" / CLIENT_KEY)
    return found if found.cert_path.is_file() and found.key_path.is_file() else None


def _own_pins(config: GatewayConfig, directory: Path) -> str | None:
    """This host's own gateway shows one of the certificates in its files: nobody has to be asked for a pin (NET-8)."""
    from openclaw_gateway.client.tls import file_pins

    return file_pins(directory / CERTIFICATE_IN_USE, config.tls.cert_path, directory / OWN_CERTIFICATE)


def _local_address(config: GatewayConfig, directory: Path, port: int | None) -> tuple[str, int, str, bool]:
    """Host, port, where they come from, and whether it speaks TLS. A running gateway is found where it listens,
    whatever the file says now.
    """
    if port is not None:
        return local_host(config), port, "flag --port", config.tls.enabled
    holder = read_holder(directory)
    if holder is not None and holder.port:
        bound = holder.url.partition("://")[2].rpartition(":")[0].strip("[]") if holder.url else config.bind
        host = local_host(attrs.evolve(config, bind=bound)) if holder.url else local_host(config)
        return host, holder.port, "the running gateway", (holder.url or "").startswith("wss:")
    return local_host(config), config.port, "config gateway.port", config.tls.enabled


def _named(url: str, source: str, given: Credentials, advice: str, *, env: Mapping[str, str] | None) -> Target:
    chosen, origin = _choose(given, Credentials(), "none")
    if env is not None and origin == "none":
        from_env = Credentials(token=env.get(TOKEN_VARIABLE) or None, password=env.get(PASSWORD_VARIABLE) or None)
        chosen, origin = _choose(Credentials(), from_env, f"environment {TOKEN_VARIABLE}/{PASSWORD_VARIABLE}")
    if not chosen.to_wire():
        raise TargetError(
            f"the address from {source} needs a secret of its own: the configured one is not sent elsewhere",
            f"give {advice}" if env is None else advice,
        )
    return _target(GatewayAddress.parse(url), source, chosen, origin, local=False, pin=None, loaded=None)


def _choose(given: Credentials, otherwise: Credentials, source: str) -> tuple[Credentials, str]:
    if given.token:
        return given, "flag --token"
    if given.password:
        return given, "flag --password"
    return otherwise, source if otherwise.to_wire() else "none"


def _target(
    address: GatewayAddress, source: str, chosen: Credentials, secret_source: str, *, local: bool, pin: str | None,
    loaded: LoadedConfig | None,
) -> Target:  # fmt: skip
    secret = chosen.token or chosen.password
    return Target(
        address=address,
        source=source,
        credentials=chosen,
        secret_source=secret_source,
        fingerprint=fingerprint(secret) if secret else None,
        local=local,
        tls_fingerprint=pin,
        loaded=loaded,
    )
