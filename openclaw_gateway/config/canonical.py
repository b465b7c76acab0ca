"""One name for each setting: OpenClaw's other names and short spellings replaced by ours.

Owns what happens where one setting has two names in one file. It must not read a value (`config.leaves` does) nor know
which keys exist. Invariants: the tree that was handed in stays as it was; a conflict is reported and settled on the
closed side, or for our name where the setting has none.
"""

from __future__ import annotations

from typing import Any, Final

from openclaw_gateway.config.closed import CLOSED, FATAL
from openclaw_gateway.config.issues import ConfigIssue
from openclaw_gateway.config.settings import ALIASES, VALUE_ALIASES

__all__ = ["NOT_A_CHANNEL", "Tree", "canonicalise"]

Tree = dict[str, Any]

# Blocks under ``channels`` that are no channel.
NOT_A_CHANNEL: Final = frozenset({"defaults", "modelByChannel"})


def canonicalise(tree: Tree) -> tuple[Tree, tuple[ConfigIssue, ...]]:
    """A copy with OpenClaw's names replaced by ours. Conflicts are reported and settled on the closed side."""
    out = _copy(tree)
    issues: list[ConfigIssue] = []
    for alias, target in ALIASES.items():
        if "*" not in alias:
            _rename(out, alias, target, issues)
            continue
        channels = out.get("channels")
        for name in list(channels) if isinstance(channels, dict) else ():
            if name not in NOT_A_CHANNEL:
                _rename(out, alias.replace("*", name, 1), target.replace("*", name, 1), issues, channel=name)
    _spell_out_models(out)
    return out, tuple(issues)


def _spell_out_models(tree: Tree) -> None:
    """``model: "provider/name"`` of an agent is short for ``model: { primary: "provider/name" }``."""
    agents = tree.get("agents")
    if not isinstance(agents, dict):
        return
    listed = agents.get("list")
    for holder in (agents.get("defaults"), *(listed if isinstance(listed, list) else ())):
        if isinstance(holder, dict) and isinstance(holder.get("model"), str):
            holder["model"] = {"primary": holder["model"]}


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return list(value) if isinstance(value, list) else value


def _parts(path: str, channel: str | None) -> list[str]:
    """A channel's name may hold dots; only the part behind it is split."""
    if channel is None:
        return path.split(".")
    return ["channels", channel, *path.removeprefix(f"channels.{channel}.").split(".")]


def _rename(tree: Tree, alias: str, target: str, issues: list[ConfigIssue], *, channel: str | None = None) -> None:
    *blocks, key = _parts(alias, channel)
    holders = [tree]
    for block in blocks:
        inner = holders[-1].get(block)
        if not isinstance(inner, dict):
            return
        holders.append(inner)
    if holders[-1].get(key) is None:
        return
    value = holders[-1].pop(key)
    # A block that held nothing but the other name would otherwise be listed as an unknown key.
    for holder, block in zip(reversed(holders[:-1]), reversed(blocks), strict=True):
        if holder[block] or len(blocks) < 3:
            break
        del holder[block]
    *blocks, key = _parts(target, channel)
    holder = tree
    for block in blocks:
        holder = holder.setdefault(block, {})
        if not isinstance(holder, dict):
            return
    row = "channels.*." + target.removeprefix(f"channels.{channel}.") if channel is not None else target
    if holder.get(key) is not None and _word(row, holder[key]) != _word(row, value):
        fatal = row in FATAL
        if row in CLOSED:
            closed = CLOSED[row]
            value = list(closed) if isinstance(closed, tuple) else closed
        else:
            value = holder[key]
        issues.append(
            ConfigIssue(
                path=target,
                message=f"{target} and {alias} are two names of one setting and have different values",
                severity="fatal" if fatal else "fallback",
                fix=f"openclaw config unset {alias}",
            )
        )
    elif holder.get(key) is not None:
        value = holder[key]
    holder[key] = value


def _word(row: str, value: Any) -> Any:
    return VALUE_ALIASES.get(row, {}).get(value, value) if isinstance(value, str) else value
