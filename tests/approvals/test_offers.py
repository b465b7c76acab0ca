"""One-time tokens of the approval page: for one step, one request, one address, once, and not for long."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from openclaw_gateway.approvals.offers import MAX_OFFERS, SIGN_IN_SECONDS, Offer, Offers, SignIn
from openclaw_gateway.policy.admission import AdmissionRules
from openclaw_gateway.policy.locality import PeerRules
from openclaw_gateway.policy.origin import OriginRules
from openclaw_gateway.protocol.connect import bearer_params
from openclaw_gateway.server.grants import GatekeeperRules, Grant

RULES = GatekeeperRules(
    admission=AdmissionRules(auth_type="token"), origins=OriginRules(), peers=PeerRules(), token="the-secret-token"
)
GRANT = Grant(
    role="operator", scopes=("operator.admin",), method="token", protocol=4,
    params=bearer_params(protocol=4, scopes=()), device_id=None, principal="token:operator",
)  # fmt: skip
SIGN_IN = SignIn(grant=GRANT, rules=RULES, address="main 127.0.0.1", by_secret=True, until=1300.0)
OFFER = Offer(kind="device", request_id="r1", device_id="d" * 64, name="shed", role="node", sign_in=SIGN_IN)
RIGHT: dict[str, Any] = {"step": "approve", "request_id": "r1", "address": "main 127.0.0.1", "now": 1001.0}


@pytest.fixture
def offers() -> Offers:
    return Offers()


def test_a_token_is_good_for_its_step(offers: Offers) -> None:
    tokens = offers.issue(OFFER, ("approve", "reject"), now=1000.0)
    assert set(tokens) == {"approve", "reject"}
    assert all(len(token) >= 43 for token in tokens.values())  # 256 bits
    assert offers.take(tokens["approve"], **RIGHT) is OFFER


def test_v4_a_replayed_token_is_worth_nothing_nor_is_its_sibling(offers: Offers) -> None:
    tokens = offers.issue(OFFER, ("approve", "reject"), now=1000.0)
    assert offers.take(tokens["approve"], **RIGHT) is OFFER
    assert offers.take(tokens["approve"], **RIGHT) is None
    assert offers.take(tokens["reject"], **{**RIGHT, "step": "reject"}) is None


@pytest.mark.parametrize(
    "wrong",
    [{"step": "reject"}, {"step": "next"}, {"request_id": "r2"}, {"address": "main 192.0.2.7"}, {"now": 1300.0}],
)
def test_v4_a_token_used_wrongly_is_refused_and_over(offers: Offers, wrong: dict[str, Any]) -> None:
    tokens = offers.issue(OFFER, ("approve", "reject"), now=1000.0)
    assert offers.take(tokens["approve"], **{**RIGHT, **wrong}) is None
    assert offers.take(tokens["approve"], **RIGHT) is None
    assert len(offers) == 0


@pytest.mark.parametrize("token", [None, "", "x", "x" * 65, "\ud800"])
def test_what_is_no_token_opens_nothing(offers: Offers, token: str | None) -> None:
    offers.issue(OFFER, ("approve",), now=1000.0)
    assert offers.take(token, **RIGHT) is None
    assert len(offers) == 1


def test_offers_have_a_cap_and_the_oldest_gives_way(offers: Offers) -> None:
    first = offers.issue(OFFER, ("approve",), now=1000.0)["approve"]
    second = offers.issue(OFFER, ("approve",), now=1000.0)["approve"]
    for _ in range(MAX_OFFERS - 1):
        offers.issue(OFFER, ("approve",), now=1000.0)
    assert len(offers) == MAX_OFFERS
    assert offers.take(first, **RIGHT) is None
    assert offers.take(second, **RIGHT) is OFFER


def test_offers_that_are_over_are_forgotten(offers: Offers) -> None:
    offers.issue(OFFER, ("approve",), now=1000.0)
    later = attrs.evolve(OFFER, sign_in=attrs.evolve(SIGN_IN, until=1300.0 + SIGN_IN_SECONDS))
    offers.issue(later, ("approve",), now=1300.0)
    assert len(offers) == 1


def test_an_offer_shows_no_secret(offers: Offers) -> None:
    token = offers.issue(OFFER, ("approve",), now=1000.0)["approve"]
    assert "the-secret-token" not in repr(OFFER)
    assert "the-secret-token" not in repr(SIGN_IN)
    assert token not in repr(vars(offers))  # its digest alone is kept
