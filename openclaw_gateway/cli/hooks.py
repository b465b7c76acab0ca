"""``openclaw hooks``: which webhooks are configured, and one sent to try them.

Owns what is printed and the try. It must not know rules of its own: what is in use is what `hooks.requests` makes of
the configuration. Invariants: no secret and no address of a target is printed, only its host; a try of an incoming
webhook goes to this host's own gateway and nowhere else, so its secret leaves to nobody (V56).
"""

from __future__ import annotations

import json
import os
import time
import uuid
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import print_json, print_table, printable

if TYPE_CHECKING:
    from openclaw_gateway.config.hookblocks import OutboundHook
    from openclaw_gateway.config.schema import GatewayConfig

__all__ = ["hooks", "list_hooks", "test"]

_HERE: Final = "openclaw_gateway.cli.hooks"
_SECONDS: Final = 15.0


@click.group(
    cls=LazyGroup,
    table={
        "list": (f"{_HERE}:list_hooks", "Webhooks that are configured, in and out."),
        "test": (f"{_HERE}:test", "Send one webhook and show the answer."),
    },
)
def hooks() -> None:
    """Webhooks: services outside start agents, and hear of events."""


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def list_hooks(as_json: bool) -> None:
    """List the webhooks of the configuration, as a start would use them."""
    rows = _rows(_config())
    if as_json:
        print_json({"hooks": rows})
        return
    if not rows:
        click.echo("No webhooks. To switch them on: openclaw config set hooks.token '${NAME}' and hooks.enabled true")
        return
    shown = [
        (row["name"], row["direction"], row["does"], row["auth"], "on" if row["enabled"] else "off") for row in rows
    ]
    print_table(shown, ("NAME", "WAY", "DOES", "PROVES ITSELF BY", "STATE"))


@click.command("test")
@click.argument("name")
@click.option("--data", default=None, metavar="JSON", help="The payload; default: a short text.")
@click.option("--outbound", is_flag=True, help="NAME is a target of hooks.outbound.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def test(name: str, data: str | None, outbound: bool, as_json: bool) -> None:
    """Send a webhook as a service would: to NAME (agent, wake, github ...) of the gateway on this host."""
    config = _config()
    payload: Any = {"text": "This is a test.", "message": "This is a test of the webhook."}
    if data is not None:
        try:
            payload = json.loads(data)
        except ValueError as error:
            raise click.UsageError(f"--data is no JSON: {error}") from error
    status, answer = _send_out(config, name, payload) if outbound else _send_in(config, name, payload)
    if as_json:
        print_json({"ok": 200 <= status < 300, "status": status, "answer": answer})
    else:
        click.echo(f"HTTP {status} {printable(answer if isinstance(answer, str) else json.dumps(answer))}".rstrip())
    if not 200 <= status < 300:
        raise click.exceptions.Exit(1)


def _config() -> GatewayConfig:
    from openclaw_gateway.config import load_config

    return load_config(env=os.environ).config


def _rows(config: GatewayConfig) -> list[dict[str, Any]]:
    from openclaw_gateway.hooks.requests import hook_rules

    inbound, rules = config.hooks, hook_rules(config.hooks)
    rows: list[dict[str, Any]] = []
    if inbound.token is not None:
        told = {"agent": "asks an agent", "wake": "tells an agent's main conversation"}
        for name, does in told.items():
            rows.append(_row(name, "in", does, "the hooks' secret", inbound.enabled))
    for mapping in rules.mappings:
        who = mapping.ask.agent_id or "the default agent"
        does = f"asks {who}" if mapping.ask.action == "agent" else f"tells {who}"
        if mapping.ask.reply is not None:
            does += f", answer to {mapping.ask.reply.channel}"
        own = "its own secret" if mapping.secret is not None else "the hooks' secret"
        auth = own if mapping.signature is None else f"a signature ({mapping.signature.scheme})"
        rows.append(_row(mapping.path or "*", "in", does, auth, inbound.enabled))
    for target in inbound.outbound:
        host = urlsplit(target.url).hostname
        does = f"tells {host} of {', '.join(target.events) or 'nothing'}"
        rows.append(_row(target.name, "out", does, "a signature (standard)", target.enabled))
    return rows


def _row(name: str, direction: str, does: str, auth: str, enabled: bool) -> dict[str, Any]:
    return {"name": name, "direction": direction, "does": does, "auth": auth, "enabled": enabled}


def _send_in(config: GatewayConfig, name: str, payload: Any) -> tuple[int, Any]:
    import http.client

    from openclaw_gateway.hooks.requests import hook_rules
    from openclaw_gateway.hooks.signature import sign_headers

    if not config.hooks.enabled:
        raise click.ClickException("webhooks are off; switch them on with: openclaw config set hooks.enabled true")
    rules = hook_rules(config.hooks)
    found = [one for one in rules.mappings if one.takes(name)] if name not in {"agent", "wake"} else []
    if name not in {"agent", "wake"} and not found:
        raise click.ClickException(f"there is no webhook {printable(name)}; see: openclaw hooks list")
    source = payload.get("source") if isinstance(payload, dict) else None
    mapping = next((one for one in found if one.source in {None, source}), found[0] if found else None)
    body = json.dumps(payload).encode()
    headers = {"Content-Type": "application/json"}
    secret = (mapping.secret if mapping is not None else None) or rules.token or ""
    if mapping is not None and mapping.signature is not None:
        headers |= sign_headers(mapping.signature, secret, body, id_=f"msg_{uuid.uuid4().hex}", now=int(time.time()))
    else:
        headers["Authorization"] = f"Bearer {secret}"
    host = _own_address(config)
    connection = http.client.HTTPConnection(host, config.port, timeout=_SECONDS)
    try:
        connection.request("POST", f"{rules.base}/{name}", body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read(65_536).decode("utf-8", "replace")
    except OSError as error:
        told = f"no gateway answers on {host}:{config.port}: {error}"
        raise click.ClickException(f"{told}\nStart it with: openclaw gateway start") from error
    finally:
        connection.close()
    try:
        return answer.status, json.loads(text)
    except ValueError:
        return answer.status, text


def _own_address(config: GatewayConfig) -> str:
    """An address of this host that the gateway listens on."""
    import ipaddress

    host = config.custom_bind_host if config.bind == "custom" else config.bind
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return "127.0.0.1"
    return "127.0.0.1" if address.is_unspecified else str(address)


def _send_out(config: GatewayConfig, name: str, payload: Any) -> tuple[int, Any]:
    import trio

    target = next((one for one in config.hooks.outbound if one.name == name), None)
    if target is None:
        raise click.ClickException(f"there is no target {printable(name)} in hooks.outbound; see: openclaw hooks list")
    return trio.run(_post_event, target, payload)


async def _post_event(target: OutboundHook, payload: Any) -> tuple[int, Any]:
    import trio

    from openclaw_gateway.errors import GatewayError
    from openclaw_gateway.hooks.sender import SEND_SECONDS, WebhookSender

    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    body = json.dumps({"type": "webhook.test", "timestamp": moment, "data": payload}).encode()
    sender = WebhookSender(clock=lambda: int(time.time() * 1000))
    try:
        with trio.fail_after(SEND_SECONDS):
            status, _ = await sender.send(target, f"msg_{uuid.uuid4().hex}", body)
    except (GatewayError, trio.TooSlowError) as error:
        raise click.ClickException(str(error) or f"no answer within {SEND_SECONDS:g} s") from error
    finally:
        await sender.aclose()
    return status, ""
