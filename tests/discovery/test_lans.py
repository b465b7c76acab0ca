"""Where a gateway is announced, and where it must not be."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.discovery.interfaces import Interface
from openclaw_gateway.discovery.lans import MAX_LANS, plan_lans, why_no_lan

LO = Interface(
    name="lo", index=1, up=True, multicast=True, loopback=True, addresses=(("127.0.0.1", 8), ("::1", 128))
)
ETH = Interface(
    name="eth0", index=2, up=True, multicast=True,
    addresses=(("192.168.1.5", 24), ("2001:db8::5", 64), ("fe80::5", 64)),
)  # fmt: skip
WIFI = Interface(name="wlan0", index=3, up=True, multicast=True, addresses=(("192.168.1.9", 24),))


def test_every_ipv4_address_for_all_of_them_and_ipv6_only_where_it_is_listened_on() -> None:
    (lan,) = plan_lans((LO, ETH), ["0.0.0.0"])
    assert (lan.interface, lan.addresses, lan.speak4, lan.speak6) == ("eth0", ("192.168.1.5",), "192.168.1.5", False)
    (lan,) = plan_lans((LO, ETH), ["::"])
    assert lan.addresses == ("192.168.1.5", "2001:db8::5")  # fe80:: is of no use without its zone
    assert lan.speak6


def test_disc2_two_interfaces_on_one_subnet_are_one_network() -> None:
    assert [lan.interface for lan in plan_lans((WIFI, ETH), ["0.0.0.0"])] == ["eth0"]


@pytest.mark.parametrize(
    "changed",
    [
        {"up": False},
        {"multicast": False},
        {"point_to_point": True},
        {"loopback": True},
        {"name": "docker0"},
        {"name": "br-12ab34cd"},
        {"name": "veth1234"},
        {"name": "tailscale0"},
        {"addresses": ()},
    ],
)
def test_disc1_not_announced_on(changed: dict[str, Any]) -> None:
    interfaces = (LO, attrs.evolve(ETH, **changed))
    assert plan_lans(interfaces, ["0.0.0.0", "::"]) == ()
    assert why_no_lan(interfaces, ["0.0.0.0"])


def test_disc1_an_address_that_is_not_listened_on_is_never_announced() -> None:
    assert plan_lans((LO, ETH), ["127.0.0.1", "::1"]) == ()
    assert "this host only" in why_no_lan((LO, ETH), ["127.0.0.1"])
    assert plan_lans((LO, ETH), ["127.0.0.1", "192.168.7.7"]) == ()
    assert "192.168.7.7" in why_no_lan((LO, ETH), ["127.0.0.1", "192.168.7.7"])
    (lan,) = plan_lans((LO, ETH, WIFI), ["127.0.0.1", "192.168.1.9"])
    assert (lan.interface, lan.addresses) == ("wlan0", ("192.168.1.9",))


@given(st.integers(0, 40))
def test_the_number_of_networks_is_capped(count: int) -> None:
    many = [attrs.evolve(ETH, index=i, name=f"e{i}", addresses=((f"10.{i}.0.1", 24),)) for i in range(count)]
    assert len(plan_lans(many, ["0.0.0.0"])) == min(count, MAX_LANS)
