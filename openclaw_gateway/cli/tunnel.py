"""``openclaw tunnel``: ssh tunnels by hand, and a look at those that run.

Owns the flags and what is printed. It must not know how ssh is driven (`tunnels.supervisor`) or how running tunnels are
kept track of (`tunnels.registry`).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, Final

import click

from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import colour, print_json, print_table, printable

__all__ = ["close", "list_", "open_", "tunnel"]

_HERE = "openclaw_gateway.cli.tunnel"
CLOSE_SECONDS: Final = 6.0
_EXISTING: Final = click.Path(exists=True, dir_okay=False, resolve_path=True)


@click.group(
    cls=LazyGroup,
    table={
        "open": (f"{_HERE}:open_", "Keep a tunnel open in the foreground; Ctrl-C closes it."),
        "list": (f"{_HERE}:list_", "The tunnels that run, the gateway's own among them."),
        "close": (f"{_HERE}:close", "Close a tunnel that runs."),
    },
)
def tunnel() -> None:
    """SSH tunnels that stay up: one ssh each, opened again when it ends, gone when you go."""


@click.command("open")
@click.argument("target", metavar="USER@HOST[:PORT]")
@click.option("--remote", "-R", is_flag=True, help="Publish a port of this host over there.")
@click.option("--name", metavar="NAME", default="default", show_default=True, help="What to call it.")
@click.option("--bind-port", type=click.IntRange(0, 65535), default=18789, show_default=True, help="Listened on.")
@click.option("--target-port", type=click.IntRange(1, 65535), default=18789, show_default=True, help="Led to.")
@click.option("--identity", type=_EXISTING, help="The key file for ssh.")
@click.option("--known-hosts", type=_EXISTING, help="The file of known host keys.")
@click.option(
    "--host-key-policy", type=click.Choice(["strict", "openssh"]), default="strict", show_default=True,
    help="strict: known keys only, no ssh configuration is read. openssh: as your own configuration says.",
)
@click.option(
    "--alive-interval", type=click.IntRange(1, 3600), default=60, show_default=True, metavar="SECONDS",
    help="Between ssh's keep-alive messages.",
)
@click.option("--once", is_flag=True, help="End with 1 when ssh ends, instead of opening it again.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per change of state.")
def open_(
    target: str, remote: bool, name: str, bind_port: int, target_port: int, identity: str | None,
    known_hosts: str | None, host_key_policy: str, alive_interval: int, once: bool, as_json: bool,
) -> None:  # fmt: skip
    """Keep a tunnel open: a port here leads to the gateway over there, or with --remote the other way round."""
    import trio

    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.tunnels.registry import claim
    from openclaw_gateway.tunnels.spec import TunnelSpec, check_name, parse_target

    spec = TunnelSpec(
        name=check_name(name),
        target=parse_target(target),
        direction="remote" if remote else "local",
        bind_port=bind_port,
        target_port=target_port,
        identity=identity,
        known_hosts=known_hosts,
        host_key_policy="openssh" if host_key_policy == "openssh" else "strict",
        alive_interval=alive_interval,
    )
    with claim(state_dir(os.environ), name, "command") as claimed:

        shown: list[tuple[Any, ...]] = []

        def tell(report: Any) -> None:
            wire = report.to_wire()
            claimed.write(wire)
            said = (wire["state"], wire["message"], wire["retryInMs"])
            if as_json or said not in shown:  # the same again is a change for programs alone
                _show(wire, as_json)
            shown[:] = [said]

        trio.run(_keep, spec, tell, once)


async def _keep(spec: Any, tell: Any, once: bool) -> None:
    import trio

    from openclaw_gateway.errors import flat_errors
    from openclaw_gateway.tunnels.process import TunnelFailed
    from openclaw_gateway.tunnels.supervisor import run_tunnel

    async def run() -> None:
        def hear(report: Any) -> None:
            tell(report)
            if once and report.state in {"waiting", "blocked"}:
                raise TunnelFailed(spec.name, report.failure, report.message, report.fix)

        await run_tunnel(spec, tell=hear, give_up=True)

    with flat_errors(), trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break


def _show(wire: dict[str, Any], as_json: bool) -> None:
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(wire).decode())
    else:
        paint = {"up": "green", "blocked": "red", "waiting": "yellow"}.get(wire["state"])
        line = f"{wire['name']}: {wire['state']}  {_way(wire)}"
        if wire["message"]:
            line += f"  ({wire['message']})"
        if wire["retryInMs"] is not None:
            line += f"  again in {wire['retryInMs'] / 1000:.0f} s"
        click.echo(colour(printable(line, 400), fg=paint))
        if wire["fix"]:
            click.echo(f"  fix: {printable(wire['fix'], 400)}")
    sys.stdout.flush()


def _way(wire: dict[str, Any]) -> str:
    if wire["direction"] == "local":
        return f"127.0.0.1:{wire['bindPort']} here -> {wire['target']} port {wire['targetPort']}"
    return f"127.0.0.1:{wire['bindPort']} on {wire['target']} -> port {wire['targetPort']} here"


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def list_(as_json: bool) -> None:
    """The tunnels that run on this host for this state directory."""
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.tunnels.registry import list_tunnels

    running = list_tunnels(state_dir(os.environ))
    if as_json:
        print_json({"tunnels": [one.to_wire() for one in running]})
        return
    if not running:
        click.echo("No tunnel runs. Open one: openclaw tunnel open user@host")
        return
    rows = [
        (one.name, one.report["state"], _way(one.report), one.owner, one.report["message"] or "") for one in running
    ]
    print_table(rows, ("NAME", "STATE", "WAY", "KEPT BY", "TROUBLE"))


@click.command()
@click.argument("name", default="default")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def close(name: str, as_json: bool) -> None:
    """Close a tunnel that runs. Done when its ssh is gone."""
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.tunnels.registry import end_tunnel, list_tunnels
    from openclaw_gateway.tunnels.spec import TunnelRefused

    directory = state_dir(os.environ)
    found = next((one for one in list_tunnels(directory) if one.name == name), None)
    if found is None:
        raise TunnelRefused(f"no tunnel named {name} runs", "openclaw tunnel list")
    if found.owner == "gateway":
        fix = "openclaw config get gateway.tunnels   (set its enabled to false)"
        raise TunnelRefused(f"the gateway keeps {name} open: it would come back", fix)
    end_tunnel(found)
    until = time.monotonic() + CLOSE_SECONDS
    while any(one.name == name and one.pid == found.pid for one in list_tunnels(directory)):
        if time.monotonic() > until:
            raise TunnelRefused(f"process {found.pid} does not end", f"kill -KILL {found.pid}")
        time.sleep(0.02)
    if as_json:
        print_json({"ok": True, "name": name, "pid": found.pid})
    else:
        click.echo(f"{name} is closed.")
