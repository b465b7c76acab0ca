"""What a node may report, read and bounded: host stats, activity, exec events, skills, tools, runner inventory.

Owns the shapes (OpenClaw's pages "Presence" and "Handshake") and their caps. Pure: a value in, a clean value or None
out. It must not know who reported it.

Invariants: everything returned is bounded and has known members only; anything else is None, never an exception.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import msgspec

__all__ = ["activity", "alive_reason", "exec_report", "host_stats", "inventory", "payload_of", "skills", "tools"]

MAX_REPORT_CHARS: Final = 256 * 1024
MAX_SKILLS: Final = 64
MAX_SKILLS_CHARS: Final = 1024 * 1024
MAX_TOOLS: Final = 128
MAX_TOOLS_CHARS: Final = 256 * 1024
MAX_INVENTORY_CHARS: Final = 64 * 1024
MAX_IDLE_SECONDS: Final = 30 * 24 * 3600
_MAX_BYTES: Final = 2**63 - 1
_ALIVE: Final = frozenset({"background", "silent_push", "bg_app_refresh", "significant_location", "manual", "connect"})
_SKILL: Final = re.compile(r"(?!.*--)[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_TOOL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


def payload_of(payload: Any, payload_json: str | None) -> dict[str, Any] | None:
    """The object that a `node.event` carries; the JSON text comes first where both are there."""
    if payload_json is not None:
        if len(payload_json) > MAX_REPORT_CHARS:
            return None
        try:
            payload = msgspec.json.decode(payload_json)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
    return payload if isinstance(payload, dict) else None


def host_stats(payload: dict[str, Any] | None) -> dict[str, Any] | None:
    """CPU count, load, memory and disk of the node's host; None where any member is out of its range."""
    if payload is None:
        return None
    stats: dict[str, Any] = {}
    cpus = _whole(payload.get("cpuCount"), 4096)
    if not cpus:
        return None
    stats["cpuCount"] = cpus
    load = payload.get("loadAverage")
    if load is not None:
        if not isinstance(load, list) or len(load) != 3 or not all(_number(one) for one in load):
            return None
        stats["loadAverage"] = load
    for total_name, free_name in (("memoryTotalBytes", "memoryFreeBytes"), ("diskTotalBytes", "diskAvailableBytes")):
        if total_name not in payload and free_name not in payload:
            continue
        total, free = _whole(payload.get(total_name), _MAX_BYTES), _whole(payload.get(free_name), _MAX_BYTES)
        if total is None or free is None or free > total:
            return None
        stats[total_name], stats[free_name] = total, free
    return stats


def _whole(value: Any, most: int) -> int | None:
    return value if type(value) is int and 0 <= value <= most else None


def _number(value: Any) -> bool:
    return type(value) in {int, float} and math.isfinite(value) and 0 <= value <= 100_000


def alive_reason(payload: dict[str, Any] | None) -> str | None:
    """Why a node woke up; an unknown word counts as background, no object is no report."""
    if payload is None:
        return None
    trigger = payload.get("trigger")
    return trigger if isinstance(trigger, str) and trigger in _ALIVE else "background"


def activity(payload: dict[str, Any] | None) -> int | None:
    """Idle seconds of the person at the node, -1 for "not known any more", None for no such report."""
    if payload is None:
        return None
    if payload.get("action") == "clear":
        return -1
    return _whole(payload.get("idleSeconds"), MAX_IDLE_SECONDS)


def exec_report(payload: dict[str, Any] | None) -> tuple[str, dict[str, Any]] | None:
    """The run id and the plain members of an exec event. The output is left out: the invoke's result carries it."""
    run_id = payload.get("runId") if payload is not None else None
    if payload is None or not isinstance(run_id, str):
        return None
    told: dict[str, Any] = {}
    for name in ("exitCode", "timedOut", "success", "reason"):
        value = payload.get(name)
        if isinstance(value, str):
            value = value[:256]
        if value is None or isinstance(value, bool | int | str):
            told[name] = value
    return run_id, {name: value for name, value in told.items() if value is not None}


def skills(listed: list[Any]) -> list[dict[str, Any]] | None:
    """Skills in full (name, description, content); None where one is malformed or there is too much."""
    if len(listed) > MAX_SKILLS:
        return None
    found: list[dict[str, Any]] = []
    for one in listed:
        if not isinstance(one, dict) or set(one) != {"name", "description", "content"}:
            return None
        name, description, content = one["name"], one["description"], one["content"]
        if not isinstance(name, str) or _SKILL.fullmatch(name) is None:
            return None
        if not _text(description, 1024) or not _text(content, 65_536):
            return None
        found.append({"name": name, "description": description, "content": content})
    return found if sum(len(one["content"]) for one in found) <= MAX_SKILLS_CHARS else None


def tools(listed: list[Any]) -> list[dict[str, Any]] | None:
    """Tool descriptors; None where one is malformed or there is too much."""
    if len(listed) > MAX_TOOLS:
        return None
    found: list[dict[str, Any]] = []
    for one in listed:
        if not isinstance(one, dict) or not _text(one.get("pluginId"), 256) or not _text(one.get("description"), 8192):
            return None
        if not isinstance(one.get("name"), str) or _TOOL.fullmatch(one["name"]) is None:
            return None
        kept = {name: one[name] for name in ("pluginId", "name", "description")}
        if isinstance(one.get("command"), str):
            kept["command"] = one["command"][:128]
        kept |= {name: one[name] for name in ("parameters", "mcp") if isinstance(one.get(name), dict)}
        found.append(kept)
    return found if len(msgspec.json.encode(found)) <= MAX_TOOLS_CHARS else None


def inventory(features: list[Any] | None, worker: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a node says about hosting sessions; None where there is too much."""
    found = {
        "protocolFeatures": [one for one in features or () if isinstance(one, str) and len(one) <= 128][:64],
        "workerHost": worker or {},
    }
    return found if len(msgspec.json.encode(found)) <= MAX_INVENTORY_CHARS else None


def _text(value: Any, most: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= most
