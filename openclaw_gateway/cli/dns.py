"""``openclaw dns setup``: the exact steps that make a gateway known by DNS.

Owns the flags and the plan that is printed; with ``--apply`` it writes a first zone and the server's configuration
beside it, nothing else. It must not install, start or reconfigure any program of this machine: those steps need root
and a person, and are printed as commands. Invariant: what is printed can be pasted as it stands.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from openclaw_gateway.cli.discover import DOMAIN_VARIABLE
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import print_json

if TYPE_CHECKING:
    from openclaw_gateway.config.schema import GatewayConfig

__all__ = ["dns", "setup"]

_HERE = "openclaw_gateway.cli.dns"
_EXAMPLE: Final = "openclaw.internal"


@click.group(cls=LazyGroup, table={"setup": (f"{_HERE}:setup", "Print the steps to be found by DNS (unicast DNS-SD).")})
def dns() -> None:
    """Be found by DNS where multicast does not reach: over a tailnet, or between networks."""


@attrs.frozen(kw_only=True)
class _Plan:
    domain: str  # with its last dot
    configured: bool
    zone_file: Path
    corefile: Path
    addresses: tuple[str, ...]  # of the DNS server: this host's on the tailnet, else on the LAN
    tailnet: str | None
    bind: str

    @property
    def bare(self) -> str:
        return self.domain.removesuffix(".")


@click.command()
@click.option("--domain", metavar="DOMAIN", help=f"The domain to serve (e.g. {_EXAMPLE}).")
@click.option("--apply", is_flag=True, help="Write a first zone file and the DNS server's configuration.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def setup(domain: str | None, apply: bool, as_json: bool) -> None:
    """Print the steps that make this gateway known by DNS: the gateway's settings, the DNS server, the tailnet."""
    plan = _make_plan(domain)
    written = _apply(plan) if apply else []
    if as_json:
        print_json({**_facts(plan), "written": written, "steps": [step for _, lines in _steps(plan) for step in lines]})
        return
    click.echo("DNS setup")
    for label, value in (
        ("Domain", plan.domain), ("Zone file", str(plan.zone_file)), ("Tailnet IP", plan.tailnet or "none found"),
        ("DNS server", ", ".join(plan.addresses) or "none found: bring the tailnet or the LAN up first"),
    ):  # fmt: skip
        click.echo(f"  {label + ':':<12} {value}")
    for number, (title, lines) in enumerate(_steps(plan), 1):
        click.echo(f"\n{number}. {title}")
        for line in lines:
            click.echo(f"   {line}")
    for path in written:
        click.echo(f"\nWritten: {path}")
    if not apply:
        click.echo("\nWith --apply the zone file and the Corefile are written now; the rest stays yours.")


def _make_plan(domain: str | None) -> _Plan:
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.discovery.widearea import reachable_addresses, zone_path
    from openclaw_gateway.discovery.zone import normal_domain
    from openclaw_gateway.server.addresses import own_tailnet_address

    config: GatewayConfig = load_config(env=os.environ).config
    configured = config.discovery.wide_area.domain
    named = domain or configured or os.environ.get(DOMAIN_VARIABLE, "").strip()
    if not named:
        raise click.UsageError(
            f"no domain is set. Give one with --domain {_EXAMPLE}, or: "
            f"openclaw config set discovery.wideArea.domain {_EXAMPLE}"
        )
    try:
        zone = normal_domain(named)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    directory = state_dir(os.environ)
    path = zone_path(attrs.evolve(config.discovery.wide_area, domain=zone), directory)
    assert path is not None
    return _Plan(
        domain=zone,
        configured=configured == zone,
        zone_file=path,
        corefile=path.parent / "Corefile",
        addresses=reachable_addresses(("0.0.0.0", "::")),  # noqa: S104 - asked for, not bound
        tailnet=own_tailnet_address(),
        bind=config.bind,
    )


def _steps(plan: _Plan) -> list[tuple[str, list[str]]]:
    server = plan.addresses[0] if plan.addresses else "<this host's tailnet IP>"
    return [
        ("This gateway", _settings(plan)),
        ("The DNS server on this host: CoreDNS, which reads the file again by itself", _with_coredns(plan)),
        ("Or BIND (Debian: sudo apt-get install bind9)", _with_bind(plan)),
        ("Who asks", _resolvers(plan, server)),
        (
            "Check it from another machine",
            [
                f"dig @{server} _openclaw-gw._tcp.{plan.bare} PTR +short",
                f"openclaw devices discover --domain {plan.bare}",
            ],
        ),
    ]


def _settings(plan: _Plan) -> list[str]:
    lines = [f"openclaw config set discovery.wideArea.domain {plan.bare}"] if not plan.configured else []
    if plan.bind in {"loopback", "localhost"}:
        lines.append(f"openclaw config set gateway.bind {'tailnet' if plan.tailnet else 'lan'}")
    return lines or ["nothing to do: the domain is set, and the gateway does not listen on loopback alone"]


def _with_coredns(plan: _Plan) -> list[str]:
    return [*_corefile(plan).splitlines(), f"sudo coredns -conf {shlex.quote(str(plan.corefile))}"]


def _with_bind(plan: _Plan) -> list[str]:
    """BIND runs as another user, who may not enter the state directory, and reads a zone again only when it is told."""
    folder = "/var/lib/bind/openclaw"
    zone_file = f"{folder}/{plan.bare}.db"
    stanza = f'zone "{plan.bare}" {{ type primary; file "{zone_file}"; }};'
    cron = f"*/5 * * * * root rndc reload {plan.bare} >/dev/null"
    return [
        f'sudo install -d -o "$USER" -g bind -m 755 {folder}',
        f"openclaw config set discovery.wideArea.zoneFile {zone_file}",
        f"echo {shlex.quote(stanza)} | sudo tee -a /etc/bind/named.conf.local",
        "sudo rndc reconfig",
        f"echo {shlex.quote(cron)} | sudo tee /etc/cron.d/openclaw-zone",
    ]


def _resolvers(plan: _Plan, server: str) -> list[str]:
    if plan.tailnet is None:
        return [f"this host has no tailnet: let the resolver of your network forward {plan.bare} to {server}"]
    return [
        "https://login.tailscale.com/admin/dns → Nameservers → Add nameserver → Custom",
        f"Nameserver: {server}",
        f"Restrict to domain (Split DNS): {plan.bare}",
    ]


def _corefile(plan: _Plan) -> str:
    bind = f"    bind {' '.join(plan.addresses)}\n" if plan.addresses else ""
    return f"{plan.bare}:53 {{\n{bind}    file {plan.zone_file} {{\n        reload 10s\n    }}\n    errors\n}}\n"


def _apply(plan: _Plan) -> list[str]:
    """Write the Corefile, and a zone that says nothing yet where there is none. Raises OSError."""
    from openclaw_gateway.discovery.widearea import write_zone_file
    from openclaw_gateway.discovery.zone import Zone, next_serial, zone_text

    if not plan.addresses:
        raise click.UsageError("no address that others reach was found on this host; bring the tailnet or the LAN up")
    written: list[str] = []
    write_zone_file(plan.corefile, _corefile(plan))
    written.append(str(plan.corefile))
    if not plan.zone_file.exists():
        empty = Zone(domain=plan.domain, instance="", host="ns1", port=0, addresses=plan.addresses, txt={})
        write_zone_file(plan.zone_file, zone_text(empty, next_serial(None, time.strftime("%Y%m%d", time.gmtime()))))
        written.append(str(plan.zone_file))
    return written


def _facts(plan: _Plan) -> dict[str, Any]:
    addresses: Sequence[str] = plan.addresses
    return {
        "domain": plan.domain,
        "zoneFile": str(plan.zone_file),
        "corefile": str(plan.corefile),
        "tailnetIPv4": plan.tailnet,
        "nameservers": list(addresses),
        "configured": plan.configured,
        "recommended": {
            "gateway": {"bind": "tailnet" if plan.tailnet else "lan"},
            "discovery": {"wideArea": {"domain": plan.bare}},
        },
    }
