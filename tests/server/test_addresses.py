"""What each bind mode listens on, over real sockets."""

from __future__ import annotations

import ipaddress
import socket

import attrs
import pytest

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.server.addresses import BindFailed, bind_addresses, open_listening_sockets, own_tailnet_address


def _reaches(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def test_s060_loopback_opens_loopback_addresses_alone() -> None:
    hosts = bind_addresses(GatewayConfig())
    assert "127.0.0.1" in hosts
    assert all(ipaddress.ip_address(host).is_loopback for host in hosts)
    sockets = open_listening_sockets(hosts, 0)
    try:
        names = [sock.getsockname()[:2] for sock in sockets]
        assert {port for _, port in names} == {names[0][1]}  # one port for all
        assert all(_reaches(host, port) for host, port in names)
        assert not _reaches("127.0.0.2", names[0][1])  # another address of this host
    finally:
        for sock in sockets:
            sock.close()


def test_s056_all_interfaces_are_reached_through_each_address() -> None:
    (sock,) = open_listening_sockets(bind_addresses(GatewayConfig(bind="0.0.0.0")), 0)
    try:
        port = sock.getsockname()[1]
        assert _reaches("127.0.0.1", port)
        assert _reaches("127.0.0.2", port)
    finally:
        sock.close()


@pytest.mark.parametrize(
    ("bind", "custom", "expected"),
    [
        ("lan", None, ["0.0.0.0"]),
        ("custom", "127.0.0.9", ["127.0.0.9"]),
        ("custom", None, ["127.0.0.1"]),
        ("::1", None, ["::1"]),
        ("127.0.0.3", None, ["127.0.0.3"]),
        ("::", None, ["::"]),
        ("192.168.7.7", None, ["127.0.0.1", "192.168.7.7"]),
        ("2001:db8::7", None, ["127.0.0.1", "2001:db8::7"]),
        ("custom", "192.168.7.7", ["127.0.0.1", "192.168.7.7"]),
    ],
)
def test_c2_s056_net6_modes_and_literals(bind: str, custom: str | None, expected: list[str]) -> None:
    assert bind_addresses(GatewayConfig(bind=bind, custom_bind_host=custom)) == expected


def test_c2_tailnet_without_a_tailnet_is_an_error_that_says_so() -> None:
    assert own_tailnet_address() is None  # true of every machine that runs these tests
    with pytest.raises(BindFailed, match="no tailnet address") as caught:
        bind_addresses(GatewayConfig(bind="tailnet"))
    assert not caught.value.busy


def test_all_or_nothing_and_who_is_busy_is_told() -> None:
    (taken,) = open_listening_sockets(["127.0.0.5"], 0)
    try:
        port = taken.getsockname()[1]
        with pytest.raises(BindFailed) as caught:
            open_listening_sockets(["127.0.0.4", "127.0.0.5"], port)
        assert caught.value.busy
        assert (caught.value.host, caught.value.port) == ("127.0.0.5", port)
        assert not _reaches("127.0.0.4", port)  # the first was closed again
    finally:
        taken.close()


def test_a_literal_that_is_not_of_this_host_is_told() -> None:
    with pytest.raises(BindFailed) as caught:
        open_listening_sockets(["192.0.2.1"], 0)
    assert not caught.value.busy


def test_v6_any_takes_v4_too() -> None:
    (sock,) = open_listening_sockets(bind_addresses(attrs.evolve(GatewayConfig(), bind="::")), 0)
    try:
        port = sock.getsockname()[1]
        assert _reaches("127.0.0.1", port)
        assert _reaches("::1", port)
    finally:
        sock.close()
