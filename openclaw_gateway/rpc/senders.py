"""Methods about who waits on message channels, and the one table of everything that waits: `channels.pairing.*`,
`pairing.list`.

Owns their parameters, their scope (operator.pairing) and the translation of what can go wrong. The names and shapes
of list, approve and dismiss are those of OpenClaw's protocol schema; ``code`` next to ``requestId``, and reject,
policy and history, are ours.

Invariants: nothing here grants a scope, and what an approval may grant beyond direct messages (a command owner) asks
for operator.admin before anything is changed (V19); the answer goes out after the change is durable; a session that
came with a device's own token sees its own device only (V21).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.errors import LocalProtocolError
from openclaw_gateway.nodes.surfaces import SurfacesUnreadable
from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.auditrows import Action
from openclaw_gateway.pairing.devices import DeviceBook, DeviceBookUnreadable
from openclaw_gateway.pairing.overview import Overview, PairingRow, device_source, sender_source
from openclaw_gateway.pairing.sender_records import DEFAULT_ACCOUNT, Sender, SenderKey
from openclaw_gateway.pairing.sender_rows import MAX_HISTORY, Decided
from openclaw_gateway.pairing.senders import SenderBookUnreadable, SenderGate, SenderLimit, UnknownSenderRequest
from openclaw_gateway.policy.senders import canonical_sender
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.protocol.scopes import ADMIN, satisfies
from openclaw_gateway.rpc.audit import recorded
from openclaw_gateway.rpc.pairing import own_device_of
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["EVENTS", "register"]

EVENTS: Final = ("channel.pairing.requested", "channel.pairing.resolved")
_MAX_SHOWN: Final = 60


@attrs.frozen(eq=False, repr=False)
class ListParams(Value):
    channel: str | None = None
    account_id: str | None = None


@attrs.frozen(eq=False, repr=False)
class ResolveParams(Value):
    channel: str
    account_id: str | None = None
    request_id: str | None = None
    code: str | None = None
    notify: bool = False
    bootstrap_command_owner: bool = False

    def __attrs_post_init__(self) -> None:
        if (self.code is None) == (self.request_id is None):
            raise ValueError("at root: must have one of the properties 'requestId' and 'code'")


@attrs.frozen(eq=False, repr=False)
class DismissParams(Value):
    channel: str
    account_id: str | None = None
    request_id: str | None = None
    code: str | None = None

    def __attrs_post_init__(self) -> None:
        if (self.code is None) == (self.request_id is None):
            raise ValueError("at root: must have one of the properties 'requestId' and 'code'")


@attrs.frozen(eq=False, repr=False)
class PolicyParams(Value):
    channel: str
    sender_id: str
    account_id: str = DEFAULT_ACCOUNT
    policy: Literal["allow", "deny", "pair", "clear"] | None = None


@attrs.frozen(eq=False, repr=False)
class HistoryParams(Value):
    channel: str | None = None
    limit: int = 100


@attrs.frozen(eq=False, repr=False)
class OverviewParams(Value):
    channel: str | None = None


def register(
    table: MethodTable, *, gate: SenderGate, devices: DeviceBook, clock: Callable[[], int], audit: AuditTrail
) -> Overview:
    """Put the methods into ``table``. What is returned takes more sources for the table: node surfaces."""
    book = gate.book

    def list_senders(context: CallContext, params: ListParams) -> dict[str, Any]:
        try:
            return gate.to_wire(channel=params.channel, account=params.account_id)
        except SenderBookUnreadable as exc:
            raise CallError(wire_error("store-unavailable")) from exc

    async def approve(context: CallContext, params: ResolveParams) -> dict[str, Any]:
        if params.bootstrap_command_owner and not satisfies(context.scopes, ADMIN):
            details = {"missingScope": ADMIN, "requiredScopes": [ADMIN]}
            raise CallError(wire_error("missing-scope", scope=ADMIN, details=details))
        decided = await _resolve(book.approve, context, params)
        sender = decided.sender
        assert sender is not None
        await _record(audit, Action.PAIRING_APPROVED, context, decided)
        return {
            "requestId": decided.request.request_id,
            "senderId": sender.sender_id,
            "notification": await gate.notify(sender) if params.notify else "not-requested",
            # This gateway has no command owner: pairing lets a sender talk, and gives nothing else.
            "commandOwnerBootstrap": "unavailable" if params.bootstrap_command_owner else "not-requested",
        }

    async def dismiss(context: CallContext, params: DismissParams) -> dict[str, Any]:
        decided = await _resolve(book.reject, context, params)
        await _record(audit, Action.PAIRING_REJECTED, context, decided)
        return {"requestId": decided.request.request_id, "senderId": decided.request.sender_id}

    async def policy(context: CallContext, params: PolicyParams) -> dict[str, Any]:
        sender_id = canonical_sender(params.channel, params.sender_id)
        if sender_id is None:
            sender_id, channel = repr(params.sender_id[:_MAX_SHOWN]), params.channel[:_MAX_SHOWN]
            raise CallError(wire_error("sender-id-invalid", sender=sender_id, channel=channel))
        key = SenderKey(params.channel, params.account_id, sender_id)
        sender: Sender | None
        try:
            if params.policy is None:
                sender = book.sender(key)
            else:
                wanted = None if params.policy == "clear" else params.policy
                sender = await book.set_policy(key, wanted, actor=_actor(context))
        except (StoreError, SenderBookUnreadable) as exc:
            raise CallError(wire_error("store-unavailable")) from exc
        except SenderLimit as exc:
            raise CallError(wire_error("sender-limit", limit=exc.limit)) from exc
        if params.policy is not None:
            action = Action.PAIRING_APPROVED if params.policy == "allow" else Action.PAIRING_REJECTED
            reason = f"session policy: {params.policy}"
            await recorded(audit, action, context, channel=params.channel, sender=sender_id, reason=reason)
        none = {
            "channel": params.channel, "accountId": params.account_id, "senderId": sender_id, "policy": None,
        }  # fmt: skip
        return sender.to_wire() if sender is not None else none

    async def history(context: CallContext, params: HistoryParams) -> dict[str, Any]:
        limit = max(1, min(params.limit, MAX_HISTORY))
        try:
            entries = await book.history(channel=params.channel, limit=limit)
        except StoreError as exc:
            raise CallError(wire_error("store-unavailable")) from exc
        return {"entries": [entry.to_wire() for entry in entries]}

    scope = "operator.pairing"
    table.method("channels.pairing.list", scope=scope, params=ListParams)(list_senders)
    table.method("channels.pairing.approve", scope=scope, params=ResolveParams)(approve)
    table.method("channels.pairing.dismiss", scope=scope, params=DismissParams)(dismiss)
    table.method("channels.pairing.reject", scope=scope, params=DismissParams)(dismiss)
    table.method("channels.pairing.policy", scope=scope, params=PolicyParams)(policy)
    table.method("channels.pairing.history", scope=scope, params=HistoryParams)(history)
    return _register_overview(table, gate, devices, clock)


def _register_overview(table: MethodTable, gate: SenderGate, devices: DeviceBook, clock: Callable[[], int]) -> Overview:
    people, more = sender_source(gate), Overview()

    def overview(context: CallContext, params: OverviewParams) -> dict[str, Any]:
        own = own_device_of(context)

        def others() -> list[PairingRow]:
            return [row for row in more.rows() if own in {None, row.subject}]

        try:
            every = Overview(device_source(devices, only=own), people, others)
            rows = every.rows(channel=params.channel)
        except (DeviceBookUnreadable, SenderBookUnreadable, SurfacesUnreadable) as exc:
            raise CallError(wire_error("store-unavailable")) from exc
        return {
            "ts": clock(),
            "rows": [row.to_wire() for row in rows],
            "issues": [{"path": path, "message": message} for path, message in gate.faults],
        }

    table.method("pairing.list", scope="operator.pairing", params=OverviewParams)(overview)
    return more


async def _record(audit: AuditTrail, action: Action, context: CallContext, decided: Decided) -> None:
    request = decided.request
    where = {"channel": request.channel, "sender": request.sender_id, "request_id": request.request_id}
    await recorded(audit, action, context, **where)


def _actor(context: CallContext) -> str:
    return f"operator:{context.principal}"


async def _resolve(
    end: Callable[..., Awaitable[Decided]], context: CallContext, params: ResolveParams | DismissParams
) -> Decided:
    try:
        return await end(
            params.channel,
            account=params.account_id,
            code=params.code,
            request_id=params.request_id,
            actor=_actor(context),
        )
    except UnknownSenderRequest as exc:
        channel = exc.channel[:_MAX_SHOWN]
        if not exc.by_code:
            raise CallError(wire_error("sender-request-unknown", channel=channel)) from exc
        if exc.expired:
            raise CallError(wire_error("sender-codes-expired", channel=channel, count=exc.expired)) from exc
        raise CallError(wire_error("sender-code-unknown", channel=channel)) from exc
    except SenderLimit as exc:
        raise CallError(wire_error("sender-limit", limit=exc.limit)) from exc
    except (StoreError, SenderBookUnreadable) as exc:
        raise CallError(wire_error("store-unavailable")) from exc
    except LocalProtocolError as exc:  # neither or both of code and id: the reader of the parameters sees that first
        raise CallError(wire_error("invalid-params", method="channels.pairing", fault=str(exc))) from exc
