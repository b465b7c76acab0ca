"""What is in force: the configuration, the secrets and the file that a gateway runs by at this moment.

Owns which of them holds, and what else was fixed at the start (environment, flags of the command line, whether to
listen at all). It must not know what follows from a change (`reloading`) nor how a file is read (`config`).

Invariant: the four that change (configuration, secrets, file, secrets of single listeners) change together, in
`replace`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from openclaw_gateway.config.load import LoadedConfig
from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.secrets import ResolvedAuth
from openclaw_gateway.server.plans import listener_auth

__all__ = ["InForce"]


class InForce:
    """``loaded`` is the file that ``config`` came from, None where a program gave it; ``overrides`` are the flags that
    the file was loaded with; ``listen`` is False where connections come through `Gateway.serve_stream` alone."""

    def __init__(
        self,
        config: GatewayConfig,
        auth: ResolvedAuth,
        *,
        loaded: LoadedConfig | None,
        env: Mapping[str, str],
        overrides: Mapping[str, Any] | None,
        listen: bool,
    ) -> None:
        self.config = config
        self.auth = auth
        self.loaded = loaded
        self.env = env
        self.overrides = overrides
        self.listen = listen
        self.listener_auth = self.auth_of_listeners(config, auth, loaded)

    def auth_of_listeners(
        self, config: GatewayConfig, auth: ResolvedAuth, loaded: LoadedConfig | None
    ) -> dict[str, ResolvedAuth]:
        """The secrets of listeners that have an authentication of their own. Raises `ConfigError`."""
        overridden = loaded.overridden if loaded is not None else ()
        return listener_auth(config, auth, config.state_dir, self.env, overridden=overridden)

    def replace(
        self,
        config: GatewayConfig,
        auth: ResolvedAuth,
        loaded: LoadedConfig | None,
        listeners: dict[str, ResolvedAuth],
    ) -> None:
        """Let others hold from now on."""
        self.config, self.auth, self.loaded, self.listener_auth = config, auth, loaded, listeners

    def applied_hash(self) -> str | None:
        """SHA-256 of the text in use; None where there is no file."""
        return self.loaded.hash if self.loaded is not None else None
