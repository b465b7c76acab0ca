"""The blocks of openclaw.json about agents, model services and sessions: ``agents``, ``models``, ``session`` and
``gateway.http``.

Owns names, types and defaults, as `config.schema` does for the others. Times are in the unit their name says; sizes are
tokens. Who may ask an agent stands in `accessblocks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import attrs

from openclaw_gateway.value import Value

__all__ = [
    "AgentDefaults",
    "AgentEntry",
    "AgentsConfig",
    "ChatCompletionsConfig",
    "EndpointsConfig",
    "HttpSurfaceConfig",
    "ModelChoice",
    "ModelEntry",
    "ModelsConfig",
    "ProviderConfig",
    "SessionConfig",
    "SessionResetConfig",
    "TranscriptConfig",
]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ModelChoice(Value):
    """``provider/model``; a bare text in the file means ``primary``."""

    primary: str | None = None
    fallbacks: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AgentDefaults(Value):
    model: ModelChoice = attrs.field(factory=ModelChoice)
    timeout_seconds: int = 600
    context_tokens: int = 100_000  # what of a session is handed to a model


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AgentEntry(Value):
    id: str
    name: str | None = None
    default: bool = False
    kind: Literal["model", "echo", "subprocess", "plugin"] = "model"
    model: ModelChoice = attrs.field(factory=ModelChoice)
    system_prompt: str | None = None
    command: tuple[str, ...] = ()  # of a subprocess agent: argv
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)  # of a subprocess agent, besides PATH and the like
    plugin: str | None = None  # the name an installed package offers; default: the agent's id


@attrs.frozen(kw_only=True, eq=False, repr=False)
class AgentsConfig(Value):
    defaults: AgentDefaults = attrs.field(factory=AgentDefaults)
    list: tuple[AgentEntry, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ModelEntry(Value):
    """What is known of one model of a service. Sizes are tokens."""

    id: str
    name: str | None = None
    input: tuple[Literal["text", "image"], ...] | None = None  # None: images too where the service is one we know
    reasoning: bool = False
    context_window: int | None = None
    context_tokens: int | None = None
    max_tokens: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ProviderConfig(Value):
    """A model service. Without ``api`` it speaks what its name stands for (anthropic, openai, google), or OpenAI's."""

    api: Literal["anthropic-messages", "openai-completions", "google-generative-ai"] | None = None
    base_url: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    auth_header: bool = False  # the key goes into Authorization: Bearer, whatever the API's own header
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    max_tokens: int | None = None
    timeout_seconds: int = 120
    models: tuple[ModelEntry, ...] = ()


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ModelsConfig(Value):
    providers: Mapping[str, ProviderConfig] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ChatCompletionsConfig(Value):
    enabled: bool = False


@attrs.frozen(kw_only=True, eq=False, repr=False)
class EndpointsConfig(Value):
    chat_completions: ChatCompletionsConfig = attrs.field(factory=ChatCompletionsConfig)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HttpSurfaceConfig(Value):
    """The ``gateway.http`` block: optional parts of the HTTP side."""

    endpoints: EndpointsConfig = attrs.field(factory=EndpointsConfig)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SessionResetConfig(Value):
    mode: Literal["none", "daily", "idle"] = "none"
    at_hour: int = 4
    idle_minutes: int = 120


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TranscriptConfig(Value):
    """How much of conversations is kept, in bytes."""

    max_bytes: int = 32 * 1024 * 1024
    max_total_bytes: int = 512 * 1024 * 1024


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SessionConfig(Value):
    dm_scope: Literal["main", "per-peer", "per-channel-peer", "per-account-channel-peer"] = "per-channel-peer"
    reset: SessionResetConfig = attrs.field(factory=SessionResetConfig)
    transcript: TranscriptConfig = attrs.field(factory=TranscriptConfig)
