"""``openclaw channels``: which message channels there are, how they are doing, and acts on them.

Owns what is printed and asked. It must not know how a channel works. `list` reads the configuration and needs no
gateway; the others ask the running one. Invariant: names that people or services chose reach the terminal escaped.
"""

from __future__ import annotations

import os
import time
from typing import Any, Final

import click

from openclaw_gateway.cli.connect import Reach, call, reach_options
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import ago, print_json, print_table, printable

__all__ = ["channels", "list_channels", "logout", "start", "status", "stop", "test"]

_HERE: Final = "openclaw_gateway.cli.channels"
_ADMIN: Final = ("operator.admin",)


@click.group(
    cls=LazyGroup,
    table={
        "list": (f"{_HERE}:list_channels", "Channels that are configured; --all: every channel there is."),
        "status": (f"{_HERE}:status", "How each account is doing; --probe asks its service."),
        "start": (f"{_HERE}:start", "Run an account, or try again at once."),
        "stop": (f"{_HERE}:stop", "Stop an account until it is started again."),
        "logout": (f"{_HERE}:logout", "Stop, and have the service forget this gateway."),
        "test": (f"{_HERE}:test", "Does the service know this account? Says what is wrong."),
    },
)
def channels() -> None:
    """Telegram, Discord, WhatsApp: message channels and their accounts."""


@click.command("list")
@click.option("--all", "everything", is_flag=True, help="Channels that are not configured too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_channels(everything: bool, as_json: bool) -> None:
    """List the channels of the configuration with their accounts."""
    from openclaw_gateway.channels.accounts import configured_accounts
    from openclaw_gateway.config import load_config
    from openclaw_gateway.config.settings import KNOWN_CHANNELS
    from openclaw_gateway.pairing.sender_records import label_of

    configured = load_config(env=os.environ).config.channels
    chat: dict[str, dict[str, Any]] = {}
    for name, config in configured.items():
        accounts = list(configured_accounts(config)) if config.enabled else []
        chat[name] = {"accounts": accounts, "label": label_of(name), "installed": name in KNOWN_CHANNELS}
        chat[name]["origin"] = "configured"
    for name in sorted(KNOWN_CHANNELS) if everything else ():
        rest = {"accounts": [], "label": label_of(name), "installed": True, "origin": "available"}
        chat.setdefault(name, rest)
    if as_json:
        print_json({"chat": chat})
        return
    if not chat:
        click.echo("No channel is configured. Those there are: openclaw channels list --all", err=True)
        return
    rows = []
    for name, one in chat.items():
        known = one["origin"] if one["installed"] else "unknown here"
        shown = "off" if name in configured and not configured[name].enabled else known
        rows.append((name, one["label"], ", ".join(one["accounts"]) or "-", shown))
    print_table(rows, ("CHANNEL", "NAME", "ACCOUNTS", "STATE"))


@click.command()
@click.option("--channel", metavar="CHANNEL", help="Only this channel (all: every one).")
@click.option("--probe", is_flag=True, help="Ask each service whether it knows the account.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def status(channel: str | None, probe: bool, as_json: bool, reach: Reach) -> None:
    """Show how each account is doing."""
    answer = _status(reach, channel, probe=probe)
    if as_json:
        print_json(answer)
        return
    rows = _rows(answer)
    if not rows:
        click.echo("No channel runs. What is configured: openclaw channels list", err=True)
        return
    now = time.time() * 1000
    header = ("CHANNEL", "ACCOUNT", "STATE", "AS", "LAST IN", "LAST OUT", *(("PROBE",) if probe else ()))
    print_table(
        [
            (
                name, row["accountId"], row["state"], row.get("name") or "-",
                ago(row["lastInboundAt"], now) or "-", ago(row["lastOutboundAt"], now) or "-",
                *((_probed(row),) if probe else ()),
            )
            for name, row in rows
        ],
        header,
    )  # fmt: skip
    for issue in answer.get("statusIssues") or []:
        name = f"{printable(issue['channel'])}/{printable(issue['accountId'])}"
        click.echo(f"\n{name} is {printable(issue['message'], 400)}", err=True)
        if issue.get("fix"):
            click.echo(f"  fix: {printable(issue['fix'], 300)}", err=True)


@click.command()
@click.argument("service", required=False, metavar="[CHANNEL]")
@click.option("--channel", metavar="CHANNEL", help="The channel, instead of as an argument.")
@click.option("--account", metavar="ACCOUNT", help="The account; without it the channel's default one.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def start(service: str | None, channel: str | None, account: str | None, as_json: bool, reach: Reach) -> None:
    """Run an account that was stopped, or try again at once where it waits."""
    answer = _act("channels.start", service, channel, account, reach)
    _tell(answer, as_json, "started")


@click.command()
@click.argument("service", required=False, metavar="[CHANNEL]")
@click.option("--channel", metavar="CHANNEL", help="The channel, instead of as an argument.")
@click.option("--account", metavar="ACCOUNT", help="The account; without it the channel's default one.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def stop(service: str | None, channel: str | None, account: str | None, as_json: bool, reach: Reach) -> None:
    """Stop an account until `channels start`, or until the gateway starts anew. Answers wait in the queue."""
    answer = _act("channels.stop", service, channel, account, reach)
    _tell(answer, as_json, "stopped")


@click.command()
@click.argument("service", required=False, metavar="[CHANNEL]")
@click.option("--channel", metavar="CHANNEL", help="The channel, instead of as an argument.")
@click.option("--account", metavar="ACCOUNT", help="The account; without it the channel's default one.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def logout(service: str | None, channel: str | None, account: str | None, as_json: bool, reach: Reach) -> None:
    """Stop an account and take back what its service keeps for this gateway (a webhook)."""
    answer = _act("channels.logout", service, channel, account, reach)
    _tell(answer, as_json, "logged out" if answer.get("cleared") else "stopped; the service kept nothing for it")


@click.command()
@click.argument("service", required=False, metavar="[CHANNEL]")
@click.option("--channel", metavar="CHANNEL", help="The channel, instead of as an argument.")
@click.option("--account", metavar="ACCOUNT", help="Only this account.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def test(service: str | None, channel: str | None, account: str | None, as_json: bool, reach: Reach) -> None:
    """Ask the services whether they know the accounts. Exit code 1 where one does not."""
    answer = _status(reach, service or channel, probe=True)
    rows = [(name, row) for name, row in _rows(answer) if account in {None, row["accountId"]}]
    well = bool(rows) and all((row.get("probe") or {}).get("ok") for _, row in rows)
    if as_json:
        results = [{"channel": name, "accountId": row["accountId"], **(row.get("probe") or {})} for name, row in rows]
        print_json({"ok": well, "results": results})
    elif not rows:
        click.echo("There is no such account. Those there are: openclaw channels list", err=True)
    for name, row in rows if not as_json else ():
        click.echo(f"{name}/{row['accountId']}: {printable(_probed(row), 300)}")
        fix = (row.get("probe") or {}).get("fix")
        if fix:
            click.echo(f"  fix: {printable(fix, 300)}")
    if not well:
        raise click.exceptions.Exit(1)


def _status(reach: Reach, channel: str | None, *, probe: bool) -> Any:
    params: dict[str, Any] = {"probe": probe, "timeoutMs": max(1, int(reach.timeout * 900))}
    if channel and channel.lower() != "all":
        params["channel"] = channel
    return call(reach, "channels.status", params)


def _rows(answer: Any) -> list[tuple[str, dict[str, Any]]]:
    accounts = answer.get("channelAccounts") or {}
    return [(name, row) for name in answer.get("channelOrder") or [] for row in accounts.get(name) or []]


def _probed(row: dict[str, Any]) -> str:
    probe = row.get("probe") or {}
    if not probe.get("ok"):
        return f"failed: {probe.get('error') or 'not asked'}"
    bot = probe.get("bot") or {}
    name = bot.get("username") or bot.get("name") or bot.get("id")
    return f"ok as {name} ({probe.get('elapsedMs')} ms)" if name else f"ok ({probe.get('elapsedMs')} ms)"


def _act(method: str, service: str | None, channel: str | None, account: str | None, reach: Reach) -> Any:
    """Without a channel: the one that is configured, where it is one alone."""
    name = service or channel
    if name is None:
        known = call(reach, "channels.status", {}).get("channelOrder") or []
        if len(known) != 1:
            raise click.UsageError(f"name a channel ({', '.join(map(printable, known)) or 'none is configured'})")
        name = known[0]
    params = {"channel": name, **({"accountId": account} if account else {})}
    return call(reach, method, params, scopes=_ADMIN)


def _tell(answer: Any, as_json: bool, done: str) -> None:
    if as_json:
        print_json(answer)
        return
    click.echo(f"{printable(answer['channel'])}/{printable(answer['accountId'])}: {done}")
