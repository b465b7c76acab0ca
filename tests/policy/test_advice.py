"""S062-S065, S136: one recipe for any facts, the one that fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.advice import Facts, advise

ROOT = Path(__file__).resolve().parents[2]
HTTPS = "https://claw.example.com"


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({}, "tailscale-serve"),
        ({"tailscale": "running"}, "tailscale-serve"),
        ({"tailscale": "running", "sshd": True}, "tailscale-serve"),
        ({"sshd": True}, "ssh-tunnel"),
        ({"tailscale": "installed", "sshd": True}, "ssh-tunnel"),
        ({"purpose": "temporary", "sshd": True, "tailscale": "running"}, "ssh-tunnel"),
        ({"purpose": "temporary", "tailscale": "running"}, "tailscale-serve"),
        ({"purpose": "temporary", "lan": True}, "lan-tls"),
        ({"purpose": "temporary", "lan": True, "tailscale": "installed"}, "tailscale-serve"),
        ({"purpose": "public", "tailscale": "running"}, "tailscale-funnel"),
        ({"purpose": "public", "tailscale": "running", "container": True}, "reverse-proxy"),
        ({"purpose": "public"}, "reverse-proxy"),
        ({"purpose": "enterprise", "tailscale": "running"}, "reverse-proxy"),
        ({"public_url": HTTPS, "trusted_proxies": True, "tailscale": "running"}, "reverse-proxy"),
        ({"public_url": "http://claw.example.com", "trusted_proxies": True, "sshd": True}, "ssh-tunnel"),
    ],
)
def test_s062_s065_the_recipe_that_fits(facts: dict[str, Any], name: str) -> None:
    assert advise(Facts(**facts)).name == name


def test_what_is_in_place_needs_nothing_here() -> None:
    serving = advise(Facts(serving="https://gw.tail.ts.net", tailscale="running"))
    assert (serving.in_place, serving.here) == (True, ())
    assert "wss://gw.tail.ts.net" in serving.there[1]
    proxied = advise(Facts(public_url=HTTPS, trusted_proxies=True))
    assert (proxied.in_place, proxied.here) == (True, ())
    assert "wss://claw.example.com" in proxied.there[1]


def test_c6_the_funnel_comes_with_a_password_and_on_probation() -> None:
    recipe = advise(Facts(purpose="public", tailscale="running"))
    asked = [line for line in recipe.here if "gateway.auth.type password" in line]
    opened = [line for line in recipe.here if "tailscale.mode funnel" in line]
    assert recipe.here.index(asked[0]) < recipe.here.index(opened[0])
    has_one = advise(Facts(purpose="public", tailscale="running", auth="password"))
    assert not [line for line in has_one.here if "auth" in line]


FACTS = st.builds(
    Facts,
    purpose=st.sampled_from(["temporary", "long-term", "public", "enterprise"]),
    tailscale=st.sampled_from(["running", "installed", "absent"]),
    serving=st.none() | st.just("https://gw.tail.ts.net"),
    sshd=st.booleans(),
    auth=st.sampled_from(["token", "password", "none", "trusted-proxy"]),
    public_url=st.none() | st.sampled_from([HTTPS, "http://claw.example.com"]),
    trusted_proxies=st.booleans(),
    lan=st.booleans(),
    tls=st.booleans(),
    container=st.booleans(),
)


@given(FACTS)
def test_law_one_recipe_for_any_facts_and_what_can_lock_out_is_on_probation(facts: Facts) -> None:
    recipe = advise(facts)
    assert recipe.there
    for index, command in enumerate(recipe.here):
        if any(key in command for key in ("gateway.bind", "auth.type", "tailscale.mode", "tls.enabled")):
            assert "--confirm" in command
            assert recipe.here[index + 1] == "openclaw config confirm"
    if recipe.name == "tailscale-funnel":
        assert facts.auth == "password" or any("password" in line for line in recipe.here)
    if recipe.name == "ssh-tunnel":
        assert facts.sshd


@given(FACTS)
def test_law_every_recipe_has_its_page(facts: Facts) -> None:
    assert (ROOT / advise(facts).doc).is_file()
