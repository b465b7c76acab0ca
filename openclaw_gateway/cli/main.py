"""``openclaw``: the entry point, its commands by name, and how an error is told.

Owns exit codes and the turning of exceptions into sentences. It must not import what a command needs.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from openclaw_gateway._version import __version__
from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.speech import PROTOCOL_VARIABLE, protocol_option

__all__ = ["cli", "main", "tell"]

_HERE = "openclaw_gateway.cli"


@click.group(
    cls=LazyGroup,
    table={
        "gateway": (f"{_HERE}.gateway:gateway", "Run, start, stop, inspect and query the gateway."),
        "status": (f"{_HERE}.status:status", "How the gateway is doing, row by row."),
        "health": (f"{_HERE}.call:health", "Ask the running gateway for its health."),
        "logs": (f"{_HERE}.logs:logs", "Show the gateway's log, or follow it."),
        "audit": (f"{_HERE}.audit:audit", "Who came, who was turned away, who gave or took authority; --verify."),
        "doctor": (f"{_HERE}.doctor:doctor", "Check everything and say how to mend what is wrong."),
        "config": (f"{_HERE}.config:config", "Read, change, validate and explain the configuration."),
        "pairing": (f"{_HERE}.pairing:pairing", "Who may come in: message senders, devices and nodes in one table."),
        "devices": (f"{_HERE}.devices:devices", "Devices that are paired or ask to be."),
        "channels": (f"{_HERE}.channels:channels", "Telegram, Discord, WhatsApp: what runs, and how well."),
        "sessions": (f"{_HERE}.sessions:sessions", "Conversations with agents; end what runs in one."),
        "message": (f"{_HERE}.message:message", "Send a text to somebody on a channel."),
        "queue": (f"{_HERE}.queue:queue", "Messages on their way: what waits, what was given up."),
        "tokens": (f"{_HERE}.tokens:tokens", "API keys for programs: make, list and revoke them."),
        "hooks": (f"{_HERE}.hooks:hooks", "Webhooks: what is configured; send one to try it."),
        "qr": (f"{_HERE}.qr:qr", "Make a setup code that pairs a phone or a node."),
        "nodes": (f"{_HERE}.nodes:nodes", "Nodes and what they can do."),
        "node": (f"{_HERE}.node:node", "Lend this machine to a gateway, within limits set here."),
        "dns": (f"{_HERE}.dns:dns", "Be found by DNS where multicast does not reach."),
        "remote": (f"{_HERE}.remote:remote", "Which way of remote access fits."),
        "tunnel": (f"{_HERE}.tunnel:tunnel", "SSH tunnels that stay up: open, list, close."),
        "completion": (f"{_HERE}.completion:completion", "Print the completion script of a shell."),
    },
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 78 a configuration that must not be retried.",
)
@click.option("--debug", is_flag=True, envvar="OPENCLAW_DEBUG", help="On an error, show the traceback too.")
@protocol_option(PROTOCOL_VARIABLE)
@click.version_option(__version__, prog_name="openclaw", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, debug: bool) -> None:
    """The network hub of OpenClaw: one process, one port."""
    ctx.ensure_object(dict)["debug"] = debug


def tell(error: BaseException) -> tuple[str, int]:
    """What to print for an error, and the exit code."""
    from openclaw_gateway.cli.complaints import explain

    return explain(error)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run a command and exit. A traceback is shown only with ``--debug``."""
    _name_process()
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments or bool(os.environ.get("OPENCLAW_DEBUG"))
    try:
        code = cli.main(arguments, prog_name="openclaw", standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
        if "--json" in arguments:
            from openclaw_gateway.cli.output import print_failure

            print_failure("usage", error.format_message(), "openclaw --help")
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:
        # The reader of our output (head, less) left; that is no error, and nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except SystemExit:
        raise
    except BaseException as error:
        if debug:
            raise
        text, code = tell(error)
        click.echo(text, err=True)
        if "--json" in arguments:
            from openclaw_gateway.cli.complaints import as_wire
            from openclaw_gateway.cli.output import print_json

            print_json(as_wire(error))
    sys.exit(code if isinstance(code, int) else 0)


def _name_process() -> None:
    """Show up as ``openclaw`` where only the short name is listed (top, pgrep); ``ps aux`` shows the arguments
    anyway."""
    try:
        fd = os.open("/proc/self/comm", os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(fd, b"openclaw")
    except OSError:
        pass
    finally:
        os.close(fd)
