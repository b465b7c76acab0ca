"""Agents and model services: what is written but cannot answer.

Owns the rules that look from an agent to the service it names. Pure; the environment is only asked whether it holds a
key. Invariant: everything here is a warning, because an agent that cannot answer says so itself and harms nobody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from openclaw_gateway.config.issues import ConfigIssue, nearest
from openclaw_gateway.config.schema import GatewayConfig, ModelChoice

__all__ = ["KEY_VARIABLES", "model_issues"]

KEY_VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "openai": ("OPENAI_API_KEY",),
    "google": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
}


def model_issues(config: GatewayConfig, env: Mapping[str, str]) -> Iterator[ConfigIssue]:
    """What of the agents and services that are written cannot work."""
    for path, text in _named(config):
        yield from _about_model(config, env, path, text)
    for name, provider in config.models.providers.items():
        path = f"models.providers.{name}.baseUrl"
        if provider.base_url is None and name not in KEY_VARIABLES:
            yield _warning(
                path, "is not set: nobody knows where this service is", f"openclaw config set {path} http://..."
            )
        elif provider.base_url is not None and provider.api_key is not None and _is_open(provider.base_url):
            yield _warning(path, "sends the key over the network without encryption; use https", None)
    seen: set[str] = set()
    for number, entry in enumerate(config.agents.list):
        if entry.id in seen:
            yield _warning(f"agents.list.{number}.id", f"{entry.id} is there twice; the last one is in use", None)
        seen.add(entry.id)
        if entry.kind == "subprocess" and not entry.command:
            fix = f'openclaw config set agents.list.{number}.command \'["python3", "agent.py"]\''
            yield _warning(f"agents.list.{number}.command", "is not set: this agent has no program", fix)


def _named(config: GatewayConfig) -> Iterator[tuple[str, str]]:
    """Every model that an agent is configured with, with its place."""
    places: list[tuple[str, ModelChoice]] = [("agents.defaults.model", config.agents.defaults.model)]
    places += [(f"agents.list.{number}.model", entry.model) for number, entry in enumerate(config.agents.list)]
    for path, choice in places:
        if choice.primary is not None:
            yield f"{path}.primary", choice.primary
        for text in choice.fallbacks:
            yield f"{path}.fallbacks", text


def _about_model(config: GatewayConfig, env: Mapping[str, str], path: str, text: str) -> Iterator[ConfigIssue]:
    provider, slash, model = text.partition("/")
    fix = f"openclaw config set {path} provider/model" if path.endswith("primary") else None
    if not slash or not provider or not model:
        yield _warning(path, f"{text!r} names no model: it is written provider/model", fix)
        return
    written = config.models.providers.get(provider)
    if written is None and provider not in KEY_VARIABLES:
        known = tuple(dict.fromkeys([*config.models.providers, *KEY_VARIABLES]))
        guess = nearest(provider, known)
        hint = f" (did you mean {guess}?)" if guess else ""
        fix = f"openclaw config set models.providers.{provider}.baseUrl http://..."
        yield _warning(path, f"there is no model service {provider}{hint}", fix)
    elif provider in KEY_VARIABLES and (written is None or (written.api_key is None and written.base_url is None)):
        variables = KEY_VARIABLES[provider]
        if not any(env.get(name, "").strip() for name in variables):
            yield _warning(path, f"there is no key for {provider}", f"export {variables[0]}=...")


def _is_open(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme.lower() != "http":
        return False
    try:
        address = ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return parts.hostname != "localhost"
    return not (address.is_loopback or address.is_private)


def _warning(path: str, message: str, fix: str | None) -> ConfigIssue:
    return ConfigIssue(path=path, message=message, severity="warning", fix=fix)
