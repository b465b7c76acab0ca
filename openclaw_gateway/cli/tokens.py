"""``openclaw tokens``: API keys, made and ended by name.

Owns the way to the `tokens.*` methods and what is printed. A running gateway is asked over the network like everything
else; while none runs on this host the same methods run on the state directory under the instance lock, authorised by
owning it. It must not know how keys are kept.

Invariants: a key goes to stdout once, alone, so that it can be piped; remarks go to stderr; names are escaped (V52).
"""

from __future__ import annotations

import os
import time
from typing import Any

import attrs
import click

from openclaw_gateway.cli.connect import Reach, call, reach_options
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import ago, print_json, print_table, printable
from openclaw_gateway.errors import CallFailed, GatewayError

__all__ = ["create", "list_tokens", "revoke", "tokens"]

_HERE = "openclaw_gateway.cli.tokens"


@attrs.define(eq=False)
class TokensRefused(GatewayError):
    """The gateway's own words about a key that cannot be made or found; ``fix`` is the next command."""

    message: str
    fix: str | None

    def __str__(self) -> str:
        return self.message


@click.group(
    cls=LazyGroup,
    table={
        "create": (f"{_HERE}:create", "Make an API key and print it, once."),
        "list": (f"{_HERE}:list_tokens", "API keys: what they may do, until when, when they were last used."),
        "revoke": (f"{_HERE}:revoke", "End an API key; what is connected with it is closed within a second."),
    },
)
def tokens() -> None:
    """API keys for programs that have no device identity."""


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from openclaw_gateway.config.leaves import BadValueError, duration

        try:
            return duration(value)
        except BadValueError as error:
            self.fail(str(error), param, ctx)


@click.command("create")
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="What the key may do, repeatable (operator.read)."
)
@click.option("--expires", type=_Duration(), metavar="TIME", help="The key's life, such as 30d.")
@click.option("--json", "as_json", is_flag=True, help="Print everything about the key as JSON.")
@reach_options()
def create(name: str, scopes: tuple[str, ...], expires: float | None, as_json: bool, reach: Reach) -> None:
    """Make the API key NAME and print it. It is shown now and never again."""
    params: dict[str, Any] = {"name": name}
    if scopes:
        # "read" is short for "operator.read", as people say it.
        params["scopes"] = [scope if "." in scope else f"operator.{scope}" for scope in scopes]
    if expires is not None:
        params["expiresInMs"] = round(expires * 1000)
    made = _ask(reach, "tokens.create", params, fresh=True)
    if as_json:
        print_json(made)
        return
    click.echo(made["key"])
    ends = made.get("expiresAtMs")
    until = f"until {_date(ends)}" if ends else "until it is revoked"
    click.echo(f"API key {printable(made['name'])}: {', '.join(made['scopes'])}, {until}.", err=True)
    click.echo("It is not kept anywhere in clear: copy it now. Use it as: Authorization: Bearer ocg_...", err=True)


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@reach_options()
def list_tokens(as_json: bool, reach: Reach) -> None:
    """List API keys, revoked ones too. The keys themselves are not kept, so they cannot be shown."""
    answer = _ask(reach, "tokens.list", {})
    if as_json:
        print_json(answer)
        return
    keys, now = answer.get("keys") or [], time.time() * 1000
    if not keys:
        click.echo("There are no API keys. Make one with: openclaw tokens create NAME")
        return
    print_table(
        [
            (
                key["name"], key["state"], ",".join(key["scopes"]), _date(key.get("expiresAtMs")),
                ago(key.get("lastUsedAtMs"), now) or "never", key.get("lastIp"), key.get("createdBy"), key["id"],
            )
            for key in keys
        ],
        ("NAME", "STATE", "SCOPES", "UNTIL", "USED", "FROM", "MADE BY", "ID"),
    )  # fmt: skip


@click.command("revoke")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@reach_options()
def revoke(name: str, as_json: bool, reach: Reach) -> None:
    """End the API key NAME (its name or id)."""
    gone = _ask(reach, "tokens.revoke", {"name": name})
    if as_json:
        print_json(gone)
        return
    click.echo(f"Revoked: {printable(gone['name'])} ({gone['id']})")


# --- the way to the methods


def _ask(reach: Reach, method: str, params: dict[str, Any], *, fresh: bool = False) -> Any:
    """``fresh``: a state directory that holds nothing yet is made."""
    try:
        if not _is_named(reach) and _nobody_runs():
            answer = _ask_offline(method, params, fresh=fresh)
            click.echo("(no gateway runs: this is done on the state directory itself)", err=True)
            return answer
        return call(reach, method, params, scopes=("operator.admin",))
    except CallFailed as error:
        raise _with_fix(error) from error


def _is_named(reach: Reach) -> bool:
    """True where a gateway or a secret was named: then that one is asked, with that secret."""
    from openclaw_gateway.client.resolve import URL_VARIABLE

    if reach.url or reach.token or reach.password or reach.port or os.environ.get(URL_VARIABLE, "").strip():
        return True
    config = _config()
    return bool(config.mode == "remote" and config.remote.url)


def _config() -> Any:
    from openclaw_gateway.config.issues import ConfigError
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.schema import GatewayConfig

    try:
        return load_config(env=os.environ).config
    except ConfigError:
        return GatewayConfig()  # a broken configuration must not keep the owner from revoking a key


def _nobody_runs() -> bool:
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.ops.instance import read_holder

    return read_holder(state_dir(os.environ)) is None


def _ask_offline(method: str, params: dict[str, Any], *, fresh: bool) -> Any:
    import msgspec
    import trio

    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.ops.audit import open_audit
    from openclaw_gateway.ops.instance import InstanceLock
    from openclaw_gateway.pairing.apikeys import open_api_keys
    from openclaw_gateway.rpc.dispatch import Dispatcher
    from openclaw_gateway.rpc.owner import OwnerCaller
    from openclaw_gateway.rpc.table import CallError, MethodTable
    from openclaw_gateway.rpc.tokens import register_keys
    from openclaw_gateway.server.rules import life_rules
    from openclaw_gateway.store import open_store

    directory = state_dir(os.environ)
    something = fresh or (directory / "gateway.db").exists() or (directory / "backups").exists()

    async def run() -> Any:
        async with (
            open_store(directory if something else None) as store,
            open_audit(store) as audit,
            open_api_keys(store, life_rules(_config())) as keys,
        ):
            table = MethodTable()
            register_keys(table, keys, audit)
            spec = table.get(method)
            assert spec is not None
            raw = msgspec.Raw(msgspec.json.encode(params))
            return await Dispatcher(table).run(spec, OwnerCaller("offline"), raw)

    try:
        if not something:
            return trio.run(run)
        with InstanceLock.acquire(directory):
            return trio.run(run)
    except CallError as exc:
        error = exc.error
        details = dict(error.details) if error.details is not None else None
        raise CallFailed(error.code, error.message, details) from exc


def _with_fix(error: CallFailed) -> GatewayError:
    """The error table's own fix goes with a refusal, where the refusal is one of ours."""
    from openclaw_gateway.protocol.errors import ERRORS

    code = (error.details or {}).get("code")
    row = next((row for key, row in ERRORS.items() if row.detail == code and key.startswith("api-key-")), None)
    return error if row is None else TokensRefused(error.message, row.fix)


def _date(ms: Any) -> str:
    if not isinstance(ms, (int, float)):
        return "no end"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(ms / 1000))
