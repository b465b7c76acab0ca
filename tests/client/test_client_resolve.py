"""Which gateway, which secret: one case per source, and what must never be sent where."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from openclaw_gateway.client import ConnectFailed
from openclaw_gateway.client.resolve import Target, TargetError, resolve_target
from openclaw_gateway.config.secrets import fingerprint
from openclaw_gateway.ops.instance import InstanceLock

FILE_TOKEN = "token-of-the-generated-file-0123456789"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    state = tmp_path / "state"
    (state / "credentials").mkdir(parents=True, mode=0o700)
    state.chmod(0o700)
    token = state / "credentials" / "gateway-token"
    token.write_text(FILE_TOKEN + "\n")
    token.chmod(0o600)
    return {"OPENCLAW_STATE_DIR": str(state), "HOME": str(tmp_path)}


def write(env: Mapping[str, str], text: str) -> None:
    path = Path(env["OPENCLAW_STATE_DIR"]) / "openclaw.json"
    path.write_text(text)
    path.chmod(0o600)


def facts(target: Target) -> tuple[str, str | None, bool]:
    return target.url, target.credentials.token or target.credentials.password, target.local


def test_the_default_is_this_hosts_gateway_with_the_generated_token(env: dict[str, str]) -> None:
    target = resolve_target(env=env)
    assert facts(target) == ("ws://127.0.0.1:18789", FILE_TOKEN, True)
    assert target.secret_source.startswith("file ")
    assert target.fingerprint == fingerprint(FILE_TOKEN)
    assert FILE_TOKEN not in repr(target)


def test_pair7_net6_the_local_gateway_is_dialled_over_loopback_at_the_port_it_holds(env: dict[str, str]) -> None:
    write(env, "{gateway: {bind: 'lan', port: 20001, auth: {token: 'configured-token-0123456789'}}}")
    assert facts(resolve_target(env=env)) == ("ws://127.0.0.1:20001", "configured-token-0123456789", True)
    with InstanceLock.acquire(Path(env["OPENCLAW_STATE_DIR"]), port=20002):
        assert resolve_target(env=env).url == "ws://127.0.0.1:20002"
        assert resolve_target(env=env, port=20003).url == "ws://127.0.0.1:20003"


def test_net6_a_gateway_bound_to_one_address_is_dialled_over_loopback(env: dict[str, str]) -> None:
    write(env, "{gateway: {bind: '192.168.7.7'}}")
    assert resolve_target(env=env).url == "ws://127.0.0.1:18789"
    write(env, "{gateway: {bind: '127.0.0.3'}}")
    assert resolve_target(env=env).url == "ws://127.0.0.3:18789"
    with InstanceLock.acquire(Path(env["OPENCLAW_STATE_DIR"]), port=20002, url="ws://127.0.0.1:20002"):
        assert resolve_target(env=env).url == "ws://127.0.0.1:20002"  # where it listens, not where the file puts it
    write(env, "{gateway: {bind: 'loopback'}}")
    with InstanceLock.acquire(Path(env["OPENCLAW_STATE_DIR"]), port=20002, url="ws://[::1]:20002"):
        assert resolve_target(env=env).url == "ws://[::1]:20002"
    write(env, "{gateway: {bind: '0.0.0.0'}}")
    assert resolve_target(env=env).url == "ws://127.0.0.1:18789"


def test_auth1_the_command_resolves_the_secret_as_the_server_does(env: dict[str, str]) -> None:
    env["OPENCLAW_GATEWAY_TOKEN"] = "token-of-the-environment-0123"
    assert resolve_target(env=env).credentials.token == "token-of-the-environment-0123"
    write(env, "{gateway: {auth: {token: 'configured-token-0123456789'}}}")
    assert resolve_target(env=env).credentials.token == "configured-token-0123456789"
    flagged = resolve_target(env=env, token="token-of-the-flag")
    assert (flagged.credentials.token, flagged.secret_source) == ("token-of-the-flag", "flag --token")


def test_a_hashed_password_needs_the_password_from_elsewhere(env: dict[str, str]) -> None:
    hashed = "$2b$10$" + "a" * 53
    write(env, f"{{gateway: {{auth: {{type: 'password', passwordHash: '{hashed}'}}}}}}")
    assert resolve_target(env=env).credentials.to_wire() == {}
    env["OPENCLAW_GATEWAY_PASSWORD"] = "correct horse battery"
    target = resolve_target(env=env)
    assert target.credentials.to_wire() == {"password": "correct horse battery"}
    assert target.secret_source == "environment OPENCLAW_GATEWAY_PASSWORD"


def test_remote_mode(env: dict[str, str]) -> None:
    write(
        env,
        "{gateway: {mode: 'remote', auth: {token: 'configured-token-0123456789'},"
        " remote: {url: 'wss://gw.example.org', token: 'remote-token-0123456789'}}}",
    )
    assert facts(resolve_target(env=env)) == ("wss://gw.example.org:443", "remote-token-0123456789", False)
    write(env, "{gateway: {mode: 'remote', remote: {url: 'ws://gw.example.org', token: 'x'}}}")
    with pytest.raises(ConnectFailed):
        resolve_target(env=env)


def test_v56_a_named_address_never_gets_a_configured_secret(env: dict[str, str]) -> None:
    write(env, "{gateway: {auth: {token: 'configured-token-0123456789'}}}")
    with pytest.raises(TargetError):
        resolve_target(env=env, url="ws://127.0.0.1:18789")
    # not the environment's either: it may belong to this host's gateway
    env["OPENCLAW_GATEWAY_TOKEN"] = "token-of-the-environment-0123"
    with pytest.raises(TargetError):
        resolve_target(env=env, url="wss://elsewhere.example.org")
    target = resolve_target(env=env, url="wss://elsewhere.example.org", token="t1")
    assert facts(target) == ("wss://elsewhere.example.org:443", "t1", False)


def test_v56_an_address_from_the_environment_gets_only_a_secret_from_there(env: dict[str, str]) -> None:
    env["OPENCLAW_GATEWAY_URL"] = "wss://gw.example.org"
    with pytest.raises(TargetError) as caught:
        resolve_target(env=env)
    assert "OPENCLAW_GATEWAY_TOKEN" in caught.value.fix
    env["OPENCLAW_GATEWAY_TOKEN"] = "token-of-the-environment-0123"
    assert facts(resolve_target(env=env)) == ("wss://gw.example.org:443", "token-of-the-environment-0123", False)
    assert resolve_target(env=env, password="p").credentials.to_wire() == {"password": "p"}


def test_looking_makes_no_files(tmp_path: Path) -> None:
    state = tmp_path / "none"
    target = resolve_target(env={"OPENCLAW_STATE_DIR": str(state), "HOME": str(tmp_path)})
    assert target.credentials.to_wire() == {}
    assert not state.exists()
