"""openclaw_gateway: the network hub of OpenClaw, on Trio.

The public face, flat. Importing this package costs nothing: each name is loaded when it is first used, so that a
command that only reads a file does not pay for a server.

    async with open_gateway(GatewayConfig(port=0)) as gateway:
        gateway.rpc.method("agent.send", scope="operator.write")(handler)
        await gateway.events.publish("my.event", {"text": "hello"})
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from openclaw_gateway._version import __version__

if TYPE_CHECKING:
    from openclaw_gateway.app import Gateway, open_gateway, serve_gateway
    from openclaw_gateway.config.issues import ConfigError
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.schema import AuthConfig, GatewayConfig
    from openclaw_gateway.errors import CallFailed, GatewayError, LocalProtocolError, RemoteProtocolError
    from openclaw_gateway.rpc.table import CallContext, CallError
    from openclaw_gateway.store.errors import StoreError

__all__ = [
    "AuthConfig",
    "CallContext",
    "CallError",
    "CallFailed",
    "ConfigError",
    "Gateway",
    "GatewayConfig",
    "GatewayError",
    "LocalProtocolError",
    "RemoteProtocolError",
    "StoreError",
    "__version__",
    "load_config",
    "open_gateway",
    "serve_gateway",
]

_HOMES = {
    "AuthConfig": "config.schema",
    "CallContext": "rpc.table",
    "CallError": "rpc.table",
    "CallFailed": "errors",
    "ConfigError": "config.issues",
    "Gateway": "app",
    "GatewayConfig": "config.schema",
    "GatewayError": "errors",
    "LocalProtocolError": "errors",
    "RemoteProtocolError": "errors",
    "StoreError": "store.errors",
    "load_config": "config.load",
    "open_gateway": "app",
    "serve_gateway": "app",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
