"""``openclaw completion``: the script a shell needs to complete our commands. It asks the same program, so it never
ages."""

from __future__ import annotations

import os
from pathlib import PurePath

import click

__all__ = ["completion"]

_RC = {"bash": "~/.bashrc", "zsh": "~/.zshrc", "fish": "~/.config/fish/completions/openclaw.fish"}


@click.command()
@click.option("-s", "--shell", type=click.Choice(["bash", "zsh", "fish"]), help="Default: the shell in $SHELL.")
@click.argument("named", required=False, type=click.Choice(["bash", "zsh", "fish"]), metavar="[SHELL]")
def completion(shell: str | None, named: str | None) -> None:
    """Print the completion script of a shell.

    For bash: eval "$(openclaw completion bash)" in ~/.bashrc.
    """
    from click.shell_completion import get_completion_class

    from openclaw_gateway.cli.main import cli

    which = named or shell or PurePath(os.environ.get("SHELL", "bash")).name
    found = get_completion_class(which)
    if found is None or which not in _RC:
        raise click.UsageError(f"There is no completion for {which}. Give one of: {', '.join(_RC)}.")
    click.echo(found(cli, {}, "openclaw", "_OPENCLAW_COMPLETE").source())
