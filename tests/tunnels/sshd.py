"""A real sshd of our own: unprivileged, on a free loopback port, with keys made for it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs
import pytest

from openclaw_gateway.tunnels.spec import SshTarget, TunnelSpec

__all__ = ["Sshd", "free_port", "needs_sshd", "open_sshd"]

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(SSHD is None or shutil.which("ssh") is None, reason="sshd or ssh is not installed")

_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
AllowTcpForwarding {forwarding}
GatewayPorts no
LogLevel VERBOSE
PermitRootLogin prohibit-password
MaxStartups 100:30:200
PerSourcePenalties no
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _key(path: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, stdin=subprocess.DEVNULL
    )


@attrs.define
class Sshd:
    folder: Path
    port: int
    user: str
    process: subprocess.Popen[bytes]

    @property
    def identity(self) -> str:
        return str(self.folder / "client_key")

    @property
    def known_hosts(self) -> str:
        return str(self.folder / "known_hosts")

    @property
    def target(self) -> SshTarget:
        return SshTarget("127.0.0.1", self.user, self.port)

    def spec(self, **fields: object) -> TunnelSpec:
        base = {
            "name": "test",
            "target": self.target,
            "direction": "local",
            "bind_port": 0,
            "target_port": 1,
            "identity": self.identity,
            "known_hosts": self.known_hosts,
        }
        return TunnelSpec(**{**base, **fields})  # type: ignore[arg-type]

    def learn_host_key(self, path: Path | None = None) -> None:
        words = (path or self.folder / "host_key.pub").read_text().split()
        Path(self.known_hosts).write_text(f"[127.0.0.1]:{self.port} {words[0]} {words[1]}\n")

    def forget_host_key(self) -> None:
        Path(self.known_hosts).write_text("")

    def deny_everybody(self) -> None:
        (self.folder / "authorized_keys").write_text("")

    def end_connections(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal the sshd of every connection, not the one that listens."""
        from tests.tunnels.processes import children

        for pid in children(self.process.pid):
            with suppress(ProcessLookupError):  # it ended by itself meanwhile
                os.kill(pid, number)


@contextmanager
def open_sshd(folder: Path, *, forwarding: str = "yes") -> Iterator[Sshd]:
    import getpass

    assert SSHD is not None
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in ("host_key", "other_key", "client_key"):
        _key(folder / name)
    (folder / "authorized_keys").write_text((folder / "client_key.pub").read_text())
    if os.geteuid() == 0:
        # What the package's own start script does; sshd without root does not ask for it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    config = _CONFIG.format(port=port, folder=folder, forwarding=forwarding)
    if subprocess.run(
        [SSHD, "-T", "-f", "/dev/stdin", "-h", str(folder / "host_key")], input=config.encode(), capture_output=True
    ).returncode:
        config = config.replace("PerSourcePenalties no\n", "")
    (folder / "sshd_config").write_text(config)
    with (
        (folder / "sshd.log").open("wb") as log,
        subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")],
            stderr=log,
            stdin=subprocess.DEVNULL,
        ) as process,
    ):
        sshd = Sshd(folder, port, getpass.getuser(), process)
        sshd.learn_host_key()
        try:
            until = time.monotonic() + 10
            while b"listening on" not in (folder / "sshd.log").read_bytes():
                assert process.poll() is None, (folder / "sshd.log").read_text()
                assert time.monotonic() < until
                time.sleep(0.01)
            yield sshd
        finally:
            try:
                sshd.end_connections()
            finally:
                process.kill()
