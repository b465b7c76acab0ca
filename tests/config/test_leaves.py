"""What each setting accepts by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.config.leaves import RANGES, BadValueError, duration, network, origin, read_leaf
from openclaw_gateway.config.redact import MARKER
from openclaw_gateway.config.settings import SECRETS, settings

HASH = "$2b$10$" + "N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"


def read(path: str, value: Any) -> Any:
    return read_leaf(settings()[path], path, value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86_400),
        ("90d", 7_776_000),
        ("15m", 900),
        ("500ms", 0.5),
        ("1h30m", 5_400),
        ("1w", 604_800),
        (" 2 H ", 7_200),
        (60, 60),
        (0.5, 0.5),
    ],
)
def test_s147_s157_durations(text: Any, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "bad", ["", "h", "24", "24 hours", "-1h", 0, -5, True, None, [], "1h-", "9" * 30 + "d", float("nan"), float("inf")]
)
def test_bad_durations(bad: Any) -> None:
    with pytest.raises(BadValueError, match="24h"):
        duration(bad)


@pytest.mark.parametrize(
    ("written", "bind"),
    [
        ("loopback", "loopback"),
        ("LAN", "lan"),
        ("tailnet", "tailnet"),
        ("auto", "auto"),
        ("custom", "custom"),
        ("0.0.0.0", "0.0.0.0"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[::]", "::"),
        ("192.168.1.4", "192.168.1.4"),
        ("localhost", "loopback"),
    ],
)
def test_c2_net4_binds(written: str, bind: str) -> None:
    assert read("gateway.bind", written) == bind


@pytest.mark.parametrize("bad", ["", "0.0.0.256", "example.com", 5, None, ["lan"], "127.0.0.1:80"])
def test_bad_binds(bad: Any) -> None:
    with pytest.raises(BadValueError) as caught:
        read("gateway.bind", bad)
    assert "loopback" in caught.value.allowed


@pytest.mark.parametrize(
    ("written", "networks"),
    [
        ("10.0.0.1", ("10.0.0.1/32",)),
        ("10.1.2.3/8", ("10.0.0.0/8",)),
        ("fd00::/8", ("fd00::/8",)),
        ("::1", ("::1/128",)),
        ("::ffff:10.0.0.1", ("10.0.0.1/32",)),
        ("::ffff:10.0.0.0/104", ("10.0.0.0/8",)),
        ("localhost", ("127.0.0.0/8", "::1/128")),
    ],
)
def test_proxy2_networks(written: str, networks: tuple[str, ...]) -> None:
    assert network(written) == networks


@pytest.mark.parametrize(
    "bad", ["", "10.0.0.0/33", "proxy.local", "0.0.0.0/0", "::/0", "::ffff:0:0/96", 7, None, "10.0.0.1-10.0.0.9"]
)
def test_proxy2_bad_networks(bad: Any) -> None:
    with pytest.raises(BadValueError):
        network(bad)


def test_proxy2_one_bad_entry_costs_that_entry_and_is_named() -> None:
    with pytest.raises(BadValueError) as caught:
        read("gateway.trustedProxies", ["10.0.0.1", "proxy.local", "fd00::/8"])
    assert caught.value.kept == ("10.0.0.1/32", "fd00::/8")
    assert "entry 2 (proxy.local)" in caught.value.message


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("https://Example.COM", "https://example.com"),
        ("https://a.b:443/", "https://a.b"),
        ("http://a.b:80", "http://a.b"),
        ("http://a.b:8080", "http://a.b:8080"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("tauri://localhost", "tauri://localhost"),
    ],
)
def test_net3_origins_are_normalised(written: str, normal: str) -> None:
    assert origin(written) == normal


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("app.example.com", "https://app.example.com"),
        ("localhost:3000", "http://localhost:3000"),
        ("https://a.b/path", "https://a.b"),
        ("wss://a.b", "https://a.b"),
        ("127.0.0.1:80/x", "http://127.0.0.1:80"),
        ("*", None),
        ("https://*.a.b", None),
        ("", None),
        ("https://u:p@a.b", None),
        ("https://a.b:99999", None),
        (5, None),
    ],
)
def test_net3_bad_origins_say_what_was_meant(written: Any, meant: str | None) -> None:
    with pytest.raises(BadValueError) as caught:
        origin(written)
    assert caught.value.nearest == meant


def test_net3_the_fix_is_the_exact_line() -> None:
    with pytest.raises(BadValueError) as caught:
        read("gateway.controlUi.allowedOrigins", ["https://ok.example", "app.example.com", "https://b.example/x"])
    assert caught.value.fix == (
        "openclaw config set gateway.controlUi.allowedOrigins "
        '\'["https://ok.example", "https://app.example.com", "https://b.example"]\''
    )
    assert caught.value.kept == ("https://ok.example",)


def test_c17_bcrypt_hashes() -> None:
    for good in (HASH, HASH.replace("2b", "2a"), HASH.replace("2b", "2y"), HASH.replace("$10$", "$04$")):
        assert read("gateway.auth.passwordHash", good) == good
    bad: Any
    for bad in (
        "",
        "$2b$10$short",
        HASH + "x",
        HASH.replace("2b", "2x"),
        HASH.replace("$10$", "$03$"),
        HASH.replace("$10$", "$31$"),
        5,
    ):
        with pytest.raises(BadValueError):
            read("gateway.auth.passwordHash", bad)


@pytest.mark.parametrize("path", sorted(SECRETS))
@pytest.mark.parametrize(
    "bad",
    ["", "  ", MARKER, f"x{MARKER}", 12345678, True, ["hunter2hunter2"], "hunter2\n", " hunter2", "${not a name}"],
)
def test_auth4_secrets_that_are_none(path: str, bad: Any) -> None:
    with pytest.raises(BadValueError) as caught:
        read(path, bad)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(RANGES))
def test_numbers_keep_to_their_range(path: str) -> None:
    low, high = RANGES[path]
    assert read(path, low) == low
    assert read(path, high) == high
    assert read(path, float(high)) == high
    bad: Any
    for bad in (low - 1, high + 1, str(low), True, low + 0.5, [], float("inf")):
        with pytest.raises(BadValueError):
            read(path, bad)


def test_every_range_belongs_to_a_setting() -> None:
    assert set(RANGES) <= set(settings())


@pytest.mark.parametrize(("written", "seconds"), [("1970-01-02", 86_400), ("1970-01-01T01:00:00+01:00", 0), (5, 5)])
def test_instants(written: Any, seconds: float) -> None:
    assert read("gateway.auth.passwordChangedAt", written) == seconds


@pytest.mark.parametrize("bad", ["yesterday", -1, 1_700_000_000_000, True, None])
def test_bad_instants(bad: Any) -> None:
    with pytest.raises(BadValueError):
        read("gateway.auth.passwordChangedAt", bad)


def test_remote_addresses_and_pins() -> None:
    assert read("gateway.remote.url", "wss://host:18789") == "wss://host:18789"
    for bad in ("host:18789", "ftp://h", "ws://", "wss://u:p@h", "ws://h?token=x", "ws://h:99999", 5):
        with pytest.raises(BadValueError):
            read("gateway.remote.url", bad)
    assert read("gateway.remote.tlsFingerprint", "SHA256:" + ":".join(["AB"] * 32)) == "ab" * 32
    with pytest.raises(BadValueError):
        read("gateway.remote.tlsFingerprint", "ab" * 31)


def test_words_are_forgiving_in_case_only() -> None:
    assert read("gateway.auth.type", "Token") == "token"
    with pytest.raises(BadValueError) as caught:
        read("gateway.auth.type", "passwrd")
    assert (caught.value.nearest, caught.value.allowed) == ("password", ("token", "password", "none", "trusted-proxy"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(settings())), JSON)
def test_any_value_anywhere_gives_a_value_or_badvalue(path: str, value: Any) -> None:
    try:
        typed = read(path, value)
    except BadValueError as bad:
        said = str(bad)
    else:
        said = "read"
        # What was read once reads again as itself: the last good value can be checked like any other.
        assert (
            read(
                path, list(typed) if isinstance(typed, tuple) else typed if not hasattr(typed, "parts") else str(typed)
            )
            == typed
        )
    assert said
