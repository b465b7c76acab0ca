"""The pretended ``tailscale`` prints what the genuine one does: the rows of network facts 1.2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway.testing import fake_tailscale
from openclaw_gateway.testing.fake_tailscaled import FakeTailscaled, open_fake_tailscaled


@attrs.frozen
class Row:
    """A situation (members of the model), a command, and what comes of it; ``@`` stands for the socket's path."""

    name: str
    model: dict[str, Any]
    argv: str
    status: int
    out: str = ""
    err: str = ""


LOGIN = "https://login.tailscale.com/a/1"
WEB = {
    "TCP": {"443": {"HTTPS": True}},
    "Web": {"gw.tail-test.ts.net:443": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:1"}}}},
}
CLAIM = {"Foreground": {"s": {"TCP": {"443": {"HTTPS": True}}}}}
FORWARD = {"TCP": {"443": {"TCPForward": "127.0.0.1:22"}}}
STRANGER = {"operator": None, "root_writes": False}
NOT_ENABLED = """
Serve is not enabled on your tailnet.
To enable, visit:

         https://login.tailscale.com/f/serve?node=TESTCTRL00000001

"""
STARTED = """Available within your tailnet:

https://gw.tail-test.ts.net/
|-- proxy http://127.0.0.1:3000

Serve started and running in the background.
To disable the proxy, run: tailscale serve --https=443 off
"""
DENIED = """sending serve config: Access denied: serve config denied

Use 'sudo tailscale --socket=@ serve --yes --bg 3000'.
To not require root, use 'sudo tailscale set --operator=$USER' once.
"""
NO_HANDLER = """error: failed to remove web serve: handler does not exist

try `tailscale serve --help` for usage info
"""
NO_FUNNEL = 'Funnel not available; "funnel" node attribute not set. See https://tailscale.com/s/no-funnel.\n'
KIND = 'sending serve config: updating config: want to serve "https", but port 443 is already serving "tcp"\n'
ROWS = [
    Row("logged out", {"state": "NeedsLogin"}, "status", 1, "Logged out.\n"),
    Row("login url", {"state": "NeedsLogin", "auth_url": LOGIN}, "status", 1, f"Logged out.\nLog in at: {LOGIN}\n"),
    Row("logged out serve", {"state": "NeedsLogin"}, "serve --yes --bg 3000", 1, err="Logged out.\n"),
    Row("no ip", {"state": "NeedsLogin"}, "ip -4", 1, err="no current Tailscale IPs; state: NeedsLogin\n"),
    Row("ip", {}, "ip -4", 0, "100.64.0.1\n"),
    Row("stopped", {"state": "Stopped"}, "status", 1, "Tailscale is stopped.\n"),
    Row("unapproved", {"state": "NeedsMachineAuth"}, "status", 1, "Machine is not yet approved by tailnet admin.\n"),
    Row("whois unknown", {}, "whois --json 100.64.9.9", 1, err="peer not found\n"),
    Row("not operator", STRANGER, "serve --yes --bg 3000", 1, err=DENIED),
    Row("background", {}, "serve --yes --bg 3000", 0, STARTED),
    Row("taken, 1.90", {"version": "1.90.0", "config": CLAIM}, "serve --yes --bg 3000", 1,
        err="foreground already exists under this port\n"),
    Row("taken, 1.92", {"config": CLAIM}, "serve --yes --bg 3000", 1,
        err="sending serve config: updating config: foreground listener already exists for port 443\n"),
    Row("claim on taken, 1.92", {"config": WEB}, "serve --yes --bg=false 3000", 1,
        err="sending serve config: updating config: listener already exists for port 443\n"),
    Row("other kind", {"config": FORWARD}, "serve --yes --bg 3000", 1, err=KIND),
    Row("off, absent", {}, "serve --yes --https=443 --set-path=/ off", 1, err=NO_HANDLER),
    Row("off", {"config": WEB}, "serve --yes --https=443 --set-path=/ off", 0),
    Row("off never ends a claim", {"config": CLAIM}, "serve --yes --https=443 off", 1, err=NO_HANDLER),
    Row("no https", {"https": False}, "serve --yes --bg=false 3000", 0, NOT_ENABLED),
    Row("funnel without https", {"https": False}, "funnel --yes --bg 3000", 1,
        err="Funnel not available; HTTPS must be enabled. See https://tailscale.com/s/https.\n"),
    Row("funnel not allowed", {"funnel": False}, "funnel --yes --bg 3000", 1, err=NO_FUNNEL),
    Row("funnel port", {}, "funnel --yes --bg --https=444 3000", 1,
        err="port 444 is not allowed for funnel; allowed ports are: 443,8443,10000\n"),
    Row("a claim does not show", {"config": CLAIM}, "serve status", 0, "No serve config\n"),
]  # fmt: skip


async def run(path: Path, *argv: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", fake_tailscale.__file__, f"--socket={path}", *argv]
    return await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, stdin=b"")


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
async def test_each_row(tmp_path: Path, row: Row) -> None:
    daemon: FakeTailscaled
    with trio.fail_after(10):
        async with open_fake_tailscaled(tmp_path / "d.sock", tls=False) as daemon:
            for name, value in row.model.items():
                setattr(daemon.model, name, value)
            found = await run(daemon.path, *row.argv.split())
    assert found.stdout.decode() == row.out
    assert found.stderr.decode() == row.err.replace("@", str(tmp_path / "d.sock"))
    assert found.returncode == row.status


@pytest.mark.parametrize("listening", [False, True])
async def test_no_daemon(tmp_path: Path, listening: bool) -> None:
    import socket

    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        if listening:
            sock.bind(str(path))  # somebody was there and is gone
        why = "connection refused" if listening else "no such file or directory"
        text = "Failed to connect to local Tailscale daemon for /localapi/v0/{}; not running? "
        text += "Error: dial unix {}: connect: {}\n"
        with trio.fail_after(10):
            found = await run(path, "status")
            assert found.stderr.decode() == text.format("status", path, why)
            found = await run(path, "serve", "status", "--json")
            prefix = "error getting serve config: getting serve config: "
            assert found.stderr.decode() == prefix + text.format("serve-config", path, why)
            assert found.returncode == 1
