"""Tables fit the terminal they are read on, and nothing in them is cut."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openclaw_gateway.cli.columns import laid_out
from tests.cli.program import ROOT

ID = "51c27fb3-f4a3-44e6-9005-4d10fb02bba1"
HEADER = ("REQUEST", "NAME", "COMMANDS", "SINCE")
ROW = (ID, "shed", "fs.listDir,system.notify,system.run,system.which", "5 s ago")


def test_a_table_that_fits_stays_as_it_is() -> None:
    wanted = ["REQUEST".ljust(36) + "  NAME  COMMANDS" + " " * 42 + "SINCE", "  ".join(ROW)]
    assert laid_out(HEADER, [ROW], 200) == wanted
    assert laid_out(HEADER, [ROW], None) == wanted
    assert laid_out((), [], 80) == []


def test_a_long_cell_is_folded_between_its_words() -> None:
    assert laid_out(HEADER, [ROW], 80) == [
        "REQUEST                               NAME  COMMANDS                     SINCE",
        f"{ID}  shed  fs.listDir,system.notify,    5 s ago",
        "                                            system.run,system.which",
    ]


def test_where_the_words_alone_are_too_wide_each_row_is_a_block() -> None:
    rows = [("ab" * 32, "", "linux"), ("cd" * 32, "vm", "linux")]
    assert laid_out(("DEVICE", "NAME", "PLATFORM"), rows, 72) == [
        "DEVICE    " + "ab" * 32,
        "PLATFORM  linux",
        "",
        "DEVICE    " + "cd" * 32,
        "NAME      vm",
        "PLATFORM  linux",
    ]


CELLS = st.text(alphabet="ab, -", max_size=40)


@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5), width=st.integers(1, 200))
def test_no_word_is_lost_or_broken(rows: list[tuple[str, str, str]], width: int) -> None:
    told = " ".join(laid_out(("ONE", "TWO", "THREE"), rows, width)).replace(",", ", ").split()
    for row in rows:
        for cell in row:
            assert set(cell.replace(",", ", ").split()) <= set(told)


@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5), width=st.integers(70, 200))
def test_no_line_is_wider_than_the_terminal_where_the_words_have_room(
    rows: list[tuple[str, str, str]], width: int
) -> None:
    """Three short cells (20 each) and two gaps are 64 columns; no word here needs more."""
    words = [word for row in rows for cell in row for word in cell.replace(",", ", ").split()]
    assume(all(len(word) <= 20 for word in words))
    assert all(len(line) <= width for line in laid_out(("ONE", "TWO", "THREE"), rows, width))


@pytest.mark.parametrize("columns", [80, 200])
def test_commands_ask_the_terminal_how_wide_it_is(columns: int) -> None:
    """`print_table` in a process on a real terminal."""
    code = f"from openclaw_gateway.cli.output import print_table; print_table([{ROW!r}], {HEADER!r})"
    ours, theirs = pty.openpty()
    environ = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"}
    try:
        subprocess.run([sys.executable, "-c", code], stdout=theirs, env=environ, cwd=ROOT, check=True, timeout=60)
        shown = os.read(ours, 65536).decode().replace("\r\n", "\n").rstrip("\n").split("\n")
    finally:
        os.close(ours)
        os.close(theirs)
    assert shown == laid_out(HEADER, [ROW], columns)
    assert len(shown) == (3 if columns == 80 else 2)
    piped = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ, cwd=ROOT, check=True, timeout=60, text=True
    )
    assert piped.stdout.splitlines() == laid_out(HEADER, [ROW], None)  # for programs: a row a line
