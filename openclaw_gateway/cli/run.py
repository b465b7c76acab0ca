"""``gateway run``: the gateway in the foreground, under systemd, in a container, or in a shell.

Owns the process: flags laid over the configuration, the log, the instance lock, signals, readiness towards systemd,
the exit code. It must not know how the gateway works. Invariants: one process per state directory, which never forks
a copy of itself (requirement LIFE-1); SIGTERM and SIGINT end it with 0 within 5 seconds; SIGHUP reads the
configuration again; SIGUSR1 starts it anew in the same process; an unsafe configuration ends it with 78; no secret is
printed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from openclaw_gateway._version import __version__

if TYPE_CHECKING:
    from openclaw_gateway.app import Gateway
    from openclaw_gateway.config.load import LoadedConfig
    from openclaw_gateway.config.secrets import ResolvedAuth
    from openclaw_gateway.ops.instance import InstanceLock
    from openclaw_gateway.ops.log import OpenLog

__all__ = ["notify", "refuse_remote_mode", "run"]

_LOG_TICK_SECONDS: Final = 5.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Listen on this port (0: any free one).")
@click.option("--bind", metavar="BIND", help="loopback, lan, tailnet, auto, custom or an address.")
@click.option("--auth", metavar="TYPE", help="none, token, password or trusted-proxy.")
@click.option("--token", metavar="TOKEN", help="The token that clients present (others on this host can read it here).")
@click.option("--password", metavar="PASSWORD", help="The password (others on this host can read it here).")
@click.option("--password-file", type=click.Path(exists=True, dir_okay=False), help="A file that holds the password.")
@click.option("--tailscale", metavar="MODE", help="off, serve or funnel.")
@click.option("--force", is_flag=True, help="First stop the gateway that holds this state directory.")
@click.option("--verbose", is_flag=True, help="Log everything.")
@click.option("--detached", is_flag=True, hidden=True, help="Log to the file alone.")
@click.option("--allow-unconfigured", is_flag=True, hidden=True)
@click.option("--ws-log", hidden=True)
@click.option("--compact", is_flag=True, hidden=True)
def run(
    port: int | None, bind: str | None, auth: str | None, token: str | None, password: str | None,
    password_file: str | None, tailscale: str | None, force: bool, verbose: bool, detached: bool,
    allow_unconfigured: bool, ws_log: str | None, compact: bool,
) -> None:  # fmt: skip
    """Run the gateway in the foreground. SIGTERM stops it, SIGHUP reads the configuration again, SIGUSR1 restarts
    it."""
    import attrs
    import trio

    from openclaw_gateway.cli.connect import refuse_empty
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.paths import pending_path, state_dir
    from openclaw_gateway.ops.instance import InstanceLock
    from openclaw_gateway.ops.log import open_log

    refuse_empty(token=token, password=password)
    if password_file is not None:
        password = Path(password_file).read_text().strip()
    named = {
        "gateway.port": port, "gateway.bind": bind, "gateway.auth.type": auth, "gateway.auth.token": token,
        "gateway.auth.password": password, "gateway.tailscale.mode": tailscale,
    }  # fmt: skip
    overrides = {path: value for path, value in named.items() if value is not None}
    directory = state_dir(os.environ)
    if pending_path(directory).exists():
        from openclaw_gateway.config.pending import settle_before_start

        settle_before_start(os.environ, time.time_ns() // 1_000_000)
    loaded = load_config(env=os.environ, overrides=overrides)
    if not allow_unconfigured:
        refuse_remote_mode(loaded)
    if force:
        _stop_holder(directory)
    logging = loaded.config.logging
    logging = attrs.evolve(
        logging, console=logging.console and not detached, level="debug" if verbose else logging.level
    )
    with (
        InstanceLock.acquire(directory, bind=loaded.config.bind, version=__version__) as lock,
        open_log(logging, loaded.config.state_dir) as log,
    ):
        again = trio.run(_serve, loaded, overrides, lock, log)
    if again:
        # The same process with a fresh image: a supervisor, and whoever waits for this pid, sees nothing.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  our own argv


def refuse_remote_mode(loaded: LoadedConfig) -> None:
    """A host whose commands speak to a gateway elsewhere runs none of its own (OpenClaw says the same in these words).

    Raises `ConfigError`: exit code 78, because a supervisor that tries again changes nothing.
    """
    from openclaw_gateway.config.issues import ConfigError, ConfigIssue

    if loaded.config.mode != "remote":
        return
    message = "Gateway start blocked: set gateway.mode=local (current: remote) or pass --allow-unconfigured."
    fix = "openclaw config set gateway.mode local"
    raise ConfigError((ConfigIssue(path="gateway.mode", message=message, severity="fatal", fix=fix),))


def _stop_holder(directory: Path) -> None:
    from openclaw_gateway.cli.life import end_holder
    from openclaw_gateway.ops.instance import read_holder

    holder = read_holder(directory)
    if holder is not None:
        end_holder(holder, force=True)


async def _serve(loaded: LoadedConfig, overrides: dict[str, Any], lock: InstanceLock, log: OpenLog) -> bool:
    """True where a restart was asked for."""
    import trio

    from openclaw_gateway.cli.lean import leave_out_unused

    leave_out_unused()
    from openclaw_gateway.app import open_gateway
    from openclaw_gateway.config.secrets import resolve_auth
    from openclaw_gateway.ops.log import get_logger
    from openclaw_gateway.server.addresses import BindFailed

    config = loaded.config
    say = get_logger("run")
    _warn_in_container(config.bind, say)  # the first line of the log: nothing else matters where nobody can connect
    auth = resolve_auth(config, config.state_dir, os.environ, overridden=loaded.overridden)
    state = _State()
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        try:
            async with (
                open_gateway(config, auth=auth, loaded=loaded, overrides=overrides) as gateway,
                trio.open_nursery() as nursery,
            ):
                gateway.on_listening = partial(_note_address, lock, gateway)
                gateway.on_listening()
                nursery.start_soon(_obey, signals, gateway, overrides, state)
                nursery.start_soon(_tick, log)
                _greet(gateway, auth, log)
                say.info("gateway started", pid=os.getpid(), port=gateway.port, auth=auth.type, version=gateway.version)
                notify("READY=1")
                await gateway.wait_stopped()
                notify("STOPPING=1")
                nursery.cancel_scope.cancel()
        except BindFailed as error:
            _name_owner(error, config.port)
            raise
    say.info("gateway stopped", pid=os.getpid(), reason=state.reason)
    return state.restart


def _note_address(lock: InstanceLock, gateway: Gateway) -> None:
    """Every command finds the gateway by this note: it has to follow each move of the listeners."""
    from openclaw_gateway.ops.log import get_logger

    try:
        here, elsewhere = gateway.shown_urls
        url = next(iter(here), next(iter(gateway.urls), ""))
        lock.update(port=gateway.port, bind=gateway.config.bind, url=url, elsewhere=elsewhere)
    except OSError as error:
        get_logger("run").error("the address could not be noted in gateway.lock", error=str(error))


class _State:
    def __init__(self) -> None:
        self.restart = False
        self.reason = "stop"


async def _obey(signals: Any, gateway: Gateway, overrides: dict[str, Any], state: _State) -> None:
    from openclaw_gateway.ops.log import get_logger

    say = get_logger("run")
    async for number in signals:
        name = signal.Signals(number).name
        say.info("signal", signal=name)
        if number == signal.SIGHUP:
            _reload(gateway, overrides)
            continue
        state.restart = number == signal.SIGUSR1
        state.reason = name
        gateway.request_stop("gateway restarting" if state.restart else "gateway stopping")
        return


def _reload(gateway: Gateway, overrides: dict[str, Any]) -> None:
    """Read the configuration now, without waiting for its watcher; what cannot be used changes nothing."""
    from openclaw_gateway.config.issues import ConfigError
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.watch import ConfigChange, changed_paths

    old = gateway.loaded
    if old is None:
        return
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        new = load_config(env=os.environ, path=old.path, overrides=overrides)
        usable = not new.degraded
        change = ConfigChange(
            old=old, new=new if usable else old, changed=changed_paths(old, new) if usable else (), issues=new.issues
        )
    except ConfigError as error:
        change = ConfigChange(old=old, new=old, issues=error.issues)
    gateway.take_over(change)
    notify("READY=1")


async def _tick(log: OpenLog) -> None:
    import trio

    while True:
        await trio.sleep(_LOG_TICK_SECONDS)
        log.tick()


def _greet(gateway: Gateway, auth: ResolvedAuth, log: OpenLog) -> None:
    here, elsewhere = gateway.shown_urls
    lines = [f"openclaw gateway {gateway.version} listens on {', '.join(here or gateway.urls)}"]
    if elsewhere:
        lines.append(f"from elsewhere: {', '.join(elsewhere)}")
    if auth.type == "none":
        lines.append("authentication: none (only this host can reach it)")
    else:
        print_ = f", fingerprint {auth.fingerprint}" if auth.fingerprint else ""
        made = " (made just now)" if auth.generated else ""
        lines.append(f"{auth.type}: from {auth.source}{print_}{made}")
    if log.path is not None:
        lines.append(f"log: {log.path}")
    lines += ["next:", "  openclaw status", "  openclaw logs --follow", "  openclaw gateway stop"]
    with contextlib.suppress(OSError):  # nobody reads our output; that is no reason not to serve
        click.echo("\n".join(lines))


def _warn_in_container(bind: str, say: Any) -> None:
    from openclaw_gateway.server.addresses import in_container

    if bind == "loopback" and in_container():
        # Requirement NET-7: a published port ends at the container's own address, never at its loopback.
        say.warning(
            "bound to loopback inside a container: a published port cannot work", bind=bind,
            fix="openclaw config set gateway.bind lan",
        )  # fmt: skip


def _name_owner(error: Any, port: int) -> None:
    from openclaw_gateway.cli.output import printable
    from openclaw_gateway.ops.portowner import port_owners

    owners = port_owners(port)
    if owners:
        who = "; ".join(f"process {owner.pid} ({printable(owner.command)})" for owner in owners)
        error.add_note(f"port {port} is held by {who}")


def notify(text: str) -> None:
    """Tell systemd (sd_notify(3)); without ``$NOTIFY_SOCKET`` nothing happens. Never raises, never blocks for long."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, kind) as sock:
        sock.sendto(text.encode(), address)
