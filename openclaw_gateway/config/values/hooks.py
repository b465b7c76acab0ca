"""What webhooks are made of: their paths, names, templates and signatures, where events go and which.

Owns the spelling of each; templates are judged by `hooks.template`, loaded when there is one. It must not know how a
hook is asked or sent. Invariant: a base path is none that the gateway serves otherwise.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import urlsplit

from openclaw_gateway.config.hookblocks import WEBHOOK_EVENTS
from openclaw_gateway.config.issues import nearest
from openclaw_gateway.config.values import plain, secrets
from openclaw_gateway.config.values.plain import BadValueError

__all__ = ["base_path", "event_names", "header_name", "name", "target_url", "template"]

_TAKEN_PATHS: Final = frozenset({"assets", "auth", "channels", "health", "j", "metrics", "ready", "rpc", "v1"})


def base_path(value: Any, path: str) -> str:
    """``hooks/`` → ``/hooks``: a base path of its own, in the spelling that routes are compared in."""
    text = "/" + plain.text(value).strip().strip("/")
    if re.fullmatch(r"(/[A-Za-z0-9_-]{1,64}){1,4}", text) is None:
        raise BadValueError("must be a path of its own such as /hooks", fix=f"openclaw config set {path} /hooks")
    if text.split("/")[1] in _TAKEN_PATHS:
        raise BadValueError(f"is used for something else: /{text.split('/')[1]}", nearest="/hooks")
    return text


def name(value: Any, path: str) -> str:
    del path
    text = plain.text(value).strip().strip("/")
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}", text) is None:
        raise BadValueError("must be what follows hooks.path, such as github (letters, digits, _ and -)")
    return text


def template(value: Any, path: str) -> str:
    from openclaw_gateway.hooks.template import TemplateFault, parse_template

    if not isinstance(value, str) or not value.strip():
        raise BadValueError('must be a text such as "Build {{repository.name}} failed"')
    try:
        parse_template(value)
    except TemplateFault as fault:
        raise BadValueError(str(fault)) from fault
    return value


def header_name(value: Any, path: str) -> str:
    text = plain.text(value).strip().lower()
    if re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", text) is None:
        raise BadValueError("must be the name of an HTTP header")
    return text


def target_url(value: Any, path: str) -> str:
    """Where events are sent. Counts as a secret: many services put theirs into the path."""
    text = secrets.secret(value, path)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or parts.username is not None or parts.fragment or " " in text:
        raise BadValueError("must be a URL such as https://host/path, without user and fragment")
    return text


def event_names(value: Any, path: str) -> tuple[str, ...]:
    def one(entry: Any) -> tuple[str, ...]:
        if not isinstance(entry, str) or entry not in WEBHOOK_EVENTS:
            told = entry if isinstance(entry, str) else ""
            raise BadValueError("is no event that is sent", WEBHOOK_EVENTS, nearest(told, WEBHOOK_EVENTS))
        return (entry,)

    return plain.entries(value, path, one)
