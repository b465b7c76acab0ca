"""The audit trail's rows: what may be recorded, how a row is chained to the one before, and how a chain is checked.

Owns the actions with the fields each may carry, the canonical form of a line, and the verdict on a chain. Pure: no
files, no clock. It must not know who records what.

Theory of operation. A line is one JSON object without white space, members in the order of `FIELDS`, then ``prev`` and
``hash``. ``hash`` is the SHA-256 of the line's bytes without the member ``hash`` itself; ``prev`` is the hash of the
line before (64 zeros for the first). The bytes are what is hashed, so any changed byte shows, white space too. What a
chain cannot show by itself, a tail that was cut off, shows by the `Head`, which is kept elsewhere (in the store).

Invariants: a field that is not on the list of its action is dropped and counted, never written; a value is one line and
capped (`ops.log.clean_value`); raw headers, query strings, parameters and credentials have no field.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.ops.log import clean_value
from openclaw_gateway.value import Value

__all__ = [
    "ACTIONS",
    "FIELDS",
    "GENESIS",
    "Action",
    "Fault",
    "Head",
    "Report",
    "check_line",
    "compose",
    "read_row",
    "seal",
    "verify",
]

GENESIS: Final = "0" * 64
MAX_LINE_BYTES: Final = 65_536
MAX_SHORT: Final = 256


class Action(enum.StrEnum):
    """What can be recorded. The value is what stands in the file and what ``openclaw audit --action`` takes."""

    CONNECT = "connect"
    DISCONNECT = "disconnect"
    PAIRING_REQUESTED = "pairing.requested"
    PAIRING_APPROVED = "pairing.approved"
    PAIRING_REJECTED = "pairing.rejected"
    PAIRING_SUPERSEDED = "pairing.superseded"
    PAIRING_EXPIRED = "pairing.expired"
    PAIRING_REMOVED = "pairing.removed"
    PAIRING_RENAMED = "pairing.renamed"
    TOKEN_MINTED = "token.minted"  # noqa: S105 - a name
    TOKEN_ROTATED = "token.rotated"  # noqa: S105 - a name
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 - a name
    API_KEY_CREATED = "apikey.created"
    API_KEY_REVOKED = "apikey.revoked"
    CHANNEL_STARTED = "channel.started"
    CHANNEL_STOPPED = "channel.stopped"
    CHANNEL_LOGGED_OUT = "channel.logged-out"
    QUEUE_RETRIED = "queue.retried"
    QUEUE_DROPPED = "queue.dropped"
    QUEUE_DISCARDED = "queue.discarded"
    SETUP_CODE_CREATED = "setup-code.created"
    SETUP_CODE_REDEEMED = "setup-code.redeemed"
    SETUP_CODE_REVOKED = "setup-code.revoked"
    KEY_REGISTERED = "key.registered"
    CHANNEL_REFUSED = "channel.refused"
    CERTIFICATE_ISSUED = "certificate.issued"
    CERTIFICATE_REVOKED = "certificate.revoked"
    CONFIG_CHANGED = "config.changed"
    CONFIG_PENDING = "config.pending"
    CONFIG_CONFIRMED = "config.confirmed"
    CONFIG_ROLLED_BACK = "config.rolled-back"
    EXPOSURE_CHANGED = "exposure.changed"
    GATEWAY_STARTED = "gateway.started"
    GATEWAY_STOPPED = "gateway.stopped"
    AUDIT_ROTATED = "audit.rotated"
    AUDIT_DROPPED = "audit.dropped"
    AUDIT_RECOVERED = "audit.recovered"


# name -> meaning, in the order in which a line holds them
FIELDS: Final[Mapping[str, str]] = {
    "seq": "number of the row, from 1, without gaps",
    "time": "when it happened, UTC",
    "action": "what happened",
    "outcome": "ok, refused or failed",
    "actor": "who did it: a principal (device:<id>:<role>, token:operator), owner (command line), gateway",
    "role": "operator or node",
    "device": "device id (SHA-256 of its public key) that the row is about",
    "address": "network address it came from",
    "client": "client id that the peer states (a claim)",
    "conn_id": "connection id",
    "request_id": "id of a pairing request",
    "code": "machine code of the refusal",
    "reason": "why, in a few words",
    "trail": "the steps that led to the verdict",
    "auth": "how the peer authenticated: token, password, device-token, none; or the gateway's own kind",
    "auth_before": "the kind of authentication until now",
    "bind": "where the gateway listens",
    "bind_before": "where it listened until now",
    "account": "account of a message channel",
    "channel": "message channel",
    "close_code": "WebSocket close code",
    "commands": "node commands that were granted or asked for",
    "count": "how many",
    "dropped": "how many rows could not be kept",
    "duration_ms": "how long the connection lasted, milliseconds",
    "expires_at": "end of life, Unix milliseconds",
    "fingerprint": "of a device's end-to-end key: the first half of its SHA-256",
    "fields_dropped": "how many fields of this row are not on the list of its action",
    "first_seq": "the oldest row that is kept from here on",
    "hash_after": "first 12 digits of the configuration's hash",
    "keys": "configuration paths that changed (never their values)",
    "key_id": "id of an API key or of a setup code",
    "label": "name that an operator gave",
    "missing_from": "first row that is missing",
    "missing_to": "last row that is missing",
    "pid": "process id",
    "port": "TCP port",
    "repeated": "how many rows like this one it stands for",
    "scopes": "scopes that were granted or asked for",
    "sender": "immutable id of a person on a message channel",
    "source": "where a change came from: file, call",
    "superseded_by": "the request that took this one's place",
    "tailscale": "tailscale mode",
    "torn_bytes": "bytes of a row that a crash left half-written",
    "transport": "websocket, http, or secure (a secure channel inside a WebSocket)",
    "version": "version of the gateway",
}
_RESERVED: Final = frozenset({"seq", "time", "action"})
_COMMON: Final = frozenset(
    {"outcome", "actor", "role", "device", "address", "client", "conn_id", "request_id", "code", "reason", "trail"}
)
_PAIRING: Final = frozenset({"scopes", "commands", "channel", "sender", "label", "superseded_by"})
_TOKEN: Final = frozenset({"scopes", "expires_at", "key_id", "label"})

# action -> the fields it may carry besides the common ones
ACTIONS: Final[Mapping[Action, frozenset[str]]] = {
    Action.CONNECT: frozenset({"auth", "scopes", "transport", "repeated"}),
    Action.DISCONNECT: frozenset({"close_code", "duration_ms", "repeated"}),
    Action.PAIRING_REQUESTED: _PAIRING,
    Action.PAIRING_APPROVED: _PAIRING,
    Action.PAIRING_REJECTED: _PAIRING,
    Action.PAIRING_SUPERSEDED: _PAIRING,
    Action.PAIRING_EXPIRED: _PAIRING,
    Action.PAIRING_REMOVED: _PAIRING,
    Action.PAIRING_RENAMED: _PAIRING,
    Action.TOKEN_MINTED: _TOKEN,
    Action.TOKEN_ROTATED: _TOKEN,
    Action.TOKEN_REVOKED: _TOKEN,
    Action.API_KEY_CREATED: _TOKEN,
    Action.API_KEY_REVOKED: _TOKEN,
    Action.CHANNEL_STARTED: frozenset({"channel", "account"}),
    Action.CHANNEL_STOPPED: frozenset({"channel", "account"}),
    Action.CHANNEL_LOGGED_OUT: frozenset({"channel", "account"}),
    Action.QUEUE_RETRIED: frozenset({"count"}),
    Action.QUEUE_DROPPED: frozenset({"count"}),
    Action.QUEUE_DISCARDED: frozenset({"count"}),
    Action.SETUP_CODE_CREATED: _TOKEN,
    Action.SETUP_CODE_REDEEMED: _TOKEN,
    Action.SETUP_CODE_REVOKED: _TOKEN,
    Action.KEY_REGISTERED: frozenset({"fingerprint"}),
    Action.CHANNEL_REFUSED: frozenset({"close_code", "repeated"}),
    Action.CERTIFICATE_ISSUED: _TOKEN,
    Action.CERTIFICATE_REVOKED: _TOKEN,
    Action.CONFIG_CHANGED: frozenset({"keys", "hash_after", "source"}),
    Action.CONFIG_PENDING: frozenset({"keys", "hash_after", "expires_at"}),
    Action.CONFIG_CONFIRMED: frozenset({"keys", "hash_after"}),
    Action.CONFIG_ROLLED_BACK: frozenset({"keys"}),
    Action.EXPOSURE_CHANGED: frozenset({"bind", "bind_before", "port", "auth", "auth_before", "tailscale", "keys"}),
    Action.GATEWAY_STARTED: frozenset({"bind", "port", "auth", "tailscale", "pid", "version"}),
    Action.GATEWAY_STOPPED: frozenset({"pid"}),
    Action.AUDIT_ROTATED: frozenset({"first_seq"}),
    Action.AUDIT_DROPPED: frozenset({"dropped"}),
    Action.AUDIT_RECOVERED: frozenset({"missing_from", "missing_to", "torn_bytes"}),
}
_ALLOWED: Final[Mapping[Action, tuple[str, ...]]] = {
    action: tuple(name for name in FIELDS if name not in _RESERVED and name in (_COMMON | more))
    for action, more in ACTIONS.items()
}

_encode = msgspec.json.Encoder().encode
_HASH_HEAD: Final = b',"hash":"'
_HASH_TAIL: Final = b'"}'
_SUFFIX: Final = len(_HASH_HEAD) + 64 + len(_HASH_TAIL)


@attrs.frozen(eq=False, repr=False)
class Head(Value):
    """How far a chain goes: the number and hash of its last row. ``seq`` 0: nothing yet."""

    seq: int = 0
    hash: str = GENESIS


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


def compose(action: Action, time: str, fields: Mapping[str, object]) -> dict[str, object]:
    """A row ready to be sealed: allowed fields only, cleaned, in their order. Never raises for a strange value."""
    row: dict[str, object] = {"time": time, "action": action.value}
    taken = 0
    for name in _ALLOWED[action]:
        value = fields.get(name)
        if value is None:
            taken += name in fields
            continue
        taken += 1
        try:
            row[name] = clean_value(value)
        except Exception:  # noqa: BLE001  a broken __str__ must not take down what it describes
            row[name] = "<unprintable>"
    if taken < len(fields):
        row["fields_dropped"] = len(fields) - taken
    return row


def seal(row: Mapping[str, object], head: Head) -> tuple[bytes, Head]:
    """The line that follows ``head``, with its line end, and the new head."""
    seq = head.seq + 1
    body = _encode({"seq": seq, **row, "prev": head.hash})
    if len(body) > MAX_LINE_BYTES - _SUFFIX:
        # Only escaping can blow a row up like this; what a peer sends must not make a line that no reader takes.
        short = {name: _shortened(value) for name, value in row.items() if not isinstance(value, list)}
        short["fields_dropped"] = len(row) - len(short)
        body = _encode({"seq": seq, **short, "prev": head.hash})
    digest = hashlib.sha256(body).hexdigest()
    return b"%b%b%b%b\n" % (body[:-1], _HASH_HEAD, digest.encode(), _HASH_TAIL), Head(seq, digest)


def _shortened(value: object) -> object:
    return value[:MAX_SHORT] if isinstance(value, str) else value


class _Links(msgspec.Struct):
    """What the check needs of a row."""

    seq: int
    action: str
    prev: str
    hash: str
    first_seq: Any = None
    missing_to: Any = None


_links = msgspec.json.Decoder(_Links).decode
_any = msgspec.json.Decoder(dict[str, Any]).decode


def read_row(line: bytes) -> dict[str, Any] | None:
    """A line as a mapping; None where it is not one. Says nothing about the chain."""
    try:
        return _any(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def check_line(line: bytes) -> Head | None:
    """The head that a line (without its end) makes, if the line is whole in itself; None where it is not."""
    links = _check(line)
    return Head(links.seq, links.hash) if isinstance(links, _Links) else None


def _check(line: bytes) -> _Links | str:
    """The row's links if its bytes fit its hash, else what is wrong in a few words."""
    if len(line) > MAX_LINE_BYTES:
        return "a line that is too long"
    try:
        links = _links(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "a line that is no row"
    at = len(line) - _SUFFIX
    well_formed = at > 0 and line[at : at + len(_HASH_HEAD)] == _HASH_HEAD and line.endswith(_HASH_TAIL)
    if not well_formed or hashlib.sha256(line[:at] + b"}").hexdigest() != links.hash:
        return f"row {links.seq} with other content (its hash does not fit)"
    return links


class _Walk:
    """The state of a check: what the next row must be."""

    def __init__(self) -> None:
        self.rows = 0
        self.first_seq = 0
        self.head = Head()
        self.kept_from: int | None = None
        self.begins_late: int | None = None
        self.anchor_ok: bool | None = None

    def take(self, links: _Links, anchor: Head | None) -> tuple[str, str] | None:
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
            links = _check(line[:-1])
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
