"""The one answer to "which secret, and where does it come from", for the server and every command.

Owns the order of the sources, the generated token and its file, fingerprints. Must not compare secrets with anything a
client sent (`policy` does) and must not print them.

Order: command-line flag > openclaw.json > ``OPENCLAW_GATEWAY_TOKEN`` / ``OPENCLAW_GATEWAY_PASSWORD`` > the generated
token file.
Invariants: a non-loopback listener never ends up without authentication; a generated token is 256 random bits, on
disk with mode 0600 before it is used; a secret shows in no repr. A secret that is configured but unresolvable never
gets here (`config.load` refuses).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

import attrs

from openclaw_gateway.config.issues import ConfigError, ConfigIssue
from openclaw_gateway.config.paths import generated_token_path
from openclaw_gateway.config.redact import MARKER
from openclaw_gateway.config.rules import PASSWORD_VARIABLE, TOKEN_VARIABLE, is_loopback_bind
from openclaw_gateway.config.schema import AuthType, GatewayConfig
from openclaw_gateway.value import Value

__all__ = ["ResolvedAuth", "fingerprint", "resolve_auth"]

_TOKEN_BYTES: Final = 32  # 43 characters of base64url
_NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
)  # e.g. FAT, some shared folders
_TOKEN_FILE: Final = re.compile(r"[A-Za-z0-9_-]{22,512}")


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ResolvedAuth(Value):
    """What the gateway asks for. ``type`` may differ from the configured one (none on an open listener becomes token).

    ``source`` says where the secret came from, ``fingerprint`` is the first 8 hex digits of its SHA-256: both may be
    shown. ``generated``: the token was made by this very call.
    """

    type: AuthType
    token: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    password_hash: str | None = attrs.field(default=None, repr=False)
    source: str = "none"
    fingerprint: str | None = None
    generated: bool = False
    forced: bool = False  # configured as none, made a token because others can reach the listener


def fingerprint(secret: str) -> str:
    """Enough to see whether two sides hold the same secret, too little to find it (for a generated token)."""
    return hashlib.sha256(secret.encode()).hexdigest()[:8]


def resolve_auth(
    config: GatewayConfig,
    state_dir: Path | None,
    env: Mapping[str, str],
    *,
    overridden: Collection[str] = (),
    create: bool = True,
) -> ResolvedAuth:
    """Find the secret that this configuration asks for.

    ``overridden``: `LoadedConfig.overridden`, for the label of the source. ``create=False`` (read-only commands): a
    missing token file is not made, and ``token`` is None. ``state_dir`` None (embedding): a generated token lives
    only as long as the process.
    Raises `ConfigError` when the token file is there but cannot be used or made.
    """
    auth = config.auth
    forced = auth.type == "none" and not is_loopback_bind(config)
    if auth.type == "none" and not forced:
        return ResolvedAuth(type="none")
    if auth.type == "password":
        return _password(config, env, overridden)
    if auth.type == "trusted-proxy":
        # The proxy vouches for people; a secret that was set on purpose stays the way in for programs on this host.
        # OpenClaw takes a password for that, we take either.
        for key, secret in (("gateway.auth.token", auth.token), ("gateway.auth.password", auth.password)):
            if secret is not None:
                source = _label(key, overridden)
                return ResolvedAuth(
                    type="trusted-proxy", token=secret, source=source, fingerprint=fingerprint(secret)
                )
        return ResolvedAuth(type="trusted-proxy", source="config gateway.trustedProxies")
    if auth.token is not None:
        source = _label("gateway.auth.token", overridden)
        return _token(auth.token, source, forced=forced)
    from_env = env.get(TOKEN_VARIABLE, "")
    if from_env.strip():
        _refuse_marker(from_env, TOKEN_VARIABLE)
        return _token(from_env, f"environment {TOKEN_VARIABLE}", forced=forced)
    if state_dir is None:
        return (
            _token(_new_token(), "generated for this process", generated=True, forced=forced)
            if create
            else (ResolvedAuth(type="token", forced=forced))
        )
    path = generated_token_path(state_dir)
    kept = _read_token(path)
    if kept is not None:
        return _token(kept, f"file {path}", forced=forced)
    if not create:
        return ResolvedAuth(type="token", source=f"file {path}", forced=forced)
    token, generated = _make_token(path, state_dir)
    return _token(token, f"file {path}", generated=generated, forced=forced)


def _token(token: str, source: str, *, generated: bool = False, forced: bool) -> ResolvedAuth:
    return ResolvedAuth(
        type="token", token=token, source=source, fingerprint=fingerprint(token), generated=generated, forced=forced
    )


def _password(config: GatewayConfig, env: Mapping[str, str], overridden: Collection[str]) -> ResolvedAuth:
    auth = config.auth
    if auth.password is not None and "gateway.auth.password" in overridden:
        # A flag is newer than a hash in the file.
        source = _label("gateway.auth.password", overridden)
        return ResolvedAuth(
            type="password", password=auth.password, source=source, fingerprint=fingerprint(auth.password)
        )
    if auth.password_hash is not None:
        hashed = auth.password_hash
        return ResolvedAuth(
            type="password",
            password_hash=hashed,
            source="config gateway.auth.passwordHash",
            fingerprint=fingerprint(hashed),
        )
    if auth.password is not None:
        source = _label("gateway.auth.password", overridden)
        return ResolvedAuth(
            type="password", password=auth.password, source=source, fingerprint=fingerprint(auth.password)
        )
    from_env = env.get(PASSWORD_VARIABLE, "")
    if not from_env:
        # The rules refuse this for a file; a program that builds its own GatewayConfig gets here.
        raise _fault("gateway.auth.password", "gateway.auth.type is password, but no password is set")
    _refuse_marker(from_env, PASSWORD_VARIABLE)
    return ResolvedAuth(
        type="password", password=from_env, source=f"environment {PASSWORD_VARIABLE}", fingerprint=fingerprint(from_env)
    )


def _label(path: str, overridden: Collection[str]) -> str:
    return f"flag --{path.rsplit('.', 1)[-1]}" if path in overridden else f"config {path}"


def _fault(path: str, message: str, fix: str | None = None) -> ConfigError:
    return ConfigError((ConfigIssue(path=path, message=message, severity="fatal", fix=fix),))


def _refuse_marker(secret: str, variable: str) -> None:
    if MARKER in secret:
        raise _fault(variable, "holds the redaction marker, not a secret", f"unset {variable}")


def _new_token() -> str:
    import secrets

    return secrets.token_urlsafe(_TOKEN_BYTES)


def _read_token(path: Path) -> str | None:
    """The kept token, None when there is no file. Anything else that is wrong is an error: absent is not unreadable."""
    from openclaw_gateway.ops.statedir import StateDirUnsafe, read_private_file

    try:
        text = read_private_file(path, limit=4096).decode("ascii").strip()
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise _fault("", f"{path} cannot be read: {error.strerror}", f"ls -l '{path.parent}'") from error
    except OSError as error:
        raise _fault("", f"{path} cannot be read: {error.strerror}", f"ls -l '{path}'") from error
    except StateDirUnsafe as error:
        raise _fault("", str(error), error.fix) from error
    except UnicodeDecodeError:
        text = ""
    if _TOKEN_FILE.fullmatch(text) is None:
        raise _fault("", f"{path} does not hold a token", f"rm '{path}' (the next start makes a new one)")
    return text


def _write_new(path: Path, token: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(token.encode() + b"\n")
        file.flush()
        os.fsync(fd)


def _make_token(path: Path, state: Path) -> tuple[str, bool]:
    """Create the file, or read what another process created a moment earlier: both end up with one token."""
    from openclaw_gateway.ops.statedir import StateDirUnsafe, ensure_private_dir, fsync_dir

    try:
        ensure_private_dir(state)
        ensure_private_dir(path.parent)
        token = _new_token()
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(6).hex()}.tmp")
        _write_new(temporary, token)
        try:
            # A link, unlike a rename, fails when the name is taken, and the file appears whole.
            path.hardlink_to(temporary)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            _write_new(path, token)
        finally:
            temporary.unlink()
        fsync_dir(path.parent)
    except FileExistsError:
        kept = _read_token(path)
        if kept is None:
            raise _fault("", f"{path} appeared and went away again", "openclaw gateway run") from None
        return kept, False
    except StateDirUnsafe as error:
        raise _fault("", str(error), error.fix) from error
    except OSError as error:
        raise _fault("", f"{path} cannot be written: {error.strerror}", f"ls -ld '{path.parent}'") from error
    return token, True
