"""The rows of ``openclaw status``: what each says, and when it names something to do."""

from __future__ import annotations

from typing import Any

import pytest

from openclaw_gateway.cli import rows
from openclaw_gateway.client.address import GatewayAddress
from openclaw_gateway.client.handshake import Credentials
from openclaw_gateway.client.resolve import Target

HERE = Target(
    address=GatewayAddress.parse("ws://127.0.0.1:18789"),
    source="a test",
    credentials=Credentials(),
    secret_source="a test",
    fingerprint=None,
    local=True,
)


@pytest.mark.parametrize(
    ("told", "row"),
    [
        ({"state": "announcing", "text": "announcing A"}, ("ok", None)),
        ({"state": "waiting", "text": "waiting: starting"}, ("unknown", None)),
        ({"state": "claiming", "text": "claiming A"}, ("unknown", None)),
        ({"state": "waiting", "text": "waiting: no network interface"}, ("unknown", "openclaw doctor")),
        ({"state": "parked", "text": "parked: port 5353 is taken"}, ("unknown", "openclaw doctor")),
        ({"state": "announcing", "text": "A", "interfaces": [{"trouble": "x"}]}, ("unknown", "openclaw doctor")),
        ({"state": "off", "text": "off"}, None),
    ],
)  # fmt: skip
def test_m5_the_row_of_discovery_names_a_fix_only_where_something_is_to_be_mended(
    told: dict[str, Any], row: tuple[str, str | None] | None
) -> None:
    journey = rows.Journey(HERE, answers={"status": {"discovery": told}})
    rows._look_at_discovery(journey)
    assert [(one.state, one.fix) for one in journey.rows] == ([row] if row else [])
