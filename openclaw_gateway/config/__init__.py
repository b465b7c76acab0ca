"""Configuration: what may stand in openclaw.json, how it is read, edited, watched and shown.

Each module's docstring says what it owns; `docs/reference/configuration.md` lists every setting. Only what a start
needs is imported here; editing, schema and watching are imported where they are used.
"""

from openclaw_gateway.config.issues import ConfigError, ConfigIssue
from openclaw_gateway.config.load import LoadedConfig, load_config
from openclaw_gateway.config.paths import config_path, state_dir
from openclaw_gateway.config.schema import GatewayConfig

__all__ = ["ConfigError", "ConfigIssue", "GatewayConfig", "LoadedConfig", "config_path", "load_config", "state_dir"]
