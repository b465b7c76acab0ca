"""``gateway start``, ``stop``, ``restart``: one process, found by its lock, never by a guess.

Owns the waiting and the verdicts (requirements LIFE-1 to LIFE-3, attack V49). It must not know what a gateway does.
Invariants: only the verified holder of the lock of this state directory is ever signalled; ``start`` says within
`VERDICT_SECONDS` what became of it; ``stop`` returns 0 only when the lock is free and the port is, and still is after
`SETTLE_SECONDS`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import click

from openclaw_gateway.cli.output import print_json, printable
from openclaw_gateway.errors import GatewayError

__all__ = ["end_holder", "restart", "start", "stop"]

VERDICT_SECONDS: Final = 5.0
STOP_SECONDS: Final = 6.0  # the gateway itself stops within 5
SUSPENDED_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 3.0
_OUT_LINES: Final = 12
_PROBE_SECONDS: Final = 0.5
_ANSWER_BYTES: Final = 1024
_TLS_ONLY: Final = b"speaks TLS"  # what `server.tlswire` answers to plain HTTP


class LifeError(GatewayError):
    """Starting or stopping did not work out."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix


def _say(as_json: bool, text: str, **facts: Any) -> None:
    if as_json:
        print_json(facts)
    else:
        click.echo(text)


# --- start


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Listen on this port instead of the configured one.")
@click.option("--bind", metavar="BIND", help="loopback, lan, tailnet, auto, custom or an address.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def start(port: int | None, bind: str | None, as_json: bool) -> None:
    """Start the gateway in the background. Says within 5 seconds what became of it."""
    from openclaw_gateway.client.resolve import local_host
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.ops.instance import read_holder

    overrides = {"gateway.port": port, "gateway.bind": bind}
    loaded = load_config(
        env=os.environ, overrides={key: value for key, value in overrides.items() if value is not None}
    )
    directory = state_dir(os.environ)
    holder = read_holder(directory)
    if holder is not None:
        _already_there(holder, as_json, port, loaded.config.bind if bind is not None else None)
        return
    from openclaw_gateway.cli.run import refuse_remote_mode

    refuse_remote_mode(loaded)
    host, number = local_host(loaded.config), loaded.config.port
    if number:
        _refuse_foreign_listener(host, number)
    arguments = [f"--port={port}"] if port is not None else []
    arguments += [f"--bind={bind}"] if bind is not None else []
    out = _open_out(directory)
    child = _spawn(arguments, out)
    up = _wait_until_up(child, directory, host, number, out)
    _say(
        as_json,
        f"The gateway is up: {up.url} (process {child.pid}).{_from_elsewhere(up)}\nNext: openclaw status   "
        "openclaw logs --follow   openclaw gateway stop",
        action="start", ok=True, result="started", pid=child.pid, url=up.url, elsewhere=list(up.elsewhere),
        logFile=str(out),
    )  # fmt: skip


def _from_elsewhere(holder: Any) -> str:
    return f"\nFrom elsewhere: {printable(', '.join(holder.elsewhere), 1000)}" if holder.elsewhere else ""


def _already_there(holder: Any, as_json: bool, port: int | None, bind: str | None) -> None:
    """``port`` and ``bind`` as flags asked for them."""
    if holder.stopped:
        raise LifeError(
            f"a gateway holds {holder.state_dir} but is suspended: process {holder.pid}",
            f"kill -CONT {holder.pid}, or: openclaw gateway stop --force",
        )
    unheard = [f"--port {port}"] if port is not None and holder.port not in {None, port} else []
    unheard += [f"--bind {bind}"] if bind is not None and holder.bind not in {None, bind} else []
    if unheard:
        raise LifeError(
            f"a gateway is running already on {holder.url or holder.port} (process {holder.pid}); "
            f"{' and '.join(unheard)} was not applied",
            f"openclaw gateway stop && openclaw gateway start {' '.join(unheard)}",
        )
    _say(
        as_json,
        f"The gateway runs already: {holder.url or 'starting'} (process {holder.pid}).{_from_elsewhere(holder)}",
        action="start", ok=True, result="already-running", pid=holder.pid, url=holder.url,
        elsewhere=list(holder.elsewhere),
    )  # fmt: skip


def _refuse_foreign_listener(host: str, port: int) -> None:
    from openclaw_gateway.ops.portowner import can_bind, port_owners

    if can_bind(host, port):
        return
    owners = port_owners(port)
    if not owners:
        return  # nobody listens; the address is not ours to bind, or not there yet: the gateway itself will say
    who = "; ".join(f"process {owner.pid} ({printable(owner.command)})" for owner in owners)
    raise LifeError(
        f"port {port} is taken by {who}, which is not the gateway of this state directory",
        f"stop that process, or: openclaw gateway start --port {port + 1}",
    )


def _open_out(directory: Path) -> Path:
    """Where the new process's own output goes: started over each time; its log is elsewhere and rotated."""
    from openclaw_gateway.ops.statedir import ensure_private_dir

    ensure_private_dir(directory)
    ensure_private_dir(directory / "logs")
    return directory / "logs" / "gateway.out"


def _spawn(arguments: list[str], out: Path) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    package_root = str(Path(__file__).resolve().parents[2])
    if "site-packages" not in package_root:  # a checkout: -P below would hide it
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_root, environment.get("PYTHONPATH")]))
    fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(fd, 0o600)
        return subprocess.Popen(  # noqa: S603  our own interpreter and module; -P: nothing is imported from the working directory
            [sys.executable, "-P", "-m", "openclaw_gateway", "gateway", "run", "--detached", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            env=environment,
            start_new_session=True,
        )
    finally:
        os.close(fd)


def _wait_until_up(child: subprocess.Popen[bytes], directory: Path, host: str, port: int, out: Path) -> Any:
    from openclaw_gateway.ops.instance import read_holder

    until = time.monotonic() + VERDICT_SECONDS
    while time.monotonic() < until:
        code = child.poll()
        if code is not None:
            raise _died(code, out)
        holder = read_holder(directory)
        if holder is not None and holder.pid == child.pid and holder.url:
            number = holder.port or port
            if _answers(host, number, directory):
                return holder
        time.sleep(0.02)
    raise LifeError(
        f"process {child.pid} runs, but /health did not answer within {VERDICT_SECONDS:g} s",
        f"openclaw logs   (it may still be starting; give up with: kill {child.pid})",
    )


def _answers(host: str, port: int, directory: Path) -> bool:
    """GET /health says 200, or the port says that it speaks TLS; where it speaks to nobody of this host
    (`gateway.network`), the owner's socket answers. Plain sockets: the command's whole budget is less than an HTTP
    library's import.
    """
    import socket

    from openclaw_gateway.ops.ownersocket import connect_owner

    said = b""
    try:
        with socket.create_connection((host, port), timeout=_PROBE_SECONDS) as sock:
            sock.settimeout(_PROBE_SECONDS)
            try:
                sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                while len(said) < _ANSWER_BYTES and (more := sock.recv(_ANSWER_BYTES)):
                    said += more
            except (ConnectionResetError, BrokenPipeError):
                pass
    except OSError:
        return False
    if said:
        return said.startswith(b"HTTP/1.1 200") or (said.startswith(b"HTTP/1.1 400") and _TLS_ONLY in said)
    owner = connect_owner(directory, timeout=_PROBE_SECONDS)
    if owner is not None:
        owner.close()
    return owner is not None


def _died(code: int, out: Path) -> LifeError:
    try:
        lines = out.read_text("utf-8", "replace").splitlines()[-_OUT_LINES:]
    except OSError:
        lines = []
    how = f"ended at once with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    said = "".join(f"\n    {printable(line, 300)}" for line in lines)
    return LifeError(f"the gateway {how}{':' + said if said else ''}", "openclaw doctor")


# --- stop


@click.command()
@click.option("--force", is_flag=True, help="After 6 seconds of waiting, end it with SIGKILL.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("--disable", is_flag=True, hidden=True)
def stop(force: bool, as_json: bool, disable: bool) -> None:
    """Stop the gateway. Returns when it has ended and its port is free and stays free."""
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.ops.instance import read_holder

    directory = state_dir(os.environ)
    holder = read_holder(directory)
    if holder is None:
        _say(as_json, "No gateway runs here.", action="stop", ok=True, result="not-running")
        return
    end_holder(holder, force=force)
    _stays_free(directory, holder)
    _say(
        as_json,
        f"The gateway has stopped (process {holder.pid}); port {holder.port} is free.",
        action="stop", ok=True, result="stopped", pid=holder.pid, port=holder.port,
    )  # fmt: skip


def end_holder(holder: Any, *, force: bool) -> None:
    from openclaw_gateway.ops.instance import read_holder, signal_holder

    if holder.pid is None:
        raise LifeError(
            f"somebody holds {holder.state_dir / 'gateway.lock'}, but it cannot be proven who; nothing was signalled",
            f"fuser -v '{holder.state_dir / 'gateway.lock'}'",
        )
    if not signal_holder(holder, signal.SIGTERM) and read_holder(holder.state_dir) is not None:
        raise LifeError("another gateway took over in the meantime; nothing was signalled", "openclaw gateway stop")
    if holder.stopped and force:
        signal_holder(holder, signal.SIGKILL)
    # What is suspended does not even hear the request; waiting the whole time for it would help nobody.
    patience = SUSPENDED_SECONDS if holder.stopped else STOP_SECONDS
    if _released(holder, patience):
        return
    if not force:
        hint = f"kill -CONT {holder.pid}, or: " if holder.stopped else ""
        raise LifeError(
            f"process {holder.pid} was asked to stop and has not within {patience:g} s"
            + (" (it is suspended)" if holder.stopped else ""),
            f"{hint}openclaw gateway stop --force",
        )
    signal_holder(holder, signal.SIGKILL)
    if not _released(holder, 2.0):
        raise LifeError(f"process {holder.pid} does not end, not even by SIGKILL", f"cat /proc/{holder.pid}/stack")


def _released(holder: Any, seconds: float) -> bool:
    """The lock is free, or somebody else's already."""
    from openclaw_gateway.ops.instance import read_holder

    until = time.monotonic() + seconds
    while True:
        now = read_holder(holder.state_dir)
        if now is None or (now.pid is not None and now.pid != holder.pid):
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(0.02)


def _stays_free(directory: Path, holder: Any) -> None:
    from openclaw_gateway.ops.instance import read_holder
    from openclaw_gateway.ops.portowner import port_owners

    until = time.monotonic() + SETTLE_SECONDS
    while True:
        again = read_holder(directory)
        owners = port_owners(holder.port) if holder.port else ()
        if again is not None or owners:
            pid = again.pid if again is not None else owners[0].pid
            raise LifeError(
                f"process {holder.pid} has ended, but process {pid} took its place: something starts it again",
                "stop the service that does, for example: systemctl --user stop openclaw-gateway",
            )
        if time.monotonic() >= until:
            return
        time.sleep(0.1)


# --- restart


@click.command()
@click.option("--force", is_flag=True, help="End it with SIGKILL if it does not stop, then start it.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("--safe", is_flag=True, hidden=True)
@click.option("--wait", hidden=True)
@click.pass_context
def restart(ctx: click.Context, force: bool, as_json: bool, safe: bool, wait: str | None) -> None:
    """Restart the gateway in place: the same process, so a supervisor sees nothing. Starts it if it does not run."""
    from openclaw_gateway.config.load import load_config
    from openclaw_gateway.config.paths import state_dir
    from openclaw_gateway.ops.instance import read_holder, signal_holder

    # A configuration that cannot start must not take down the gateway that runs.
    load_config(env=os.environ)
    directory = state_dir(os.environ)
    holder = read_holder(directory)
    if holder is None:
        ctx.invoke(start, port=None, bind=None, as_json=as_json)
        return
    if force or holder.pid is None or holder.stopped:
        end_holder(holder, force=force)
        ctx.invoke(start, port=None, bind=None, as_json=as_json)
        return
    if not signal_holder(holder, signal.SIGUSR1):
        raise LifeError("the gateway ended in the meantime", "openclaw gateway start")
    fresh = _wait_restarted(holder, directory)
    _say(
        as_json,
        f"The gateway has restarted: {fresh.url} (process {fresh.pid}).{_from_elsewhere(fresh)}",
        action="restart", ok=True, result="restarted", pid=fresh.pid, url=fresh.url, elsewhere=list(fresh.elsewhere),
    )  # fmt: skip


def _wait_restarted(old: Any, directory: Path) -> Any:
    from openclaw_gateway.ops.instance import read_holder

    until = time.monotonic() + STOP_SECONDS + VERDICT_SECONDS
    gone_at = None
    while time.monotonic() < until:
        now = read_holder(directory)
        if now is None:
            gone_at = gone_at or time.monotonic()
            if time.monotonic() - gone_at > VERDICT_SECONDS:
                break
        elif now.started_at_ms != old.started_at_ms and now.url and now.port:
            host = now.url.partition("://")[2].rpartition(":")[0].strip("[]")
            if _answers(host or "127.0.0.1", now.port, directory):
                return now
        time.sleep(0.02)
    raise LifeError("the gateway did not come back", "openclaw gateway start   (and openclaw logs for the reason)")
