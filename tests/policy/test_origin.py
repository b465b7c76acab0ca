"""Origins: the matrix of NET-3, V1 to V3, and cross-site HTTP (V4)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.origin import (
    HttpVerdict,
    OriginRules,
    OriginVerdict,
    check_http_request,
    check_origin,
    normalise_origin,
    origin_entry_fault,
)
from tests.policy.builders import peer_from

CONFIGURED = OriginRules(allowed=("https://claw.example.com", "http://box.lan:8080", "tauri://localhost"))


def verdict(origin: str, peer: Peer | None = None, rules: OriginRules = CONFIGURED, **headers: Any) -> OriginVerdict:
    return check_origin(peer or peer_from(origin=origin, **headers), rules, client_is_ui=False)


@pytest.mark.parametrize(
    ("origin", "host", "ok"),
    [
        # same-origin on loopback, whichever way it is spelled
        ("http://127.0.0.1:18789", "127.0.0.1:18789", True),
        ("http://localhost:18789", "127.0.0.1:18789", True),
        ("http://127.0.0.1:18789", "localhost:18789", True),
        ("http://[::1]:18789", "localhost:18789", True),
        ("http://localhost:18789", "[::1]:18789", True),
        ("HTTP://LocalHost:18789", "localhost:18789", True),
        ("http://localhost", "localhost", True),
        ("http://localhost", "localhost:80", True),
        ("https://localhost", "localhost:443", True),
        # same-origin on private literals
        ("http://192.168.1.2:18789", "192.168.1.2:18789", True),
        ("http://100.64.0.7:18789", "100.64.0.7:18789", True),
        ("http://[fd00::5]:18789", "[fd00::5]:18789", True),
        # another port or host of this machine is another page
        ("http://localhost:5173", "localhost:18789", False),
        ("http://localhost", "localhost:18789", False),
        ("https://localhost", "localhost", True),
        ("http://192.168.1.3:18789", "192.168.1.2:18789", False),
        # configured
        ("https://claw.example.com", "127.0.0.1:18789", True),
        ("https://claw.example.com:443", "anything:1", True),
        ("https://CLAW.example.com", "127.0.0.1:18789", True),
        ("http://box.lan:8080", "box.lan:8080", True),
        ("tauri://localhost", "127.0.0.1:18789", True),
        ("http://claw.example.com", "127.0.0.1:18789", False),
        ("https://claw.example.com:8443", "127.0.0.1:18789", False),
        ("http://box.lan", "127.0.0.1:18789", False),
        ("https://claw.example.com.evil.example", "127.0.0.1:18789", False),
        ("https://evil.example", "127.0.0.1:18789", False),
        # a name that equals the Host proves nothing: it can be rebound
        ("http://evil.example:18789", "evil.example:18789", False),
        ("http://gw.local:18789", "gw.local:18789", False),
        ("http://localhost.evil.example:18789", "localhost.evil.example:18789", False),
        ("http://127.0.0.1.nip.io:18789", "127.0.0.1.nip.io:18789", False),
        # public literals are nobody's home
        ("http://8.8.8.8:18789", "8.8.8.8:18789", False),
        # what is no origin
        ("null", "127.0.0.1:18789", False),
        ("", "127.0.0.1:18789", False),
        ("file://", "127.0.0.1:18789", False),
        ("http://127.0.0.1:18789/", "127.0.0.1:18789", False),
        ("http://user@127.0.0.1:18789", "127.0.0.1:18789", False),
        ("http://127.0.0.1:99999", "127.0.0.1:99999", False),
        ("chrome-extension://abc", "127.0.0.1:18789", False),
        ("chrome-extension://localhost:18789", "localhost:18789", False),
        ("http://2130706433:18789", "2130706433:18789", False),
        ("http://" + "a" * 400, "127.0.0.1:18789", False),
    ],
)
def test_net3_matrix_of_origins(origin: str, host: str, ok: bool) -> None:
    result = verdict(origin, host=host)
    assert (result.ok, result.browser) == (ok, True)


def test_no_origin_is_no_browser_but_the_control_ui_is_one() -> None:
    assert check_origin(peer_from(), CONFIGURED, client_is_ui=False) == OriginVerdict(
        ok=True, reason="no origin: not a browser"
    )
    assert not check_origin(peer_from(), CONFIGURED, client_is_ui=True).ok


def test_v1_v2_a_foreign_page_is_refused_from_loopback_too() -> None:
    result = verdict("https://evil.example")
    assert not result.ok
    assert result.browser


@pytest.mark.parametrize("trusted", [(), ("localhost",)])
@pytest.mark.parametrize("client", ["198.51.100.1", "127.0.0.1", "10.0.0.1"])
def test_v3_forwarding_headers_do_not_skip_the_rule(trusted: tuple[str, ...], client: str) -> None:
    peer = peer_from(
        trusted=trusted, origin="https://evil.example", x_forwarded_for=client, x_forwarded_host="evil.example"
    )
    assert not verdict("", peer).ok


def test_net3_the_refusal_carries_the_exact_command() -> None:
    assert verdict("https://New.example:8443").fix == (
        "openclaw config set gateway.controlUi.allowedOrigins "
        """'["https://claw.example.com", "http://box.lan:8080", "tauri://localhost", "https://new.example:8443"]'"""
    )
    assert verdict("null").fix is None
    assert verdict("http://a'; rm -rf ~'").fix is None


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("HTTPS://Claw.Example:443", "https://claw.example"),
        ("http://claw.example:80", "http://claw.example"),
        ("http://claw.example:8080", "http://claw.example:8080"),
        ("http://127.0.0.1:18789", "http://localhost:18789"),
        ("http://[::1]:18789", "http://localhost:18789"),
        ("http://[FD00:0::1]", "http://[fd00::1]"),
        ("claw.example", None),
        ("https://claw.example/", None),
        ("*", None),
    ],
)
def test_net3_origins_are_normalised(text: str, normal: str | None) -> None:
    assert normalise_origin(text) == normal


@given(st.text(max_size=60))
def test_normalising_is_idempotent(text: str) -> None:
    once = normalise_origin(f"https://{text}")
    if once is not None:
        assert normalise_origin(once) == once


@pytest.mark.parametrize(
    ("entry", "part"),
    [
        ("claw.example", "write https://claw.example"),
        ("https://claw.example/", "only scheme, host and port: https://claw.example"),
        ("*", "list the origins"),
        ("https://bad host", "is not an origin"),
    ],
)
def test_net3_a_configured_entry_that_is_wrong_says_how_to_write_it(entry: str, part: str) -> None:
    fault = origin_entry_fault(entry)
    assert fault is not None
    assert part in fault
    assert origin_entry_fault("https://claw.example") is None


def http(
    method: str = "POST", peer: Peer | None = None, rules: OriginRules = CONFIGURED, **changes: Any
) -> HttpVerdict:
    facts: dict[str, Any] = {
        "sec_fetch_site": None,
        "content_type": "application/json",
        "bearer": True,
        "cors_allowed": True,
    }
    return check_http_request(method, peer or peer_from(), rules, **(facts | changes))


def test_v4_a_program_may_post() -> None:
    assert http().status == 200
    assert http(bearer=False).status == 200
    assert http(peer=peer_from("203.0.113.9", host="gateway.docker:18789")).status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "post"])
@pytest.mark.parametrize(
    "changes",
    [
        {"content_type": "text/plain"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": None},
        {"bearer": False},
        {"cors_allowed": False},
    ],
)
def test_v4_a_foreign_page_may_not_change_anything(method: str, changes: dict[str, Any]) -> None:
    peer = peer_from(origin="https://evil.example")
    assert http(method, peer, **changes).status == 403


def test_v4_cross_site_without_an_origin_is_refused() -> None:
    assert http(sec_fetch_site="cross-site", bearer=False).status == 403
    assert http(sec_fetch_site="same-site").status == 403
    assert http(sec_fetch_site="same-origin").status == 200
    assert http(sec_fetch_site="none").status == 200


@pytest.mark.parametrize("host", ["evil.example:18789", "localhost.evil.example", ""])
def test_v4_a_rebound_host_is_misdirected(host: str) -> None:
    page: dict[str, Any] = {"origin": f"http://{host}"} if host else {}
    rebound = peer_from(host=host, **page)
    assert http(peer=rebound, bearer=False).status == 421
    assert http(peer=peer_from(host=host), bearer=False).status == 421
    if host:
        assert http(peer=rebound).status == 421


def test_v4_own_names_are_not_misdirected() -> None:
    rules = OriginRules(known_hosts=frozenset({"gw.tail1234.ts.net"}))
    assert http(peer=peer_from(host="gw.tail1234.ts.net"), rules=rules, bearer=False).status == 200
    assert http(peer=peer_from(host="claw.example.com"), bearer=False).status == 200
    assert http(peer=peer_from(host="claw.example.com", origin="https://claw.example.com"), bearer=False).status == 200


def test_c16_cors_lets_a_page_in_that_has_the_secret_itself() -> None:
    peer = peer_from(origin="https://app.example")
    assert http(peer=peer, content_type="application/json; charset=utf-8").status == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_reading_is_corss_business(method: str) -> None:
    assert http(method, peer_from(origin="https://evil.example", host="evil.example"), bearer=False).status == 200
