"""The documentation, held against what there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from openclaw_gateway.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
CHECKLIST = ROOT / "docs" / "checklist.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _rows() -> list[list[str]]:
    lines = [line for line in CHECKLIST.read_text().splitlines() if re.match(r"\| S\d{3} ", line)]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_checklist_is_whole_and_its_tests_exist() -> None:
    rows = _rows()
    assert [row[0] for row in rows] == [f"S{number:03}" for number in range(1, 180)]
    faults = []
    for id_, _, state, test, note in rows:
        if state not in {"done", "part", "not yet"}:
            faults.append(f"{id_}: state {state!r}")
        if state != "done" and not note:
            faults.append(f"{id_}: {state} without a note")
        if state == "not yet":
            continue
        file, _, name = test.strip("`").partition("::")
        path = ROOT / file
        if not path.is_file() or not re.search(rf"(?m)^(async )?def {re.escape(name)}\(", path.read_text()):
            faults.append(f"{id_}: no test {test}")
    assert not faults, "\n".join(faults)


def test_the_documentation_has_its_four_parts() -> None:
    """Tutorial, how-to, reference, discussion; README leads to each."""
    readme = (ROOT / "README.md").read_text()
    for part in ("docs/tutorial.md", "docs/how-to/", "docs/reference/", "docs/discussion/"):
        assert (ROOT / part).exists()
        assert part in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


PROGRAM = re.compile(r"(?:^|&& |[|] |\$ |; |\()openclaw (.*)")
# OpenClaw's own commands, which the pages name and this project does not have.
OFFICIAL = {"agents", "connect", "cron", "message", "skills", "system", "gateway usage-cost"}


def told_commands(page: Path) -> list[str]:
    """What follows ``openclaw`` in the page's blocks and between its backticks."""
    text = page.read_text()
    blocks = re.findall(r"```\w*\n(.*?)```", text, re.S)
    spoken = re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [found for line in [*lines, *(one.replace("\n", " ") for one in spoken)] for found in PROGRAM.findall(line)]


def fault_of(command: str) -> str | None:
    """The first word that names no command, or the first option that its command does not take; None where all do."""
    group: click.Command = cli
    context, path = click.Context(cli), ""
    options = _options(cli)
    try:
        words = shlex.split(command, comments=True)
    except ValueError:  # half a command: a sentence with an apostrophe
        words = command.split()
    value = False
    for word in words:
        if value:
            value = False
        elif word in {"&&", "|", ";", ">", "2>", "&"} or word.endswith((";", ",")):
            return None
        elif re.match(r"--?[a-z]", word):
            name, given, _ = word.partition("=")
            if isinstance(group, click.Group) and group is not cli:
                return None  # options of the group's own default command
            if name not in options:
                return f"{path.strip()}: no option {name}"
            value = options[name] and not given
        elif isinstance(group, click.Group):
            if not re.fullmatch(r"[a-z][a-z0-9-]*", word):
                return None
            found = group.get_command(context, word)
            path = f"{path} {word}".strip()
            if found is None:
                return None if path in OFFICIAL else f"no command {path}"
            group = found
            options |= _options(found)
    return None


def _options(command: click.Command) -> dict[str, bool]:
    """Each option of ``command``, and whether it takes a value."""
    taken = {
        name: not option.is_flag
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    return {**taken, "--help": False, "-h": False}


def test_the_check_of_commands_finds_what_is_not_there() -> None:
    assert fault_of("explain --ip 10.0.0.1") == "no command explain"
    assert fault_of("gateway explain --adress 10.0.0.1") == "gateway explain: no option --adress"
    assert fault_of("gateway explain --ip 10.0.0.1 | head") is None
    assert fault_of("logs --follow") is None
    assert fault_of("--protocol proto status") is None


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_m5_every_command_that_a_page_names_exists_with_its_options(page: Path) -> None:
    faults = {f"openclaw {command}: {fault}" for command in told_commands(page) if (fault := fault_of(command))}
    assert not faults, "\n".join(sorted(faults))


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    heads = (re.sub(r"[`\[]|\]\([^)]*\)", "", head).strip().lower() for head in re.findall(r"(?m)^#+ (.*)$", text))
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_headings_lead_to_one(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        if "://" not in target:
            aim = page.parent / target if target else page
            assert anchor in _anchors(aim), f"{page.name} links to {target}#{anchor}"


def test_readme_names_each_page_once_under_where_to_read_on() -> None:
    """A merge once left the reference pages in it three times."""
    listed = (ROOT / "README.md").read_text().split("## Where to read on", 1)[1]
    links = re.findall(r"\]\(([^)#\s]+)\)", listed)
    assert sorted(set(links)) == sorted(links)
    pages = {str(page.relative_to(ROOT)) for page in PAGES if page.name != "README.md"}
    assert pages <= set(links), sorted(pages - set(links))
