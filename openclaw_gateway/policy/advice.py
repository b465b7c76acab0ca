"""The one way of remote access that fits: the table of S062-S065, decided by what is there.

Pure: facts about this host and what the person wants in, one recipe out. It must not look at anything itself
(`ops.advice`). Invariants: exactly one recipe for any facts; what works already outranks what would have to be set up;
nothing is recommended that another rule refuses (funnel without strong authentication, a public port in clear); the
commands that could lock somebody out are on probation (``--confirm``).
"""

from __future__ import annotations

from typing import Final, Literal

import attrs

from openclaw_gateway.value import Value

__all__ = ["Facts", "Purpose", "Recipe", "RecipeName", "advise"]

Purpose = Literal["temporary", "long-term", "public", "enterprise"]
RecipeName = Literal["ssh-tunnel", "tailscale-serve", "tailscale-funnel", "reverse-proxy", "lan-tls"]
Level = Literal["low", "medium", "high"]

_CONFIRM: Final = "openclaw config confirm"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Facts(Value):
    """What was found. ``tailscale``: running on the tailnet, installed without being on it, or not there."""

    purpose: Purpose = "long-term"
    tailscale: Literal["running", "installed", "absent"] = "absent"
    serving: str | None = None  # https:// address under which tailscaled serves the gateway right now
    sshd: bool = False
    user: str = "<user>"
    host: str = "<this-host>"
    port: int = 18789
    auth: str = "token"
    public_url: str | None = None
    trusted_proxies: bool = False
    lan: bool = False  # this host has an address that its neighbours reach
    tls: bool = False
    container: bool = False


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Recipe(Value):
    """``here``: commands on this host, in order; ``there``: on the other one. ``security`` and ``complexity`` as in
    the table of remote access.
    """

    name: RecipeName
    title: str
    why: str
    here: tuple[str, ...]
    there: tuple[str, ...]
    security: Level
    complexity: Level
    doc: str
    in_place: bool = False


def advise(facts: Facts) -> Recipe:
    """The recipe for these facts."""
    proxied = facts.public_url is not None and facts.public_url.startswith(("https://", "wss://"))
    if facts.purpose == "enterprise" or (proxied and facts.trusted_proxies and facts.purpose != "temporary"):
        return _proxy(facts, in_place=proxied and facts.trusted_proxies)
    if facts.purpose == "public":
        return _funnel(facts) if facts.tailscale == "running" and not facts.container else _proxy(facts)
    if facts.purpose == "temporary" and facts.sshd:
        return _ssh(facts, "for now: nothing is opened, and nothing is left behind")
    if facts.tailscale == "running" or facts.serving is not None:
        return _serve(facts, "this host is on a tailnet: only your own machines get there, encrypted all the way")
    if facts.sshd:
        return _ssh(facts, "this host takes ssh already, so nothing new is opened")
    if facts.lan and facts.tailscale == "absent" and facts.purpose == "temporary":
        return _lan(facts)
    return _serve(facts, "works from everywhere without opening a port")


def _serve(facts: Facts, why: str) -> Recipe:
    setting_up = {
        "running": (),
        "installed": ("sudo tailscale up",),
        "absent": ("install Tailscale (https://tailscale.com/download), then: sudo tailscale up",),
    }[facts.tailscale]
    here = (*setting_up, "openclaw config set gateway.tailscale.mode serve --confirm 60s", _CONFIRM)
    address = facts.serving or "https://<name of this host on the tailnet>"
    return Recipe(
        name="tailscale-serve",
        title="Tailscale Serve",
        why=why if facts.serving is None else "it is in place",
        here=here if facts.serving is None else (),
        there=_dial(_wss(address)),
        security="high",
        complexity="low",
        doc="docs/how-to/tailscale.md",
        in_place=facts.serving is not None,
    )


def _funnel(facts: Facts) -> Recipe:
    password = () if facts.auth == "password" else (
        "openclaw config set gateway.auth.passwordHash '<bcrypt hash>'",
        "openclaw config set gateway.auth.type password --confirm 60s",
        _CONFIRM,
    )  # fmt: skip
    return Recipe(
        name="tailscale-funnel",
        title="Tailscale Funnel",
        why="it has to be reached from the whole internet; the funnel takes strong authentication (C6)",
        here=(*password, "openclaw config set gateway.tailscale.mode funnel --confirm 60s", _CONFIRM),
        there=_dial("wss://<name of this host on the tailnet>"),
        security="medium",
        complexity="medium",
        doc="docs/how-to/tailscale.md",
    )


def _proxy(facts: Facts, *, in_place: bool = False) -> Recipe:
    url = facts.public_url or "https://<name>"
    here = (
        "openclaw config set gateway.trustedProxies '[\"127.0.0.1\"]'   (the proxy's address as seen from here)",
        f"openclaw config set gateway.publicUrl {url}",
        f"openclaw config set gateway.controlUi.allowedOrigins '[\"{url}\"]'",
        "put the text of docs/how-to/nginx.md (or caddy.md, haproxy.md, traefik.md) into the proxy",
        "openclaw doctor --network",
    )
    return Recipe(
        name="reverse-proxy",
        title="reverse proxy",
        why="it is in place" if in_place else "a name, a certificate and sign-on of your own",
        here=() if in_place else here,
        there=_dial(_wss(url)),
        security="high",
        complexity="high",
        doc="docs/how-to/nginx.md",
        in_place=in_place,
    )


def _ssh(facts: Facts, why: str) -> Recipe:
    target = f"{facts.user}@{facts.host}"
    by_hand = f"ssh -N -o ServerAliveInterval=60 -L {facts.port}:127.0.0.1:{facts.port} {target}"
    return Recipe(
        name="ssh-tunnel",
        title="ssh tunnel",
        why=why,
        here=(),
        there=(
            f"openclaw tunnel open {target}   (or: {by_hand})",
            "openclaw status --url ws://127.0.0.1:<port> --token <the gateway's token>",
        ),
        security="medium",
        complexity="low",
        doc="docs/how-to/ssh-tunnels.md",
    )


def _lan(facts: Facts) -> Recipe:
    secure = () if facts.tls else ("openclaw config set gateway.tls.enabled true --confirm 60s", _CONFIRM)
    return Recipe(
        name="lan-tls",
        title="this network, with TLS",
        why="neither a tailnet nor ssh is there, and it is for now",
        here=(*secure, "openclaw config set gateway.bind lan --confirm 60s", _CONFIRM, "openclaw qr"),
        there=("take the code of openclaw qr: it holds the address and the certificate's pin",),
        security="medium",
        complexity="low",
        doc="docs/how-to/pair-a-phone.md",
    )


def _dial(url: str) -> tuple[str, ...]:
    return (
        "openclaw config set gateway.mode remote",
        f"openclaw config set gateway.remote.url {url}",
        "openclaw config set gateway.remote.token <token>   (here: openclaw gateway auth-token --show)",
        "openclaw status   (says which device to approve here, once)",
    )


def _wss(url: str) -> str:
    return "wss://" + url.removeprefix("https://").removeprefix("wss://")
