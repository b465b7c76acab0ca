"""``openclaw remote``: which way of remote access fits."""

from __future__ import annotations

import os

import click

from openclaw_gateway.cli.output import print_json, printable

__all__ = ["remote"]

_PURPOSES = ("temporary", "long-term", "public", "enterprise")


@click.group()
def remote() -> None:
    """Reaching this gateway from elsewhere."""


@remote.command()
@click.option("--for", "purpose", type=click.Choice(_PURPOSES), default="long-term", show_default=True,
              help="What it is for.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the recipe as JSON.")
def advise(purpose: str, as_json: bool) -> None:
    """Print the one recipe for remote access that fits this host. Changes nothing."""
    import attrs

    from openclaw_gateway.ops.advice import gather_facts
    from openclaw_gateway.policy import advice

    facts = gather_facts(os.environ, purpose)  # type: ignore[arg-type]  # one of _PURPOSES, click checks
    recipe = advice.advise(facts)
    if as_json:
        print_json(
            {
                "ok": True,
                "recipe": recipe.name,
                "title": recipe.title,
                "why": recipe.why,
                "inPlace": recipe.in_place,
                "here": list(recipe.here),
                "there": list(recipe.there),
                "security": recipe.security,
                "complexity": recipe.complexity,
                "doc": recipe.doc,
                "facts": {attribute.name: getattr(facts, attribute.name) for attribute in attrs.fields(advice.Facts)},
            }
        )
        return
    click.echo(f"{recipe.title}: {recipe.why} (security {recipe.security}, complexity {recipe.complexity})")
    for title, commands in (("on this host", recipe.here), ("on the other one", recipe.there)):
        if commands:
            click.echo(f"\n{title}:")
            for command in commands:
                click.echo(f"  {printable(command, 300)}")
    click.echo(f"\nmore: {recipe.doc}")
