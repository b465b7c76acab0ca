"""One table of everybody who waits and everybody who is in: senders, devices, node surfaces (PAIR-8).

Owns the row, how each kind becomes one, and how an id (or the beginning of one) finds its row. Every row carries the
call that approves or rejects it, bound to what is shown, so that whoever reads the table needs no second look-up. It
must not know who asks or how rows travel; more kinds come from more sources.

Invariants: a row names what is asked *and* what an approval would grant; a prefix has at least `MIN_PREFIX` characters
and must be unique (PAIR-5); a row holds no token and no key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.pairing.devices import DeviceBook
from openclaw_gateway.pairing.sender_records import Sender, SenderRequest
from openclaw_gateway.pairing.senders import SenderGate
from openclaw_gateway.value import Value

__all__ = [
    "MIN_PREFIX",
    "AmbiguousRequest",
    "NoSuchRequest",
    "Overview",
    "PairingRow",
    "Source",
    "device_source",
    "find_row",
    "sender_source",
]

MIN_PREFIX: Final = 6
MAX_ROWS: Final = 2_000  # of what is paired; what waits has caps of its own

Kind = Literal["dm", "device", "node"]


@attrs.define(eq=False)
class NoSuchRequest(GatewayError):
    """Nothing waits under that id."""

    message: str
    fix: str = "openclaw pairing list"

    def __str__(self) -> str:
        return self.message


@attrs.define(eq=False)
class AmbiguousRequest(GatewayError):
    """Several requests begin that way: ``ids``."""

    message: str
    ids: tuple[str, ...]
    fix: str

    def __str__(self) -> str:
        return self.message


@attrs.frozen(kw_only=True, eq=False, repr=False)
class PairingRow(Value):
    """One request or one pairing; times are Unix milliseconds.

    ``source``: where it came from (an address, or an account of a channel). ``asks`` is what was asked for, ``grants``
    what an approval would give (of a paired row: what it holds). ``approve`` and ``reject`` are ``(method, params)``.
    """

    kind: Kind
    state: Literal["pending", "paired"]
    id: str
    subject: str
    name: str
    source: str
    asks: tuple[str, ...]
    grants: str
    created_at_ms: int
    last_seen_at_ms: int
    channel: str | None = None
    account: str | None = None
    role: str | None = None
    code: str | None = attrs.field(default=None, repr=False)
    expires_at_ms: int | None = None
    policy: str | None = None
    approve: tuple[str, Mapping[str, Any]] | None = None
    reject: tuple[str, Mapping[str, Any]] | None = None

    def to_wire(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "kind": self.kind,
            "state": self.state,
            "id": self.id,
            "subject": self.subject,
            "name": self.name,
            "source": self.source,
            "channel": self.channel,
            "accountId": self.account,
            "role": self.role,
            "asks": list(self.asks),
            "grants": self.grants,
            "code": self.code,
            "policy": self.policy,
            "createdAtMs": self.created_at_ms,
            "lastSeenAtMs": self.last_seen_at_ms,
            "expiresAtMs": self.expires_at_ms,
            "approve": _call(self.approve),
            "reject": _call(self.reject),
        }
        return {key: value for key, value in row.items() if value is not None}


def _call(call: tuple[str, Mapping[str, Any]] | None) -> dict[str, Any] | None:
    return None if call is None else {"method": call[0], "params": dict(call[1])}


Source = Callable[[], Iterable[PairingRow]]


class Overview:
    """All rows of all sources. A source raises what its book raises where it cannot be read."""

    def __init__(self, *sources: Source) -> None:
        self._sources = list(sources)

    def add(self, source: Source) -> None:
        """Another kind of request (node surfaces) takes its place in the same table."""
        self._sources.append(source)

    def rows(self, *, channel: str | None = None) -> list[PairingRow]:
        """What waits first, oldest first, then what is paired, newest first (at most `MAX_ROWS` of it)."""
        rows = [row for source in self._sources for row in source() if channel in {None, row.channel}]
        waiting = sorted((row for row in rows if row.state == "pending"), key=lambda row: row.created_at_ms)
        paired = sorted((row for row in rows if row.state == "paired"), key=lambda row: -row.last_seen_at_ms)
        return waiting + paired[:MAX_ROWS]


def sender_source(gate: SenderGate) -> Source:
    """Direct-message senders: who waits, and everybody about whom something was decided."""

    def rows() -> Iterable[PairingRow]:
        for request in gate.book.waiting():
            yield _waiting_sender(gate, request)
        for sender in gate.book.senders():
            yield _known_sender(sender)

    return rows


def _waiting_sender(gate: SenderGate, request: SenderRequest) -> PairingRow:
    params = {"channel": request.channel, "accountId": request.account, "requestId": request.request_id}
    return PairingRow(
        kind="dm",
        state="pending",
        id=request.request_id,
        subject=request.sender_id,
        name=request.display_name,
        source=f"{request.channel}/{request.account}",
        channel=request.channel,
        account=request.account,
        asks=("direct messages",),
        grants="direct messages here, no scope",
        code=gate.book.codes.code(request),
        created_at_ms=request.created_at_ms,
        last_seen_at_ms=gate.book.last_seen_ms(request),
        expires_at_ms=request.expires_at_ms,
        approve=("channels.pairing.approve", params),
        reject=("channels.pairing.dismiss", params),
    )


def _known_sender(sender: Sender) -> PairingRow:
    holds = {"allow": "direct messages", "deny": "nothing: denied", "pair": "nothing: has to pair"}[sender.policy]
    return PairingRow(
        kind="dm",
        state="paired",
        id=f"{sender.channel}:{sender.account}:{sender.sender_id}",
        subject=sender.sender_id,
        name=sender.display_name,
        source=f"{sender.channel}/{sender.account}",
        channel=sender.channel,
        account=sender.account,
        asks=(),
        grants=holds,
        policy=sender.policy,
        created_at_ms=sender.decided_at_ms,
        last_seen_at_ms=sender.decided_at_ms,
    )


def device_source(book: DeviceBook, *, only: str | None = None) -> Source:
    """Devices, operators and nodes alike; of one device where ``only`` names it (V21)."""

    def rows() -> Iterable[PairingRow]:
        for request in book.pending():
            if only not in {None, request.device_id}:
                continue
            grants = ", ".join(request.scopes) if request.role == "operator" else _node_grant(len(request.commands))
            params = {"requestId": request.request_id, "askHash": request.ask_hash}
            yield PairingRow(
                kind="device",
                state="pending",
                id=request.request_id,
                subject=request.device_id,
                name=request.display_name or request.client_id,
                source=request.source_ip,
                role=request.role,
                asks=(*request.scopes, *request.commands),
                grants=f"{request.role}: {grants or 'no scope'}",
                created_at_ms=request.first_seen_ms,
                last_seen_at_ms=request.last_seen_ms,
                expires_at_ms=request.expires_at_ms,
                approve=("device.pair.approve", params),
                reject=("device.pair.reject", {"requestId": request.request_id}),
            )
        for record in book.paired():
            if only not in {None, record.device_id}:
                continue
            holds = ", ".join(record.scopes) or "no scope"
            yield PairingRow(
                kind="device",
                state="paired",
                id=record.device_id,
                subject=record.device_id,
                name=record.label or record.display_name or record.client_id,
                source=record.last_ip,
                role=record.role,
                asks=(),
                grants=f"{record.role}: {holds}" if record.live else f"{record.role}: nothing: revoked",
                created_at_ms=record.approved_at_ms,
                last_seen_at_ms=record.last_seen_at_ms,
            )

    return rows


def _node_grant(commands: int) -> str:
    return f"may connect and offer {commands} commands" if commands else "may connect"


def find_row(rows: Sequence[Mapping[str, Any]], text: str) -> Mapping[str, Any]:
    """The waiting row (as on the wire) whose id is ``text``, or begins with it where it is long enough and unique.

    Raises `NoSuchRequest`, `AmbiguousRequest`.
    """
    wanted = text.strip().lower()
    waiting = [row for row in rows if row["state"] == "pending"]
    exact = [row for row in waiting if str(row["id"]).lower() == wanted]
    if exact:
        return exact[0]
    if len(wanted) < MIN_PREFIX:
        raise NoSuchRequest(f"{text!r} is no request; the beginning of an id needs {MIN_PREFIX} characters or more")
    found = [row for row in waiting if str(row["id"]).lower().startswith(wanted)]
    if not found:
        raise NoSuchRequest(f"nothing waits under the id {text!r}")
    if len(found) > 1:
        ids = tuple(str(row["id"]) for row in found)
        fix = f"openclaw pairing approve {ids[0]}   (one of {', '.join(ids)})"
        raise AmbiguousRequest(f"{len(found)} requests begin with {text!r}", ids, fix)
    return found[0]
