"""Laws: whatever a peer or a person gives, the answer is a value or the error that was promised."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.cli.logs import render
from openclaw_gateway.client import ConnectFailed, GatewayAddress, Hello
from openclaw_gateway.client.handshake import refusal
from openclaw_gateway.ops.log import escape

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HELLO_KEYS = st.sampled_from(
    ["type", "protocol", "server", "auth", "policy", "features", "version", "scopes", "methods", "tickIntervalMs"]
)


@given(st.text() | st.from_regex(r"wss?://[^\s]{0,40}", fullmatch=True))
def test_any_url_gives_an_address_or_connect_failed(url: str) -> None:
    try:
        address = GatewayAddress.parse(url)
    except ConnectFailed:
        return
    assert address.tls or address.may_be_cleartext
    assert GatewayAddress.parse(address.url).host == address.host


@given(st.dictionaries(HELLO_KEYS, JSON | st.dictionaries(HELLO_KEYS, JSON)))
def test_any_hello_gives_a_value_or_none(raw: dict[str, object]) -> None:
    hello = Hello.from_wire({**raw, "type": "hello-ok", "protocol": 4})
    assert hello is not None
    assert 250 <= hello.tick_interval_ms <= 3_600_000
    assert Hello.from_wire(raw.get("server")) is None or isinstance(raw.get("server"), dict)


@given(st.dictionaries(st.sampled_from(["code", "message", "details", "retryable", "retryAfterMs"]), JSON))
def test_any_refusal_gives_connect_failed(error: dict[str, object]) -> None:
    assert refusal("ws://x", error).stage in {"auth", "scope", "websocket"}


@given(st.text())
def test_v52_escaped_text_is_one_printable_line(text: str) -> None:
    assert escape(text).isprintable()
    assert len(escape(text, 10)) <= 10 * 10 + 1


@given(st.text() | JSON.map(lambda value: msgspec.json.encode(value).decode()))
def test_v52_any_log_line_is_shown_without_control_characters(line: str) -> None:
    assert render(line).replace("\n    ", "").isprintable()


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("ws://127.0.0.1:18789", ""),
        ("ws://[::1]:18789", ""),
        ("ws://localhost:18789", ""),
        ("wss://192.168.1.10:18789", "   (on the gateway's host)"),
        ("wss://claw.example.com", "   (on the gateway's host)"),
    ],
)
def test_m5_who_is_turned_away_elsewhere_is_told_where_an_approval_is_given(url: str, where: str) -> None:
    details = {"code": "PAIRING_REQUIRED", "remediationHint": "openclaw devices approve r-1", "requestId": "r-1"}
    error = refusal(url, {"code": "INVALID_REQUEST", "message": "pairing required", "details": details})
    assert error.fix == f"openclaw devices approve r-1{where}"
    details["remediationHint"] = "openclaw gateway auth-token --show (on the gateway's host)"
    said = refusal(url, {"code": "INVALID_REQUEST", "message": "no", "details": details}).fix
    assert said == details["remediationHint"]
