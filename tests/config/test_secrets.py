"""Which secret counts, where it comes from, and the token the gateway makes for itself."""

from __future__ import annotations

import hashlib
import re
import threading
from pathlib import Path

import pytest

from openclaw_gateway.config import ConfigError, GatewayConfig
from openclaw_gateway.config.paths import generated_token_path
from openclaw_gateway.config.redact import MARKER
from openclaw_gateway.config.schema import AuthConfig
from openclaw_gateway.config.secrets import ResolvedAuth, fingerprint, resolve_auth
from tests.config.conftest import Home

TOKEN = "token-from-somewhere"


def test_auth1_the_order_of_the_sources(home: Home) -> None:
    env = {**home.env, "OPENCLAW_GATEWAY_TOKEN": "from-the-environment"}
    flag = home.load("{}", gateway__auth__token="from-a-flag")
    assert resolve_auth(flag.config, home.state, env, overridden=flag.overridden).source == "flag --token"
    config = GatewayConfig(auth=AuthConfig(token=TOKEN))
    found = resolve_auth(config, home.state, env)
    assert (found.token, found.source) == (TOKEN, "config gateway.auth.token")
    found = resolve_auth(GatewayConfig(), home.state, env)
    assert (found.token, found.source) == ("from-the-environment", "environment OPENCLAW_GATEWAY_TOKEN")
    found = resolve_auth(GatewayConfig(), home.state, home.env)
    assert found.source == f"file {generated_token_path(home.state)}"
    assert (
        found.fingerprint
        == hashlib.sha256((found.token or "").encode()).hexdigest()[:8]
        == fingerprint(found.token or "")
    )


def test_net5_the_generated_token(home: Home) -> None:
    first = resolve_auth(GatewayConfig(), home.state, home.env)
    path = generated_token_path(home.state)
    assert first.generated
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", first.token or "")
    assert path.read_text().strip() == first.token
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.stat().st_mode & 0o777 for entry in (home.state, path.parent)] == [0o700, 0o700]
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["gateway-token"], "no temporary file stays"
    again = resolve_auth(GatewayConfig(), home.state, home.env)
    assert (again.token, again.generated) == (first.token, False)


def test_net5_none_on_an_open_listener_becomes_a_token(home: Home) -> None:
    found = resolve_auth(GatewayConfig(bind="lan", auth=AuthConfig(type="none")), home.state, home.env)
    assert (found.type, found.forced, found.generated) == ("token", True, True)
    closed = resolve_auth(GatewayConfig(auth=AuthConfig(type="none")), home.state, home.env)
    assert closed == ResolvedAuth(type="none")


def test_net5_two_starts_at_once_end_up_with_one_token(home: Home) -> None:
    home.state.mkdir(mode=0o700)
    found: list[str | None] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        found.append(resolve_auth(GatewayConfig(), home.state, home.env).token)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_file_system_without_links_works_too(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(1, "no links here", str(self))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    found = resolve_auth(GatewayConfig(), home.state, home.env)
    assert generated_token_path(home.state).read_text().strip() == found.token
    assert resolve_auth(GatewayConfig(), home.state, home.env).token == found.token


def test_reading_makes_no_file(home: Home) -> None:
    found = resolve_auth(GatewayConfig(), home.state, home.env, create=False)
    assert (found.type, found.token) == ("token", None)
    assert not home.state.exists()


@pytest.mark.parametrize("content", ["", "short", "two words of a token here", "\u00fcber" * 20, MARKER + "\n\n!"])
def test_a_spoilt_token_file_is_an_error_not_a_new_token(home: Home, content: str) -> None:
    path = generated_token_path(home.state)
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        resolve_auth(GatewayConfig(), home.state, home.env)
    assert caught.value.exit_code == 78
    assert path.read_text() == content


def test_a_token_file_that_is_a_link_is_refused(home: Home) -> None:
    path = generated_token_path(home.state)
    path.parent.mkdir(parents=True, mode=0o700)
    elsewhere = home.root / "elsewhere"
    elsewhere.write_text("x" * 43)
    path.symlink_to(elsewhere)
    with pytest.raises(ConfigError):
        resolve_auth(GatewayConfig(), home.state, home.env)


def test_c17_passwords(home: Home) -> None:
    both = GatewayConfig(auth=AuthConfig(type="password", password="plain-password", password_hash="$2b$10$x"))
    found = resolve_auth(both, home.state, home.env)
    assert (found.password, found.password_hash) == (None, "$2b$10$x"), "the hash counts"
    flagged = resolve_auth(both, home.state, home.env, overridden={"gateway.auth.password"})
    assert (flagged.password, flagged.source) == ("plain-password", "flag --password")
    env = {**home.env, "OPENCLAW_GATEWAY_PASSWORD": "from-env"}
    assert (
        resolve_auth(GatewayConfig(auth=AuthConfig(type="password")), None, env).source
        == "environment OPENCLAW_GATEWAY_PASSWORD"
    )
    with pytest.raises(ConfigError):
        resolve_auth(GatewayConfig(auth=AuthConfig(type="password")), None, home.env)


@pytest.mark.parametrize(
    ("variable", "kind"), [("OPENCLAW_GATEWAY_TOKEN", "token"), ("OPENCLAW_GATEWAY_PASSWORD", "password")]
)
def test_auth4_the_marker_is_no_secret_in_the_environment_either(home: Home, variable: str, kind: str) -> None:
    auth = AuthConfig(type="token") if kind == "token" else AuthConfig(type="password")
    with pytest.raises(ConfigError):
        resolve_auth(GatewayConfig(auth=auth), home.state, {**home.env, variable: MARKER})


def test_no_secret_shows_in_a_repr(home: Home) -> None:
    found = resolve_auth(GatewayConfig(auth=AuthConfig(token="hunter2hunter2")), home.state, home.env)
    assert "hunter2" not in repr(found) + repr(GatewayConfig(auth=AuthConfig(token="hunter2hunter2")))


def test_embedding_without_a_state_directory(home: Home) -> None:
    found = resolve_auth(GatewayConfig(), None, home.env)
    assert found.generated
    assert len(found.token or "") == 43
