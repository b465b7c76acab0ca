"""``openclaw doctor``: what `ops.doctor` found, for people and for programs."""

from __future__ import annotations

import os

import click

from openclaw_gateway.cli.output import colour, print_json, printable

__all__ = ["doctor"]

_MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "red")}

_SEVERITIES = {"warn": "warning", "fail": "error"}  # OpenClaw's words


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.option("--lint", is_flag=True, hidden=True)
@click.option("--deep", is_flag=True, hidden=True)
@click.option("--non-interactive", is_flag=True, hidden=True)
@click.option("--yes", is_flag=True, hidden=True)
def doctor(as_json: bool, lint: bool, deep: bool, non_interactive: bool, yes: bool) -> None:
    """Check everything and say how to mend what is wrong. Changes nothing. Exit code 1 where a check fails."""
    import attrs

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
