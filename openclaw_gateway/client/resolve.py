"""Which gateway a command speaks to, and with which secret.

Owns the order of the sources for both, and the rule that a secret goes only where it belongs (attack V56): the
secrets of the configuration and of the token file go to this host's own gateway, those of ``gateway.remote`` to the
remote one; an address that was named by hand or by the environment gets only a secret that was named the same way. It
must not dial.

Address: ``--url`` > ``--port`` > ``OPENCLAW_GATEWAY_URL`` > ``gateway.remote.url`` (mode remote) > this host's
gateway, always over loopback (requirements NET-6, PAIR-7) at the port that the running gateway holds, else the
configured one. Secret of this host's gateway: flags, else what `config.secrets.resolve_auth` gives the server itself
(requirement AUTH-1)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

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

__all__ = ["URL_VARIABLE", "Target", "TargetError", "local_host", "resolve_target"]

URL_VARIABLE = "OPENCLAW_GATEWAY_URL"


@attrs.define(eq=False)
class TargetError(GatewayError):
    """No address or secret can be chosen. ``fix`` is what to do about it."""

    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.message}; {self.fix}"


@attrs.frozen(kw_only=True)
class Target:
    """``secret_source`` and ``fingerprint`` may be shown; ``local``: this host's own gateway."""

    address: GatewayAddress
    source: str
    credentials: Credentials
    secret_source: str
    fingerprint: str | None
    local: bool
    tls_fingerprint: str | None = None
    loaded: LoadedConfig | None = None

    @property
    def url(self) -> str:
        return self.address.url


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
) -> Target:
    """Choose. Reads a few small files, dials nothing, writes nothing.

    Raises `TargetError`, `ConnectFailed` (an address that may not be used) or `ConfigError`.
    """
    given = Credentials(token=token, password=password)
    if url is not None:
        return _named(url, "flag --url", given, "--token or --password", env=None)
    named = env.get(URL_VARIABLE, "").strip()
    if port is None and named:
        return _named(named, f"environment {URL_VARIABLE}", given, f"set {TOKEN_VARIABLE} as well", env=env)
    loaded = load_config(env=env)
    config = loaded.config
    remote = config.remote
    if port is None and config.mode == "remote" and remote.url is not None:
        configured = Credentials(token=remote.token, password=remote.password)
        chosen, source = _choose(given, configured, "config gateway.remote")
        return _target(
            GatewayAddress.parse(remote.url), "config gateway.remote.url", chosen, source, local=False,
            pin=remote.tls_fingerprint, loaded=loaded,
        )  # fmt: skip
    directory = state_dir(env)
    host, number, where = _local_address(config, directory, port)
    address = GatewayAddress.parse(f"ws://{'[' + host + ']' if ':' in host else host}:{number}", allow_insecure=True)
    own = resolve_auth(config, directory, env, overridden=loaded.overridden, create=False)
    from_env = Credentials(password=env.get(PASSWORD_VARIABLE) or None)
    kept = Credentials(token=own.token, password=own.password)
    if own.type == "password" and kept.password is None:
        kept, own_source = from_env, f"environment {PASSWORD_VARIABLE}" if from_env.password else own.source
    else:
        own_source = own.source
    chosen, source = _choose(given, kept, own_source)
    return _target(address, where, chosen, source, local=True, pin=None, loaded=loaded)


def _local_address(config: GatewayConfig, directory: Path, port: int | None) -> tuple[str, int, str]:
    """Host, port and where they come from. A running gateway is found where it listens, whatever the file says now."""
    if port is not None:
        return local_host(config), port, "flag --port"
    holder = read_holder(directory)
    if holder is not None and holder.port:
        bound = holder.url.partition("://")[2].rpartition(":")[0].strip("[]") if holder.url else config.bind
        host = local_host(attrs.evolve(config, bind=bound)) if holder.url else local_host(config)
        return host, holder.port, "the running gateway"
    return local_host(config), config.port, "config gateway.port"


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
