"""The verdict on a whole audit trail: whole, torn at its end, or broken, and where.

Owns the walk over the files of a trail and the words for what it finds. Pure: it is given lines, and opens nothing.
What makes one line whole is `ops.auditchain`'s. Loaded when somebody asks for a verdict, never by a start.

Invariant: a trail is whole only where every row follows the one before, from the first that a row says is kept to the
head that is kept elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from openclaw_gateway.ops.auditchain import GENESIS, Head, Links, links_of
from openclaw_gateway.ops.auditrows import Action
from openclaw_gateway.value import Value

__all__ = ["Fault", "Report", "verify"]


@attrs.frozen(eq=False, repr=False)
class Fault(Value):
    """Where a chain is broken: ``file`` and ``line`` (from 1) of the first bad row."""

    file: str
    line: int
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: expected {self.expected}, found {self.found}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Report(Value):
    """What `verify` found. ``fault`` None: whole. ``torn``: a crash left the last line half-written; it was never
    acknowledged, and the next start removes it. ``begins_late``: the number of the first row where the folder was
    taken away before (a row says so).
    """

    rows: int
    first_seq: int
    head: Head
    fault: Fault | None = None
    torn: bool = False
    begins_late: int | None = None


class _Walk:
    """The state of a check: what the next row must be."""

    def __init__(self) -> None:
        self.rows = 0
        self.first_seq = 0
        self.head = Head()
        self.kept_from: int | None = None
        self.begins_late: int | None = None

    def take(self, links: Links, anchor: Head | None) -> tuple[str, str] | None:
        """What was expected and found where the row does not follow; None where it does."""
        if self.rows == 0:
            self.first_seq = links.seq
            if links.action == Action.AUDIT_RECOVERED and links.seq > 1 and links.missing_to == links.seq - 1:
                self.begins_late = links.seq
        else:
            if links.seq != self.head.seq + 1:
                return f"row {self.head.seq + 1}", f"row {links.seq}"
            if links.prev != self.head.hash:
                return f"row {links.seq} that follows {self.head.hash[:12]}", f"one that follows {links.prev[:12]}"
        if links.seq == 1 and links.prev != GENESIS:
            return "row 1 that follows nothing", f"one that follows {links.prev[:12]}"
        if anchor is not None and links.seq == anchor.seq and links.hash != anchor.hash:
            return f"row {links.seq} with hash {anchor.hash[:12]} (kept in the store)", f"hash {links.hash[:12]}"
        if links.action == Action.AUDIT_ROTATED and isinstance(links.first_seq, int):
            self.kept_from = links.first_seq
        self.rows += 1
        self.head = Head(links.seq, links.hash)
        return None


def verify(files: Iterable[tuple[str, Iterable[bytes]]], anchor: Head | None = None) -> Report:
    """Walk a whole trail, oldest file first; ``files`` gives each file's name and its lines as read (with line ends).

    ``anchor`` is the head that is kept elsewhere; None where it is not known (a cut tail then cannot show). Stops at
    the first row that does not fit.
    """
    walk = _Walk()
    name, number, torn, first_file = "audit.jsonl", 0, False, ""
    for name, lines in files:
        first_file = first_file or name
        number = 0
        for line in lines:
            number += 1
            if torn:  # only the very last line of all may be incomplete
                return _report(walk, Fault(name, number, "the rest of the row before", "another row"))
            if not line.endswith(b"\n"):
                torn = True
                continue
            links = links_of(line[:-1])
            if isinstance(links, str):
                return _report(walk, Fault(name, number, f"row {walk.head.seq + 1 if walk.rows else 'one'}", links))
            wrong = walk.take(links, anchor)
            if wrong is not None:
                return _report(walk, Fault(name, number, *wrong))
    if anchor is not None and walk.head.seq < anchor.seq:
        expected = f"row {walk.head.seq + 1} (the store knows {anchor.seq} rows)"
        found = "half a row, then the end" if torn else "the end"
        return _report(walk, Fault(name, number + (0 if torn else 1), expected, found), torn=torn)
    allowed = walk.kept_from if walk.kept_from is not None else 1
    if walk.rows and walk.first_seq > allowed and walk.begins_late is None:
        return _report(walk, Fault(first_file, 1, f"row {allowed}", f"row {walk.first_seq}"), torn=torn)
    return _report(walk, None, torn=torn)


def _report(walk: _Walk, fault: Fault | None, *, torn: bool = False) -> Report:
    return Report(
        rows=walk.rows, first_seq=walk.first_seq, head=walk.head, fault=fault, torn=torn, begins_late=walk.begins_late
    )
