"""Which settings of authentication may stand together, and what the tailnet and the funnel need of them.

Owns the rules about how people prove who they are: one secret that counts, the password and its policy, the words of a
trusted proxy, and what has to be asked before Tailscale publishes the gateway. It must not know where the gateway
listens (`config.doorrules`) nor which secret is in use (`config.secrets`); the environment is only asked whether it
holds one.

Invariants: what would let strangers in is fatal or closed; a secret that nobody will ask for refuses no start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from openclaw_gateway.config.doorrules import is_loopback_bind
from openclaw_gateway.config.issues import ConfigIssue
from openclaw_gateway.config.schema import GatewayConfig, PasswordPolicy

__all__ = [
    "FUNNEL_TOKEN_LENGTH",
    "PASSWORD_VARIABLE",
    "TOKEN_VARIABLE",
    "close_exposure",
    "judge_auth",
    "judge_password",
    "milder",
    "password_faults",
]

TOKEN_VARIABLE: Final = "OPENCLAW_GATEWAY_TOKEN"  # noqa: S105 - the name of a variable
PASSWORD_VARIABLE: Final = "OPENCLAW_GATEWAY_PASSWORD"  # noqa: S105 - the name of a variable
FUNNEL_TOKEN_LENGTH: Final = 24
_WEAK_TOKEN: Final = 16


def password_faults(password: str, policy: PasswordPolicy) -> tuple[str, ...]:
    """Which rules of the policy a plaintext password breaks, by the names they have in the file."""
    checks = (
        (len(password) >= policy.min_length, f"minLength ({policy.min_length})"),
        (not policy.require_uppercase or any(char.isupper() for char in password), "requireUppercase"),
        (not policy.require_lowercase or any(char.islower() for char in password), "requireLowercase"),
        (not policy.require_numbers or any(char.isdigit() for char in password), "requireNumbers"),
        (
            not policy.require_symbols or any(not char.isalnum() and not char.isspace() for char in password),
            "requireSymbols",
        ),
    )
    return tuple(name for held, name in checks if not held)


def milder(issue: ConfigIssue, config: GatewayConfig) -> ConfigIssue:
    """A secret that nobody will ask for is not worth refusing to start."""
    used = {
        "token": {"gateway.auth.token"},
        "password": {"gateway.auth.password", "gateway.auth.passwordHash"},
        "trusted-proxy": {"gateway.auth.token", "gateway.auth.password", "gateway.auth.trustedProxy.secret"},
        "none": set() if is_loopback_bind(config) else {"gateway.auth.token"},
    }[config.auth.type]
    if issue.severity == "fatal" and issue.path in {"hooks.token", "gateway.auth.oidc.clientSecret"}:
        told = "webhooks that need it" if issue.path == "hooks.token" else "this login"
        return attrs.evolve(issue, severity="fallback", message=f"{issue.message}; {told} stay off")
    if config.mode == "remote":
        used = used | {"gateway.remote.token", "gateway.remote.password"}
    secret = issue.path.startswith(
        ("gateway.auth.token", "gateway.auth.password", "gateway.auth.trustedProxy.secret", "gateway.remote.")
    )
    if issue.severity == "fatal" and secret and issue.path not in used:
        return attrs.evolve(issue, severity="warning", message=issue.message + "; the setting is not in use")
    return issue


def judge_auth(
    config: GatewayConfig, found: list[ConfigIssue], env: Mapping[str, str], unread: set[str], *, type_given: bool
) -> None:
    auth = config.auth
    if auth.token is not None and (auth.password or auth.password_hash) and not type_given:
        found.append(
            ConfigIssue(
                path="gateway.auth.type",
                message="both a token and a password are set: say which one counts",
                severity="fatal",
                allowed=("token", "password"),
                fix="openclaw config set gateway.auth.type token",
            )
        )
    given = auth.password or auth.password_hash or env.get(PASSWORD_VARIABLE)
    if auth.type == "password" and not given and not unread & {"gateway.auth.password", "gateway.auth.passwordHash"}:
        found.append(
            ConfigIssue(
                path="gateway.auth.password",
                message=f"no passwordHash, no password and no {PASSWORD_VARIABLE}, but gateway.auth.type is password",
                severity="fatal",
                fix="openclaw config set gateway.auth.passwordHash '<bcrypt hash>'",
            )
        )
    if auth.type == "trusted-proxy" and not config.trusted_proxies:
        found.append(
            ConfigIssue(
                path="gateway.trustedProxies",
                message="gateway.auth.type is trusted-proxy, but no proxy is trusted: nobody comes in by name",
                severity="fatal" if auth.token is None and auth.password is None else "warning",
                fix="openclaw config set gateway.trustedProxies '[\"<address of the proxy>\"]'",
            )
        )
    _trusted_proxy(config, found, unread)
    if auth.type == "none" and not is_loopback_bind(config):
        found.append(
            ConfigIssue(
                path="gateway.auth.type",
                message=f"none is not possible with bind {config.bind}: a token is made, kept and asked for",
                severity="warning",
                fix="openclaw config set gateway.auth.type token",
            )
        )
    if auth.type in {"token", "trusted-proxy"} and auth.token is not None and len(auth.token) < _WEAK_TOKEN:
        where = "" if is_loopback_bind(config) else ", on a listener that others can reach"
        found.append(
            ConfigIssue(
                path="gateway.auth.token",
                message=f"shorter than {_WEAK_TOKEN} characters: it can be guessed{where}",
                severity="warning",
                fix="openclaw config unset gateway.auth.token",
            )
        )


def _trusted_proxy(config: GatewayConfig, found: list[ConfigIssue], unread: set[str]) -> None:
    auth, proxy = config.auth, config.auth.trusted_proxy
    if auth.type != "trusted-proxy":
        return
    if proxy.user_header is None:
        secret = auth.token is not None or auth.password is not None
        hopeless = not secret and not unread & {"gateway.auth.token", "gateway.auth.password"}
        found.append(
            ConfigIssue(
                path="gateway.auth.trustedProxy.userHeader",
                message="gateway.auth.type is trusted-proxy, and no header names the person: nobody comes in by name"
                + (", and there is no token either" if hopeless else ""),
                severity="fatal" if hopeless else "warning",
                fix="openclaw config set gateway.auth.trustedProxy.userHeader x-forwarded-user",
            )
        )
    elif not proxy.allow_users:
        found.append(
            ConfigIssue(
                path="gateway.auth.trustedProxy.allowUsers",
                message="is empty: everybody whom the proxy lets through is let in",
                severity="warning",
                fix="openclaw config set gateway.auth.trustedProxy.allowUsers '[\"<user>\"]'",
            )
        )
    if proxy.allow_loopback and proxy.secret is None and "gateway.auth.trustedProxy.secret" not in unread:
        found.append(
            ConfigIssue(
                path="gateway.auth.trustedProxy.allowLoopback",
                message="every program on this host could name a person: the proxy has to prove itself with a secret; "
                "until then nobody comes in by name from this host",
                severity="warning",
                fix="openclaw config set gateway.auth.trustedProxy.secret '${NAME_OF_A_VARIABLE}'",
            )
        )


def judge_password(config: GatewayConfig, found: list[ConfigIssue], env: Mapping[str, str]) -> None:
    auth = config.auth
    password = auth.password or env.get(PASSWORD_VARIABLE) or None
    if auth.type != "password":
        return
    if auth.password is not None and auth.password_hash is not None:
        found.append(
            ConfigIssue(
                path="gateway.auth.password",
                message="ignored: gateway.auth.passwordHash is set and counts",
                severity="warning",
                fix="openclaw config unset gateway.auth.password",
            )
        )
    elif auth.password_hash is None and password is not None and auth.policy is not None:
        broken = password_faults(password, auth.policy)
        if broken:
            found.append(
                ConfigIssue(
                    path="gateway.auth.password",
                    message="does not meet gateway.auth.policy: " + ", ".join(broken),
                    severity="fatal",
                    fix="openclaw config set gateway.auth.password '${NAME_OF_A_VARIABLE}'",
                )
            )
    if auth.policy is not None and auth.policy.max_age is not None and auth.password_changed_at is None:
        found.append(
            ConfigIssue(
                path="gateway.auth.passwordChangedAt",
                message="gateway.auth.policy.maxAge counts from this date, and it is not set",
                severity="warning",
                fix="openclaw config set gateway.auth.passwordChangedAt '\"<yyyy-mm-dd>\"'",
            )
        )


def close_exposure(config: GatewayConfig, found: list[ConfigIssue], env: Mapping[str, str]) -> GatewayConfig:
    mode, auth = config.tailscale.mode, config.auth
    if mode == "off":
        return config
    fault: str | None = None
    fix = "openclaw config set gateway.tailscale.mode off"
    if not is_loopback_bind(config):
        fault, fix = "needs gateway.bind loopback", "openclaw config set gateway.bind loopback"
    elif auth.type == "none":
        fault, fix = "needs authentication", "openclaw config set gateway.auth.type token"
    elif mode == "funnel" and auth.type != "password":
        token = auth.token if auth.token is not None else env.get(TOKEN_VARIABLE) or None
        if auth.type != "token" or auth.allow_tailscale is not False:
            fault = "needs gateway.auth.type password, or a token with gateway.auth.allowTailscale false"
            fix = "openclaw config set gateway.auth.type password"
        elif token is not None and len(token) < FUNNEL_TOKEN_LENGTH:
            fault = f"needs a token of at least {FUNNEL_TOKEN_LENGTH} characters"
            fix = "openclaw config unset gateway.auth.token"
    if fault is None:
        return config
    found.append(ConfigIssue(path="gateway.tailscale.mode", message=f"{mode} {fault}; in use: off", fix=fix))
    return attrs.evolve(config, tailscale=attrs.evolve(config.tailscale, mode="off"))
