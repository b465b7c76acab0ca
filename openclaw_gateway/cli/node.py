"""``openclaw node``: this machine as a node, and what it allows.

Owns flags, what is printed, signals and readiness towards systemd. It must not know how a node works
(`openclaw_gateway.nodes.host`). Invariants: SIGTERM and SIGINT end ``node run`` with 0 within three seconds; refused
for good it ends with 78; no secret is printed; what a gateway says reaches the terminal only escaped.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from openclaw_gateway.cli.lazy import LazyGroup
from openclaw_gateway.cli.output import ago, print_json, printable

if TYPE_CHECKING:
    from openclaw_gateway.client.identity import DeviceIdentity
    from openclaw_gateway.nodes.host.destination import Asked
    from openclaw_gateway.nodes.host.keeping import Keeping
    from openclaw_gateway.nodes.host.loop import NodeSetup
    from openclaw_gateway.nodes.host.status import Report, StatusBoard

__all__ = ["identity", "node", "node_status", "run"]

_HERE = "openclaw_gateway.cli"
_STATUS_FIX: Final = "openclaw node run"


@click.group(
    cls=LazyGroup,
    table={
        "run": (f"{_HERE}.node:run", "Run this machine as a node, in the foreground."),
        "identity": (f"{_HERE}.node:identity", "This node's device id and public key."),
        "status": (f"{_HERE}.node:node_status", "Whether the node runs, and how it stands with its gateway."),
        "allow": (f"{_HERE}.nodepolicy:allow", "Allow programs, variables or folders on this machine."),
        "disallow": (f"{_HERE}.nodepolicy:disallow", "Take back what was allowed."),
        "seal": (f"{_HERE}.nodepolicy:seal", "Take commands only sealed, and from which operators."),
        "forget": (f"{_HERE}.node:forget", "Know nothing of a gateway any more: its token, its key, our certificate."),
        "policy": (f"{_HERE}.nodepolicy:policy", "What this machine allows."),
    },
)
def node() -> None:
    """Lend this machine's abilities to a gateway, within limits set here."""


def keeping() -> Keeping:
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.nodes.host.keeping import Keeping, node_dir

    return Keeping(node_dir(state_dir(os.environ)))


@click.command()
@click.option("--url", metavar="URL", help="The gateway's WebSocket URL.")
@click.option("--host", metavar="HOST", help="The gateway's host.")
@click.option("--port", type=click.IntRange(1, 65535), help="The gateway's port (default 18789).")
@click.option("--context-path", metavar="PATH", help="A path to append to the URL, behind some proxies.")
@click.option("--tls/--no-tls", default=None, help="Dial with or without TLS.")
@click.option("--tls-fingerprint", metavar="SHA256", help="Trust the certificate with this fingerprint and no other.")
@click.option("--pair", metavar="CODE", help="A setup code, an oc-pair:// URL or a join link: pairs at once.")
@click.option("--pair-if-needed", metavar="CODE", help="The same, where no gateway is known yet.")
@click.option("--token", metavar="TOKEN", help="The gateway's token (others on this host can read it here).")
@click.option("--display-name", metavar="NAME", help="How this node is called (default: the host name).")
@click.option("--node-id", metavar="ID", help="Use this instance id instead of the device id.")
@click.option("--commands", multiple=True, metavar="IDS", help="Offer only these commands, separated by commas.")
@click.option(
    "--secure-channel", type=click.Choice(["on", "required", "off"]), default="on", show_default=True,
    help="End-to-end encryption with the gateway: where it is offered, or nothing, or never.",
)  # fmt: skip
@click.option("--gateway-id", metavar="ID", help="The gateway's device id: at a first contact, this one or none.")
@click.option("--json", "as_json", is_flag=True, help="Print each change of state as a line of JSON.")
@click.option("--verbose", is_flag=True, help="Log everything.")
@click.option("--no-share-installed-apps", is_flag=True, hidden=True)
def run(
    url: str | None, host: str | None, port: int | None, context_path: str | None, tls: bool | None,
    tls_fingerprint: str | None, pair: str | None, pair_if_needed: str | None, token: str | None,
    display_name: str | None, node_id: str | None, commands: tuple[str, ...],
    secure_channel: Literal["on", "required", "off"], gateway_id: str | None, as_json: bool, verbose: bool,
    no_share_installed_apps: bool,
) -> None:  # fmt: skip
    """Run this machine as a node, in the foreground, until SIGTERM. It reconnects by itself; exit code 78 means that
    the gateway refused it for good."""
    import attrs
    import trio

    from openclaw_gateway.config.schema import LoggingConfig
    from openclaw_gateway.nodes.host.destination import Asked
    from openclaw_gateway.nodes.host.errors import NodeRefused
    from openclaw_gateway.nodes.host.status import StatusBoard
    from openclaw_gateway.ops.log import open_log

    if pair is not None and pair_if_needed is not None:
        raise click.UsageError("--pair and --pair-if-needed exclude each other")
    kept = keeping()
    code = pair
    if pair_if_needed is not None and kept.latest() is None:
        code = pair_if_needed
    asked = Asked(
        url=url, host=host, port=port, context_path=context_path, tls=tls, tls_fingerprint=tls_fingerprint, token=token
    )
    only = [name.strip() for names in commands for name in names.split(",") if name.strip()] or None
    log = LoggingConfig(console=True, level="debug" if verbose else "warning")
    with StatusBoard(kept.directory) as board, open_log(log, None):
        speaker = _Speaker(board, as_json=as_json)
        setup = trio.run(_prepare, kept, asked, code, display_name, node_id, only)
        told = _device_id(gateway_id) or setup.gateway_id
        if secure_channel == "off":
            told = None
        setup = attrs.evolve(setup, secure_channel=secure_channel, gateway_id=told)
        try:
            trio.run(_run, setup, speaker)
        except NodeRefused as error:
            click.echo(f"openclaw: the gateway refused this node: {printable(error.message, 300)}", err=True)
            if error.fix:
                click.echo(f"  fix: {printable(error.fix, 300)}", err=True)
            raise click.exceptions.Exit(error.exit_code) from error


def _device_id(text: str | None) -> str | None:
    if text is not None and (len(text) != 64 or set(text.lower()) - set("0123456789abcdef")):
        raise click.BadParameter("must be 64 hex digits", param_hint="--gateway-id")
    return text.lower() if text is not None else None


async def _prepare(
    kept: Keeping, asked: Asked, code: str | None, display_name: str | None, node_id: str | None,
    only: list[str] | None,
) -> NodeSetup:  # fmt: skip
    import attrs

    from openclaw_gateway.nodes.host.commands import make_handlers
    from openclaw_gateway.nodes.host.destination import choose_destination
    from openclaw_gateway.nodes.host.finding import find_destination
    from openclaw_gateway.nodes.host.loop import NodeSetup
    from openclaw_gateway.nodes.host.seals import open_seals
    from openclaw_gateway.nodes.host.setupcode import fetch_join_link, is_join_link, read_setup_code

    handlers = make_handlers(kept.directory, only)
    if code is not None:
        setup = await fetch_join_link(code) if is_join_link(code) else read_setup_code(code)
        asked = attrs.evolve(asked, setup=setup)
    where = await find_destination(asked, os.environ, kept) or choose_destination(asked, os.environ, kept)
    return NodeSetup(
        url=where.url,
        identity=kept.identity(),
        keeping=kept,
        handlers=handlers,
        display_name=display_name or os.uname().nodename,
        secret=where.secret,
        tls_fingerprint=where.tls_fingerprint,
        client_certificate=where.client_certificate,
        instance_id=node_id,
        allow_insecure=where.allow_insecure,
        gateway_id=asked.setup.gateway_id if asked.setup is not None else None,
        seals=open_seals(kept),
        device_token=where.device_token,
        route=where.route,
    )


async def _run(setup: NodeSetup, speaker: _Speaker) -> None:
    import trio

    from openclaw_gateway.cli.run import notify
    from openclaw_gateway.errors import flat_errors
    from openclaw_gateway.nodes.host.loop import run_node

    stop = trio.Event()

    async def obey() -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for _ in signals:
                notify("STOPPING=1")
                stop.set()
                return

    with flat_errors():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey)
            notify("READY=1")
            await run_node(setup, tell=speaker.tell, stop=stop)
            nursery.cancel_scope.cancel()


class _Speaker:
    """Says each change once: to the status file, to systemd, to whoever reads our output."""

    def __init__(self, board: StatusBoard, *, as_json: bool) -> None:
        self._board = board
        self._as_json = as_json
        self._last: tuple[object, ...] = ()

    def tell(self, report: Report) -> None:
        from openclaw_gateway.cli.run import notify

        self._board.tell(report)
        told = (report.state, report.reason, report.request_id, report.surface)
        if told == self._last:
            return
        first_ask = report.request_id is not None and report.request_id not in self._last
        still = self._last[:1] == (report.state,)
        self._last = told
        notify(f"STATUS={report.state}: {printable(report.reason or report.gateway, 200)}")
        if self._as_json:
            import msgspec

            _say(msgspec.json.encode(report.to_wire()).decode())
        else:
            _say("\n".join(_lines(report, first_ask=first_ask, still=still)))


def _say(text: str) -> None:
    try:
        click.echo(text)
    except OSError:
        # Nobody reads our output any more; that is no reason to stop serving.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _lines(report: Report, *, first_ask: bool, still: bool) -> list[str]:
    """``still``: the line before was about the same state, so only what is new about it is told."""
    reason = printable(report.reason, 300)
    if report.state == "connected":
        secure = ", end-to-end encrypted" if report.secure else ""
        lines = [] if still and report.surface != "unknown" else [f"node: connected to {report.gateway}{secure}"]
        if report.surface == "pending":
            lines += ["node: its commands wait for approval; on the gateway's host:", "  openclaw nodes pending"]
        elif report.surface == "approved":
            lines += ["node: its commands are approved"]
        return lines
    if report.state == "waiting-for-approval":
        lines = [f"node: the gateway at {report.gateway} wants this node approved first ({reason})"]
        if first_ask:
            lines += [f"  request: {printable(report.request_id)}", f"  device:  {report.device_id}"]
            lines += [f"  on the gateway's host: {printable(report.fix, 300)}"]
            lines += [f"  or open: {printable(report.link, 300)}", *_qr(report.link)] if report.link else []
        return lines
    if report.state == "connecting" and reason:
        lines = [f"node: {report.gateway}: {reason}; trying again in {report.retry_in or 0:.0f} s"]
        return [*lines, f"  fix: {printable(report.fix, 300)}"] if report.fix else lines
    return [f"node: {report.state} {report.gateway}" if report.state == "connecting" else f"node: {report.state}"]


def _qr(text: str) -> list[str]:
    """The text as a QR code, where a person looks at a terminal and segno is installed."""
    if not sys.stdout.isatty() or not text:
        return []
    try:
        import segno
    except ImportError:
        return []
    import io

    drawn = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(out=drawn, border=2, compact=True)
    return drawn.getvalue().splitlines()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def identity(as_json: bool) -> None:
    """This node's device id, public key and sealing key; made where there are none yet."""
    kept = keeping()
    facts = _identity_facts(kept.identity(), kept)
    if as_json:
        print_json(facts)
        return
    click.echo(f"Device id:   {facts['deviceId']}")
    click.echo(f"Public key:  {facts['publicKey']}")
    click.echo(f"Fingerprint: {facts['fingerprint']}")
    click.echo(f"Sealing key: {facts['keyFingerprint']}")
    click.echo(f"Kept in:     {facts['file']}")


def _identity_facts(found: DeviceIdentity, kept: Keeping) -> dict[str, Any]:
    from openclaw_gateway.nodes.host.seals import static_key_of
    from openclaw_gateway.protocol.keystatement import fingerprint

    digits = found.device_id[:32].upper()
    return {
        "deviceId": found.device_id,
        "publicKey": found.public_key,
        # What two people compare over the telephone: the first half of the SHA-256 of the key.
        "fingerprint": ":".join(digits[at : at + 4] for at in range(0, len(digits), 4)),
        # Of the X25519 key: what `openclaw nodes invoke --sealed` and `nodes trust` show.
        "keyFingerprint": fingerprint(static_key_of(kept).public),
        "file": str(kept.directory / "identity.json"),
    }


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def node_status(as_json: bool) -> None:
    """Whether the node runs, and how it stands with its gateway. Exit code 1 where it is not connected."""
    import time

    from openclaw_gateway.nodes.host.status import read_status

    status = read_status(keeping().directory)
    if as_json:
        print_json(status)
    else:
        since = ago(status.get("sinceMs"), time.time() * 1000)
        running = f"running (pid {status.get('pid')})" if status["running"] else "not running"
        click.echo(f"Node:     {running}")
        click.echo(f"State:    {printable(status['state'])}" + (f", since {since}" if since else ""))
        if status.get("secureChannel") is not None:
            key = status.get("gatewayKeyFingerprint")
            told = f"end-to-end encrypted (the gateway's key: {printable(key)})" if status["secureChannel"] else "clear"
            click.echo(f"Channel:  {told}")
        for label, key in (
            ("Gateway:", "gateway"), ("Device:", "deviceId"), ("Commands:", "surface"), ("Reason:", "reason"),
            ("Request:", "requestId"), ("Link:", "link"),
        ):  # fmt: skip
            if status.get(key):
                click.echo(f"{label:<9} {printable(status[key], 300)}")
        fix = status.get("fix") or (None if status["running"] else _STATUS_FIX)
        if fix:
            click.echo(f"Fix:      {printable(fix, 300)}")
    if status["state"] != "connected":
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("url")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def forget(url: str, as_json: bool) -> None:
    """Know nothing of the gateway at URL any more: its device token and its end-to-end key. The next connection is a
    first contact again. For a gateway that was moved or made anew; not for one that merely cannot be reached."""
    from openclaw_gateway.nodes.host.errors import NodeError

    kept = keeping()
    if not kept.forget(url):
        known = ", ".join(kept.urls()) or "none"
        raise NodeError(f"no gateway is known at {printable(url, 200)} (known: {printable(known, 600)})", _STATUS_FIX)
    if as_json:
        print_json({"forgotten": url})
    else:
        click.echo(f"forgotten: {url}; restart the node if it runs")
