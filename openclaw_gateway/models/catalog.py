"""Which model services and models there are: the configuration's and the three that everybody knows.

Owns the way from ``provider/model`` to a service's settings and to what is known of the model, and where keys come
from. It must not call anybody.

Invariants: only services that the configuration or the three known names give can be asked, whoever names a model; a
key from the environment goes to the known service of its own name alone; the catalog is a value: another configuration
makes another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import attrs

from openclaw_gateway.agents.records import AgentFailed
from openclaw_gateway.config.modelrules import KEY_VARIABLES
from openclaw_gateway.config.schema import GatewayConfig, ModelChoice, ModelEntry, ProviderConfig
from openclaw_gateway.models.anthropic import Anthropic
from openclaw_gateway.models.google import Google
from openclaw_gateway.models.openai import OpenAI
from openclaw_gateway.models.provider import Dialect, ServiceSettings
from openclaw_gateway.value import Value

__all__ = ["KNOWN", "Catalog", "Model", "ModelRef", "parse_ref"]

KNOWN: Final[Mapping[str, Dialect]] = {"anthropic": Anthropic(), "openai": OpenAI(), "google": Google()}
_DIALECTS: Final[Mapping[str, Dialect]] = {dialect.name: dialect for dialect in KNOWN.values()}
MAX_CANDIDATES: Final = 16


@attrs.frozen(eq=False, repr=False)
class ModelRef(Value):
    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


@attrs.frozen(eq=False, repr=False)
class Model(Value):
    """What is known of a model. Sizes are tokens."""

    ref: ModelRef
    name: str
    images: bool
    reasoning: bool
    context_tokens: int | None
    context_window: int | None
    max_tokens: int | None


def parse_ref(text: str) -> ModelRef:
    """``provider/model``; the model may hold more slashes. Raises `AgentFailed`."""
    provider, slash, model = text.strip().partition("/")
    if not slash or not provider or not model or len(text) > 256 or not text.isprintable():
        raise AgentFailed(f"a model is named provider/model, such as anthropic/claude-sonnet-4-5, not {text[:80]!r}")
    return ModelRef(provider, model)


class Catalog:
    """``env`` is the gateway's environment; only the variables of the known services are read."""

    def __init__(self, config: GatewayConfig, env: Mapping[str, str]) -> None:
        self._config = config
        self._providers = config.models.providers
        keys = {name: _from_env(name, env) for name in KNOWN}
        self._keys = {name: key for name, key in keys.items() if key is not None}

    # --- services

    @property
    def providers(self) -> list[str]:
        """Services that are configured, have a key, or are named by an agent."""
        named = (ref.provider for ref in self.named() if ref.provider in KNOWN)
        return list(dict.fromkeys([*self._providers, *self._keys, *named]))

    def settings(self, provider: str) -> ServiceSettings:
        """Raises `AgentFailed` for a service that nobody configured."""
        config = self._providers.get(provider)
        if config is None and provider not in KNOWN:
            known = ", ".join(dict.fromkeys([*self._providers, *KNOWN]))
            fix = f"set models.providers.{provider[:64]}.baseUrl, or name one of: {known}"
            raise AgentFailed(f"there is no model service {provider[:64]!r}; {fix}")
        config = config if config is not None else ProviderConfig()
        dialect = _DIALECTS[config.api] if config.api is not None else KNOWN.get(provider, KNOWN["openai"])
        if config.base_url is None and provider not in KNOWN:
            raise AgentFailed(f"where is the model service {provider}? Set models.providers.{provider}.baseUrl")
        base_url = config.base_url or KNOWN[provider].base_url
        return ServiceSettings(
            name=provider,
            dialect=dialect,
            base_url=base_url.rstrip("/"),
            key=config.api_key or self._keys.get(provider),
            bearer=config.auth_header,
            headers=config.headers,
            seconds=float(config.timeout_seconds),
        )

    def key_source(self, provider: str) -> str | None:
        """Where a service's key comes from: config, env or None (it has none)."""
        config = self._providers.get(provider)
        if config is not None and config.api_key:
            return "config"
        return "env" if provider in self._keys else None

    def needs_key(self, provider: str) -> bool:
        """Whether a service is known to ask for a key: the makers' own do."""
        config = self._providers.get(provider)
        return provider in KNOWN and (config is None or config.base_url is None)

    # --- models

    def model(self, ref: ModelRef) -> Model:
        """What is known of a model, with defaults for one that nobody described."""
        config = self._providers.get(ref.provider, ProviderConfig())
        entry = next((one for one in config.models if one.id == ref.model), ModelEntry(id=ref.model))
        images = "image" in entry.input if entry.input is not None else ref.provider in KNOWN
        return Model(
            ref=ref,
            name=entry.name or ref.model,
            images=images,
            reasoning=entry.reasoning,
            context_tokens=entry.context_tokens or entry.context_window,
            context_window=entry.context_window,
            max_tokens=entry.max_tokens or config.max_tokens,
        )

    def choices(self) -> list[ModelRef]:
        """Every model that somebody named or described."""
        described = (ModelRef(name, one.id) for name, config in self._providers.items() for one in config.models)
        return list(dict.fromkeys([*self.named(), *described]))

    def named(self) -> Iterator[ModelRef]:
        """The models that agents are configured with."""
        agents = self._config.agents
        for choice in (agents.defaults.model, *(entry.model for entry in agents.list)):
            yield from _refs(choice)

    @staticmethod
    def candidates(choice: ModelChoice, override: str | None) -> list[ModelRef]:
        """Whom to ask, in this order. A model that somebody chose for a session or a run is asked alone. Raises
        `AgentFailed`."""
        if override:
            return [parse_ref(override)]
        if choice.primary is None:
            raise AgentFailed(
                "no model is configured: openclaw config set agents.defaults.model.primary provider/model"
            )
        return list(dict.fromkeys(map(parse_ref, (choice.primary, *choice.fallbacks))))[:MAX_CANDIDATES]


def _refs(choice: ModelChoice) -> Iterator[ModelRef]:
    texts: Iterable[str | None] = (choice.primary, *choice.fallbacks)
    for text in texts:
        try:
            yield parse_ref(text or "")
        except AgentFailed:
            continue


def _from_env(provider: str, env: Mapping[str, str]) -> str | None:
    for variable in KEY_VARIABLES[provider]:
        key = env.get(variable, "").strip()
        if key and key.isascii() and key.isprintable():
            return key
    return None
