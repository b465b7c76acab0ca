"""What a person is shown about a request before he decides: the rows of the pairing methods, put into words.

Owns the choice of facts, their order and their names. Pure: a row of `device.pair.list` or `node.pair.list` and the
time in, a `Review` of plain text out; `approvals.page` writes it as HTML and escapes it. Invariants: everything that an
approval would grant is in it, whatever its length, and what reaches furthest comes first; what a device says about
itself never stands where the gateway speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from openclaw_gateway.approvals.offers import Kind
from openclaw_gateway.policy.nodes import exec_capable
from openclaw_gateway.protocol.keystatement import decode_key, fingerprint
from openclaw_gateway.protocol.scopes import ADMIN
from openclaw_gateway.value import Value

__all__ = ["Moment", "Review", "digits", "review_of_device", "review_of_surface", "span"]

_REASONS: Final = {
    "scope-upgrade": "It is paired already and asks for more than was approved.",
    "role-upgrade": "It is paired already and asks for another role.",
}


@attrs.frozen(eq=False, repr=False)
class Moment(Value):
    """Unix milliseconds, and how far that is from now, in words."""

    at_ms: int
    words: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Review(Value):
    """``facts``: what to show, by label; ``grants``: names that would be granted, by label, with those that reach far.
    ``warning``: what an approval opens, in the gateway's words."""

    kind: Kind
    request_id: str
    device_id: str
    name: str
    role: str
    title: str
    ask_hash: str | None
    facts: tuple[tuple[str, str | Moment], ...]
    grants: tuple[tuple[str, tuple[str, ...]], ...]
    far: frozenset[str]
    warning: str
    note: str = ""


def review_of_device(row: Mapping[str, Any], now_ms: int) -> Review:
    """``row``: of ``pending`` in `device.pair.list`."""
    name, role = _name(row), str(row.get("role", ""))
    scopes = tuple(row.get("scopes", ()))
    commands = _commands(row)
    if role == "node":
        warning = "It will be let in as a node. Which of its commands it lends is asked next; until then it lends none."
    elif ADMIN in scopes:
        warning = "It will be let in as an operator with full control of this gateway and of every node."
    else:
        warning = "It will be let in as an operator of this gateway, with the rights below."
    facts = [*_who(row, str(row["deviceId"])), ("Role", role)]
    statement = row.get("keyStatement")
    if statement is not None:
        facts.append(("End-to-end key", fingerprint(decode_key(statement["key"]))))
    facts += [("Asked", _ago(row["ts"], now_ms)), ("Expires", _ahead(row["expiresAtMs"], now_ms))]
    return Review(
        kind="device",
        request_id=str(row["requestId"]),
        device_id=str(row["deviceId"]),
        name=name,
        role=role,
        title="wants to join as a node" if role == "node" else "wants to join as an operator",
        ask_hash=row.get("askHash"),
        facts=tuple((label, value) for label, value in facts if value),
        grants=_grants(("Rights", scopes), ("Commands", commands), ("Abilities", tuple(row.get("caps", ())))),
        far=frozenset(name for name in commands if exec_capable(name)) | ({ADMIN} & set(scopes)),
        warning=warning,
        note=_REASONS.get(str(row.get("reason")), "It is known here already." if row.get("isRepair") else ""),
    )


def review_of_surface(row: Mapping[str, Any], now_ms: int) -> Review:
    """``row``: of ``pending`` in `node.pair.list`."""
    commands = _commands(row)
    far = frozenset(name for name in commands if exec_capable(name))
    warning = "Operators of this gateway and its agents will be able to use these on the device."
    return Review(
        kind="surface",
        request_id=str(row["requestId"]),
        device_id=str(row["nodeId"]),
        name=_name(row),
        role="node",
        title="offers commands",
        ask_hash=None,
        facts=tuple(
            (label, value)
            for label, value in (*_who(row, str(row["nodeId"])), ("Asked", _ago(row["ts"], now_ms)))
            if value
        ),
        grants=_grants(("Commands", commands), ("Abilities", tuple(row.get("caps", ())))),
        far=far,
        warning=warning,
    )


def digits(device_id: str) -> str:
    """What two people compare: the first half of a device id, as ``openclaw node identity`` prints it."""
    half = device_id[:32].upper()
    return ":".join(half[at : at + 4] for at in range(0, len(half), 4))


def span(milliseconds: int) -> str:
    """A length of time in words, rounded down."""
    seconds = max(0, milliseconds // 1000)
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"


def _who(row: Mapping[str, Any], device_id: str) -> list[tuple[str, str | Moment]]:
    platform = " · ".join(filter(None, (str(row.get("platform", "")), str(row.get("deviceFamily", "")))))
    client = " ".join(filter(None, (str(row.get("clientId", "")), str(row.get("version", "")))))
    return [
        ("Platform", platform),
        ("Program", client),
        ("Address", str(row.get("remoteIp", ""))),
        ("Fingerprint", digits(device_id)),
        ("Device id", device_id),
    ]


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("displayName") or row.get("clientId") or "A device without a name")


def _commands(row: Mapping[str, Any]) -> tuple[str, ...]:
    commands = {str(name) for name in row.get("commands", ())}
    return tuple(sorted(commands, key=lambda name: (not exec_capable(name), name)))


def _grants(*lists: tuple[str, tuple[str, ...]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((label, names) for label, names in lists if names)


def _ago(at_ms: int, now_ms: int) -> Moment:
    return Moment(at_ms, f"{span(now_ms - at_ms)} ago")


def _ahead(at_ms: int, now_ms: int) -> Moment:
    return Moment(at_ms, f"in {span(at_ms - now_ms)}")
