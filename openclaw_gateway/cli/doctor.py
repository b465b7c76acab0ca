"""``openclaw doctor``: what `ops.doctor` and `ops.doctor_network` found, for people and for programs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from openclaw_gateway.cli.output import colour, print_json, printable

if TYPE_CHECKING:
    from openclaw_gateway.ops.doctor_network import NetworkReport

__all__ = ["doctor"]

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}

_SEVERITIES = {"warn": "warning", "fail": "error"}  # OpenClaw's words


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--network", is_flag=True, help="Knock at every address of the gateway instead: who may use which.")
@click.option("--lint", is_flag=True, hidden=True)
@click.option("--deep", is_flag=True, hidden=True)
@click.option("--non-interactive", is_flag=True, hidden=True)
@click.option("--yes", is_flag=True, hidden=True)
def doctor(as_json: bool, network: bool, lint: bool, deep: bool, non_interactive: bool, yes: bool) -> None:
    """Check everything and say how to mend what is wrong. Changes nothing. Exit code 1 where a check fails."""
    import attrs

    if network:
        _network(as_json)
        return
    from openclaw_gateway.ops.doctor import examine

    findings = examine(os.environ)
    failed = sum(1 for finding in findings if finding.state == "fail")
    warned = sum(1 for finding in findings if finding.state == "warn")
    if as_json:
        print_json(
            {
                "schemaVersion": 1,
                "ok": failed == 0,
                "checksRun": len({finding.check for finding in findings}),
                "checksSkipped": 0,
                "findings": [
                    {
                        "checkId": finding.check,
                        "severity": _SEVERITIES[finding.state],
                        "message": finding.text,
                        "fixHint": finding.fix,
                    }
                    for finding in findings
                    if finding.state != "ok"
                ],
                "failed": failed,
                "warned": warned,
                "checks": [attrs.asdict(finding) for finding in findings],
            }
        )
    else:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            mark, paint = _MARKS[finding.state]
            click.echo(f"{colour(mark, fg=paint)}  {finding.check:<{width}}  {printable(finding.text, 400)}")
            if finding.state != "ok" and finding.fix:
                click.echo(f"      {'':<{width}}  fix: {printable(finding.fix, 300)}")
        click.echo(f"\n{len(findings) - failed - warned} ok, {warned} to look at, {failed} to mend")
    if failed:
        raise click.exceptions.Exit(1)


def _network(as_json: bool) -> None:
    """Every door, who may use it, and what should not be open. Exit code 1 where something should not."""
    from openclaw_gateway.ops.doctor_network import look_around

    report = look_around(os.environ)
    if as_json:
        doors = [
            {
                "kind": door.kind,
                "url": door.url,
                "listener": door.listener,
                "answers": door.answers,
                "fault": door.fault,
                "roundTripMs": door.round_trip_ms,
                "tls": door.tls,
                "tlsFingerprint": door.fingerprint,
                "auth": door.auth,
                "who": judged.who,
                "state": judged.state,
                "why": judged.why,
                "fix": judged.fix,
            }
            for door, judged in report.doors
        ]
        print_json(
            {
                "ok": report.failed == 0,
                "doors": doors,
                "trouble": report.trouble,
                "fix": report.fix,
                "leftOut": report.truncated,
                "failed": report.failed,
                "warned": report.warned,
            }
        )
    else:
        _print_doors(report)
    if report.failed:
        raise click.exceptions.Exit(1)


def _print_doors(report: NetworkReport) -> None:
    if report.trouble is not None:
        click.echo(f"{colour('FAIL', fg='red')}  {printable(report.trouble, 400)}")
        if report.fix:
            click.echo(f"      fix: {printable(report.fix, 300)}")
    width = max((len(door.kind) for door, _ in report.doors), default=0)
    for door, judged in report.doors:
        mark, paint = _MARKS[judged.state]
        answer = "not asked" if door.answers is None else "answers" if door.answers else "silent"
        if door.proxy_only and not door.answers:
            answer = "for proxies"
        if door.round_trip_ms is not None:
            answer = f"{door.round_trip_ms:g} ms"
        shield = f"TLS {door.fingerprint[:16]}…" if door.fingerprint else "TLS" if door.tls else "in clear"
        shield = "" if door.kind == "ssh" else f", {shield}"
        click.echo(f"{colour(mark, fg=paint)}  {door.kind:<{width}}  {printable(door.url, 200)}  ({answer}{shield})")
        click.echo(f"      {'':<{width}}  {printable(judged.who, 300)}")
        if judged.why:
            click.echo(f"      {'':<{width}}  {printable(judged.why, 300)}")
        if judged.fix and judged.state != "ok":
            click.echo(f"      {'':<{width}}  fix: {printable(judged.fix, 300)}")
    if report.truncated:
        click.echo(f"{report.truncated} more were left out")
    fine = len(report.doors) - report.warned - sum(1 for _, judged in report.doors if judged.state == "fail")
    click.echo(f"\n{fine} ok, {report.warned} to look at, {report.failed} to mend")
