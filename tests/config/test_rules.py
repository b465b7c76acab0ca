"""Which settings may stand together."""

from __future__ import annotations

import pytest

from openclaw_gateway.config import ConfigError
from openclaw_gateway.config.rules import is_loopback_bind, password_faults
from openclaw_gateway.config.schema import GatewayConfig, PasswordPolicy
from tests.config.conftest import Home

HASH = "$2b$10$" + "N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"
LONG, SHORT = "t" * 24, "t" * 23


@pytest.mark.parametrize(
    ("mode", "auth", "allowed"),
    [
        ("funnel", f'{{type: "password", passwordHash: "{HASH}"}}', True),
        ("funnel", '{type: "password", password: "some-password", allowTailscale: true}', True),
        ("funnel", f'{{type: "token", token: "{LONG}", allowTailscale: false}}', True),
        ("funnel", '{type: "token", allowTailscale: false}', True),
        ("funnel", f'{{type: "token", token: "{SHORT}", allowTailscale: false}}', False),
        ("funnel", f'{{type: "token", token: "{LONG}", allowTailscale: true}}', False),
        ("funnel", f'{{type: "token", token: "{LONG}"}}', False),
        ("funnel", '{type: "none", allowTailscale: false}', False),
        ("serve", f'{{type: "token", token: "{LONG}"}}', True),
        ("serve", '{type: "none"}', False),
    ],
)
def test_c6_s129_s130_exposure_needs_authentication(home: Home, mode: str, auth: str, allowed: bool) -> None:
    loaded = home.load('{gateway: {tailscale: {mode: "' + mode + '"}, auth: ' + auth + "}}")
    assert loaded.config.tailscale.mode == (mode if allowed else "off")
    assert loaded.degraded != allowed
    assert [issue.path for issue in loaded.issues if issue.severity == "fallback"] == (
        [] if allowed else ["gateway.tailscale.mode"]
    )


@pytest.mark.parametrize(
    ("bind", "allowed"), [("loopback", True), ("127.0.0.1", True), ("lan", False), ("0.0.0.0", False), ("auto", False)]
)
def test_s128_exposure_needs_a_loopback_bind(home: Home, bind: str, allowed: bool) -> None:
    loaded = home.load('{gateway: {bind: "' + bind + '", tailscale: {mode: "serve"}}}')
    assert (loaded.config.tailscale.mode == "serve") == allowed
    if not allowed:
        assert loaded.issues[0].fix == "openclaw config set gateway.bind loopback"


def test_c6_a_short_token_from_the_environment_counts_too(home: Home) -> None:
    home.env["OPENCLAW_GATEWAY_TOKEN"] = SHORT
    assert (
        home.load('{gateway: {tailscale: {mode: "funnel"}, auth: {allowTailscale: false}}}').config.tailscale.mode
        == "off"
    )


def test_s117_one_port(home: Home) -> None:
    loaded = home.load("{gateway: {port: 18789, transports: {http: {port: 8080}}}}")
    assert loaded.config.transports.http.port is None
    assert loaded.issues[0].path == "gateway.transports.http.port"
    assert not home.load("{gateway: {port: 8080, transports: {http: {port: 8080}}}}").degraded


def test_s151_s156_a_plaintext_password_is_held_to_the_policy(home: Home) -> None:
    policy = "policy: {minLength: 12, requireUppercase: true, requireLowercase: true, requireNumbers: true,"
    policy += " requireSymbols: true}"
    with pytest.raises(ConfigError) as caught:
        home.load('{gateway: {auth: {type: "password", password: "hunter2", ' + policy + "}}}")
    said = str(caught.value)
    for rule in ("minLength", "requireUppercase", "requireSymbols"):
        assert rule in said
    assert "requireNumbers" not in said
    assert "hunter2" not in said
    home.load('{gateway: {auth: {type: "password", password: "Hunter2-Hunter2", ' + policy + "}}}")
    home.env["OPENCLAW_GATEWAY_PASSWORD"] = "hunter2"
    with pytest.raises(ConfigError):
        home.load('{gateway: {auth: {type: "password", ' + policy + "}}}")


def test_password_policy_counts_letters_of_every_script() -> None:
    policy = PasswordPolicy(
        min_length=1, require_uppercase=True, require_lowercase=True, require_numbers=True, require_symbols=True
    )
    assert password_faults("Äß1-", policy) == ()
    assert password_faults("äß1 ", policy) == ("requireUppercase", "requireSymbols")


def test_s157_maxage_without_a_date_is_told(home: Home) -> None:
    text = '{gateway: {auth: {type: "password", passwordHash: "' + HASH + '", policy: {maxAge: "90d"%s}}}}'
    assert [issue.path for issue in home.load(text.replace("%s", "")).issues] == ["gateway.auth.passwordChangedAt"]
    dated = text.replace("%s", "").replace("policy", 'passwordChangedAt: "2026-01-31", policy')
    assert home.load(dated).issues == ()


@pytest.mark.parametrize(
    "text",
    [
        '{gateway: {auth: {type: "password"}}}',
        '{gateway: {auth: {type: "trusted-proxy"}}}',
        '{gateway: {auth: {type: "trusted-proxy"}, trustedProxies: ["proxy.local"]}}',
        '{gateway: {auth: {type: "trusted-proxy"}, trustedProxies: ["127.0.0.1"]}}',
        '{gateway: {auth: {type: "passwd"}}}',
        '{gateway: {auth: {type: "password", passwordHash: "$2b$10$short"}}}',
    ],
)
def test_unsafe_authentication_is_fatal(home: Home, text: str) -> None:
    with pytest.raises(ConfigError):
        home.load(text)


def test_a_trusted_proxy_without_a_token_admits_nobody_and_does_not_start(home: Home) -> None:
    with pytest.raises(ConfigError) as caught:
        home.load('{gateway: {auth: {type: "trusted-proxy"}, trustedProxies: ["127.0.0.1"]}}')
    (issue,) = caught.value.issues
    assert issue.path == "gateway.auth.trustedProxy.userHeader"
    assert issue.fix == "openclaw config set gateway.auth.trustedProxy.userHeader x-forwarded-user"
    assert "there is no token either" in issue.message


PROXIED = """{{gateway: {{trustedProxies: ["10.0.0.1"], auth: {{type: "trusted-proxy", {token}
    trustedProxy: {{userHeader: "X-Auth-User", {more}}}, {auth} }}}}}}"""


def proxied(more: str = "", *, token: str = "", auth: str = "") -> str:
    return PROXIED.format(more=more, token=token, auth=auth)


def test_proxy4_a_proxy_that_names_people_needs_no_token(home: Home) -> None:
    loaded = home.load(proxied('allowUsers: ["nick"], requiredHeaders: ["X-Forwarded-Proto"]'))
    assert loaded.issues == ()
    proxy = loaded.config.auth.trusted_proxy
    assert (proxy.user_header, proxy.required_headers, proxy.allow_users) == (
        "x-auth-user", ("x-forwarded-proto",), ("nick",),
    )  # fmt: skip


def test_proxy4_no_proxy_but_a_token_is_a_warning(home: Home) -> None:
    loaded = home.load('{gateway: {auth: {type: "trusted-proxy", token: "0123456789abcdef"}}}')
    assert {(issue.path, issue.severity) for issue in loaded.issues} == {
        ("gateway.trustedProxies", "warning"), ("gateway.auth.trustedProxy.userHeader", "warning"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("more", "auth", "path", "closed"),
    [
        ('allowUsers: ["a,b"]', "", "gateway.auth.trustedProxy.allowUsers", "allow_users"),
        ('allowUsers: ["nick", 7]', "", "gateway.auth.trustedProxy.allowUsers", "allow_users"),
        ("allowUsers: 7", "", "gateway.auth.trustedProxy.allowUsers", "allow_users"),
        ('requiredHeaders: ["x y", "x-ok"]', "", "gateway.auth.trustedProxy.requiredHeaders", "required_headers"),
        ('allowUsers: ["nick"], allowLoopback: 7', "", "gateway.auth.trustedProxy.allowLoopback", "allow_loopback"),
    ],
)
def test_v17_a_list_that_cannot_be_read_lets_in_fewer_and_not_more(
    home: Home, more: str, auth: str, path: str, closed: str
) -> None:
    from openclaw_gateway.policy.vouching import Voucher, judge_vouching
    from openclaw_gateway.server.rules import vouch_rules

    loaded = home.load(proxied(more, auth=auth))
    assert path in [issue.path for issue in loaded.issues if issue.severity == "fallback"]
    rules = vouch_rules(loaded.config)
    assert rules is not None
    here = closed == "allow_loopback"
    headers = [(b"x-auth-user", b"nick"), (b"x-ok", b"1"), (b"x y", b"1")]
    assert not judge_vouching(Voucher(trusted=True, here=here, attributed=True), headers, rules).ok


def test_one_faulty_user_takes_all_scopes_by_name(home: Home) -> None:
    users = 'identityScopes: { nick: ["operator.read"], root: ["operator.everything"] }'
    loaded = home.load(proxied('allowUsers: ["nick"]', auth=users))
    assert loaded.config.auth.identity_scopes == {}
    (issue,) = loaded.issues
    assert issue.path == "gateway.auth.identityScopes"
    good = 'identityScopes: { "Nick@Example.com": ["operator.read", "operator.write"] }'
    assert home.load(proxied('allowUsers: ["nick"]', auth=good)).config.auth.identity_scopes == {
        "Nick@Example.com": ("operator.read", "operator.write")
    }


def test_v36_loopback_without_a_secret_and_everybody_are_told(home: Home) -> None:
    loaded = home.load(proxied("allowLoopback: true"))
    assert [(issue.path, issue.severity) for issue in loaded.issues] == [
        ("gateway.auth.trustedProxy.allowUsers", "warning"),
        ("gateway.auth.trustedProxy.allowLoopback", "warning"),
    ]
    short = 'allowUsers: ["nick"], allowLoopback: true, secret: "short"'
    with pytest.raises(ConfigError) as caught:
        home.load(proxied(short))
    assert "short" not in str(caught.value).replace("shorter", "")
    whole = f'allowUsers: ["nick"], allowLoopback: true, secret: "{"s" * 24}"'
    assert home.load(proxied(whole)).issues == ()


@pytest.mark.parametrize("bind", ["loopback", "lan"])
@pytest.mark.parametrize(("length", "warned"), [(15, True), (16, False)])
def test_a_token_that_can_be_guessed_is_told(home: Home, bind: str, length: int, warned: bool) -> None:
    loaded = home.load(f'{{gateway: {{bind: "{bind}", auth: {{token: "{"x" * length}"}}}}}}')
    assert [(issue.path, issue.severity) for issue in loaded.issues] == [("gateway.auth.token", "warning")] * warned
    assert not loaded.degraded
    assert "xxx" not in "".join(loaded.warnings)


@pytest.mark.parametrize(
    "text",
    [
        '{gateway: {bind: "lan", auth: {type: "none"}}}',
        '{gateway: {bind: "0.0.0.0"}}',
        '{gateway: {auth: {type: "trusted-proxy", token: "0123456789abcdef"}, trustedProxies: ["127.0.0.1"]}}',
        '{gateway: {auth: {type: "none"}}}',
        "{gateway: {transports: {websocket: {enabled: false}, http: {enabled: false}}}}",
    ],
)
def test_proxy4_nothing_that_is_safe_is_refused(home: Home, text: str) -> None:
    assert not home.load(text).degraded


@pytest.mark.parametrize(
    ("bind", "host", "loopback"),
    [
        ("loopback", None, True),
        ("127.0.0.1", None, True),
        ("::1", None, True),
        ("127.9.9.9", None, True),
        ("custom", "127.0.0.1", True),
        ("custom", "10.0.0.1", False),
        ("lan", None, False),
        ("auto", None, False),
        ("tailnet", None, False),
        ("::", None, False),
    ],
)
def test_which_binds_are_loopback(bind: str, host: str | None, loopback: bool) -> None:
    assert is_loopback_bind(GatewayConfig(bind=bind, custom_bind_host=host)) == loopback


def test_custom_without_an_address_is_loopback(home: Home) -> None:
    loaded = home.load('{gateway: {bind: "custom"}}')
    assert (loaded.config.bind, loaded.degraded) == ("loopback", True)


def test_proxy3_a_wide_trusted_network_is_told(home: Home) -> None:
    loaded = home.load('{gateway: {trustedProxies: ["10.0.0.0/8", "localhost", "192.168.1.0/24"]}}')
    (issue,) = loaded.issues
    assert "10.0.0.0/8" in issue.message
    assert "192.168" not in issue.message


@pytest.mark.parametrize(
    ("allow", "told"),
    [
        ('["172.17.0.2", "localhost"]', True),
        ('["172.17.0.2", "127.0.0.1", "::1"]', True),
        ('["172.17.0.2", "localhost", "198.51.100.0/24"]', False),
        ('["172.17.0.0/24", "localhost"]', False),
        ("[]", False),
    ],
)
def test_an_allow_list_of_proxies_alone_is_told(home: Home, allow: str, told: bool) -> None:
    loaded = home.load(f'{{gateway: {{trustedProxies: ["172.17.0.2"], network: {{allow: {allow}}}}}}}')
    assert [issue.path for issue in loaded.issues] == (["gateway.network.allow"] if told else [])
    assert not loaded.degraded
    assert home.load(f"{{gateway: {{network: {{allow: {allow}}}}}}}").config.network.allow is not None
