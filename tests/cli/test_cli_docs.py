"""docs/reference/cli.md names every command and every option of it."""

from collections.abc import Iterator
from pathlib import Path

import click

from openclaw_gateway.cli.main import cli
from tests.cli.program import ROOT

PAGE = Path(ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
SHARED = {"--url", "--token", "--password", "--port", "--timeout", "--tls-fingerprint", "--protocol"}


def commands(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for child in group.list_commands(context):
        command = group.get_command(context, child)
        assert command is not None
        yield f"{name} {child}", command
        if isinstance(command, click.Group) and child != "config":
            yield from commands(command, f"{name} {child}")


def section(name: str) -> str:
    for level in ("## ", "### "):
        head = f"\n{level}{name}\n"
        if head in PAGE:
            return PAGE.split(head, 1)[1].split("\n## ", 1)[0].split("\n### ", 1)[0]
    raise AssertionError(f"docs/reference/cli.md has no heading for: {name}")


def test_every_command_has_a_heading_and_every_option_is_named() -> None:
    missing = []
    for name, command in commands(cli, "openclaw"):
        text = section(name)
        if "The same as `" in text:
            text = section(text.split("The same as `", 1)[1].split("`", 1)[0])
        for option in command.params:
            if not isinstance(option, click.Option) or option.hidden:
                continue
            shared = "hared options" in " ".join(text.split()) and set(option.opts) & SHARED
            if not shared and not any(spelling in text for spelling in option.opts):
                missing.append(f"{name} {option.opts}")
    assert missing == []


def test_every_command_says_what_it_does_and_takes_json() -> None:
    without = {
        name
        for name, command in commands(cli, "openclaw")
        if not isinstance(command, click.Group) and not any("--json" in option.opts for option in command.params)
    }
    assert without == {"openclaw gateway run", "openclaw completion"}
    assert all(command.help for _, command in commands(cli, "openclaw"))
