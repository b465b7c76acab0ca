"""Changes to the text of openclaw.json that leave everything else as its author wrote it.

Owns setting, unsetting and merging values in JSON5 text: comments, ``${NAME}``, key style, indentation and order
stay. Text in, text out; must not touch files (`config.writing`) nor judge values (`config.load`).

Invariants: after every edit the text is read again and must hold exactly the wanted value, else `EditError`; the
redaction marker never gets into the text: inside a block it keeps the secret that is there, alone it is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from openclaw_gateway.config.json5 import Json5Error, Member, Node, is_identifier, parse
from openclaw_gateway.config.redact import MARKER, MarkerRefusedError, refuse_marker, restore
from openclaw_gateway.config.settings import ALIASES, canonical_path, pattern
from openclaw_gateway.errors import GatewayError

__all__ = ["EditError", "merge_patch", "parse_path", "set_value", "unset_value"]

_STEP: Final = re.compile(r"""\.?(?:([^.\[\]"']+)|\[(\d+)\]|\["([^"\]]*)"\]|\['([^'\]]*)'\])""")
_MAX_STEPS: Final = 32
_SAME_LINE: Final = re.compile(r"[ \t]*(?:/\*(?:(?!\*/)[^\n\r])*\*/[ \t]*)*(?://[^\n\r]*)?(?=\r?\n|\r|\Z)")


@attrs.define(eq=False)
class EditError(GatewayError):
    """The text cannot be changed in this way. ``path`` is where."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def parse_path(path: str) -> tuple[str, ...]:
    """``channels.telegram["dm"].allowFrom[0]`` → its steps. Raises `EditError`."""
    steps: list[str] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        if match is None or len(steps) >= _MAX_STEPS:
            raise EditError(path[:200], "not a path; write it as gateway.port or channels.telegram.dm.allowFrom[0]")
        steps.append(next(group for group in match.groups() if group is not None))
        at = match.end()
    if not steps or not all(steps):
        raise EditError(path[:200], "not a path; write it as gateway.port")
    return tuple(steps)


def set_value(raw: str, path: str, value: Any) -> str:
    """The text with ``value`` at ``path``; missing blocks are made. An empty text becomes a new file.

    A setting that the file has under OpenClaw's name is changed under that name. A block given as a whole is merged
    so that what did not change keeps its text. Raises `EditError`, `MarkerRefusedError`.
    """
    steps = parse_path(path)
    if value == MARKER:
        raise MarkerRefusedError(path)
    root = _parse(raw)
    steps = _as_written(root.value, steps)
    value = restore(value, _look(root.value, steps), ".".join(steps))
    return _set(raw if raw.strip() else "{}\n", steps, value)


def unset_value(raw: str, path: str) -> tuple[str, bool]:
    """The text without ``path`` and whether anything was there. Raises `EditError`."""
    steps = parse_path(path)
    root = _parse(raw)
    steps = _as_written(root.value, steps)
    if not _has(root.value, steps):
        return raw, False
    return _unset(raw, steps), True


def merge_patch(raw: str, patch: Mapping[str, Any]) -> str:
    """The text after an RFC 7396 merge patch: objects merge, null removes, everything else replaces."""
    root = _parse(raw)
    restored = restore(dict(patch), root.value, "")
    return _merge(raw if raw.strip() else "{}\n", (), restored)


def _merge(raw: str, steps: tuple[str, ...], patch: Mapping[str, Any]) -> str:
    for key, value in patch.items():
        at = (*steps, key)
        tree = _parse(raw).value
        names = _as_written(tree, at)
        if value is None:
            if _has(tree, names):
                raw = _unset(raw, names)
        elif isinstance(value, dict) and isinstance(_look(tree, names), dict):
            raw = _merge(raw, at, value)
        else:
            raw = _set(raw, names, _without_nulls(value))
    return raw


def _without_nulls(value: Any) -> Any:
    """RFC 7396: a null inside an object that is new means absent, not null."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


def _parse(raw: str) -> Node:
    try:
        root = parse(raw) if raw.strip() else parse("{}")
    except Json5Error as error:
        raise EditError("", f"the file is not valid JSON5: {error}") from error
    if not isinstance(root.value, dict):
        raise EditError("", "the file must hold one block { ... }")
    return root


def _as_written(tree: Any, steps: tuple[str, ...]) -> tuple[str, ...]:
    """The steps under the name that the file uses, where a setting has two names."""
    dotted = ".".join(steps)
    canonical = canonical_path(dotted)
    names = [canonical] + [
        alias.replace("*", steps[1], 1) if "*" in alias else alias
        for alias, target in ALIASES.items()
        if target == pattern(canonical)
    ]
    if len(names) == 1 or any("." in step for step in steps):
        return steps
    present = [name for name in names if _has(tree, tuple(name.split(".")))]
    return tuple((present[0] if present else dotted).split("."))


def _look(tree: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        if isinstance(tree, list) and step.isdigit() and int(step) < len(tree):
            tree = tree[int(step)]
        elif isinstance(tree, dict):
            tree = tree.get(step)
        else:
            return None
    return tree


def _has(tree: Any, steps: Sequence[str]) -> bool:
    holder = _look(tree, steps[:-1])
    if isinstance(holder, list):
        return steps[-1].isdigit() and int(steps[-1]) < len(holder)
    return isinstance(holder, dict) and steps[-1] in holder


def _set(raw: str, steps: tuple[str, ...], value: Any) -> str:
    """One value in its place; blocks are compared so that only what differs is touched."""
    refuse_marker(value, ".".join(steps))
    root = _parse(raw)
    if _has(root.value, steps):
        present = _look(root.value, steps)
        if _same(present, value):
            return raw
        if isinstance(present, dict) and isinstance(value, dict) and present and value:
            for key in present:
                if key not in value:
                    raw = _unset(raw, (*steps, key))
            for key, inner in value.items():
                raw = _set(raw, (*steps, key), inner)
            return raw
    edited = _put(raw, root, steps, value)
    _check(edited, steps, value)
    return edited


def _same(one: Any, other: Any) -> bool:
    """Equality that tells 1 from true and 1 from 1.0, as the file does."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _check(edited: str, steps: tuple[str, ...], value: Any) -> None:
    if not _same(_look(_parse(edited).value, steps), value):
        raise EditError(".".join(steps), "the edit did not come out as meant; nothing was changed")


def _put(raw: str, root: Node, steps: tuple[str, ...], value: Any) -> str:
    node = root
    for depth, step in enumerate(steps):
        where = ".".join(steps[: depth + 1])
        if isinstance(node.value, list):
            if not step.isdigit() or int(step) >= len(node.items):
                raise EditError(where, f"the list has {len(node.items)} entries; set the list as a whole to add one")
            inner = node.items[int(step)]
        elif isinstance(node.value, dict):
            member = node.member(step)
            if member is None or (depth < len(steps) - 1 and not isinstance(member.value.value, dict | list)):
                if member is not None and member.value.value is not None:
                    raise EditError(where, "is a value, not a block")
                for missing in reversed(steps[depth + 1 :]):
                    value = {missing: value}
                if member is not None:
                    return _replace(raw, root, node, member.value, value)
                return _insert(raw, root, node, step, value)
            inner = member.value
        else:
            raise EditError(where, "is a value, not a block")
        if depth == len(steps) - 1:
            return _replace(raw, root, node, inner, value)
        node = inner
    raise EditError("", "an empty path names nothing")


def _replace(raw: str, root: Node, holder: Node, node: Node, value: Any) -> str:
    indent = _indent_at(raw, node.start)
    text = _encode(value, indent, _unit(raw, root), quoted=_quoted(holder, root), lines=_is_multiline(raw, holder))
    return raw[: node.start] + text + raw[node.end :]


def _insert(raw: str, root: Node, holder: Node, key: str, value: Any) -> str:
    unit, quoted = _unit(raw, root), _quoted(holder, root)
    lines = _is_multiline(raw, holder) or (holder is root and not holder.members)
    if not holder.members:
        outer = _indent_at(raw, holder.start)
        inner = outer + unit
        member = f"{_key(key, quoted)}: {_encode(value, inner, unit, quoted=quoted, lines=lines)}"
        rest = raw[holder.start + 1 : holder.end - 1]
        if not lines:
            return f"{raw[: holder.start]}{{ {member}{rest.rstrip() or ' '}}}{raw[holder.end :]}"
        tail = rest if "\n" in rest else rest.rstrip() + f"\n{outer}"
        return f"{raw[: holder.start]}{{\n{inner}{member}{tail}}}{raw[holder.end :]}"
    last = holder.members[-1]
    inner = _indent_at(raw, last.start) if lines else ""
    member = f"{_key(key, quoted)}: {_encode(value, inner, unit, quoted=quoted, lines=lines)}"
    if last.comma is None:
        raw, at = raw[: last.value.end] + "," + raw[last.value.end :], last.value.end + 1
    else:
        at, member = last.comma + 1, member + ","
    if not lines:
        return f"{raw[:at]} {member}{raw[at:]}"
    # A comment behind the last member, on its line, is about that member and stays with it.
    same_line = _SAME_LINE.match(raw, at)
    at = same_line.end() if same_line is not None else at
    rest = raw[at:] if same_line is not None else f"\n{_indent_at(raw, holder.start)}" + raw[at:].lstrip(" \t")
    return f"{raw[:at]}\n{inner}{member}{rest}"


def _unset(raw: str, steps: tuple[str, ...]) -> str:
    """Remove every member of that name (a key may stand twice), each with its line where it has one to itself."""
    node = _parse(raw)
    for step in steps[:-1]:
        member = node.member(step)
        if member is None:
            raise EditError(".".join(steps), "a list entry cannot be unset; set the list as a whole")
        node = member.value
    if isinstance(node.value, list):
        raise EditError(".".join(steps), "a list entry cannot be unset; set the list as a whole")
    for index in range(len(node.members) - 1, -1, -1):
        if node.members[index].key == steps[-1]:
            edited = _remove(raw, node.members, index)
            return _unset(edited, steps) if _has(_parse(edited).value, steps) else edited
    return raw


def _remove(raw: str, members: tuple[Member, ...], index: int) -> str:
    member = members[index]
    start, end = member.start, member.value.end if member.comma is None else member.comma + 1
    line_start = max(raw.rfind("\n", 0, start), raw.rfind("\r", 0, start)) + 1
    same_line = _SAME_LINE.match(raw, end)
    own_line = not raw[line_start:start].strip() and same_line is not None
    if own_line and same_line is not None:
        start, end = line_start, same_line.end()
        end += 2 if raw.startswith("\r\n", end) else 1 if end < len(raw) else 0
    else:
        end += len(raw[end:]) - len(raw[end:].lstrip(" \t"))
    previous = members[index - 1].comma if index > 0 and member.comma is None else None
    if previous is None:
        return raw[:start] + raw[end:]
    # The one before becomes the last: strict JSON allows no comma after it.
    between = raw[previous + 1 : start]
    if not own_line and not between.strip():
        between = " " if raw[end : end + 1] in {"}", ""} else ""
    return raw[:previous] + between + raw[end:]


def _is_multiline(raw: str, node: Node) -> bool:
    first = node.members[0].start if node.members else node.end
    return "\n" in raw[node.start : first]


def _indent_at(raw: str, at: int) -> str:
    line = raw[raw.rfind("\n", 0, at) + 1 : at]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _unit(raw: str, root: Node) -> str:
    """One level of indentation, taken from the first line of the outermost block."""
    if root.members and _is_multiline(raw, root):
        return _indent_at(raw, root.members[0].start)[:8] or "  "
    return "  "


def _quoted(holder: Node, root: Node) -> bool:
    """Whether keys stand in quotes around here; a new file is written as strict JSON, which every reader takes."""
    for node in (holder, root):
        if node.members:
            return node.members[0].quote != ""
    return True


def _key(key: str, quoted: bool) -> str:
    return json.dumps(key, ensure_ascii=False) if quoted or not is_identifier(key) else key


def _encode(value: Any, indent: str, unit: str, *, quoted: bool, lines: bool) -> str:
    """A value as text: blocks over several lines where their surroundings are, lists of plain values in one."""
    if isinstance(value, dict):
        if not value:
            return "{}"
        inner = indent + unit
        members = [
            f"{_key(str(key), quoted)}: {_encode(item, inner, unit, quoted=quoted, lines=lines)}"
            for key, item in value.items()
        ]
        if not lines:
            return "{ " + ", ".join(members) + " }"
        return "{\n" + ",\n".join(inner + member for member in members) + f"\n{indent}}}"
    if isinstance(value, list):
        inner = indent + unit
        nested = lines and any(isinstance(item, dict | list) for item in value)
        items = [_encode(item, inner, unit, quoted=quoted, lines=nested) for item in value]
        if not nested:
            return "[" + ", ".join(items) + "]"
        return "[\n" + ",\n".join(inner + item for item in items) + f"\n{indent}]"
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise EditError("", "not a value that a configuration can hold") from None
