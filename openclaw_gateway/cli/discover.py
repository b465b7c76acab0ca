"""``devices discover`` and ``gateway discover``: the gateways around, as people and programs read them.

Owns the flags, the lines (those of the seed, to the byte), OpenClaw's keys under ``--json``, and the sentence for an
empty result. It must not know how gateways are found (`client.discovery`), and dials, keeps and trusts nothing (attack
V39). Invariants: standard output holds the lines alone, what is to be said about a gateway beyond them goes to standard
error; everything that came from the network is clean (`discovery.found`); the first gateway is shown as soon as it
said all that it will say, not when the time is over.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from openclaw_gateway.cli.output import print_json, printable

if TYPE_CHECKING:
    from openclaw_gateway.client.discovery import Discovery
    from openclaw_gateway.discovery.found import Change, FoundGateway

__all__ = ["discover", "gateway_discover"]

DOMAIN_VARIABLE: Final = "OPENCLAW_WIDE_AREA_DOMAIN"
DEFAULT_MS: Final = 2000
MAX_MS: Final = 600_000
SETTLE_SECONDS: Final = 0.25  # for the other service type
PROBE_WAIT_SECONDS: Final = 0.6  # for the answer of the probe
_LOOK_SECONDS: Final = 0.05
_LOCAL: Final = "local."


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--nameserver", metavar="HOST[:PORT]", help="Ask this DNS server for the domains, not the system's."
        ),
        click.option("--domain", "domains", multiple=True, metavar="DOMAIN", help="Also ask DNS for this domain."),
        click.option("--watch", is_flag=True, help="Go on, and tell who comes, changes and goes (Ctrl-C ends it)."),
        click.option(
            "--timeout", type=click.IntRange(1, MAX_MS), metavar="MS",
            help=f"Look for so many milliseconds (default {DEFAULT_MS}; with --watch: for ever).",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch a line for each change."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@_options
def discover(as_json: bool, timeout: int | None, watch: bool, domains: tuple[str, ...], nameserver: str | None) -> None:
    """Find gateways on this network, and in DNS where a wide-area domain is set. Nothing is dialled with a secret, and
    nothing is kept. Exit code 1 where none is found."""
    if _discover(as_json, timeout, watch, domains, nameserver) == 0 and not watch:
        raise click.exceptions.Exit(1)


@click.command("discover")
@_options
def gateway_discover(
    as_json: bool, timeout: int | None, watch: bool, domains: tuple[str, ...], nameserver: str | None
) -> None:
    """Find gateways on this network, and in DNS where a wide-area domain is set. Exit code 0 also where none is found,
    as with OpenClaw's own command."""
    _discover(as_json, timeout, watch, domains, nameserver)


def _discover(as_json: bool, timeout: int | None, watch: bool, named: tuple[str, ...], nameserver: str | None) -> int:
    """How many were found."""
    import trio

    from openclaw_gateway.discovery.known import known_gateways

    _take_any_character()
    notes: list[str] = []
    wide, remote = _configured(notes)
    domains = _domains([*named, *wide], nameserver)
    known = known_gateways(os.environ, remote, notes.append)
    view: _View = _Collected() if as_json and not watch else _Stream() if as_json else _Lines(watch=watch)
    seconds = (timeout or DEFAULT_MS) / 1000 if not watch or timeout is not None else None

    async def look() -> tuple[Discovery, bool]:
        from openclaw_gateway.client import discover as looking

        interrupted = False

        async def heed(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
            nonlocal interrupted
            await anext(signals)
            interrupted = True
            scope.cancel()

        # As an exception Ctrl-C would break into whatever runs, which on a busy network is the browser.
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with (
                looking(known=known, domains=domains, nameserver=nameserver) as found, trio.open_nursery() as nursery
            ):  # fmt: skip
                nursery.start_soon(heed, signals, nursery.cancel_scope)
                with trio.move_on_after(seconds if seconds is not None else float("inf")):
                    while True:
                        with trio.move_on_after(_LOOK_SECONDS):
                            view.take(await anext(found), trio.current_time())
                        view.look(trio.current_time())
                nursery.cancel_scope.cancel()
        if not interrupted:
            view.end()
        return found, interrupted

    found, interrupted = trio.run(look)
    if interrupted:
        if watch:
            return 0
        raise KeyboardInterrupt
    problems = [*found.problems, *notes]
    if found.dropped:
        problems.append(f"{found.dropped} answers found no place in the list")
    gateways = found.gateways
    if as_json and not watch:
        print_json(
            {
                "timeoutMs": timeout or DEFAULT_MS,
                "domains": [_LOCAL, *domains],
                "count": len(gateways),
                "beacons": [_beacon(row) for row in gateways],
                "problems": problems,
            }
        )
    elif not gateways and not watch:
        _explain_nothing(problems, domains, seconds or 0)
    elif not as_json:
        for problem in problems:
            click.echo(f"note: {printable(problem, 300)}", err=True)
    return len(gateways)


def _take_any_character() -> None:
    """A neighbour's name that this terminal's encoding lacks is shown escaped; it must not end the listing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _configured(notes: list[str]) -> tuple[list[str], Any]:
    """The domain of the configuration, else of the environment, and ``gateway.remote``; a broken file costs a note."""
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.errors import GatewayError

    remote, domain = None, None
    try:
        config = load_config(env=os.environ).config
        remote, domain = config.remote, config.discovery.wide_area.domain
    except (OSError, GatewayError) as error:
        notes.append(f"the configuration was not used: {error}")
    domain = domain or os.environ.get(DOMAIN_VARIABLE, "").strip()
    return [domain] if domain else [], remote


def _domains(named: list[str], nameserver: str | None) -> list[str]:
    from openclaw_gateway.discovery.zone import normal_domain

    try:
        found = list(dict.fromkeys(normal_domain(name) for name in named))
        if nameserver is not None:
            from openclaw_gateway.discovery.unicast import read_nameserver

            read_nameserver(nameserver)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if nameserver is not None and not found:
        raise click.UsageError("--nameserver needs a domain to ask it for: --domain openclaw.internal")
    return found


# --- what is shown


class _View:
    """Takes changes; ``look`` is called many times a second, ``end`` when the time is over."""

    def take(self, change: Change, now: float) -> None:
        raise NotImplementedError

    def look(self, now: float) -> None:
        return

    def end(self) -> None:
        return


class _Collected(_View):
    def take(self, change: Change, now: float) -> None:
        return


class _Stream(_View):
    """A line of JSON for each change."""

    def take(self, change: Change, now: float) -> None:
        import msgspec

        line = {"event": change.kind, "ts": round(time.time() * 1000), "beacon": _beacon(change.gateway)}
        click.echo(msgspec.json.encode(line).decode())


class _Lines(_View):
    """The seed's lines, each gateway once; with ``watch`` also what becomes of it."""

    def __init__(self, *, watch: bool) -> None:
        self._watch = watch
        self._waiting: dict[str, tuple[float, FoundGateway]] = {}
        self._shown: dict[str, FoundGateway] = {}

    def take(self, change: Change, now: float) -> None:
        row = change.gateway
        if change.kind == "removed":
            self._waiting.pop(row.key, None)
            if self._shown.pop(row.key, None) is not None and self._watch:
                _say("Lost OpenClaw Gateway:", _host_line(row))
        elif row.key in self._shown:
            before = self._shown[row.key]
            self._shown[row.key] = row
            if self._watch and _told(row) != _told(before):
                _say("Changed OpenClaw Gateway:", *list(_lines(row))[1:])
                _remark(row)
        else:
            since, _ = self._waiting.get(row.key, (now, row))
            self._waiting[row.key] = (since, row)

    def look(self, now: float) -> None:
        for key, (since, row) in list(self._waiting.items()):
            complete = len(row.service_types) > 1 or now - since >= SETTLE_SECONDS
            # An IPv6 answer may come first and carry a link-local address alone; the others follow at once.
            seen_well = row.reach is not None and not row.reach.address.startswith("fe80:")
            if complete and (seen_well or now - since >= PROBE_WAIT_SECONDS):
                self._show(key)

    def end(self) -> None:
        for key in list(self._waiting):
            self._show(key)

    def _show(self, key: str) -> None:
        _, row = self._waiting.pop(key)
        self._shown[key] = row
        _say(*_lines(row))
        _remark(row)


def _say(*lines: str) -> None:
    click.echo("\n".join(lines))


def _lines(row: FoundGateway) -> Iterator[str]:
    """The lines of the seed: host, capabilities, version."""
    advert = row.advert
    yield "Found OpenClaw Gateway:"
    yield _host_line(row)
    yield f"  Capabilities: {', '.join(advert.capabilities) or advert.role or 'unknown'}"
    version = advert.version or "unknown"
    yield f"  Version: {'v' if version[:1].isdigit() else ''}{version}"


def _host_line(row: FoundGateway) -> str:
    address = row.address or row.host
    return f"  Host: {row.host} ({f'[{address}]' if ':' in address else address}:{row.port})"


def _told(row: FoundGateway) -> tuple[object, ...]:
    return (*_lines(row), row.trust, row.signature, row.reach.ok if row.reach is not None else None)


_SIGNED: Final = {
    "signed": "signed",
    "unsigned": "not signed",
    "expired": "its signature is older than a day, or the clocks differ",
    "forged": "its signature does not fit what it says",
}


def _remark(row: FoundGateway) -> None:
    """What is to be said beyond the lines: who it is to us, and whether it answers."""
    signed = _SIGNED[row.signature]
    if row.trust == "paired":
        text = f"  Trust: paired, proved by {'its signature' if row.signature == 'signed' else 'its certificate'}"
    elif row.trust == "different-key":
        text = f"  Trust: DIFFERENT KEY than {_acquaintance(row)}; do not connect before you know why ({signed})"
    else:
        text = f"  Trust: unknown ({signed})"
    click.echo(text, err=True)
    if row.reach is not None and not row.reach.ok:
        click.echo(f"  Reachable: no ({printable(row.reach.fault or 'no answer', 120)})", err=True)


def _acquaintance(row: FoundGateway) -> str:
    return printable(row.known.source) if row.known is not None and row.known.source else "the known gateway"


def _beacon(row: FoundGateway) -> dict[str, Any]:
    """OpenClaw's keys, then ours. ``host`` and ``port`` are those of the SRV record, ``wsUrl`` is made of them."""
    advert, reach = row.advert, row.reach
    theirs = {
        "instanceName": row.instance,
        "displayName": advert.display_name or row.instance,
        "host": row.host,
        "port": row.port,
        "txt": dict(row.txt) or None,
        "lanHost": advert.lan_host,
        "tailnetDns": advert.tailnet_dns,
        "cliPath": advert.cli_path,
        "role": advert.role,
        "transport": advert.transport,
        "gatewayPort": advert.port,
        "sshPort": advert.ssh_port,
        "gatewayTls": advert.tls or None,
        "gatewayTlsFingerprintSha256": advert.tls_sha256,
        "domain": row.domains[0],
    }
    ours = {
        "wsUrl": row.ws_url,
        "url": row.url,
        "id": row.id,
        "addresses": list(row.addresses),
        "domains": list(row.domains),
        "serviceTypes": list(row.service_types),
        "version": advert.version,
        "capabilities": list(advert.capabilities),
        "auth": advert.auth,
        "signature": row.signature,
        "signer": row.signer,
        "trust": row.trust,
        "reachable": reach.ok if reach is not None else None,
        "latencyMs": reach.ms if reach is not None else None,
        "seenTlsSha256": reach.fingerprint if reach is not None else None,
        "fault": reach.fault if reach is not None else None,
    }
    return {**{key: value for key, value in theirs.items() if value is not None}, **ours}


def _explain_nothing(problems: list[str], domains: list[str], seconds: float) -> None:
    """Why nothing was found, as far as this side can tell, and the one command to run next."""
    from openclaw_gateway.discovery.environment import why_not_here

    here = why_not_here()
    why = list(problems)
    own = _own_unannounced()
    if own is not None:
        why.insert(0, f"this host's own gateway ({own}) listens on loopback only (gateway.bind): it announces nothing")
    if here is not None:
        why.append(here.partition(";")[0])
    if not problems:
        why.append("many networks (guest Wi-Fi, VPNs, VLANs) drop multicast")
    if not problems and own is None:
        why.append("a gateway that listens on loopback only (gateway.bind) announces nothing")
    if not domains:
        why.append("no wide-area domain is set (discovery.wideArea.domain), so DNS was not asked")
    click.echo(f"openclaw: no gateway was found in {seconds:g} s", err=True)
    for line in why:
        click.echo(f"  why: {printable(line, 300)}", err=True)
    fix = "openclaw status   (on the gateway's host: its row discovery says what it announces)"
    if here is not None or any("multicast" in problem for problem in problems):
        fix = "openclaw gateway probe --url ws://HOST:18789 --token TOKEN   (with the gateway's address)"
    if own is not None:
        fix = "openclaw config set gateway.bind lan --confirm 60s   (to be found; on this host: openclaw status)"
    click.echo(f"  fix: {fix}", err=True)


def _own_unannounced() -> str | None:
    """Where this host's own gateway listens, where nobody else can hear of it."""
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.ops.instance import read_holder

    holder = read_holder(state_dir(os.environ))
    return holder.url if holder is not None and holder.bind == "loopback" else None
