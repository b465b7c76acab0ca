"""What settings of webhooks and of the operator login may stand together.

Owns these rules, apart from `config.rules`, which asks for them only where the file has such settings. Invariants as
there: total, closed where it is unsafe, and every deviation an issue.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import attrs

from openclaw_gateway.config.issues import ConfigIssue
from openclaw_gateway.config.rules import PASSWORD_VARIABLE, TOKEN_VARIABLE, is_loopback_bind
from openclaw_gateway.config.schema import GatewayConfig

__all__ = ["apply_hook_rules"]

WEAK_SECRET: Final = 16


def apply_hook_rules(
    config: GatewayConfig, found: list[ConfigIssue], env: Mapping[str, str], *, faulty: Collection[str]
) -> GatewayConfig:
    """The configuration with what is unsafe switched off; issues go into ``found``. ``faulty``: paths of settings that
    are not in use as written."""
    return _login(_hooks(config, found, env), found, faulty)


def _hooks(config: GatewayConfig, found: list[ConfigIssue], env: Mapping[str, str]) -> GatewayConfig:
    """Webhooks have secrets of their own: whoever may start a run by one must not be able to do more (V42)."""
    hooks, auth = config.hooks, config.auth
    ours = {auth.token, auth.password, env.get(TOKEN_VARIABLE), env.get(PASSWORD_VARIABLE)} - {None, ""}
    ours |= {config.remote.token, config.remote.password} - {None}
    secrets = {"hooks.token": hooks.token}
    secrets |= {f"hooks.mappings.{number}.secret": one.secret for number, one in enumerate(hooks.mappings)}
    fix = "openclaw config set hooks.token '${NAME_OF_A_VARIABLE}'"
    shared = [path for path, secret in secrets.items() if secret in ours]
    if shared:
        message = "is also a secret of the gateway: whoever sends webhooks could do everything; webhooks stay off"
        found.append(ConfigIssue(path=shared[0], message=message, fix=fix))
        return attrs.evolve(config, hooks=attrs.evolve(hooks, enabled=False))
    if hooks.enabled and not any(secrets.values()):
        message = "is not set, and no mapping has a secret of its own: webhooks stay off"
        found.append(ConfigIssue(path="hooks.token", message=message, fix=fix))
        return attrs.evolve(config, hooks=attrs.evolve(hooks, enabled=False))
    for path, secret in secrets.items():
        if secret is not None and len(secret) < WEAK_SECRET:
            message = f"shorter than {WEAK_SECRET} characters: it can be guessed"
            found.append(ConfigIssue(path=path, message=message, severity="warning", fix=fix))
    for number, mapping in enumerate(hooks.mappings):
        path = f"hooks.mappings.{number}"
        wanted = "messageTemplate" if mapping.action == "agent" else "textTemplate"
        text = mapping.message_template if mapping.action == "agent" else mapping.text_template
        if text is None:
            message = f"an action {mapping.action} needs {wanted}; this mapping is not in use"
            found.append(ConfigIssue(path=f"{path}.{wanted}", message=message, fix=f"openclaw config get {path}"))
        if mapping.signature.scheme != "none" and mapping.secret is None:
            message = "a sender that signs needs a secret of its own; this mapping is not in use"
            found.append(ConfigIssue(path=f"{path}.secret", message=message, fix=f"openclaw config get {path}"))
        if mapping.deliver and (mapping.channel is None) != (mapping.to is None):
            message = "channel and to go together; the answer is not sent anywhere"
            found.append(ConfigIssue(path=f"{path}.to", message=message, severity="warning"))
    names = [target.name for target in hooks.outbound]
    for name in sorted({name for name in names if names.count(name) > 1}):
        message = f"{name} is there more than once; the last one is in use"
        found.append(ConfigIssue(path="hooks.outbound", message=message, severity="warning"))
    return config


def _login(config: GatewayConfig, found: list[ConfigIssue], faulty: Collection[str]) -> GatewayConfig:
    oidc = config.auth.oidc
    if oidc.issuer is None:
        return config
    if "gateway.auth.oidc.clientSecret" in faulty:  # without it we would pass for a public client
        return attrs.evolve(config, auth=attrs.evolve(config.auth, oidc=attrs.evolve(oidc, issuer=None)))
    missing = {
        "clientId": (oidc.client_id is None, "openclaw config set gateway.auth.oidc.clientId <id>"),
        "allowUsers": (
            not oidc.allow_users,
            "openclaw config set gateway.auth.oidc.allowUsers '[\"you@example.com\"]'",
        ),
    }
    for key, (absent, fix) in missing.items():
        if absent:
            message = "is not set: nobody can log in at the OpenID provider"
            found.append(ConfigIssue(path=f"gateway.auth.oidc.{key}", message=message, severity="warning", fix=fix))
    if oidc.redirect_uri is None and config.public_url is None and not is_loopback_bind(config):
        message = "where the provider sends people back to is not known: set this or gateway.publicUrl"
        fix = "openclaw config set gateway.auth.oidc.redirectUri https://<host>/auth/callback"
        found.append(ConfigIssue(path="gateway.auth.oidc.redirectUri", message=message, severity="warning", fix=fix))
    return config
