"""The pure parts: reading the daemon (golden/), planning a route, and what each text and answer means (the tables of
network facts 1.2 and 1.3).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.tailscale import conditions
from openclaw_gateway.tailscale.plan import (
    Conflict,
    InPlace,
    Route,
    Write,
    plan_background,
    plan_claim,
    plan_release,
    session_of,
)
from openclaw_gateway.tailscale.protocol import (
    TailscaleUnreadable,
    login_url,
    read_config,
    read_feature,
    read_notice,
    read_status,
    read_whois,
)

GOLDEN = Path(__file__).parent / "golden"
HOST = "gw.tail-test.ts.net"
OURS = "http://127.0.0.1:40000"
ROUTE = Route(host=HOST, port=443, target=OURS, own=frozenset({"http://127.0.0.1:18789"}))
OTHER = {"Proxy": "http://127.0.0.1:3000"}


def test_golden_status_is_read() -> None:
    found = read_status((GOLDEN / "status_running_nopeers.json").read_bytes())
    assert (found.state, found.dns_name, found.node_id) == ("Running", HOST, "TESTCTRL00000001")
    assert found.addresses == ("100.64.0.1", "fd7a:115c:a1e0:ab12:4843:cd96:6240:1")
    assert (found.https, found.funnel, found.funnel_ports) == (True, True, (443, 8443, 10000))
    logged_out = read_status((GOLDEN / "status_needslogin.json").read_bytes())
    assert (logged_out.state, logged_out.dns_name, logged_out.addresses) == ("NeedsLogin", "", ())
    assert logged_out.auth_url == "http://10.99.0.1:9911/auth/900ac436f2cbe5f39eef"


def test_golden_whois_notice_and_configuration_are_read() -> None:
    person = read_whois((GOLDEN / "whois_user.json").read_bytes())
    assert (person.node_id, person.login, person.tagged) == (
        "TESTCTRL00000002", "user-2@fake-control.example.net", False,
    )  # fmt: skip
    notice = read_notice((GOLDEN / "watch_first.ndjson").read_bytes())
    assert (notice.session, notice.state, notice.url) == ("028df14248216f03", "Running", None)
    recorded = read_config((GOLDEN / "serve_config_fg.http").read_bytes().splitlines()[-1])
    route = Route(host=HOST, port=443, target="http://127.0.0.1:18789")
    assert session_of(recorded, route) == "8f15be730f5025ca"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for read in (read_status, read_notice, read_whois, read_config, read_feature):
        try:
            read(data)
        except TailscaleUnreadable as exc:
            told = str(exc)
            assert told.endswith("cannot be read")


NAMES = st.sampled_from(["BackendState", "Self", "TailscaleIPs", "State", "Node", "AuthURL"])
ODD = st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.text())


@given(st.dictionaries(NAMES, ODD))
def test_any_members_are_read_or_refused(found: dict[str, Any]) -> None:
    data = json.dumps(found).encode()
    for read in (read_status, read_notice, read_whois):
        try:
            read(data)
        except TailscaleUnreadable:
            assert read is not read_notice


@pytest.mark.parametrize("text", ["javascript:alert(1)", "https://a\x1b[31m", "x" * 600, 5, None, "https://[::1"])
def test_what_is_no_address_is_not_shown(text: object) -> None:
    assert login_url(text) is None


# --- plans


def test_a_claim_copies_what_others_have() -> None:
    foreign = {
        "TCP": {"8443": {"HTTPS": True}},
        "Services": {"svc:x": {"y": 1}},
        "Foreground": {"b": {"TCP": {"1": {}}}},
    }
    plan = plan_claim(foreign, ROUTE, "a")
    assert isinstance(plan, Write)
    assert plan.config == {**foreign, "Foreground": {"b": {"TCP": {"1": {}}}, "a": ROUTE.claim()}}
    assert isinstance(plan_claim(plan.config, ROUTE, "a"), InPlace)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"Foreground": {"b": {"TCP": {"443": {"HTTPS": True}}}}}, "another program's claim"),
        ({"TCP": {"443": {"TCPForward": "127.0.0.1:22"}}}, "TCP for 127.0.0.1:22"),
        ({"TCP": {"443": {"HTTP": True}}}, "serves HTTP"),
        (
            {"TCP": {"443": {"HTTPS": True}}, "Web": {f"{HOST}:443": {"Handlers": {"/": OTHER}}}},
            "http://127.0.0.1:3000",
        ),
        (
            {
                "TCP": {"443": {"HTTPS": True}},
                "Web": {f"{HOST}:443": {"Handlers": {"/": {"Proxy": OURS}, "/x": OTHER}}},
            },
            "port 443 serves",
        ),
        ({"AllowFunnel": {f"{HOST}:443": True}}, "funnel"),
        ({"Foreground": {"b": {"AllowFunnel": {f"{HOST}:443": True}}}}, "funnel"),
    ],
)
def test_ts3_what_is_somebody_elses_is_a_conflict(config: dict[str, Any], words: str) -> None:
    plan = plan_claim(config, ROUTE, "a")
    assert isinstance(plan, Conflict)
    assert words in plan.what


def test_our_own_old_route_goes_first() -> None:
    web = {f"{HOST}:443": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:18789"}}}}
    plan = plan_claim({"TCP": {"443": {"HTTPS": True}, "1": {}}, "Web": web}, ROUTE, "a")
    assert isinstance(plan, Write)
    assert (plan.again, plan.config) == (True, {"TCP": {"1": {}}})


def test_a_background_route_stands_beside_other_paths() -> None:
    held = {"TCP": {"443": {"HTTPS": True}}, "Web": {f"{HOST}:443": {"Handlers": {"/x": OTHER}}}}
    plan = plan_background(held, ROUTE)
    assert isinstance(plan, Write)
    assert plan.config["Web"][f"{HOST}:443"]["Handlers"] == {"/x": OTHER, "/": {"Proxy": OURS}}
    assert isinstance(plan_background(plan.config, ROUTE), InPlace)
    back = plan_release(plan.config, ROUTE)
    assert isinstance(back, Write)
    assert back.config == held
    assert isinstance(plan_release(held, ROUTE), InPlace)


def test_c6_other_paths_never_go_to_the_internet_with_ours_nor_ours_with_theirs() -> None:
    held = {"TCP": {"443": {"HTTPS": True}}, "Web": {f"{HOST}:443": {"Handlers": {"/x": OTHER}}}}
    funnel = Route(host=HOST, port=443, target=OURS, funnel=True)
    assert isinstance(plan_background(held, funnel), Conflict)
    assert isinstance(plan_background({**held, "AllowFunnel": {f"{HOST}:443": True}}, ROUTE), Conflict)
    was_ours = plan_background({}, funnel)
    assert isinstance(was_ours, Write)
    narrowed = plan_background(was_ours.config, ROUTE)
    assert isinstance(narrowed, Write)
    assert "AllowFunnel" not in narrowed.config


plain = st.none() | st.booleans() | st.text(max_size=5)
json_values = st.recursive(plain, lambda inner: st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8)
members = st.dictionaries(st.sampled_from(["TCP", "Web", "AllowFunnel", "Foreground", "Services", "443"]), json_values)


@given(members)
def test_no_plan_changes_what_it_was_given_or_takes_from_others(config: dict[str, Any]) -> None:
    before = json.dumps(config)
    for plan in (plan_claim(config, ROUTE, "a"), plan_background(config, ROUTE), plan_release(config, ROUTE)):
        assert json.dumps(config) == before
        if isinstance(plan, Write):
            assert plan.config.get("Services") == config.get("Services")


# --- words


NO_DAEMON = (
    "Failed to connect to local Tailscale daemon for /localapi/v0/status; not running? Error: dial unix P: connect:"
)
NO_OPERATOR = """sending serve config: Access denied: serve config denied

Use 'sudo tailscale serve 1'.
To not require root, use 'sudo tailscale set --operator=$USER' once."""
NOT_ENABLED = """
Serve is not enabled on your tailnet.
To enable, visit:

         https://login.tailscale.com/f/serve?node=x
"""
NO_FUNNEL = 'Funnel not available; "funnel" node attribute not set. See https://tailscale.com/s/no-funnel.'
TABLE: list[tuple[str, str, str]] = [
    ("", f"{NO_DAEMON} no such file or directory", "missing"),
    ("", f"error getting serve config: getting serve config: {NO_DAEMON} connection refused", "missing"),
    ("Logged out.\nLog in at: https://login.tailscale.com/a/1", "", "needs-login"),
    ("", "Logged out.", "needs-login"),
    ("Tailscale is stopped.", "", "stopped"),
    ("", "Machine is not yet approved by tailnet admin.", "needs-approval"),
    ("", NO_OPERATOR, "not-operator"),
    ("", "foreground already exists under this port", "conflict"),
    ("", "sending serve config: updating config: listener already exists for port 443", "conflict"),
    ("", "updating config: foreground listener already exists for port 443", "conflict"),
    ("", 'updating config: want to serve "https", but port 443 is already serving "tcp"', "conflict"),
    (NOT_ENABLED, "", "https-not-enabled"),
    ("", "Funnel not available; HTTPS must be enabled. See https://tailscale.com/s/https.", "https-not-enabled"),
    ("", NO_FUNNEL, "funnel-not-allowed"),
    ("", "port 444 is not allowed for funnel; allowed ports are: 443,8443,10000", "funnel-not-allowed"),
    ("", "503 Service Unavailable: no backend", "waiting"),
    ("", "something new\x1b[31m", "failed"),
    ("", "", "failed"),
]


@pytest.mark.parametrize(("out", "err", "state"), TABLE)
def test_ts4_every_text_of_the_command_line_has_a_meaning(out: str, err: str, state: str) -> None:
    condition = conditions.of_command(out, err, port=443)
    assert condition.state == state
    assert condition.reason.isprintable()
    assert condition.fix


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (403, b"serve config denied\n", "not-operator"),
        (403, b"invalid localapi request\n", "failed"),
        (500, b'{"error":"updating config: listener already exists for port 443"}', "conflict"),
        (500, b'{"error":"updating config: netMap is nil"}', "waiting"),
        (500, b"\xff\xfe", "failed"),
        (503, b"no backend\n", "waiting"),
        (418, b"{not json", "failed"),
    ],
)
def test_every_answer_of_the_localapi_has_a_meaning(status: int, body: bytes, state: str) -> None:
    condition = conditions.of_answer(status, body, port=443)
    assert condition.state == state
    assert condition.fix


def test_every_state_has_a_wait_and_a_longest() -> None:
    assert all(0 < first <= longest <= 60 for first, longest in conditions.WAITS.values())


def test_a_port_in_the_way_is_never_answered_with_the_same_port() -> None:
    assert conditions.conflict("x", 8443).fix == "openclaw config set gateway.tailscale.port 10000"
