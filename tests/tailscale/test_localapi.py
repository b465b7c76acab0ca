"""The LocalAPI client's own limits, and whose connection the kernel says it is."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import trio

from openclaw_gateway.tailscale import localapi
from openclaw_gateway.tailscale.cli import MAX_SAID, _Said
from openclaw_gateway.tailscale.localapi import DaemonUnreachable, LocalApi
from openclaw_gateway.tailscale.socketowner import connection_uid
from tests.tailscale.conftest import open_daemon


async def test_an_answer_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with trio.fail_after(5):
        async with open_daemon(tmp_path) as daemon:
            api = LocalApi(daemon.path)
            assert (await api.status()).running
            monkeypatch.setattr(localapi, "MAX_BODY", 1000)
            with pytest.raises(DaemonUnreachable, match="over 1000 bytes"):
                await api.status()


async def test_a_long_line_of_the_bus_is_skipped_and_counts_as_news(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with open_daemon(tmp_path) as daemon, LocalApi(daemon.path).watch() as bus:
            daemon.api.tell(NetMap={"x": "y" * (3 * localapi.MAX_LINE)}, State=6)
            daemon.api.tell(State=4)
            notice = await bus.receive()
            assert notice is not None
            assert notice.state is None
            assert len(bus._buffer) <= localapi.MAX_LINE + 65_536
            after = await bus.receive()
            assert after is not None
            assert after.state == "Stopped"


async def test_what_a_bus_says_that_cannot_be_read_ends_it(tmp_path: Path) -> None:
    with trio.fail_after(5):
        async with open_daemon(tmp_path) as daemon, LocalApi(daemon.path).watch() as bus:
            daemon.reset()
            await daemon.stop()
            assert await bus.pause(5) is False


async def test_whois_over_the_socket(tmp_path: Path) -> None:
    with trio.fail_after(5):
        async with open_daemon(tmp_path) as daemon:
            api = LocalApi(daemon.path)
            person = await api.whois("100.64.0.2")
            assert person is not None
            assert person.login == "user-2@fake-control.example.net"
            assert await api.whois("100.64.9.9") is None
            with pytest.raises(DaemonUnreachable, match="HTTP 400"):
                await api.whois("not an address&x=1")
            assert api.daemon_uid == os.geteuid()


def test_what_a_claim_said_is_remembered_within_limits() -> None:
    said = _Said()
    for number in range(3 * MAX_SAID):
        said.hear(said.out, str(number))
    assert len(said.out) == MAX_SAID


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_kernel_tells_who_connected(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind((host, 0))
        listener.listen(1)
        client.connect(listener.getsockname()[:2])
        ends = (client.getsockname()[:2], listener.getsockname()[:2])
        assert connection_uid(*ends) == os.geteuid()
        assert connection_uid((host, 1), ends[1]) is None
        assert connection_uid(("nobody", 1), ends[1]) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel is asked by netlink")
def test_v36_a_socket_that_was_closed_already_is_nobodys() -> None:
    """Linux gives the closed end of a connection to uid 0, which is tailscaled's: a local process that sends a request
    and closes at once must not pass for it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ends = (client.getsockname(), listener.getsockname())
        client.sendall(b"POST /rpc HTTP/1.1\r\n")
        client.shutdown(socket.SHUT_WR)
        assert connection_uid(*ends) == os.geteuid(), "half-closed, and still somebody's"
        client.close()
        assert connection_uid(*ends) is None
