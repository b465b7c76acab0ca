"""Networks of our own for the tests: namespaces joined by a bridge, and the programs that run inside them.

Owns making and removing them. Must not touch any interface of the host: everything lives in namespaces whose names
carry this process's id, the bridge too. Invariants: whatever was made is removed on every path; programs are ended by
their process id; without root or `ip netns` the test is skipped, never half run.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Avahi", "Host", "Lan", "avahi", "lan"]

_numbers = itertools.count(1)
END_SECONDS = 5.0
REPOSITORY = Path(__file__).resolve().parents[2]


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


class Host:
    """One namespace. ``address`` and ``address6`` (link-local, without scope) are those of its first interface."""

    def __init__(self, namespace: str, address: str, programs: ExitStack) -> None:
        self.namespace = namespace
        self.address = address
        self._programs = programs

    @property
    def address6(self) -> str:
        shown = self.run(["ip", "-6", "-brief", "address", "show", "eth0"]).stdout
        return next(word.split("/")[0] for word in shown.split() if word.startswith("fe80:"))

    def command(self, words: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *words]

    def run(
        self, words: Sequence[str], *, timeout: float = 30, check: bool = True, env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run to its end; standard output and error as text. With ``check``, the exit code must be 0."""
        done = subprocess.run(
            self.command(words), capture_output=True, text=True, timeout=timeout, check=False,
            env=_environment(env), cwd=REPOSITORY, **options,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{words} ended with {done.returncode}: {done.stderr[-2000:]}"
        return done

    def popen(
        self, words: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start it; it is ended with the network at the latest. ``ip netns exec`` replaces itself: the pid is its."""
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        program = subprocess.Popen(self.command(words), text=True, env=_environment(env), cwd=REPOSITORY, **options)
        self._programs.callback(_end, program)
        return program


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **(extra or {})}


def _end(program: subprocess.Popen[str]) -> None:
    if program.poll() is None:
        program.send_signal(signal.SIGTERM)
        try:
            program.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait(END_SECONDS)
    for pipe in (program.stdin, program.stdout, program.stderr):
        if pipe is not None:
            pipe.close()


class Lan:
    """Hosts on one Ethernet segment, by name: ``lan["a"]``."""

    def __init__(self, prefix: str, bridge: str, hosts: dict[str, Host]) -> None:
        self.prefix = prefix
        self.hosts = hosts
        self._bridge = bridge
        self._plugs = itertools.count(100)

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def plug(self, name: str, device: str, address: str) -> None:
        """Give the host one more interface on this segment, with ``address`` (CIDR)."""
        _plug(self._bridge, self.hosts[name].namespace, device, address, next(self._plugs))


def _plug(bridge: str, namespace: str, device: str, address: str, number: int) -> None:
    port = f"p{number}"
    _ip("-n", bridge, "link", "add", port, "type", "veth", "peer", "name", device, "netns", namespace)
    _ip("-n", bridge, "link", "set", port, "master", "br0", "up")
    _ip("-n", namespace, "addr", "add", address, "dev", device)
    _ip("-n", namespace, "link", "set", device, "up")


@contextmanager
def lan(*names: str, prefix: str = "10.77.0") -> Iterator[Lan]:
    """A segment with one namespace per name: ``{prefix}.1`` for the first, and so on, on ``eth0``, and IPv6
    link-local addresses. Duplicate address detection is off, so both are usable at once."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and iproute2")
    tag = f"oc{os.getpid()}x{next(_numbers)}"
    with ExitStack() as stack:
        bridge = f"{tag}-br"
        _namespace(stack, bridge)
        _ip("-n", bridge, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        _ip("-n", bridge, "link", "set", "br0", "up")
        hosts = {}
        for number, name in enumerate(names, 1):
            namespace = f"{tag}-{name}"
            _namespace(stack, namespace)
            hosts[name] = Host(namespace, f"{prefix}.{number}", stack)
            _plug(bridge, namespace, "eth0", f"{prefix}.{number}/24", number)
        yield Lan(prefix, bridge, hosts)


def _namespace(stack: ExitStack, name: str) -> None:
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
    stack.callback(_ip, "netns", "del", name)
    quiet = ("net.ipv6.conf.all.accept_dad=0", "net.ipv6.conf.default.accept_dad=0")
    subprocess.run(["ip", "netns", "exec", name, "sysctl", "-q", "-w", *quiet], check=False, capture_output=True)
    _ip("-n", name, "link", "set", "lo", "up")


class Avahi:
    """avahi-daemon in a namespace, on a message bus of its own."""

    def __init__(self, host: Host, env: dict[str, str]) -> None:
        self._host = host
        self._env = env

    def browse(self, service: str, *, timeout: float = 15) -> str:
        """``avahi-browse -rpt``: one line per resolved instance, fields separated by ``;``."""
        return self._host.run(["avahi-browse", "-rpt", service], env=self._env, timeout=timeout).stdout

    def publish(self, name: str, service: str, port: int, *txt: str) -> subprocess.Popen[str]:
        """``avahi-publish -s``; the service goes with the process. Returns once it is established."""
        program = self._host.popen(["avahi-publish", "-s", name, service, str(port), *txt], env=self._env)
        assert program.stderr is not None
        for line in program.stderr:
            if "Established" in line:
                return program
        raise AssertionError("avahi-publish ended before it published")

    @property
    def env(self) -> Mapping[str, str]:
        """For other programs that speak to this daemon (the official command line runs avahi-browse)."""
        return self._env


_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/>
</policy></busconfig>
"""


@contextmanager
def avahi(host: Host, *, host_name: str = "avahi-host") -> Iterator[Avahi]:
    """avahi-daemon in the host's namespace. Skips where Debian's packages are missing."""
    for program in ("avahi-daemon", "avahi-browse", "avahi-publish", "dbus-daemon"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install avahi-daemon avahi-utils dbus")
    with tempfile.TemporaryDirectory(prefix="oc-avahi-") as scratch, ExitStack() as stack:
        folder = Path(scratch)
        socket = folder / "bus"
        (folder / "bus.conf").write_text(_BUS.format(path=socket))
        (folder / "avahi.conf").write_text(
            f"[server]\nhost-name={host_name}\nuse-ipv4=yes\nuse-ipv6=yes\nallow-interfaces=eth0\n"
            "ratelimit-interval-usec=0\n[publish]\npublish-workstation=no\npublish-hinfo=no\n"
        )
        env = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={socket}"}
        bus = host.popen(
            ["dbus-daemon", f"--config-file={folder / 'bus.conf'}", "--nofork", "--nopidfile"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(_end, bus)
        _until(socket.exists, "the message bus did not start")
        avahi_daemon = f"avahi-daemon --no-drop-root --no-chroot --no-rlimits -f {folder / 'avahi.conf'}"
        # Its own /run: the daemon's pid file and socket are at fixed places.
        daemon = host.popen(
            [
                "unshare", "--mount", "sh", "-c",
                f"mount -t tmpfs tmpfs /run && mkdir -p /run/avahi-daemon && exec {avahi_daemon}",
            ],
            env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        stack.callback(_end, daemon)
        assert daemon.stderr is not None
        seen = []
        for line in daemon.stderr:
            seen.append(line)
            if "Server startup complete" in line:
                break
        else:
            pytest.skip("avahi-daemon does not run here: " + "".join(seen)[-500:])
        with _drained(daemon):
            yield Avahi(host, env)


@contextmanager
def _drained(program: subprocess.Popen[str]) -> Iterator[None]:
    """Its standard error is read on, so that a full pipe never stops it."""
    assert program.stderr is not None
    reader = subprocess.Popen(["cat"], stdin=program.stderr, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        reader.kill()
        reader.wait(END_SECONDS)


def _until(ready: Any, complaint: str, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.02)
