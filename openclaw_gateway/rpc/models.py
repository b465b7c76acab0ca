"""Which models there are: `models.list`, `models.authStatus`.

Owns their shapes (OpenClaw's). It must not know how a service is asked. Invariant: of a key only its place is told,
never the key or a part of it (V51).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import attrs

from openclaw_gateway.rpc.table import CallContext, MethodTable
from openclaw_gateway.value import Value

if TYPE_CHECKING:
    from openclaw_gateway.models.catalog import ModelRef
    from openclaw_gateway.models.services import ModelServices

__all__ = ["ModelMethods", "register"]

_NAMES: Final = {"anthropic": "Anthropic", "openai": "OpenAI", "google": "Google"}
NO_ACCOUNTS: Final = {"kind": "none", "label": ""}


@attrs.frozen(eq=False, repr=False)
class ListParams(Value):
    view: str | None = None
    session_key: str | None = None
    agent_id: str | None = None


@attrs.frozen(eq=False, repr=False)
class AuthParams(Value):
    agent_id: str | None = None
    refresh: bool = False


class ModelMethods:
    """``services()`` gives the model services; nothing of them is loaded before. ``clock``: Unix milliseconds."""

    def __init__(self, services: Callable[[], ModelServices], *, clock: Callable[[], int]) -> None:
        self._services = services
        self._clock = clock

    def models(self) -> list[dict[str, Any]]:
        """Every model that the configuration names or describes."""
        services = self._services()
        return [self._choice(services, ref) for ref in services.catalog.choices()]

    def _choice(self, services: ModelServices, ref: ModelRef) -> dict[str, Any]:
        catalog = services.catalog
        model = catalog.model(ref)
        choice: dict[str, Any] = {
            "id": ref.model,
            "name": model.name,
            "provider": ref.provider,
            "input": ["text", "image"] if model.images else ["text"],
            "reasoning": model.reasoning,
        }
        if model.context_window is not None:
            choice["contextWindow"] = model.context_window
        rest = services.rest(ref.provider)
        if catalog.needs_key(ref.provider) and catalog.key_source(ref.provider) is None:
            choice |= {"available": False, "unavailableReason": "missing-auth"}
        elif rest is not None:
            reason = "auth-failed" if rest.reason in {"auth", "billing"} else "cooldown"
            choice |= {"available": False, "unavailableReason": reason, "unavailableUntil": rest.until_ms}
        else:
            choice["available"] = True
        return choice

    async def list(self, context: CallContext, params: ListParams) -> dict[str, Any]:
        return {"models": self.models(), "defaultModels": {}, "accountSelection": NO_ACCOUNTS}

    async def auth_status(self, context: CallContext, params: AuthParams) -> dict[str, Any]:
        catalog = self._services().catalog
        providers = []
        for name in catalog.providers:
            source = catalog.key_source(name)
            status = "static" if source is not None or not catalog.needs_key(name) else "missing"
            profiles = [{"profileId": f"{name}:{source}", "type": "api_key", "status": "static"}] if source else []
            shown = {"provider": name, "displayName": _NAMES.get(name, name), "status": status, "profiles": profiles}
            providers.append(shown)
        return {"ts": self._clock(), "providers": providers, "providerCapabilities": []}


def register(table: MethodTable, methods: ModelMethods) -> None:
    """Put the methods into ``table``."""
    table.method("models.list", scope="operator.read", params=ListParams, lenient=True)(methods.list)
    table.method("models.authStatus", scope="operator.read", params=AuthParams, lenient=True)(methods.auth_status)
