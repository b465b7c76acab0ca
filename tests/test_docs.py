"""The documentation, held against what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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
