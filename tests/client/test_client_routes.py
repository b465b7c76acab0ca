"""Which routes there are to a remote gateway, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from openclaw_gateway.client.errors import ConnectFailed
from openclaw_gateway.client.routes import MAX_ROUTES, REMEMBER_SECONDS, plan_routes, preferred, ssh_route
from openclaw_gateway.config.schema import RemoteConfig, RouteConfig

PIN = "ab" * 32


def names(remote: RemoteConfig) -> list[str]:
    return [route.name for route in plan_routes(remote)]


def test_the_own_route_comes_first_and_no_route_twice() -> None:
    remote = RemoteConfig(
        url="wss://a.example:1", routes=(RouteConfig(ssh_target="me@b"), RouteConfig(url="wss://a.example:1"))
    )
    assert names(remote) == ["wss://a.example:1", "ssh me@b to port 18789"]


def test_nothing_configured_is_no_route() -> None:
    assert plan_routes(RemoteConfig(token="x")) == ()


def test_there_is_a_cap() -> None:
    routes = tuple(RouteConfig(url=f"wss://h{number}.example") for number in range(50))
    assert len(plan_routes(RemoteConfig(routes=routes))) == MAX_ROUTES


def test_an_ssh_target_means_ssh_unless_direct_is_asked_for() -> None:
    (route,) = plan_routes(RemoteConfig(url="ws://127.0.0.1:18789", ssh_target="me@host:2222"))
    assert route.transport == "ssh"
    assert route.tunnel is not None
    assert (str(route.tunnel.target), route.tunnel.target_port) == ("me@host:2222", 18789)
    assert route.address.is_loopback
    (direct,) = plan_routes(RemoteConfig(url="wss://host", ssh_target="me@host", transport="direct"))
    assert direct.tunnel is None


@pytest.mark.parametrize(
    ("fields", "port"),
    [({}, 18789), ({"url": "ws://127.0.0.1:19000"}, 19000), ({"url": "ws://127.0.0.1:19000", "remote_port": 5}, 5)],
)
def test_the_port_over_there(fields: dict[str, Any], port: int) -> None:
    (route,) = plan_routes(RemoteConfig(ssh_target="host", **fields))
    assert route.tunnel is not None
    assert route.tunnel.target_port == port


def test_without_a_target_ssh_goes_to_the_host_of_the_url() -> None:
    (route,) = plan_routes(RemoteConfig(transport="ssh", url="ws://gw.example:18789"))
    assert route.tunnel is not None
    assert str(route.tunnel.target) == "gw.example"


@pytest.mark.parametrize(
    "remote",
    [
        RemoteConfig(transport="ssh", url="ws://127.0.0.1:18789"),  # no host
        RemoteConfig(ssh_target="-oProxyCommand=x"),
        RemoteConfig(ssh_target="host", url="wss://host:1"),  # TLS behind ssh, no pin
        RemoteConfig(url="ws://gw.example:18789"),  # a secret would travel readable
        RemoteConfig(routes=(RouteConfig(transport="direct"),)),
    ],
)
def test_v56_v54_what_is_not_safe_is_refused(remote: RemoteConfig) -> None:
    with pytest.raises(ConnectFailed) as caught:
        plan_routes(remote)
    assert caught.value.stage == "address"
    assert caught.value.fix


def test_tls_behind_ssh_needs_a_pin() -> None:
    (route,) = plan_routes(RemoteConfig(ssh_target="host", url="wss://host:1", tls_fingerprint=PIN))
    assert route.address.tls
    assert route.tls_fingerprint == PIN


def test_the_remembered_route_comes_first_while_it_is_fresh() -> None:
    routes = plan_routes(RemoteConfig(url="wss://a.example", routes=(RouteConfig(ssh_target="b"),)))
    assert [route.name for route in preferred(routes, routes[1].name, 10)] == [routes[1].name, routes[0].name]
    for remembered, age in (
        (None, None),
        ("another", 10.0),
        (routes[1].name, REMEMBER_SECONDS + 1),
        (routes[1].name, -5),
    ):
        assert preferred(routes, remembered, age) == routes


def test_another_place_has_another_name() -> None:
    """What worked for one place must not be applied to another one that took its line in the configuration."""
    assert len({ssh_route("h", source="x", remote_port=port).name for port in (1, 2)}) == 2
    assert ssh_route("a@h", source="x").name != ssh_route("b@h", source="x").name
