"""``openclaw doctor --network``: every address at which the gateway can be reached, asked from outside its process.

Owns finding the doors (the running gateway's listeners, this host's addresses, tailscale, tunnels, the proxy's name,
ssh) and knocking at each. It must not judge: `policy.exposure` says who may use a door and whether it should be open.

Invariants: nothing but GET /healthz is sent, to addresses of this host, of its own configuration and of tailscaled;
a door with a certificate is asked with that certificate pinned; `MAX_DOORS` doors at most, `AT_ONCE` at a time, each
within `SECONDS`; what cannot be found out is said, not left out.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs

from openclaw_gateway.policy.exposure import Door, Judgement, Posture, judge_door, kind_of_address

if TYPE_CHECKING:
    from openclaw_gateway.client.address import GatewayAddress
    from openclaw_gateway.config.load import LoadedConfig

__all__ = ["NetworkReport", "Survey", "ask_gateway", "look_around", "ssh_answers"]

MAX_DOORS: Final = 64
AT_ONCE: Final = 16
SECONDS: Final = 3.0
_ANY: Final = {"0.0.0.0": ("127.0.0.1", 4), "::": ("::1", 6)}  # noqa: S104 - compared, not bound
_SSH_PORT: Final = 22


@attrs.frozen(kw_only=True)
class Survey:
    """What is asked for, before anybody knocked. ``trouble``: why the running gateway could not be asked."""

    doors: tuple[Door, ...]
    posture: Posture
    pins: Mapping[str, str] = attrs.field(factory=dict)  # url -> certificate's fingerprint
    trouble: str | None = None
    fix: str | None = None
    truncated: int = 0


@attrs.frozen(kw_only=True)
class NetworkReport:
    doors: tuple[tuple[Door, Judgement], ...]
    trouble: str | None = None
    fix: str | None = None
    truncated: int = 0

    @property
    def failed(self) -> int:
        return sum(1 for _, judged in self.doors if judged.state == "fail") + (self.trouble is not None)

    @property
    def warned(self) -> int:
        return sum(1 for _, judged in self.doors if judged.state == "warn")


def look_around(env: Mapping[str, str]) -> NetworkReport:
    """Find and judge every door. Takes up to some seconds; reads files, writes none. Raises `ConfigError`."""
    import trio

    return trio.run(_look_around, env)


async def _look_around(env: Mapping[str, str]) -> NetworkReport:
    import trio

    survey = await _survey(env)
    found: dict[int, Door] = {}
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def ask(index: int, door: Door) -> None:
        async with limiter:
            found[index] = await _knock(door, survey.pins.get(door.url), env)

    async with trio.open_nursery() as nursery:
        for index, door in enumerate(survey.doors):
            nursery.start_soon(ask, index, door)
    # A server of somebody else's that is not there is no door, and nothing to mend.
    doors = [found[index] for index in sorted(found) if found[index].kind != "ssh" or found[index].answers]
    return NetworkReport(
        doors=tuple((door, judge_door(door, survey.posture)) for door in doors),
        trouble=survey.trouble,
        fix=survey.fix,
        truncated=survey.truncated,
    )


# --- finding


async def _survey(env: Mapping[str, str]) -> Survey:
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.config.secrets import resolve_auth
    from openclaw_gateway.server.addresses import in_container

    loaded = load_config(env=env)
    config, state = loaded.config, state_dir(env)
    auth = resolve_auth(config, state, env, overridden=loaded.overridden, create=False)
    token = len(auth.token) if auth.token is not None else None
    if auth.type == "token" and token is None:
        token = 43  # the one that the first start makes
    posture = Posture(trusted_proxies=bool(config.trusted_proxies), token_length=token, container=in_container())
    listeners, status, trouble, fix = await ask_gateway(env)
    if listeners is None and trouble is not None:
        listeners = _from_note(loaded, state)
    doors: list[Door] = []
    pins: dict[str, str] = {}
    for listener in listeners or ():
        for door in _doors_of(listener, auth.type):
            doors.append(door)
            if listener.get("tlsFingerprint"):
                pins[door.url] = str(listener["tlsFingerprint"])
    doors += _tailscale_door(status, auth.type)
    doors += _tunnel_doors(status, auth.type)
    if config.public_url is not None and config.mode == "local":
        tls = config.public_url.startswith(("https://", "wss://"))
        doors.append(Door(kind="proxy", url=config.public_url, listener="main", tls=tls, auth=auth.type))
    if config.mode == "remote" and config.remote.url is not None:
        tls = config.remote.url.startswith(("https://", "wss://"))
        doors.append(Door(kind="proxy", url=config.remote.url, listener="remote", tls=tls, auth="token"))
        if config.remote.tls_fingerprint is not None:
            pins[config.remote.url] = config.remote.tls_fingerprint
    doors.append(Door(kind="ssh", url=f"ssh://{socket.gethostname()}:{_SSH_PORT}", listener="ssh", auth=None))
    kept = tuple(doors[:MAX_DOORS])
    return Survey(doors=kept, posture=posture, pins=pins, trouble=trouble, fix=fix, truncated=len(doors) - len(kept))


async def ask_gateway(
    env: Mapping[str, str],
) -> tuple[list[dict[str, Any]] | None, dict[str, Any], str | None, str | None]:
    """The listeners and the status of this host's running gateway; else why not, and what helps."""
    from openclaw_gateway.client.errors import CallTimedOut, ClientClosed, ConnectFailed
    from openclaw_gateway.client.reach import open_reached
    from openclaw_gateway.client.resolve import TargetError, resolve_target
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.errors import CallFailed
    from openclaw_gateway.ops.instance import read_holder

    if read_holder(state_dir(env)) is None:
        if load_config(env=env).config.mode == "remote":
            text = "gateway.mode is remote: the gateway's doors are seen on its own host"
            return None, {}, text, "run the same command there"
        return None, {}, "no gateway runs here", "openclaw gateway start"
    try:
        target = resolve_target(env=env)
        async with open_reached(target, timeout=SECONDS) as client:
            rows = (await client.call("gateway.listeners", timeout=SECONDS))["listeners"]
            return rows, await client.call("status", timeout=SECONDS), None, None
    except (ConnectFailed, TargetError, CallFailed, CallTimedOut, ClientClosed) as error:
        text = f"the running gateway cannot be asked where it listens: {error}"
        return None, {}, text, getattr(error, "fix", None) or "openclaw doctor"


def _from_note(loaded: LoadedConfig, state: Path) -> list[dict[str, Any]]:
    """What the lock's note and the configuration say, where the gateway itself does not."""
    from openclaw_gateway.ops.instance import read_holder
    from openclaw_gateway.server.addresses import BindFailed, bind_addresses

    holder = read_holder(state)
    if holder is None or holder.port is None:
        return []
    config = loaded.config
    try:
        hosts = bind_addresses(attrs.evolve(config, bind=holder.bind or config.bind))
    except BindFailed:
        hosts = ["127.0.0.1"]
    return [
        {
            "name": "main",
            "addresses": [{"host": host, "port": holder.port} for host in hosts],
            "tls": (holder.url or "").startswith("wss://"),
        }
    ]


def _doors_of(listener: Mapping[str, Any], auth: str) -> list[Door]:
    """One door for each address at which a listener can be reached; those of tailscaled and of tunnels are others'."""
    from openclaw_gateway.server.addresses import own_tailnet_address
    from openclaw_gateway.server.ownaddresses import own_lan_addresses

    provenance = listener.get("provenance", "direct")
    if provenance != "direct":
        return []  # a listener for tailscaled or a tunnel alone; its door is the other end
    tls = bool(listener.get("tls"))
    hosts: dict[tuple[str, int], None] = {}
    for place in listener.get("addresses", ()):
        host, port = str(place["host"]), int(place["port"])
        if host not in _ANY:
            hosts[host, port] = None
            continue
        own, version = _ANY[host]
        tailnet = own_tailnet_address()
        every = [own, *own_lan_addresses(), *([tailnet] if tailnet is not None else [])]
        hosts.update(dict.fromkeys((each, port) for each in every if version == 6 or ":" not in each))
    return [
        Door(
            kind=kind_of_address(host),
            url=f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}",
            listener=str(listener.get("name", "main")),
            tls=tls,
            fingerprint=listener.get("tlsFingerprint"),
            auth=listener.get("auth") or auth,
            network=bool(listener.get("allow")),
            proxy_only=bool(listener.get("proxyProtocol")),
            scopes=tuple(listener["scopes"]) if listener.get("scopes") is not None else None,
            methods=tuple(listener["methods"]) if listener.get("methods") is not None else None,
        )
        for host, port in hosts
    ]


def _tailscale_door(status: Mapping[str, Any], auth: str) -> list[Door]:
    found = status.get("tailscale") or {}
    mode, url = found.get("mode"), found.get("url")
    if mode not in {"serve", "funnel"}:
        return []
    if not url:
        fault = found.get("reason") or f"tailscale is {found.get('state')}"
        name = found.get("dnsName") or "(no name yet)"
        door = Door(kind=mode, url=f"https://{name}", listener="tailscale", tls=True, auth=auth)
        return [attrs.evolve(door, answers=False, fault=str(fault))]
    return [Door(kind=mode, url=str(url), listener="tailscale", tls=True, auth=auth)]


def _tunnel_doors(status: Mapping[str, Any], auth: str) -> list[Door]:
    """The far ends of tunnels that others reach us through; whether one stands is the tunnel's own word."""
    doors = []
    for row in status.get("tunnels") or ():
        if not isinstance(row, Mapping) or row.get("direction") != "remote":
            continue
        up = row.get("state") == "up"
        where = f"{row.get('target')}, port {row.get('bindPort')} there"
        fault = None if up else str(row.get("message") or f"the tunnel is {row.get('state')}")
        name = str(row.get("name"))
        doors.append(
            Door(kind="tunnel", url=f"ssh -R to {where}", listener=name, tls=True, auth=auth, answers=up, fault=fault)
        )
    return doors


# --- knocking


async def _knock(door: Door, pin: str | None, env: Mapping[str, str]) -> Door:
    import trio

    from openclaw_gateway.client.errors import ConnectFailed
    from openclaw_gateway.client.http import get
    from openclaw_gateway.client.resolve import own_certificate
    from openclaw_gateway.config.paths import state_dir

    if door.answers is not None:
        return door
    if door.kind == "ssh":
        with trio.move_on_after(SECONDS):
            return attrs.evolve(door, answers=await ssh_answers())
        return attrs.evolve(door, answers=False)
    began = trio.current_time()
    try:
        certificate = own_certificate(state_dir(env)) if door.tls else None
        answer = await get(
            _address(door.url), "/healthz", timeout=SECONDS, tls_fingerprint=pin, client_certificate=certificate
        )
    except ConnectFailed as error:
        # A gateway that asks for a certificate which this host has not is there all the same.
        there = error.stage == "tls" and "client certificate" in error.message
        return attrs.evolve(door, answers=there, fault=f"{error.message} (at {error.stage})")
    took = round((trio.current_time() - began) * 1000, 1)
    if answer.status != 200:
        return attrs.evolve(door, answers=False, fault=f"HTTP {answer.status}, not this gateway's 200")
    return attrs.evolve(door, answers=True, round_trip_ms=took)


def _address(url: str) -> GatewayAddress:
    from openclaw_gateway.client.address import GatewayAddress

    return GatewayAddress.parse(url, allow_insecure=True)


async def ssh_answers(host: str = "127.0.0.1", port: int = _SSH_PORT) -> bool:
    """Whether an ssh server greets at that address of this host. Never raises for what the network does."""
    import trio

    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError:
        return False
    try:
        return (await stream.receive_some(64)).startswith(b"SSH-")
    except trio.BrokenResourceError:
        return False
    finally:
        await trio.aclose_forcefully(stream)
