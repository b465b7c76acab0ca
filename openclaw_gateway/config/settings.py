"""The schema seen as a list of settings: one row per key of openclaw.json that this program reads.

Owns the way between the names in the file (camelCase, dotted) and the attrs tree, the other names that OpenClaw uses
for the same thing, and which settings are secrets. Must not know where values come from or what is allowed in them.

Invariants: derived from `config.schema`, never listed twice; what stands in an open place (a channel's name, the key of
a map of blocks, the index in a list of blocks) is written ``*``.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.config.schema import ChannelConfig, GatewayConfig
from openclaw_gateway.value import Value

__all__ = [
    "ALIASES",
    "FOREIGN_BLOCKS",
    "KNOWN_CHANNELS",
    "SECRETS",
    "VALUE_ALIASES",
    "Collection",
    "Setting",
    "block_class",
    "canonical_path",
    "collection",
    "collections",
    "field_types",
    "is_ours",
    "json_name",
    "pattern",
    "settings",
    "to_json",
    "top_level",
]

# OpenClaw's name → ours, which is the seed's. Both set to different values is an error that names both.
ALIASES: Final[Mapping[str, str]] = {
    "gateway.auth.mode": "gateway.auth.type",
    "gateway.nodes.pairing.autoApproveCidrs": "gateway.pairing.autoApprove.lan",
    "gateway.nodes.pairing.autoApproveLocal": "gateway.pairing.autoApprove.loopback",
    "gateway.nodes.allowCommands": "gateway.nodes.commands.allow",
    "gateway.nodes.denyCommands": "gateway.nodes.commands.deny",
    "channels.*.dmPolicy": "channels.*.dm.policy",
    "channels.*.allowFrom": "channels.*.dm.allowFrom",
    "logging.maxFileBytes": "logging.maxBytes",
}

# Words that OpenClaw uses for a value of ours.
VALUE_ALIASES: Final[Mapping[str, Mapping[str, str]]] = {
    "gateway.bind": {"localhost": "loopback"},
    "channels.*.dm.policy": {"disabled": "closed"},
    "models.providers.*.api": {
        "anthropic": "anthropic-messages",
        "openai": "openai-completions",
        "google": "google-generative-ai",
    },
    "logging.level": {"warn": "warning", "trace": "debug", "fatal": "error", "silent": "error"},
}

SECRETS: Final = frozenset(
    {
        "gateway.auth.token",
        "gateway.auth.password",
        "gateway.auth.passwordHash",
        "gateway.auth.trustedProxy.secret",
        "gateway.remote.token",
        "gateway.remote.password",
        "agents.list.*.env",
        "models.providers.*.apiKey",
        "models.providers.*.headers",
        "gateway.auth.oidc.clientSecret",
        "hooks.token",
        "hooks.mappings.*.secret",
        "hooks.outbound.*.secret",
        "hooks.outbound.*.url",  # many services put their secret into the path
    }
)

KNOWN_CHANNELS: Final = frozenset({"telegram", "discord", "whatsapp"})

# Top-level blocks of OpenClaw's own configuration that this program leaves alone: listed as ignored, never as a
# typing error.
FOREIGN_BLOCKS: Final = frozenset(
    {
        "$schema",
        "accessGroups",
        "acp",
        "approvals",
        "audio",
        "auth",
        "bindings",
        "broadcast",
        "browser",
        "canvasHost",
        "cli",
        "cloudWorkers",
        "commands",
        "crestodian",
        "cron",
        "desktop",
        "diagnostics",
        "discovery",
        "env",
        "mcp",
        "media",
        "memory",
        "messages",
        "meta",
        "multiAgent",
        "nodeHost",
        "plugins",
        "proxy",
        "secrets",
        "skills",
        "surfaces",
        "talk",
        "telemetry",
        "tools",
        "transcripts",
        "ui",
        "update",
        "web",
        "wizard",
        "worktreeAcceleration",
        "worktreeRoot",
    }
)

# Fields of GatewayConfig that stand beside the ``gateway`` block, and the one that no file can set.
_NEIGHBOURS: Final = frozenset({"agents", "channels", "discovery", "hooks", "logging", "models", "session"})
_NOT_IN_FILE: Final = frozenset({"state_dir"})


@attrs.frozen(eq=False, repr=False)
class Setting(Value):
    """One leaf of the configuration: its path as in the file, its annotation, its default value."""

    path: str
    type: Any
    default: Any
    required: bool = False  # an entry of a list or a map without it is no entry

    @property
    def secret(self) -> bool:
        return self.path in SECRETS


def json_name(attribute: str) -> str:
    """``custom_bind_host`` → ``customBindHost``."""
    head, *rest = attribute.split("_")
    return head + "".join(word.capitalize() for word in rest)


@cache
def field_types(cls: type) -> Mapping[str, Any]:
    """Attribute → resolved annotation of one block, in order."""
    return typing.get_type_hints(cls)


def block_class(annotation: Any) -> type | None:
    """The attrs class when the annotation is a block (or an optional block), else None."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and attrs.has(candidate):
            return candidate
    return None


@attrs.frozen(eq=False, repr=False)
class Collection(Value):
    """An open place of the configuration: a list of blocks (``tuple[Block, ...]``) or a map of blocks by name."""

    kind: Literal["list", "map"]
    block: type


def collection(annotation: Any) -> Collection | None:
    """What an annotation holds when it is a list or a map of blocks, else None."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis and _is_block(arguments[0]):
        return Collection("list", arguments[0])
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping) and _is_block(arguments[-1]):
        return Collection("map", arguments[-1])
    return None


def _is_block(annotation: Any) -> bool:
    return isinstance(annotation, type) and attrs.has(annotation)


def file_path(attribute: str) -> str | None:
    """Where a field of `GatewayConfig` stands in the file; None when no file can set it."""
    if attribute in _NOT_IN_FILE:
        return None
    return json_name(attribute) if attribute in _NEIGHBOURS else f"gateway.{json_name(attribute)}"


@cache
def _rows() -> tuple[Mapping[str, Setting], Mapping[str, Collection]]:
    found: dict[str, Setting] = {}
    places: dict[str, Collection] = {}
    for attribute in attrs.fields(GatewayConfig):
        path = file_path(attribute.name)
        if path is not None:
            _walk(path, attribute, field_types(GatewayConfig)[attribute.name], found, places)
    return found, places


def _walk(
    path: str,
    attribute: attrs.Attribute[Any],
    annotation: Any,
    found: dict[str, Setting],
    places: dict[str, Collection],
) -> None:
    place, cls = collection(annotation), block_class(annotation)
    if place is not None:
        places[path], cls, path = place, place.block, f"{path}.*"
    if cls is None:
        default: Any = attribute.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types its class as a function
            default = default.factory()
        found[path] = Setting(path, annotation, None if default is attrs.NOTHING else default, default is attrs.NOTHING)
        return
    for inner in attrs.fields(cls):
        if cls is not ChannelConfig or inner.name != "extra":
            _walk(f"{path}.{json_name(inner.name)}", inner, field_types(cls)[inner.name], found, places)


def settings() -> Mapping[str, Setting]:
    """Every setting by its path, channels under ``channels.*``."""
    return _rows()[0]


def collections() -> Mapping[str, Collection]:
    """Every open place by its path: ``channels`` and the lists and maps of blocks."""
    return _rows()[1]


def top_level() -> frozenset[str]:
    """The blocks of openclaw.json that this program reads."""
    return frozenset(path.split(".", 1)[0] for path in settings())


def pattern(path: str) -> str:
    """``channels.telegram.dm.policy`` → ``channels.*.dm.policy``; every other path as it is."""
    places = collections()
    row: list[str] = []
    for part in path.split("."):
        row.append("*" if ".".join(row) in places else part)
    return ".".join(row)


def canonical_path(path: str) -> str:
    """OpenClaw's name of a setting → ours; a path that is no alias comes back as it is."""
    target = ALIASES.get(pattern(path))
    if target is None:
        return path
    return target.replace("*", path.split(".")[1], 1) if "*" in target else target


def is_ours(path: str) -> bool:
    """Whether a path lies in a block that this program reads."""
    return path.split(".", 1)[0] in top_level()


def to_json(config: GatewayConfig) -> dict[str, Any]:
    """The whole effective configuration under the names of the file, defaults included.

    Holds secrets: redact before showing.
    """
    root: dict[str, Any] = {"gateway": {}}
    for attribute in attrs.fields(GatewayConfig):
        path = file_path(attribute.name)
        if path is None:
            continue
        value = getattr(config, attribute.name)
        block = root["gateway"] if path.startswith("gateway.") else root
        block[path.removeprefix("gateway.")] = _plain(value)
    return root


def _plain(value: Any) -> Any:
    if isinstance(value, ChannelConfig):
        return {**_plain(value.extra), "enabled": value.enabled, "dm": _plain(value.dm)}
    if attrs.has(type(value)):
        return {json_name(field.name): _plain(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
