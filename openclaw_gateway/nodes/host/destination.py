"""Which gateway a node dials, and with which secret.

Owns the order of the sources. It must not dial (a join link is fetched by its caller). Invariants: the secrets of
this host's own gateway go to loopback only; a kept device token goes to the URL it came from (`keeping`), or to the
certificate of the gateway that it came from (`finding`).

Address: ``--url`` > ``--host``/``--port`` > ``--pair`` > ``OPENCLAW_GATEWAY_URL`` > the routes of ``gateway.remote``
(mode remote) > the gateway that let us in last > this host's own gateway; `finding` looks around before the last two.
Secret: ``--pair``, ``--token``, else ``OPENCLAW_GATEWAY_TOKEN`` / ``OPENCLAW_GATEWAY_PASSWORD``, which official nodes
use for any address, else for loopback what the gateway here uses.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.handshake import Credentials
from openclaw_gateway.client.resolve import URL_VARIABLE, Target, own_certificate, resolve_target
from openclaw_gateway.client.tls import ClientCertificate
from openclaw_gateway.config.paths import state_dir
from openclaw_gateway.config.rules import PASSWORD_VARIABLE, TOKEN_VARIABLE
from openclaw_gateway.errors import GatewayError
from openclaw_gateway.nodes.host.errors import NodeError
from openclaw_gateway.nodes.host.keeping import Keeping
from openclaw_gateway.nodes.host.setupcode import SetupCode

__all__ = ["DEFAULT_PORT", "Asked", "Destination", "choose_destination", "secret_for"]

DEFAULT_PORT = 18789


@attrs.frozen(kw_only=True)
class Asked:
    """The flags of ``node run``. ``tls`` None: not said."""

    url: str | None = None
    host: str | None = None
    port: int | None = None
    context_path: str | None = None
    tls: bool | None = None
    tls_fingerprint: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    setup: SetupCode | None = None


@attrs.frozen(kw_only=True)
class Destination:
    """``source`` says where the address came from and may be shown. ``device_token``: one that was issued at another
    address of the same gateway, proved to be the same by ``tls_fingerprint``.
    """

    url: str
    source: str
    secret: Credentials
    tls_fingerprint: str | None
    client_certificate: ClientCertificate | None = None
    allow_insecure: bool = False
    device_token: str | None = attrs.field(default=None, repr=False)
    route: Target | None = None  # mode remote: the routes to choose from; ``url`` then only names them


def choose_destination(asked: Asked, env: Mapping[str, str], keeping: Keeping) -> Destination:
    """Choose. Reads a few small files, dials nothing. Raises `NodeError`, `ConnectFailed` or `ConfigError`."""
    if asked.url is not None and (asked.host is not None or asked.port is not None):
        raise NodeError("--url excludes --host and --port", "give one of them")
    url, source, pin = _address(asked, env, keeping)
    if url is None:
        own = _own(asked, env)
        return Destination(
            url=_name(own),
            route=own if own.routes else None,
            source=own.source,
            secret=_secret(asked, env, own),
            tls_fingerprint=asked.tls_fingerprint or own.tls_fingerprint,
            client_certificate=own_certificate(state_dir(env)),
            allow_insecure=own.local,
        )
    address = GatewayAddress.parse(url)
    pin = asked.tls_fingerprint or pin
    own_target = _own_at(address, asked, env, pinned=pin is not None)
    return Destination(
        url=address.url,
        source=source,
        secret=_secret(asked, env, own_target),
        tls_fingerprint=pin or (own_target.tls_fingerprint if own_target is not None else None),
        client_certificate=own_certificate(state_dir(env)),
    )


def _address(asked: Asked, env: Mapping[str, str], keeping: Keeping) -> tuple[str | None, str, str | None]:
    """(URL or None for this host's own gateway, its source, a certificate pin that came with it)."""
    if asked.url is not None:
        return asked.url, "flag --url", _kept_pin(keeping, asked.url)
    if asked.host is not None or asked.tls:
        host = asked.host or "127.0.0.1"
        url = _url(host, asked.port or DEFAULT_PORT, tls=asked.tls is True, path=asked.context_path)
        return url, "flags --host and --port", _kept_pin(keeping, url)
    if asked.setup is not None and asked.port is None:
        return asked.setup.url, "the setup code", asked.setup.tls_fingerprint
    named = env.get(URL_VARIABLE, "").strip()
    if named and asked.port is None:
        return named, f"environment {URL_VARIABLE}", _kept_pin(keeping, named)
    if asked.port is None and _has_routes(asked, env):
        return None, "", None  # what is configured now outranks what let us in once
    latest = keeping.latest() if asked.port is None else None
    if latest is not None and "://" in latest.url:
        return latest.url, "the gateway that let this node in last", latest.tls_fingerprint
    return None, "", None


def _has_routes(asked: Asked, env: Mapping[str, str]) -> bool:
    try:
        return bool(_own(asked, env).routes)
    except GatewayError:
        return False  # told where it matters: by whoever has to use it


def _name(own: Target) -> str:
    """What a device token is kept under: the address, or all the routes to the one gateway (attack V56)."""
    return " | ".join(sorted(route.name for route in own.routes)) if own.routes else own.url


def _kept_pin(keeping: Keeping, url: str) -> str | None:
    known = keeping.gateway(url)
    return known.tls_fingerprint if known is not None else None


def _url(host: str, port: int, *, tls: bool, path: str | None) -> str:
    bare = host.strip().removeprefix("[").removesuffix("]")
    shown = f"[{bare}]" if ":" in bare else bare
    return f"{'wss' if tls else 'ws'}://{shown}:{port}{'/' + path.strip('/') if path else ''}"


def _own_at(address: GatewayAddress, asked: Asked, env: Mapping[str, str], *, pinned: bool) -> Target | None:
    """This host's own gateway, where ``address`` is it. Over TLS only its own certificate shows that: behind another
    one on loopback may be a tunnel's far end, which gets no secret of this host.
    """
    if not address.is_loopback:
        return None
    own = _own(asked, env, port=address.port)
    if not address.tls:
        return own
    return own if own.address.tls and own.tls_fingerprint is not None and not pinned else None


def _own(asked: Asked, env: Mapping[str, str], port: int | None = None) -> Target:
    """This host's own gateway and the secret that it uses itself."""
    plain = {name: value for name, value in env.items() if name != URL_VARIABLE}
    return resolve_target(env=plain, port=port if port is not None else asked.port)


def secret_for(asked: Asked, env: Mapping[str, str]) -> Credentials:
    """What was named by hand or by the environment, for a gateway that is not this host's own."""
    return _secret(asked, env, None)


def _secret(asked: Asked, env: Mapping[str, str], own: Target | None) -> Credentials:
    bootstrap = asked.setup.bootstrap_token if asked.setup is not None else None
    if asked.token:
        return Credentials(token=asked.token, bootstrap_token=bootstrap)
    token, password = env.get(TOKEN_VARIABLE) or None, env.get(PASSWORD_VARIABLE) or None
    if token or password:
        return Credentials(token=token, password=None if token else password, bootstrap_token=bootstrap)
    if own is not None:
        return attrs.evolve(own.credentials, bootstrap_token=bootstrap)
    return Credentials(bootstrap_token=bootstrap)
