"""``gateway auth-token``: which secret clients present, where it is kept, and, to a person at a terminal, the token
itself.

Owns the one place where a command shows a secret. Invariants: it is shown only when asked for with ``--show``, and only
on an interactive terminal, so that no log, pipe or history collects it; nothing is created: where there is no token
yet, the next start makes one.
"""

from __future__ import annotations

import os
import sys

import click

from openclaw_gateway.cli.output import print_json

__all__ = ["auth_token"]


@click.command("auth-token")
@click.option("--show", is_flag=True, help="Print the token, to an interactive terminal only.")
@click.option("--json", "as_json", is_flag=True, help="Source and fingerprint as JSON; never the token.")
def auth_token(*, show: bool, as_json: bool) -> None:
    """Tell which token clients present and where it is kept."""
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.secrets import resolve_auth

    loaded = load_config(env=os.environ)
    auth = resolve_auth(loaded.config, loaded.config.state_dir, os.environ, overridden=loaded.overridden, create=False)
    if as_json:
        print_json({"type": auth.type, "source": auth.source, "fingerprint": auth.fingerprint})
        return
    if auth.type == "none":
        click.echo("authentication is off: clients on this host need no token")
        return
    kept = f"{auth.type}: from {auth.source}"
    if auth.fingerprint is None:
        click.echo(f"{kept} (not made yet)\nnext: openclaw gateway start")
        return
    click.echo(f"{kept}, fingerprint {auth.fingerprint}")
    if not show:
        if auth.token is not None:
            click.echo("next: openclaw gateway auth-token --show")
        return
    if auth.token is None:
        raise click.ClickException("there is no token to show: this gateway asks for a password")
    if not sys.stdout.isatty():
        raise click.ClickException(
            "--show prints to an interactive terminal only; programs read it from where it is kept"
        )
    click.echo(auth.token)
