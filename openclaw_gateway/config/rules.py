"""What settings may stand together.

Owns the order in which the rules that look at more than one setting are asked, and those of direct-message senders:
`authrules` has authentication and exposure, `doorrules` what listens where, `hookrules` and `modelrules` are loaded
where the file has such settings. Must not read files; the environment is only asked whether it holds a secret.

Invariants: `apply_rules` is total; an unsafe combination is either closed (exposure off, an issue) or fatal, never
started as written. Nothing that is safe is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from openclaw_gateway.config.authrules import (
    FUNNEL_TOKEN_LENGTH,
    PASSWORD_VARIABLE,
    TOKEN_VARIABLE,
    close_exposure,
    judge_auth,
    judge_password,
    milder,
    password_faults,
)
from openclaw_gateway.config.doorrules import (
    MAX_LISTENERS,
    is_loopback_bind,
    judge_surroundings,
    judge_tls,
    settle_bind,
    settle_listeners,
    settle_ports,
    settle_tunnels,
)
from openclaw_gateway.config.hookblocks import HooksConfig
from openclaw_gateway.config.issues import ConfigIssue
from openclaw_gateway.config.schema import AgentsConfig, GatewayConfig
from openclaw_gateway.policy.senders import read_allow_from

__all__ = [
    "FUNNEL_TOKEN_LENGTH",
    "MAX_LISTENERS",
    "PASSWORD_VARIABLE",
    "TOKEN_VARIABLE",
    "apply_rules",
    "is_loopback_bind",
    "password_faults",
]

_NO_HOOKS: Final = HooksConfig()
_NO_AGENTS: Final = AgentsConfig()


def apply_rules(
    config: GatewayConfig, issues: tuple[ConfigIssue, ...], *, env: Mapping[str, str], type_given: bool
) -> tuple[GatewayConfig, tuple[ConfigIssue, ...]]:
    """The configuration made safe, and all issues: those handed in (some made milder) and those found here.

    ``type_given``: whether gateway.auth.type was written or comes from the secrets that are there.
    """
    found: list[ConfigIssue] = []
    config = settle_bind(config, found)
    mild = [milder(issue, config) for issue in issues]
    # A secret that could not be read has its own fatal issue already.
    unread = {issue.path for issue in mild if issue.severity == "fatal"}
    judge_auth(config, found, env, unread, type_given=type_given)
    judge_password(config, found, env)
    config = settle_ports(config, found)
    config = close_exposure(config, found, env)
    config = settle_listeners(config, found)
    config = settle_tunnels(config, found)
    judge_tls(config, found)
    judge_surroundings(config, found)
    _senders(config, found)
    if config.hooks != _NO_HOOKS or config.auth.oidc.issuer is not None:
        from openclaw_gateway.config.hookrules import apply_hook_rules

        faulty = {issue.path for issue in mild if issue.severity != "warning"}
        config = apply_hook_rules(config, found, env, faulty=faulty)
    if config.agents != _NO_AGENTS or config.models.providers:
        from openclaw_gateway.config.modelrules import model_issues

        found += model_issues(config, env)
    return config, (*mild, *found)


def _senders(config: GatewayConfig, found: list[ConfigIssue]) -> None:
    for name, channel in config.channels.items():
        ids, faults = read_allow_from(name, channel.dm.allow_from, policy=channel.dm.policy)
        listed = json.dumps(sorted(ids))
        found += [
            ConfigIssue(
                path=f"channels.{name}.dm.allowFrom",
                message=fault,
                severity="warning",
                fix=f"openclaw config set channels.{name}.dm.allowFrom '{listed}'",
            )
            for fault in faults
        ]
