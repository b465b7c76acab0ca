"""One account of a channel as it stands, which accounts a configuration names, and how they are shown.

Owns the record and its shape in ``channels.status`` (OpenClaw's members first, ours beside them). It must not know
tasks, adapters' services or the gate.

Invariants: nothing that is shown holds a secret: settings are never shown, identities are what adapters call public.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.channels.adapter import Adapter, State
from openclaw_gateway.config.schema import ChannelConfig
from openclaw_gateway.pairing.sender_records import DEFAULT_ACCOUNT, label_of

__all__ = ["Account", "configured_accounts", "default_account", "show_accounts"]

MAX_NAME: Final = 64
_CHANNEL_WIDE: Final = frozenset({"accounts", "defaultAccount"})
_HEALTH: Final[Mapping[State, str]] = {
    "off": "off",
    "starting": "starting",
    "connected": "healthy",
    "reconnecting": "reconnecting",
    "auth-failed": "unhealthy",
    "conflict": "unhealthy",
    "misconfigured": "unhealthy",
    "stopped": "stopped",
}


@attrs.define(eq=False)
class Account:
    """``task`` is the scope of the task that keeps it running; ``ended`` is set when the last one has unwound."""

    channel: str
    name: str
    settings: Mapping[str, Any] = attrs.field(repr=False)
    state: State = "off"
    why: str | None = None
    fix: str | None = None
    identity: Mapping[str, Any] = attrs.field(factory=dict)
    since_ms: int = 0
    last_start_ms: int | None = None
    last_stop_ms: int | None = None
    last_connected_ms: int | None = None
    last_in_ms: int | None = None
    last_out_ms: int | None = None
    last_activity_ms: int | None = None
    last_probe_ms: int | None = None
    probe: Mapping[str, Any] | None = None
    restarts: int = 0
    webhooks: int = 0
    adapter: Adapter | None = attrs.field(default=None, repr=False)
    task: trio.CancelScope | None = attrs.field(default=None, repr=False)
    wanted: bool = True
    nudge: trio.Event = attrs.field(factory=trio.Event, repr=False)

    @property
    def key(self) -> tuple[str, str]:
        return self.channel, self.name

    @property
    def label(self) -> str:
        return f"{self.channel}/{self.name}"

    @property
    def connected(self) -> bool:
        return self.state == "connected"

    @property
    def trouble(self) -> str | None:
        """Why people are not served, in a few words; None where all is well or nobody wants it to run."""
        if self.state in {"connected", "starting", "off", "stopped"}:
            return None
        told = f"{self.label} is {self.state}" + (f": {self.why}" if self.why else "")
        return f"{told}; {self.fix}" if self.fix else told

    @property
    def summary(self) -> str:
        """One line for people."""
        name = self.identity.get("username") or self.identity.get("name")
        known = f" as {name}" if isinstance(name, str) and name and self.connected else ""
        return f"{label_of(self.channel)} {self.name}: {self.state}{known}" + (f" ({self.why})" if self.why else "")

    def to_wire(self) -> dict[str, Any]:
        """A row of ``channelAccounts``; times are Unix milliseconds."""
        out: dict[str, Any] = {
            "accountId": self.name,
            "enabled": True,
            "configured": self.state != "misconfigured",
            "running": self.task is not None,
            "connected": self.connected,
            "reconnectAttempts": self.restarts,
            "lastConnectedAt": self.last_connected_ms,
            "lastError": self.why,
            "healthState": _HEALTH[self.state],
            "lastStartAt": self.last_start_ms,
            "lastStopAt": self.last_stop_ms,
            "lastInboundAt": self.last_in_ms,
            "lastOutboundAt": self.last_out_ms,
            "lastTransportActivityAt": self.last_activity_ms,
            "state": self.state,
            "stateSinceMs": self.since_ms,
            "fix": self.fix,
            "identity": dict(self.identity),
        }
        name = self.identity.get("username") or self.identity.get("name")
        if isinstance(name, str) and name:
            out["name"] = name
        if "transport" in self.identity:
            out["mode"] = self.identity["transport"]
        if self.last_probe_ms is not None:
            out["lastProbeAt"], out["probe"] = self.last_probe_ms, self.probe
        return out


def configured_accounts(config: ChannelConfig) -> dict[str, dict[str, Any]]:
    """The settings of each account of a channel: ``accounts.<name>``, each over what stands beside it; without any, one
    that is called ``default``. Accounts with ``enabled: false`` are left out.
    """
    common = {key: value for key, value in config.extra.items() if key not in _CHANNEL_WIDE}
    named = config.extra.get("accounts")
    if not isinstance(named, Mapping) or not named:
        return {DEFAULT_ACCOUNT: common}
    found = {}
    for name, settings in named.items():
        if isinstance(settings, Mapping) and settings.get("enabled", True) is not False:
            found[str(name)[:MAX_NAME]] = {**common, **settings}
    return found


def default_account(config: ChannelConfig | None, names: Sequence[str]) -> str:
    """The account that is meant where none is named: ``defaultAccount``, else ``default``, else the first."""
    chosen = config.extra.get("defaultAccount") if config is not None else None
    for name in (chosen, DEFAULT_ACCOUNT):
        if isinstance(name, str) and name in names:
            return name
    return names[0]


def show_accounts(accounts: Sequence[Account], configured: Mapping[str, ChannelConfig]) -> dict[str, Any]:
    """The members of ``channels.status`` that tell of channels and accounts."""
    by_name: dict[str, list[Account]] = {}
    for account in accounts:
        by_name.setdefault(account.channel, []).append(account)
    labels = {name: label_of(name) for name in by_name}
    rows = {name: [account.to_wire() for account in found] for name, found in by_name.items()}
    return {
        "channelOrder": list(by_name),
        "channelLabels": labels,
        "channelDetailLabels": labels,
        "channelMeta": [{"id": name, "label": label, "detailLabel": label} for name, label in labels.items()],
        "channels": {name: _summary(found) for name, found in rows.items()},
        "channelAccounts": rows,
        "channelDefaultAccountId": {
            name: default_account(configured.get(name), [account.name for account in found])
            for name, found in by_name.items()
        },
    }


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "configured": any(row["configured"] for row in rows),
        "running": any(row["running"] for row in rows),
        "connected": all(row["connected"] for row in rows),
        "lastError": next((row["lastError"] for row in rows if row["lastError"]), None),
    }
