"""``openclaw qr``: a setup code as a picture that a phone scans, as text, as JSON.

Owns what is drawn and printed. It must not know what a code grants: the running gateway makes it
(`device.pair.setupCode`). Invariant: a code is printed or drawn where the person asked for it, and logged nowhere.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from openclaw_gateway.cli.connect import Reach, call
from openclaw_gateway.cli.output import print_json, printable

__all__ = ["matrix_of", "qr", "terminal_lines"]

BORDER = 2  # modules around the code; phones want some, and a terminal is narrow
# Light modules are drawn, dark ones left: right on a dark terminal, and on a tty the colours are said outright.
_HALVES = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
_ON = "\x1b[38;5;231;48;5;16m"
_OFF = "\x1b[0m"


def matrix_of(text: str) -> list[list[bool]]:
    """The QR code of ``text``: rows of modules, True for dark, without a border."""
    import segno

    return [[bool(module) for module in row] for row in segno.make(text, error="l", micro=False).matrix]


def terminal_lines(matrix: list[list[bool]], border: int = BORDER) -> list[str]:
    """Two rows of modules to a line of half blocks; what is printed is what is light."""
    width = len(matrix) + 2 * border
    light = [[True] * width for _ in range(border)]
    light += [[True] * border + [not dark for dark in row] + [True] * border for row in matrix]
    light += [[True] * width for _ in range(border)]
    if len(light) % 2:
        light.append([True] * width)
    return [
        "".join(_HALVES[upper, lower] for upper, lower in zip(top, bottom, strict=True))
        for top, bottom in zip(light[::2], light[1::2], strict=True)
    ]


@click.command("qr")
@click.option("--limited", is_flag=True, help="For a phone without administration.")
@click.option("--node", is_flag=True, help="For a node without a screen: openclaw node run --pair <code>.")
@click.option("--png", type=click.Path(dir_okay=False, path_type=Path), help="Write the QR code to this file.")
@click.option("--no-ascii", is_flag=True, help="Draw nothing in the terminal.")
@click.option("--setup-code-only", is_flag=True, help="Print the setup code and nothing else.")
@click.option("--public-url", "--url", "public_url", metavar="URL", help="Name this address in the code.")
@click.option("--remote", is_flag=True, help="Name gateway.remote.url in the code.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.option("--token", metavar="TOKEN", help="The gateway's token.")
@click.option("--password", metavar="PASSWORD", help="The gateway's password.")
@click.option("--port", type=click.IntRange(1, 65535), help="The port of this host's gateway.")
@click.option(
    "--timeout", type=click.IntRange(1), default=10_000, show_default=True, metavar="MS",
    help="Give up after so many milliseconds.",
)  # fmt: skip
def qr(
    limited: bool, node: bool, png: Path | None, no_ascii: bool, setup_code_only: bool, public_url: str | None,
    remote: bool, as_json: bool, token: str | None, password: str | None, port: int | None, timeout: int,
) -> None:  # fmt: skip
    """Make a setup code that pairs a phone or a node: good once, for ten minutes."""
    for one, other, names in (
        (limited, node, "--limited and --node"),
        (public_url, remote, "--public-url and --remote"),
        (token, password, "--token and --password"),
    ):
        if one and other:
            raise click.UsageError(f"{names} exclude each other")
    params: dict[str, Any] = {"includeQr": False}
    if limited or node:
        params["bootstrapProfile"] = "node" if node else "limited"
    if public_url is not None:
        params["publicUrl"] = public_url
    if remote:
        params["preferRemoteUrl"] = True
    reach = Reach(token=token, password=password, port=port, timeout=timeout / 1000)
    answer = call(reach, "device.pair.setupCode", params, scopes=("operator.admin",))
    if png is not None:
        _write_png(png, answer["setupCode"])
    if as_json:
        print_json({**answer, "png": str(png)} if png is not None else answer)
    elif setup_code_only:
        click.echo(answer["setupCode"])
    else:
        _show(answer, png, draw=not no_ascii)


def _show(answer: dict[str, Any], png: Path | None, *, draw: bool) -> None:
    if draw:
        _draw(answer["setupCode"])
    if png is not None:
        click.echo(f"QR code:    {png}")
    click.echo(f"Setup code: {answer['setupCode']}")
    for url in answer.get("gatewayUrls") or [answer["gatewayUrl"]]:
        click.echo(f"Gateway:    {printable(url, 512)}")
    click.echo(f"From:       {printable(answer['urlSource'])}")
    click.echo(f"Access:     {printable(answer['access'])}")
    if answer.get("accessDowngraded"):
        click.echo("            limited, because the way there is not encrypted;")
        click.echo("            for full access: openclaw config set gateway.publicUrl wss://<host>")
    if answer.get("access") == "node":
        click.echo("Use it:     openclaw node run --pair <setup code>")
    else:
        click.echo("Use it:     scan it in the app, or paste the setup code there")
    click.echo("It is good once, for ten minutes. Whoever has it first is paired: treat it like a password.")


def _draw(code: str) -> None:
    lines = terminal_lines(matrix_of(code))
    if sys.stdout.isatty():
        if shutil.get_terminal_size().columns < len(lines[0]):
            click.echo(f"(this terminal is too narrow for the QR code: {len(lines[0])} columns, or --png FILE)")
            return
        lines = [f"{_ON}{line}{_OFF}" for line in lines]
    click.echo("\n".join(lines) + "\n")


def _write_png(path: Path, code: str) -> None:
    """The picture holds the code: only its owner may read the file."""
    import os

    import segno

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        segno.make(code, error="l", micro=False).save(file, kind="png", scale=6, border=4)
