"""Where a client may dial, and in the clear or not."""

import pytest

from openclaw_gateway.client import ConnectFailed, GatewayAddress


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://127.0.0.1:18789", "ws://127.0.0.1:18789"),
        ("ws://localhost:18789/", "ws://localhost:18789"),
        ("http://127.0.0.1:18789", "ws://127.0.0.1:18789"),
        ("wss://gw.example.org", "wss://gw.example.org:443"),
        ("wss://gw.example.org/openclaw?token=abc", "wss://gw.example.org:443/openclaw"),
        ("ws://[::1]:18789", "ws://[::1]:18789"),
    ],
)
def test_reading_urls(url: str, shown: str) -> None:
    assert GatewayAddress.parse(url).url == shown


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "192.168.1.5", "172.20.0.2", "169.254.1.1", "100.64.0.1",
     "100.127.255.254", "[fe80::1]", "[fd7a:115c:a1e0::5]", "[fd00::1]", "[::ffff:10.0.0.1]"],
)  # fmt: skip
def test_net6_cleartext_is_allowed_to_own_and_private_addresses(host: str) -> None:
    assert not GatewayAddress.parse(f"ws://{host}:18789").tls


@pytest.mark.parametrize(
    "host",
    ["8.8.8.8", "100.128.0.1", "100.63.255.255", "gw.example.org", "localhost.example.org", "gw.local", "0.0.0.0",
     "224.0.0.1", "[2606:4700::1]", "[::ffff:8.8.8.8]", "2130706433", "127.1", "0x7f.1"],
)  # fmt: skip
def test_net6_cleartext_is_refused_elsewhere(host: str) -> None:
    with pytest.raises(ConnectFailed) as caught:
        GatewayAddress.parse(f"ws://{host}:18789")
    assert caught.value.stage == "address"
    assert "wss://" in str(caught.value.fix)
    assert GatewayAddress.parse(f"ws://{host}:18789", allow_insecure=True).port == 18789
    assert GatewayAddress.parse(f"wss://{host}:18789").tls


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:18789", "ftp://x", "ws://", "ws://h:99999", "ws://[::1", "ws://127.0.0.1/a b", "javascript:1"],
)
def test_what_is_not_a_gateway_url_is_refused(url: str) -> None:
    with pytest.raises(ConnectFailed) as caught:
        GatewayAddress.parse(url)
    assert caught.value.stage == "address"


def test_a_secret_in_the_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConnectFailed) as caught:
        GatewayAddress.parse("wss://user:hunter2@gw.example.org/?token=hunter3")
    assert "hunter" not in str(caught.value)
    assert "hunter" not in repr(caught.value)


def test_host_header() -> None:
    assert GatewayAddress.parse("wss://gw.example.org").host_header == "gw.example.org"
    assert GatewayAddress.parse("ws://[::1]:18789").host_header == "[::1]:18789"
