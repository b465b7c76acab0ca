"""A node that was told no address looks around for its gateway (seed S090).

Owns when it looks, and which of what it finds may be used without a person's word. It must not keep what it found, and
sends no secret itself. The rule (attack V39), decided so:

* An address from a flag, a code or the environment ends the matter. So does the gateway that let us in last, while it
  answers there, and a gateway of this machine.
* A gateway that was found is used by itself only where it is the only paired one, speaks TLS, and its certificate is
  pinned before a byte is sent: by the kept fingerprint, else by the one that a kept identity signed. Then it gets what
  the gateway at its old address would get. A beacon alone is no such proof: anybody can repeat it from another address.
* Everything else is listed, with the command that a person runs to use it: without TLS nobody proves who answers.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import trio

from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.resolve import URL_VARIABLE
from openclaw_gateway.nodes.host.destination import Asked, Destination, secret_for
from openclaw_gateway.nodes.host.errors import NodeError
from openclaw_gateway.nodes.host.keeping import Keeping

if TYPE_CHECKING:
    from openclaw_gateway.discovery.found import FoundGateway

__all__ = ["LOOK_SECONDS", "find_destination", "judge_found", "wants_to_look"]

LOOK_SECONDS: Final = 2.0
_KNOCK_SECONDS: Final = 1.0
_MAX_LISTED: Final = 10


def wants_to_look(asked: Asked, env: Mapping[str, str]) -> bool:
    """False where a person or the environment named the gateway."""
    named = asked.url or asked.host or asked.tls or asked.port or asked.setup
    return not named and not env.get(URL_VARIABLE, "").strip()


async def find_destination(
    asked: Asked, env: Mapping[str, str], keeping: Keeping, *, seconds: float = LOOK_SECONDS
) -> Destination | None:
    """Where to go instead of the usual place; None where the usual order of sources holds. Looks for ``seconds`` at
    most, and not at all where it is not needed.

    Raises `NodeError` where only gateways were found that a person has to choose from.
    """
    if not wants_to_look(asked, env):
        return None
    latest = keeping.latest()
    if latest is not None:
        if await _answers(latest.url):
            return None
    elif _gateway_lives_here(env):
        return None
    found = await _look(env, seconds, wanted=latest is not None)
    chosen = judge_found(found, asked, env, keeping)
    if chosen is None and found and latest is None:
        raise NodeError(_listed(found), f"openclaw node run {_flags(found[0])}   (with the one that you mean)")
    return chosen


def judge_found(
    found: Sequence[FoundGateway], asked: Asked, env: Mapping[str, str], keeping: Keeping
) -> Destination | None:
    """The one gateway that may be used without a person's word, or None."""
    fit = [(row, pin) for row in found if (pin := _pin(row)) is not None]
    if len(fit) != 1:
        return None
    row, pin = fit[0]
    kept = next((one for one in keeping.gateways() if row.known is not None and one.url == row.known.url), None)
    return Destination(
        url=row.url,
        source=f"found on this network, proved to be {row.known.source if row.known is not None else 'paired'}",
        secret=secret_for(asked, env),
        tls_fingerprint=pin,
        device_token=kept.device_token if kept is not None else None,
    )


def _pin(row: FoundGateway) -> str | None:
    """The fingerprint that ``row`` has to show before anything is sent to it; None where it may not be used."""
    if row.trust != "paired" or row.known is None or not row.tls or not row.addresses:
        return None
    return row.known.tls_sha256 or (row.advert.tls_sha256 if row.signature == "signed" else None)


async def _answers(url: str) -> bool:
    from openclaw_gateway.discovery.probe import probe

    address = GatewayAddress.parse(url, allow_insecure=True)
    return (await probe(address.host, address.port, tls=address.tls, timeout=_KNOCK_SECONDS)).ok


def _gateway_lives_here(env: Mapping[str, str]) -> bool:
    """Whether this machine has, or had, a gateway of its own, or is set up for a remote one."""
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.paths import config_path, state_dir
    from openclaw_gateway.ops.instance import read_holder
    from openclaw_gateway.pairing.identity import IDENTITY_FILE

    directory = state_dir(env)
    if config_path(env).exists() or (directory / "credentials" / IDENTITY_FILE).exists():
        return True
    return read_holder(directory) is not None or load_config(env=env).config.mode == "remote"


async def _look(env: Mapping[str, str], seconds: float, *, wanted: bool) -> list[FoundGateway]:
    """What is around; with ``wanted`` it ends as soon as a paired one was found that may be used."""
    from openclaw_gateway.client.discovery import discover
    from openclaw_gateway.discovery.known import known_gateways

    async with discover(known=known_gateways(env)) as found:
        with trio.move_on_after(seconds):
            async for change in found:
                if wanted and _pin(change.gateway) is not None:
                    break
        return list(found.gateways)


def _listed(found: Sequence[FoundGateway]) -> str:
    shown = "; ".join(f"{_quoted(row.name)} at {row.url} ({row.trust})" for row in found[:_MAX_LISTED])
    more = f" and {len(found) - _MAX_LISTED} more" if len(found) > _MAX_LISTED else ""
    return f"no gateway was named, and none of those around is proved to be yours: {shown}{more}"


def _quoted(name: str) -> str:
    """So that nobody's name reads like a sentence of ours."""
    return '"' + name.replace('"', "'") + '"'


def _flags(row: FoundGateway) -> str:
    address = shlex.quote(row.address or row.host)  # a name is a stranger's text, and this is to be pasted
    tls = f" --tls --tls-fingerprint {row.advert.tls_sha256}" if row.tls and row.advert.tls_sha256 else ""
    return f"--host {address} --port {row.port}{tls}"
