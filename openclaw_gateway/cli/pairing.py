"""``openclaw pairing``: one table of everybody who waits, and the commands that decide about them.

Owns how a request is named and what is said afterwards. It must not know how anything is decided, how the gateway is
reached (`cli.pairing_reach`) or how tables look (`cli.pairing_table`).

Invariants: nothing is approved that was not named: ``--latest`` decides only where a single request waits (PAIR-5);
every refusal ends with the next command.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
import click

from openclaw_gateway.cli.connect import Reach, reach_options
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import ago, colour, print_json, print_table, printable
from openclaw_gateway.cli.pairing_reach import PairingRefused, ask, decide
from openclaw_gateway.cli.pairing_table import approve_command, print_folded, print_paired, print_pending, who

__all__ = ["approve", "history", "list_pairing", "pairing", "policy", "reject"]

_HERE = "openclaw_gateway.cli.pairing"
_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group(
    cls=LazyGroup,
    table={
        "list": (f"{_HERE}:list_pairing", "Everybody who asks to be let in, and everybody who is."),
        "approve": (f"{_HERE}:approve", "Let in who waits: by channel and code, or by id."),
        "reject": (f"{_HERE}:reject", "Turn down who waits: by channel and code, or by id."),
        "policy": (f"{_HERE}:policy", "Show or set what holds for one sender: allow, deny or pair."),
        "history": (f"{_HERE}:history", "What was asked and decided on message channels."),
    },
)
def pairing() -> None:
    """Who may come in: direct-message senders, devices, nodes."""


# --- list


def _rows(reach: Reach, channel: str | None = None) -> tuple[dict[str, Any], str]:
    answer = ask(reach, "pairing.list", {"channel": channel} if channel else {})
    return answer.payload, answer.via


def _channel_options(command: _Command) -> _Command:
    for option in (
        click.option("--channel", "named_channel", metavar="CHANNEL", help="The channel, instead of as an argument."),
        click.option("--account", metavar="ACCOUNT", help="Only this account of the channel."),
    ):
        command = option(command)
    return command


@click.command("list")
@click.argument("channel", required=False)
@_channel_options
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@reach_options()
def list_pairing(
    channel: str | None, named_channel: str | None, account: str | None, as_json: bool, reach: Reach
) -> None:
    """Everybody who asks to be let in, with what approving would grant, and everybody who is in."""
    channel = channel or named_channel
    answer, via = _rows(reach, channel)
    rows = [row for row in answer["rows"] if account in {None, row.get("accountId")}]
    pending = [row for row in rows if row["state"] == "pending"]
    paired = [row for row in rows if row["state"] == "paired"]
    if as_json:
        print_json({"via": via, "ts": answer["ts"], "pending": pending, "paired": paired, "issues": answer["issues"]})
        return
    for issue in answer["issues"]:
        click.echo(f"note: {printable(issue['path'])}: {printable(issue['message'], 300)}", err=True)
    now = float(answer["ts"]) or time.time() * 1000
    if pending:
        click.echo(colour(f"Pending ({len(pending)})", bold=True))
        print_pending(pending, now)
        click.echo("\nNext:")
        for row in pending[:3]:
            click.echo(f"  {approve_command(row)}")
        click.echo("")
    if paired:
        click.echo(colour(f"Paired ({len(paired)})", bold=True))
        print_paired(paired, now)
    if not rows:
        where = f" on {printable(channel)}" if channel else ""
        click.echo(f"Nobody{where} is paired, and nobody asks to be.")
    if via == "offline":
        click.echo("(no gateway runs: this is what the state directory holds)", err=True)


# --- approve and reject


def _deciding(command: _Command) -> _Command:
    for option in (
        click.option("--latest", is_flag=True, help="Whoever waits, where it is one alone; else say who does."),
        click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON."),
        _channel_options,
        click.argument("what", nargs=-1, metavar="[CHANNEL] CODE|ID"),
    ):
        command = option(command)
    return reach_options()(command)


@click.command("approve")
@click.option("--notify", is_flag=True, help="Tell the sender on the same channel.")
@_deciding
def approve(
    what: tuple[str, ...], named_channel: str | None, account: str | None, notify: bool, latest: bool, as_json: bool,
    reach: Reach,
) -> None:  # fmt: skip
    """Let in who waits.

    `approve telegram ABCD2345` by the code that a sender was given; `approve ID` by the id (or its first 6 characters
    or more) of any request in `pairing list`.
    """
    target = _target("approve", what, named_channel, account, latest, reach)
    row, params = target.row, dict(target.call["params"])
    if notify and target.call["method"] == "channels.pairing.approve":
        params["notify"] = True
    asks = [scope for scope in (row or {}).get("asks", []) if str(scope).startswith("operator.")]
    scopes = asks if (row or {}).get("role") != "node" else ["operator.admin"]
    answer = decide(reach, {**target.call, "params": params}, scopes)
    if as_json:
        print_json({"via": answer.via, "approved": True, **answer.payload})
        return
    click.echo(f"Approved: {target.said(answer.payload)}.")
    _print_notification(answer.payload.get("notification"), answer.via)
    _after(answer.via)


@click.command("reject")
@_deciding
def reject(
    what: tuple[str, ...], named_channel: str | None, account: str | None, latest: bool, as_json: bool, reach: Reach
) -> None:
    """Turn down who waits; named as for `approve`. A sender gets no other code before the old one's time is over."""
    target = _target("reject", what, named_channel, account, latest, reach)
    answer = decide(reach, target.call)
    if as_json:
        print_json({"via": answer.via, "rejected": True, **answer.payload})
        return
    click.echo(f"Rejected: {target.said(answer.payload)}.")
    _after(answer.via)


@attrs.frozen
class _Target:
    """The call to make; ``row`` is None where a code was given, which only the gateway can look up."""

    call: Mapping[str, Any]
    row: Mapping[str, Any] | None = None

    def said(self, payload: Mapping[str, Any]) -> str:
        if self.row is not None:
            return f"{who(self.row)}: {printable(self.row['grants'], 300)}"
        return f"{printable(payload.get('senderId'))} on {printable(self.call['params']['channel'])}"


def _target(
    verb: str, what: tuple[str, ...], named_channel: str | None, account: str | None, latest: bool, reach: Reach
) -> _Target:
    words = ((named_channel,) if named_channel else ()) + what
    if account is not None and not account.strip():
        raise click.UsageError("--account must not be blank")
    if latest:
        if what:
            raise click.UsageError("--latest names nobody: give either it or a request")
        return _latest(verb, named_channel, account, reach)
    if len(words) == 2:
        channel, code = words
        params = {"channel": channel.lower(), "code": code, **({"accountId": account} if account else {})}
        method = f"channels.pairing.{'approve' if verb == 'approve' else 'dismiss'}"
        return _Target(_by_id_or_code(method, params))
    if len(words) != 1:
        raise click.UsageError(f"name one request: openclaw pairing {verb} <channel> <code>, or <id>")
    from openclaw_gateway.pairing.overview import find_row

    answer, _ = _rows(reach)
    rows = [row for row in answer["rows"] if account in {None, row.get("accountId")}]
    by_code = _with_code(rows, words[0])
    row = by_code if by_code is not None else find_row(rows, words[0])
    return _Target(row[verb], row)


def _by_id_or_code(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """An id where a code is expected is meant as an id: nobody's code has 36 characters."""
    if len(params["code"]) == 36:
        params["requestId"] = params.pop("code").lower()
    return {"method": method, "params": params}


def _with_code(rows: Sequence[Mapping[str, Any]], text: str) -> Mapping[str, Any] | None:
    from openclaw_gateway.policy.senders import plain_code

    found = [row for row in rows if row.get("code") == plain_code(text)]
    return found[0] if len(found) == 1 else None


def _latest(verb: str, channel: str | None, account: str | None, reach: Reach) -> _Target:
    answer, _ = _rows(reach, channel)
    waiting = [row for row in answer["rows"] if row["state"] == "pending" and account in {None, row.get("accountId")}]
    if not waiting:
        raise PairingRefused("nobody waits", "openclaw pairing list")
    if len(waiting) > 1:
        newest = waiting[-1]
        commands = "\n       ".join(approve_command(row).replace(" approve ", f" {verb} ") for row in waiting)
        message = f"{len(waiting)} requests wait, and the newest may not be the one you mean ({who(newest)})"
        raise PairingRefused(message, commands)
    return _Target(waiting[0][verb], waiting[0])


def _print_notification(outcome: object, via: str) -> None:
    if outcome == "sent":
        click.echo("The sender was told.")
    elif outcome == "failed":
        click.echo("The sender could not be told; see: openclaw logs", err=True)
    elif outcome == "unsupported":
        why = "no gateway runs" if via == "offline" else "the channel is not running"
        click.echo(f"The sender was not told: {why}.", err=True)


def _after(via: str) -> None:
    if via == "offline":
        click.echo("No gateway runs: it holds from the next start. Next: openclaw gateway start", err=True)


# --- policy and history


@click.command("policy")
@click.argument("channel")
@click.argument("sender")
@click.argument("wanted", required=False, metavar="[POLICY]", type=click.Choice(["allow", "deny", "pair", "clear"]))
@click.option("--account", default="default", show_default=True, metavar="ACCOUNT", help="The account of the channel.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@reach_options()
def policy(channel: str, sender: str, wanted: str | None, account: str, as_json: bool, reach: Reach) -> None:
    """Show or set what holds for one sender.

    allow: let in; deny: never let in, whatever else says so; pair: has to pair; clear: what the channel's policy says.
    """
    params = {"channel": channel.lower(), "senderId": sender, "accountId": account}
    if wanted is not None:
        params["policy"] = wanted
    answer = decide(reach, {"method": "channels.pairing.policy", "params": params})
    if as_json:
        print_json({"via": answer.via, **answer.payload})
        return
    now = answer.payload.get("policy")
    who = f"{printable(answer.payload['senderId'])} on {printable(channel)}"
    default = f"nothing of their own; channels.{printable(channel)}.dm.policy holds"
    click.echo(f"{who}: {now or default}")
    if wanted is not None:
        _after(answer.via)


@click.command("history")
@click.argument("channel", required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many lines.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as JSON.")
@reach_options()
def history(channel: str | None, limit: int, as_json: bool, reach: Reach) -> None:
    """What was asked and decided on message channels, the newest first."""
    params: dict[str, Any] = {"limit": limit, **({"channel": channel.lower()} if channel else {})}
    answer = decide(reach, {"method": "channels.pairing.history", "params": params})
    entries = answer.payload["entries"]
    if as_json:
        print_json({"via": answer.via, "entries": entries})
        return
    if not entries:
        click.echo("Nothing has happened yet.")
        return
    now = time.time() * 1000
    cells = [
        tuple(
            printable(cell)
            for cell in (
                ago(entry["atMs"], now), entry["event"], f"{entry['channel']}/{entry['accountId']}",
                f"{entry['senderLabel']} ({entry['senderId']})", entry["actor"],
            )
        )
        for entry in entries
    ]  # fmt: skip
    (print_folded if sys.stdout.isatty() else print_table)(cells, ("SINCE", "EVENT", "ON", "WHO", "BY"))
