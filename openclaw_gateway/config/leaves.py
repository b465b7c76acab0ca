"""One written value → one typed value, or the reason why not.

Owns what each setting accepts by itself: durations, addresses, networks, origins, hashes, numbers and their ranges,
words and the nearest valid word. Must not know other settings (`config.rules` does), files, or what takes the place
of a bad value.

Invariants: `read_leaf` returns a value of the setting's type or raises `BadValueError`; a `BadValueError` never
repeats a secret. From a list the good entries survive and the bad ones are named: ``kept`` is never wider than what
was written.
"""

from __future__ import annotations

import ipaddress
import json
import math
import re
import typing
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import attrs
import cattrs

from openclaw_gateway.config.hookblocks import WEBHOOK_EVENTS
from openclaw_gateway.config.interpolate import Unresolved
from openclaw_gateway.config.issues import nearest
from openclaw_gateway.config.redact import MARKER
from openclaw_gateway.config.settings import SECRETS, VALUE_ALIASES, Setting, pattern
from openclaw_gateway.protocol.scopes import KNOWN_OPERATOR_SCOPES

__all__ = [
    "BIND_NAMES",
    "DURATIONS",
    "RANGES",
    "RESERVED_LISTENERS",
    "BadValueError",
    "duration",
    "duration_text",
    "network",
    "origin",
    "read_leaf",
    "unresolved",
]

RESERVED_LISTENERS: Final = frozenset({"main", "owner", "tailscale", "tunnel", "stream"})
BIND_NAMES: Final = ("loopback", "lan", "tailnet", "auto", "custom")

# Inclusive. What is not listed must be at least 1.
RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "gateway.port": (0, 65535),
    "gateway.tailscale.port": (1, 65535),
    "gateway.listeners.*.port": (0, 65535),
    "gateway.transports.http.port": (1, 65535),
    "gateway.auth.refresh.maxUses": (1, 1_000_000_000),
    "gateway.auth.policy.minLength": (1, 1024),
    "gateway.transports.websocket.pingIntervalMs": (1_000, 3_600_000),
    "gateway.transports.websocket.pingTimeoutMs": (1_000, 3_600_000),
    "gateway.transports.websocket.maxMessageSize": (1_024, 2 * 1024**3 - 1),
    "gateway.transports.websocket.concurrentConnections": (1, 1_000_000),
    "gateway.transports.websocket.unauthenticatedPerAddress": (1, 100_000),
    "gateway.transports.websocket.maxBufferedBytes": (65_536, 2 * 1024**3 - 1),
    "gateway.transports.websocket.handshakeTimeoutMs": (1_000, 600_000),
    "gateway.transports.websocket.tickIntervalMs": (1_000, 3_600_000),
    "gateway.pairing.requestTtlMs": (10_000, 30 * 86_400_000),
    "gateway.pairing.setupCodeTtlMs": (30_000, 600_000),
    "gateway.pairing.senderCodeTtlMs": (60_000, 7 * 86_400_000),
    "gateway.nodes.invokeTimeoutMs": (100, 86_400_000),
    "gateway.remote.remotePort": (1, 65535),
    "gateway.remote.routes.*.remotePort": (1, 65535),
    "gateway.tunnels.*.port": (1, 65535),
    "gateway.tunnels.*.bindPort": (1, 65535),
    "gateway.tunnels.*.targetPort": (1, 65535),
    "gateway.tunnels.*.aliveInterval": (1, 3_600),
    "logging.maxBytes": (65_536, 10 * 1024**3),
    "logging.backups": (0, 1_000),
    "agents.defaults.timeoutSeconds": (1, 86_400),
    "agents.defaults.contextTokens": (1_000, 10_000_000),
    "models.providers.*.timeoutSeconds": (1, 3_600),
    "models.providers.*.maxTokens": (1, 10_000_000),
    "models.providers.*.models.*.contextWindow": (1_000, 100_000_000),
    "models.providers.*.models.*.contextTokens": (1_000, 100_000_000),
    "models.providers.*.models.*.maxTokens": (1, 10_000_000),
    "hooks.mappings.*.signature.toleranceSeconds": (1, 3_600),
    "hooks.mappings.*.timeoutSeconds": (1, 86_400),
    "session.reset.atHour": (0, 23),
    "session.reset.idleMinutes": (1, 525_600),
    "session.transcript.maxBytes": (16 * 1024**2, 16 * 1024**3),
    "session.transcript.maxTotalBytes": (64 * 1024**2, 1024**4),
}

_MAX_LIST: Final = 1_000
_MIN_PROXY_SECRET: Final = 24
_TAKEN_PATHS: Final = frozenset({"assets", "auth", "channels", "health", "j", "metrics", "ready", "rpc", "v1"})
_LOCAL_URL: Final = re.compile(r"http://(localhost|127\.\d+\.\d+\.\d+|\[::1\])(?=[:/]|$)")
_MAX_TEXT: Final = 4_096
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_MAX_SECONDS: Final = 100 * 365 * 86_400.0
_BCRYPT: Final = re.compile(r"\$2[aby]\$(\d{2})\$[./A-Za-z0-9]{53}")
_BCRYPT_COST: Final = (4, 16)  # below, the format allows none; above, one check takes seconds
_ORIGIN_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@attrs.define(eq=False)
class BadValueError(ValueError):
    """``kept`` is what remains of a list, None where the value was no list."""

    message: str
    allowed: tuple[str, ...] = ()
    nearest: str | None = None
    fix: str | None = None
    kept: tuple[str, ...] | None = None
    unset: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message


def read_leaf(setting: Setting, path: str, value: Any) -> Any:
    """``value`` as ``setting`` wants it. ``path`` is the path in the file (a channel's name in place of ``*``)."""
    if isinstance(value, Unresolved):
        raise _unset(value)
    words = VALUE_ALIASES.get(setting.path)
    if words is not None and isinstance(value, str):
        value = words.get(value.lower(), value)
    special = _SPECIAL.get(setting.path)
    if special is not None:
        return special(value, path)
    if isinstance(typing.get_origin(setting.type), type) and issubclass(typing.get_origin(setting.type), Mapping):
        return _named(value, typing.get_args(setting.type)[1])
    try:
        typed = _converter().structure(value, setting.type)
    except BadValueError:
        raise
    except Exception as error:
        raise BadValueError("not a valid value") from error
    if type(typed) is int:
        low, high = RANGES.get(setting.path, (1, 2**53))
        if not low <= typed <= high:
            raise BadValueError(f"must be from {low} to {high}")
    return typed


def _unset(value: Unresolved) -> BadValueError:
    names = ", ".join(value.names)
    plural = "s are" if len(value.names) > 1 else " is"
    return BadValueError(
        f"environment variable{plural} not set: {names}", fix=f"export {value.names[0]}=...", unset=value.names
    )


@cache
def _converter() -> cattrs.BaseConverter:
    """cattrs picks the hook by the annotation; ours are strict where its own would convert ("1" is no number, 1 no
    truth).
    """
    converter = cattrs.BaseConverter()
    converter.register_structure_hook(bool, lambda value, _: _bool(value))
    converter.register_structure_hook(int, lambda value, _: _int(value))
    converter.register_structure_hook(float, lambda value, _: _float(value))
    converter.register_structure_hook(str, lambda value, _: _text(value))
    converter.register_structure_hook(Path, lambda value, _: Path(_text(value)).expanduser())
    converter.register_structure_hook_func(lambda kind: getattr(kind, "__origin__", None) is Literal, _word)
    return converter


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    hint = {"true": "true", "yes": "true", "on": "true", "false": "false", "no": "false", "off": "false"}
    raise BadValueError("must be true or false", ("true", "false"), hint.get(str(value).lower()))


def _int(value: Any) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadValueError("must be a whole number" + (" (without quotes)" if isinstance(value, str) else ""))
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BadValueError("must be a number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadValueError("must be text in quotes")
    if not value or len(value) > _MAX_TEXT or any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
        raise BadValueError(f"must be 1 to {_MAX_TEXT} characters without control characters")
    return value


def _named(value: Any, kind: Any) -> dict[str, Any]:
    """A free block: names nobody knows beforehand, with values of one kind (`Any`: as they stand)."""
    if not isinstance(value, dict):
        raise BadValueError("must be a block { ... }")
    if len(value) > _MAX_LIST:
        raise BadValueError(f"has more than {_MAX_LIST} entries")
    missing = sorted({name for found in unresolved(value) for name in found.names})
    if missing:
        raise _unset(Unresolved("", tuple(missing)))
    return {_text(name): _converter().structure(inner, kind) for name, inner in value.items()}


def unresolved(value: Any) -> list[Unresolved]:
    """Every reference to the environment in a tree that found no variable."""
    if isinstance(value, Unresolved):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [found for item in inner for found in unresolved(item)]


def _word(value: Any, kind: Any) -> str:
    allowed = tuple(typing.get_args(kind))
    if isinstance(value, str) and value in allowed:
        return value
    word = value.lower() if isinstance(value, str) else ""
    if word in allowed:
        return word
    raise BadValueError("not one of the allowed values", allowed, nearest(word, allowed))


def duration(value: Any, path: str = "") -> float:
    """Seconds from ``"24h"``, ``"90d"``, ``"1h30m"`` or a number of seconds."""
    del path
    seconds = 0.0
    if isinstance(value, str):
        compact = value.strip().lower()
        if compact and not _DURATION.sub("", compact).strip():
            seconds = sum(float(amount) * _UNITS[unit] for amount, unit in _DURATION.findall(compact))
    elif not isinstance(value, bool) and isinstance(value, int | float):
        seconds = float(value)
    if not 0 < seconds <= _MAX_SECONDS:
        raise BadValueError('must be a time such as "15m", "24h" or "90d", or a positive number of seconds')
    return seconds


def duration_text(seconds: float) -> str | float:
    """``86400.0`` → ``"24h"``: what `duration` reads back as the same time. Days from two on, hours below."""
    for unit, least in (("d", 2 * 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0)):
        if seconds >= least and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    text = f"{seconds:f}".rstrip("0") + "s"
    return text if _DURATION.fullmatch(text) and duration(text) == seconds else seconds


def _instant(value: Any, path: str) -> float:
    del path
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise BadValueError('must be a date such as "2026-01-31" or Unix seconds') from None
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    seconds = _float(value)
    if not 0 <= seconds < 1e11:
        raise BadValueError("must be Unix seconds (not milliseconds)")
    return seconds


def _bind(value: Any, path: str) -> str:
    del path
    word = value.strip() if isinstance(value, str) else ""
    if word.lower() in BIND_NAMES:
        return word.lower()
    try:
        return str(ipaddress.ip_address(word.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise BadValueError(
            "not a bind mode and not an IP address", (*BIND_NAMES, "an IP address"), nearest(word, BIND_NAMES)
        ) from None


def _address(value: Any, path: str) -> str:
    try:
        return str(ipaddress.ip_address(_text(value).strip().removeprefix("[").removesuffix("]")))
    except ValueError:
        raise BadValueError("must be one IP address", fix=f"openclaw config set {path} 0.0.0.0") from None


def _secret(value: Any, path: str) -> str:
    """A secret as written: any text that cannot be an accident. Never repeated in the fault."""
    if isinstance(value, dict) and value.get("source") in {"file", "exec", "store"}:
        raise BadValueError(f'secret references of source "{value["source"]}" are not supported; use "${{NAME}}"')
    if not isinstance(value, str):
        raise BadValueError("must be text in quotes")
    if not value.strip():
        raise BadValueError("is empty", fix=f"openclaw config unset {path}")
    if MARKER in value:
        raise BadValueError(
            "is the redaction marker, not a secret", fix=f"openclaw config set {path} <the real secret>"
        )
    if value.startswith("${") and value.endswith("}"):
        raise BadValueError("looks like a reference to the environment but is none; names are letters, digits and _")
    if value != value.strip() or len(value) > _MAX_TEXT or any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
        raise BadValueError("has white space at an end, control characters, or is too long")
    return value


def _bcrypt(value: Any, path: str) -> str:
    text = _secret(value, path)
    match = _BCRYPT.fullmatch(text)
    if match is None:
        raise BadValueError("is not a bcrypt hash ($2a$, $2b$ or $2y$, 60 characters)")
    low, high = _BCRYPT_COST
    if not low <= int(match[1]) <= high:
        raise BadValueError(f"has a bcrypt cost outside {low} to {high}")
    return text


def network(entry: Any) -> tuple[str, ...]:
    """One entry of a network list → networks in CIDR form; v4-mapped addresses become v4. Raises `BadValueError`."""
    word = entry.strip() if isinstance(entry, str) else ""
    if word.lower() == "localhost":
        return ("127.0.0.0/8", "::1/128")
    try:
        found = ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise BadValueError("not an address, not a network in CIDR form, not localhost") from None
    if isinstance(found, ipaddress.IPv6Network):
        mapped = found.network_address.ipv4_mapped
        if mapped is not None and found.prefixlen >= 96:
            found = ipaddress.ip_network(f"{mapped}/{found.prefixlen - 96}", strict=False)
    if found.prefixlen == 0:
        raise BadValueError("would cover every address there is")
    return (str(found),)


def _networks(value: Any, path: str) -> tuple[str, ...]:
    return _entries(value, path, network)


def origin(entry: Any) -> str:
    """``https://Example.com:443/`` → ``https://example.com``. Raises `BadValueError`, with what was probably meant as
    ``nearest``.
    """
    word = entry.strip() if isinstance(entry, str) else ""
    if "*" in word or not word:
        raise BadValueError("must be one exact origin such as https://example.com:8443 (no wildcards)")
    if "://" not in word:
        host = word.split("/", 1)[0].lower()
        local = host.rsplit(":", 1)[0] in {"localhost", "127.0.0.1", "[::1]"}
        raise BadValueError("has no scheme", nearest=f"{'http' if local else 'https'}://{host}")
    try:
        parts = urlsplit(word)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise BadValueError("is not a URL") from None
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    if not host or _ORIGIN_SCHEME.fullmatch(scheme) is None or parts.username is not None:
        raise BadValueError("must be scheme://host[:port]")
    shown = f"[{host}]" if ":" in host else host
    normal = f"{scheme}://{shown}" + (f":{port}" if port is not None and port != _DEFAULT_PORTS.get(scheme) else "")
    if scheme != parts.scheme:
        raise BadValueError("is a WebSocket URL; browsers send the page's origin", nearest=normal)
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise BadValueError("has a path; an origin is scheme://host[:port]", nearest=normal)
    return normal


def _origins(value: Any, path: str) -> tuple[str, ...]:
    return _entries(value, path, lambda entry: (origin(entry),))


def _cors_origins(value: Any, path: str) -> tuple[str, ...]:
    return _entries(value, path, lambda entry: ("*",) if entry == "*" else (origin(entry),))


def _senders(value: Any, path: str) -> tuple[str, ...]:
    def one(entry: Any) -> tuple[str, ...]:
        if isinstance(entry, int) and not isinstance(entry, bool):
            return (str(entry),)  # OpenClaw's files hold Telegram ids as numbers
        return (_text(entry),)

    return _entries(value, path, one)


def _argv(value: Any, path: str) -> tuple[str, ...]:
    """A command as a list of its arguments: order and repetition count, and one bad entry spoils it."""
    if isinstance(value, Unresolved) or not isinstance(value, list) or not 0 < len(value) <= _MAX_LIST:
        raise BadValueError('must be a list of arguments such as ["python3", "/opt/agent.py"]')
    return tuple(_text(entry) for entry in value)


def _agent_id(value: Any, path: str) -> str:
    if not isinstance(value, str) or re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", value) is None:
        raise BadValueError("must be lower case letters, digits, _ and -, at most 64")
    return value


def _commands(value: Any, path: str) -> tuple[str, ...]:
    """Exact names: a pattern would look effective and match nothing."""

    def one(entry: Any) -> tuple[str, ...]:
        if not isinstance(entry, str) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", entry) is None:
            raise BadValueError("must be the exact name of a node command, such as system.run")
        return (entry,)

    return _entries(value, path, one)


def _entries(value: Any, path: str, one: Callable[[Any], tuple[str, ...]]) -> tuple[str, ...]:
    """A list read entry by entry. One faulty entry costs that entry, not the list."""
    listed = [value] if isinstance(value, str) and not isinstance(value, Unresolved) else value
    if not isinstance(listed, list):
        raise BadValueError("must be a list")
    if len(listed) > _MAX_LIST:
        raise BadValueError(f"has more than {_MAX_LIST} entries")
    kept: list[str] = []
    mended: list[str] = []
    faults: list[str] = []
    hint: str | None = None
    for index, entry in enumerate(listed):
        try:
            if isinstance(entry, Unresolved):
                raise _unset(entry)
            good = one(entry)
            kept += good
            mended += good
        except BadValueError as bad:
            faults.append(f"entry {index + 1} {_shown(entry)}{bad.message}")
            if bad.nearest is not None:
                hint = hint or bad.nearest
                mended.append(bad.nearest)
    if faults:
        fix = f"openclaw config set {path} '{json.dumps(list(dict.fromkeys(mended)))}'"
        raise BadValueError("; ".join(faults[:5]), nearest=hint, fix=fix, kept=tuple(dict.fromkeys(kept)))
    return tuple(dict.fromkeys(kept))


def _shown(entry: Any) -> str:
    """The entry itself where it is plainly an address, nothing where it might be something else."""
    harmless = isinstance(entry, str) and re.fullmatch(r"[A-Za-z0-9.:/\[\]*-]{1,80}", entry) is not None
    return f"({entry}) " if harmless else ""


def _url(value: Any, path: str) -> str:
    text = _text(value).strip()
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"ws", "wss", "http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    else:
        if parts.username is not None or parts.query or parts.fragment:
            raise BadValueError("must not carry a user, a query or a fragment (secrets have their own settings)")
    if not usable:
        raise BadValueError(
            "must be a URL such as wss://host:18789", fix=f"openclaw config set {path} ws://127.0.0.1:18789"
        )
    return text


def _service_url(value: Any, path: str) -> str:
    """The base URL of a model service: http or https, without what could carry a secret."""
    text = _url(value, path).rstrip("/")
    if not text.lower().startswith(("http://", "https://")):
        raise BadValueError(
            "must be a URL such as https://host/v1", fix=f"openclaw config set {path} http://127.0.0.1:8000/v1"
        )
    return text


def _hook_path(value: Any, path: str) -> str:
    """``hooks/`` → ``/hooks``: a base path of its own, in the spelling that routes are compared in."""
    text = "/" + _text(value).strip().strip("/")
    if re.fullmatch(r"(/[A-Za-z0-9_-]{1,64}){1,4}", text) is None:
        raise BadValueError("must be a path of its own such as /hooks", fix=f"openclaw config set {path} /hooks")
    if text.split("/")[1] in _TAKEN_PATHS:
        raise BadValueError(f"is used for something else: /{text.split('/')[1]}", nearest="/hooks")
    return text


def _hook_name(value: Any, path: str) -> str:
    del path
    text = _text(value).strip().strip("/")
    if re.fullmatch(r"[A-Za-z0-9_-]{1,64}(/[A-Za-z0-9_-]{1,64}){0,3}", text) is None:
        raise BadValueError("must be what follows hooks.path, such as github (letters, digits, _ and -)")
    return text


def _template(value: Any, path: str) -> str:
    from openclaw_gateway.hooks.template import TemplateFault, parse_template

    if not isinstance(value, str) or not value.strip():
        raise BadValueError("must be a text such as \"Build {{repository.name}} failed\"")
    try:
        parse_template(value)
    except TemplateFault as fault:
        raise BadValueError(str(fault)) from fault
    return value


def _header_name(value: Any, path: str) -> str:
    text = _text(value).strip().lower()
    if re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", text) is None:
        raise BadValueError("must be the name of an HTTP header")
    return text


def _webhook_url(value: Any, path: str) -> str:
    """Where events are sent. Counts as a secret: many services put theirs into the path."""
    text = _secret(value, path)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or parts.username is not None or parts.fragment or " " in text:
        raise BadValueError("must be a URL such as https://host/path, without user and fragment")
    return text


def _issuer(value: Any, path: str) -> str:
    """An OpenID issuer exactly as its tokens name it: the slash at its end counts (OpenID Connect Discovery 4.3)."""
    text = _url(value, path)
    if not (text.startswith("https://") or _LOCAL_URL.match(text)):
        raise BadValueError("must begin with https:// (http:// only on this host)")
    return text


def _event_names(value: Any, path: str) -> tuple[str, ...]:
    def one(entry: Any) -> tuple[str, ...]:
        if not isinstance(entry, str) or entry not in WEBHOOK_EVENTS:
            told = entry if isinstance(entry, str) else ""
            raise BadValueError("is no event that is sent", WEBHOOK_EVENTS, nearest(told, WEBHOOK_EVENTS))
        return (entry,)

    return _entries(value, path, one)


def _login_scopes(value: Any, path: str) -> tuple[str, ...]:
    def one(entry: Any) -> tuple[str, ...]:
        if not isinstance(entry, str) or entry not in KNOWN_OPERATOR_SCOPES:
            told = entry if isinstance(entry, str) else ""
            known = tuple(sorted(KNOWN_OPERATOR_SCOPES))
            raise BadValueError("is no operator scope", known, nearest(told, known))
        return (entry,)

    return _entries(value, path, one)


def _header_lines(value: Any, path: str) -> dict[str, str]:
    """Headers of requests by name. Their values count as secrets: none is repeated in the fault."""
    named = _named(value, str)
    for name, text in named.items():
        if re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", name) is None:
            raise BadValueError("holds a name that no HTTP header can have")
        if not text.isascii() or MARKER in text or name.lower() in {"host", "content-length", "transfer-encoding"}:
            raise BadValueError(f"cannot be sent: {name}")
    return named


def _variables(value: Any, path: str) -> dict[str, str]:
    """Environment variables of a program. Their values count as secrets."""
    named = _named(value, str)
    for name, text in named.items():
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", name) is None or MARKER in text:
            raise BadValueError("must be names of environment variables and their values")
    return named


def _fingerprint(value: Any, path: str) -> str:
    del path
    digits = _text(value).lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
    if re.fullmatch(r"[0-9a-f]{64}", digits) is None:
        raise BadValueError("must be a SHA-256 fingerprint: 64 hexadecimal digits")
    return digits


def _zone(value: Any, path: str) -> str:
    from openclaw_gateway.discovery.zone import normal_domain

    try:
        return normal_domain(_text(value))
    except ValueError as error:
        raise BadValueError(
            "must be a DNS domain of its own, not local", fix=f"openclaw config set {path} openclaw.internal"
        ) from error


def _peers(value: Any, path: str) -> tuple[str, ...]:
    """Networks that may connect or may not; one that covers every address of a kind is a sensible thing to say here."""

    def one(entry: Any) -> tuple[str, ...]:
        word = entry.strip() if isinstance(entry, str) else ""
        return (word,) if word in {"0.0.0.0/0", "::/0"} else network(entry)

    return _entries(value, path, one)


def _listener_name(value: Any, path: str) -> str:
    del path
    if not isinstance(value, str) or re.fullmatch(r"[a-z][a-z0-9-]{0,31}", value) is None:
        raise BadValueError("must be 1 to 32 small letters, digits and hyphens, beginning with a letter")
    if value in RESERVED_LISTENERS:
        raise BadValueError("is the name of a listener that the gateway opens itself")
    return value


def _listener_bind(value: Any, path: str) -> str:
    found = _bind(value, path)
    if found == "custom":
        raise BadValueError("names no address here; write the address itself", ("loopback", "lan", "an IP address"))
    return found


def _ceiling(value: Any, path: str) -> tuple[str, ...]:
    """RPC methods by exact name or ``family.*``, HTTP paths by exact path or ``/folder/*``."""

    def one(entry: Any) -> tuple[str, ...]:
        if not isinstance(entry, str) or re.fullmatch(r"/?[A-Za-z0-9._/-]{0,126}\*?", entry) is None or not entry:
            raise BadValueError("must be a method such as health, a family such as node.*, or a path such as /join/*")
        if entry.endswith("*") and not entry.endswith((".*", "/*")):
            raise BadValueError("a star stands for what comes behind a dot or a slash", nearest=entry[:-1] + ".*")
        return (entry,)

    return _entries(value, path, one)


def _scopes(value: Any, path: str) -> tuple[str, ...]:
    known = sorted(KNOWN_OPERATOR_SCOPES)

    def one(entry: Any) -> tuple[str, ...]:
        if not isinstance(entry, str) or entry not in KNOWN_OPERATOR_SCOPES:
            hint = nearest(entry, known) if isinstance(entry, str) else None
            raise BadValueError(f"must be one of {', '.join(known)}", nearest=hint)
        return (str(entry),)

    return _entries(value, path, one)


def _header(entry: Any) -> tuple[str, ...]:
    if not isinstance(entry, str) or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", entry.strip()) is None:
        raise BadValueError("must be the name of an HTTP header, such as x-forwarded-user")
    return (entry.strip().lower(),)


def _proxy_secret(value: Any, path: str) -> str:
    text = _secret(value, path)
    if len(text) < _MIN_PROXY_SECRET or not text.isascii():
        raise BadValueError(f"must be at least {_MIN_PROXY_SECRET} ASCII characters; make one: openssl rand -hex 32")
    return text


def _whole(read: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """A list of which no part may be used alone: with an entry less it would ask for less, or let more people in."""

    def strict(value: Any, path: str) -> Any:
        try:
            return read(value, path)
        except BadValueError as bad:
            raise attrs.evolve(bad, kept=None) from None

    return strict


def _headers(value: Any, path: str) -> tuple[str, ...]:
    return _entries(value, path, _header)


def _users(value: Any, path: str) -> tuple[str, ...]:
    return _entries(value, path, lambda entry: (_user(entry),))


def _user(entry: Any) -> str:
    text = _text(entry).strip()
    if not text or len(text) > 256 or "," in text:
        raise BadValueError("must be a user as the proxy names them, without a comma")
    return text


def _identity_scopes(value: Any, path: str) -> Mapping[str, tuple[str, ...]]:
    """A map from user to scopes. One faulty user makes it faulty as a whole: CLOSED then gives nobody anything."""
    if not isinstance(value, dict):
        raise BadValueError('must be a block such as { "nick@example.com": ["operator.read"] }')
    if len(value) > _MAX_LIST:
        raise BadValueError(f"has more than {_MAX_LIST} users")
    return {_user(name): _scopes(scopes, path) for name, scopes in value.items()}


_OWN_READERS: Final = frozenset({"gateway.auth.passwordHash", "gateway.auth.trustedProxy.secret"})
DURATIONS: Final = ("gateway.auth.policy.maxAge", "gateway.auth.expiresIn")

def _ssh_target(value: Any, path: str) -> str:
    from openclaw_gateway.tunnels.spec import parse_target

    return str(_tunnels(parse_target, value))


def _ssh_host(value: Any, path: str) -> str:
    from openclaw_gateway.tunnels.spec import parse_target

    host = _text(value)
    target = _tunnels(parse_target, host if ":" not in host else f"[{host}]")
    if target.user is not None or target.port is not None:
        raise BadValueError("is a host alone; user and port have settings of their own")
    return str(target.host)


def _ssh_user(value: Any, path: str) -> str:
    from openclaw_gateway.tunnels.spec import parse_target

    return str(_tunnels(parse_target, f"{_text(value)}@host").user)


def _key_file(value: Any, path: str) -> str:
    from openclaw_gateway.tunnels.spec import check_file

    return str(_tunnels(check_file, str(Path(_text(value)).expanduser())))


def _tunnel_name(value: Any, path: str) -> str:
    from openclaw_gateway.tunnels.spec import check_name

    return str(_tunnels(check_name, value))


def _tunnels(read: Callable[[str], Any], value: Any) -> Any:
    """What a reader of `tunnels.spec` makes of ``value``: what ssh would get is judged in one place."""
    from openclaw_gateway.tunnels.spec import TunnelRefused

    try:
        return read(_text(value))
    except TunnelRefused as error:
        raise BadValueError(error.message) from error


_SPECIAL: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "gateway.bind": _bind,
    "gateway.customBindHost": _address,
    "gateway.auth.passwordHash": _bcrypt,
    "gateway.auth.passwordChangedAt": _instant,
    **dict.fromkeys(DURATIONS, duration),
    "gateway.trustedProxies": _networks,
    "gateway.auth.trustedProxy.userHeader": lambda value, path: _header(value)[0],
    "gateway.auth.trustedProxy.requiredHeaders": _whole(_headers),
    "gateway.auth.trustedProxy.allowUsers": _whole(_users),
    "gateway.auth.identityScopes": _whole(_identity_scopes),
    "gateway.network.allow": _peers,
    "gateway.network.deny": _peers,
    "gateway.listeners.*.name": _listener_name,
    "gateway.listeners.*.bind": _listener_bind,
    "gateway.listeners.*.allow": _peers,
    "gateway.listeners.*.deny": _peers,
    "gateway.listeners.*.methods": _ceiling,
    "gateway.listeners.*.scopes": _scopes,
    "gateway.pairing.autoApprove.lan": _networks,
    "gateway.nodes.commands.allow": _commands,
    "gateway.nodes.commands.deny": _commands,
    "gateway.controlUi.allowedOrigins": _origins,
    "gateway.transports.http.cors.origins": _cors_origins,
    "gateway.publicUrl": _url,
    "gateway.remote.url": _url,
    "gateway.remote.tlsFingerprint": _fingerprint,
    "discovery.wideArea.domain": _zone,
    "gateway.remote.sshTarget": _ssh_target,
    "gateway.remote.sshIdentity": _key_file,
    "gateway.remote.sshKnownHosts": _key_file,
    "gateway.remote.routes.*.sshKnownHosts": _key_file,
    "gateway.remote.routes.*.url": _url,
    "gateway.remote.routes.*.tlsFingerprint": _fingerprint,
    "gateway.remote.routes.*.sshTarget": _ssh_target,
    "gateway.remote.routes.*.sshIdentity": _key_file,
    "gateway.tunnels.*.name": _tunnel_name,
    "gateway.tunnels.*.host": _ssh_host,
    "gateway.tunnels.*.user": _ssh_user,
    "gateway.tunnels.*.identity": _key_file,
    "gateway.tunnels.*.knownHosts": _key_file,
    "channels.*.dm.allowFrom": _senders,
    "agents.list.*.id": _agent_id,
    "agents.list.*.command": _argv,
    **{path: _secret for path in SECRETS if path not in _OWN_READERS},
    "gateway.auth.trustedProxy.secret": _proxy_secret,
    "agents.list.*.env": _variables,
    "models.providers.*.headers": _header_lines,
    "models.providers.*.baseUrl": _service_url,
    "gateway.auth.oidc.issuer": _issuer,
    "gateway.auth.oidc.redirectUri": _issuer,
    "gateway.auth.oidc.scopes": _login_scopes,
    "hooks.path": _hook_path,
    "hooks.mappings.*.match.path": _hook_name,
    "hooks.mappings.*.messageTemplate": _template,
    "hooks.mappings.*.textTemplate": _template,
    "hooks.mappings.*.agentId": _agent_id,
    **{f"hooks.mappings.*.signature.{name}": _header_name for name in ("header", "timestampHeader", "idHeader")},
    "hooks.outbound.*.name": _agent_id,
    "hooks.outbound.*.url": _webhook_url,
    "hooks.outbound.*.events": _event_names,
}

assert all(pattern(path) == path for path in _SPECIAL)
