"""``openclaw config``: read, change and check openclaw.json without a gateway.

Owns the command line over `openclaw_gateway.config`: arguments, output, exit codes. Must not know rules of its own:
what is valid, what is secret and how text is edited is decided there. Never talks to a gateway, but to confirm a change
on probation (`cli.probation`); a running one notices a change by itself.

Exit codes: 0 done · 1 no (unknown path, values not in use as written) · 2 wrong usage · 78 the configuration cannot
be used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import attrs
import click

from openclaw_gateway.cli.probation import confirm_command, probation_window, rollback_command, write_on_probation
from openclaw_gateway.config import ConfigError, ConfigIssue, LoadedConfig, config_path, load_config
from openclaw_gateway.errors import GatewayError

__all__ = ["config"]

_EXIT_NO: Final = 1


@click.group()
def config() -> None:
    """Read, change and check openclaw.json (works without a gateway)."""


@config.command("get", short_help="Print the value in use at PATH, or everything.")
@click.argument("path", required=False)
@click.option("--json", "as_json", is_flag=True, help="Always print JSON.")
def get(path: str | None, as_json: bool) -> None:
    """Print the value in use at PATH, defaults included; without PATH everything. Secrets are not shown."""
    from openclaw_gateway.config.view import UnknownPathError, effective, get_path

    with _told():
        loaded = load_config(env=os.environ)
        try:
            value = effective(loaded) if path is None else get_path(loaded, path)
        except UnknownPathError as error:
            fix = f"openclaw config get {error.nearest}" if error.nearest else "openclaw config schema"
            _fail(str(error), fix, _EXIT_NO)
    click.echo(_shown(value, as_json=as_json))


@config.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("path")
@click.argument("value")
@click.option("--confirm", metavar="TIME", help="Take it back after TIME (60s, 5m) unless: openclaw config confirm")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def set_(path: str, value: str, confirm: str | None, as_json: bool) -> None:
    """Set PATH to VALUE (JSON5; anything else is taken as text). Comments and ${NAME} references stay."""
    from openclaw_gateway.config.edit import set_value

    _change(path, as_json, lambda raw: set_value(raw, path, _parsed(path, value)), confirm)


@config.command("unset")
@click.argument("path")
@click.option("--confirm", metavar="TIME", help="Take it back after TIME (60s, 5m) unless: openclaw config confirm")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def unset(path: str, confirm: str | None, as_json: bool) -> None:
    """Remove PATH from the file, so that its default holds."""
    from openclaw_gateway.config.edit import EditError, unset_value

    def edit(raw: str) -> str:
        edited, found = unset_value(raw, path)
        if not found:
            raise EditError(path, "is not set in the file")
        return edited

    _change(path, as_json, edit, confirm)


config.add_command(confirm_command)
config.add_command(rollback_command)


@config.command("validate")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def validate(as_json: bool) -> None:
    """Check the configuration exactly as a start would."""
    path = config_path(os.environ)
    try:
        loaded = load_config(env=os.environ)
    except ConfigError as error:
        _report(path, error.issues, (), as_json=as_json, ok=False)
        raise click.exceptions.Exit(error.exit_code) from None
    _report(path, loaded.issues, loaded.warnings, as_json=as_json, ok=not loaded.degraded, hash_=loaded.hash)
    if loaded.degraded:
        raise click.exceptions.Exit(_EXIT_NO)


@config.command("schema")
def schema() -> None:
    """Print the JSON Schema of openclaw.json."""
    from openclaw_gateway.config.jsonschema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@config.command("file")
def file() -> None:
    """Print which file is read."""
    click.echo(str(config_path(os.environ)))


def _change(path: str, as_json: bool, edit: Any, confirm: str | None) -> None:
    from openclaw_gateway.config.view import UnknownPathError, get_path
    from openclaw_gateway.config.writing import read_text, write_config

    where = config_path(os.environ)
    window = probation_window(confirm)
    with _told(changing=path):
        import hashlib

        raw = read_text(where)
        edited = edit(raw)
        if window is not None and edited != raw:
            loaded, issues = write_on_probation(where, edited, window)
        else:
            base_hash = hashlib.sha256(raw.encode()).hexdigest()
            loaded, issues = write_config(where, edited, env=os.environ, base_hash=base_hash)
    value: Any = None
    if isinstance(loaded, LoadedConfig):
        try:
            value = get_path(loaded, path)
        except UnknownPathError:
            value = None
    ignored = _ignored(loaded, path) if isinstance(loaded, LoadedConfig) else []
    if as_json:
        out = {"ok": True, "path": path, "file": str(where), "changed": edited != raw, "value": value}
        if ignored:
            out["ignored"] = ignored
        if window is not None:
            out["confirmWithinMs"] = round(window * 1000) if edited != raw else None
        click.echo(json.dumps({**out, "issues": [issue.to_wire() for issue in issues]}))
        return
    click.echo(f"{path}: {'changed' if edited != raw else 'was so already'} in {where}")
    if window is not None and edited != raw:
        click.echo(f"It goes back in {window:g} s unless you confirm it, from where you need to get in:")
        click.echo("  openclaw config confirm")
    for issue in issues:
        _tell_issue(issue)
    if ignored:
        click.echo(f"warning: without effect, because this gateway has no such setting: {', '.join(ignored)}", err=True)
        click.echo(f"  fix: openclaw config unset {path}", err=True)


def _ignored(loaded: LoadedConfig, path: str) -> list[str]:
    """What the file holds at or around ``path`` that is no setting of this gateway, with the nearest one."""
    from openclaw_gateway.config.settings import canonical_path

    wanted = canonical_path(path.strip()) + "."
    return [
        item
        for item in loaded.ignored
        if wanted.startswith(name := f"{item.split(' ')[0]}.") or name.startswith(wanted)
    ]


def _parsed(path: str, value: str) -> Any:
    """VALUE as JSON5, else as text; a setting that is text takes digits and words as text too."""
    from openclaw_gateway.config.json5 import Json5Error, loads
    from openclaw_gateway.config.settings import canonical_path, pattern, settings

    try:
        parsed = loads(value)
    except Json5Error:
        return value
    setting = settings().get(pattern(canonical_path(path)))
    is_text = setting is not None and setting.type in {str, str | None}
    return value if is_text and not isinstance(parsed, str | dict) and parsed is not None else parsed


def _shown(value: Any, *, as_json: bool) -> str:
    if as_json or value is None or isinstance(value, dict | list | bool):
        return json.dumps(value, indent=2, ensure_ascii=False)
    return str(value)


def _report(
    path: Any, issues: tuple[ConfigIssue, ...], warnings: tuple[str, ...], *, as_json: bool, ok: bool, hash_: str = ""
) -> None:
    if as_json:
        out = {
            "ok": ok,
            "valid": ok,
            "path": str(path),
            "hash": hash_ or None,
            "issues": [issue.to_wire() for issue in issues],
            "warnings": list(warnings),
        }
        click.echo(json.dumps(out))
        return
    for issue in issues:
        if issue.severity != "warning" or not warnings:
            _tell_issue(issue)
    for line in warnings:
        click.echo(f"warning: {line}", err=True)
    click.echo(f"{path}: {'valid' if ok else 'not valid'}", err=not ok)


def _tell_issue(issue: ConfigIssue) -> None:
    word = {"fatal": "error", "fallback": "error", "warning": "warning"}[issue.severity]
    click.echo(f"{word}: {issue}", err=True)
    if issue.fix:
        click.echo(f"  fix: {issue.fix}", err=True)


@contextmanager
def _told(changing: str | None = None) -> Iterator[None]:
    """Errors of the configuration as a sentence, the next command and the exit code.

    A refused change of ``changing`` changed nothing: taking its setting out would mend nothing, so nobody is told to.
    """
    from openclaw_gateway.config.edit import EditError
    from openclaw_gateway.config.redact import MarkerRefusedError
    from openclaw_gateway.config.writing import ConfigConflictError

    try:
        yield
    except ConfigError as error:
        for issue in error.issues:
            _tell_issue(attrs.evolve(issue, fix=None) if issue.fix == f"openclaw config unset {changing}" else issue)
        if changing is not None:
            click.echo("Nothing was changed.", err=True)
        if _asked_for_json():
            from openclaw_gateway.cli.complaints import as_wire
            from openclaw_gateway.cli.output import print_json

            print_json(as_wire(error))
        raise click.exceptions.Exit(error.exit_code) from None
    except MarkerRefusedError as error:
        _fail(str(error), f"openclaw config set {error.path or 'PATH'} <the real secret>", _EXIT_NO)
    except (EditError, ConfigConflictError) as error:
        _fail(str(error), "openclaw config validate", _EXIT_NO)
    except GatewayError as error:
        _fail(str(error), getattr(error, "fix", None) or "openclaw doctor", _EXIT_NO)
    except OSError as error:
        _fail(
            f"{error.filename or config_path(os.environ)}: {error.strerror or error}", "openclaw config file", _EXIT_NO
        )


def _asked_for_json() -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.params.get("as_json"))


def _fail(message: str, fix: str, code: int) -> NoReturn:
    click.echo(f"error: {message}", err=True)
    click.echo(f"  fix: {fix}", err=True)
    if _asked_for_json():
        from openclaw_gateway.cli.output import print_failure

        print_failure("config", message, fix)
    raise click.exceptions.Exit(code)
