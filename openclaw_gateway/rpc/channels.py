"""`channels.status`, `channels.start`, `channels.stop`, `channels.logout`: the accounts of message channels.

Owns their parameters and shapes (OpenClaw's protocol schema). It must not know any service or how an account is kept
running. Invariants: looking needs operator.read and shows no secret (V51); acting needs operator.admin and is in the
audit trail before it is acknowledged; a probe has a deadline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.audit import recorded
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from openclaw_gateway.channels.accounts import Account
    from openclaw_gateway.channels.hub import ChannelHub

__all__ = ["register"]

PROBE_MS: Final = 10_000
MAX_PROBE_MS: Final = 60_000
MAX_PROBES: Final = 8  # at a time, of one call


@attrs.frozen(eq=False, repr=False)
class StatusParams(Value):
    probe: bool = False
    timeout_ms: int | None = None
    channel: str | None = None


@attrs.frozen(eq=False, repr=False)
class AccountParams(Value):
    channel: str
    account_id: str | None = None


class _Methods:
    def __init__(
        self, hub: Callable[[], ChannelHub | None], event_loop: Callable[[], dict[str, Any]], audit: AuditTrail
    ) -> None:
        self._hub = hub
        self._event_loop = event_loop
        self._audit = audit

    async def status(self, context: CallContext, params: StatusParams) -> dict[str, Any]:
        hub = self._hub()
        out: dict[str, Any] = {
            "ts": now_ms(),
            "channelOrder": [],
            "channelLabels": {},
            "channelDetailLabels": {},
            "channelSystemImages": {},
            "channelMeta": [],
            "eventLoop": self._event_loop(),
            "channels": {},
            "channelAccounts": {},
            "channelDefaultAccountId": {},
            "statusIssues": [],
        }
        if hub is None:
            return out
        if params.channel is not None:
            self._account("channels.status", params.channel, None)
        if params.probe:
            await self._probe(hub, params)
        out.update(hub.status())
        if params.channel is not None:
            out = _only(out, params.channel)
        shown = set(out["channelOrder"])
        out["statusIssues"] = [_issue(one) for one in hub.accounts if one.channel in shown and one.trouble]
        return out

    async def _probe(self, hub: ChannelHub, params: StatusParams) -> None:
        seconds = min(MAX_PROBE_MS, params.timeout_ms or PROBE_MS) / 1000
        room = trio.CapacityLimiter(MAX_PROBES)

        async def one(account: Account) -> None:
            async with room:
                await hub.probe(account, seconds)

        async with trio.open_nursery() as nursery:
            for account in hub.accounts:
                if params.channel in {None, account.channel}:
                    nursery.start_soon(one, account)

    def _account(self, method: str, channel: str, account_id: str | None) -> Account:
        hub = self._hub()
        name = channel.strip().lower()
        known = ", ".join(one.label for one in hub.accounts) if hub is not None else ""
        found = None
        if hub is not None:
            mine = [one for one in hub.accounts if one.channel == name]
            found = hub.account(name, account_id) if any(account_id in {None, "", one.name} for one in mine) else None
        if found is None:
            told = f"{name}/{account_id}" if account_id else name
            raise CallError(wire_error("channel-unknown", channel=told[:128], known=known[:500] or "none"))
        return found

    async def start(self, context: CallContext, params: AccountParams) -> dict[str, Any]:
        account = self._account("channels.start", params.channel, params.account_id)
        hub = self._hub()
        assert hub is not None
        hub.start(account.channel, account.name)
        await recorded(self._audit, Action.CHANNEL_STARTED, context, channel=account.channel, account=account.name)
        return {"channel": account.channel, "accountId": account.name, "started": True}

    async def stop(self, context: CallContext, params: AccountParams) -> dict[str, Any]:
        account = self._account("channels.stop", params.channel, params.account_id)
        hub = self._hub()
        assert hub is not None
        hub.stop(account.channel, account.name)
        await recorded(self._audit, Action.CHANNEL_STOPPED, context, channel=account.channel, account=account.name)
        return {"channel": account.channel, "accountId": account.name, "stopped": True}

    async def logout(self, context: CallContext, params: AccountParams) -> dict[str, Any]:
        from openclaw_gateway.channels.adapter import AdapterFailed

        account = self._account("channels.logout", params.channel, params.account_id)
        hub = self._hub()
        assert hub is not None
        try:
            with trio.fail_after(PROBE_MS / 1000):
                _, cleared = await hub.logout(account.channel, account.name)
        except AdapterFailed as exc:
            raise CallError(wire_error("channel-refused", channel=account.label, reason=exc.why)) from exc
        except trio.TooSlowError as exc:
            raise CallError(wire_error("channel-refused", channel=account.label, reason="no answer in time")) from exc
        await recorded(self._audit, Action.CHANNEL_LOGGED_OUT, context, channel=account.channel, account=account.name)
        return {"channel": account.channel, "accountId": account.name, "cleared": cleared, "loggedOut": True}


def register(
    table: MethodTable,
    *,
    hub: Callable[[], ChannelHub | None],
    event_loop: Callable[[], dict[str, Any]],
    audit: AuditTrail,
) -> None:
    """Put the methods into ``table``. ``hub`` gives None while no channel is configured."""
    methods = _Methods(hub, event_loop, audit)
    admin = "operator.admin"
    table.method("channels.status", scope="operator.read", params=StatusParams)(methods.status)
    table.method("channels.start", scope=admin, params=AccountParams)(methods.start)
    table.method("channels.stop", scope=admin, params=AccountParams)(methods.stop)
    table.method("channels.logout", scope=admin, params=AccountParams)(methods.logout)


def _only(out: dict[str, Any], channel: str) -> dict[str, Any]:
    name = channel.strip().lower()
    kept = dict(out)
    kept["channelOrder"] = [one for one in out["channelOrder"] if one == name]
    kept["channelMeta"] = [one for one in out["channelMeta"] if one["id"] == name]
    for key in ("channelLabels", "channelDetailLabels", "channels", "channelAccounts", "channelDefaultAccountId"):
        kept[key] = {one: value for one, value in out[key].items() if one == name}
    return kept


def _issue(account: Account) -> dict[str, Any]:
    kinds = {"auth-failed": "auth", "misconfigured": "config"}
    return {
        "channel": account.channel,
        "accountId": account.name,
        "kind": kinds.get(account.state, "runtime"),
        "message": f"{account.state}: {account.why}" if account.why else account.state,
        **({"fix": account.fix} if account.fix else {}),
    }
