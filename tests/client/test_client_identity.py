"""Device identities: the file and the signature, checked by the server's own verifier."""

import stat
from pathlib import Path

import msgspec
import pytest

from openclaw_gateway.client import Credentials, DeviceIdentity, load_or_create_identity
from openclaw_gateway.client.handshake import Introduction, connect_params
from openclaw_gateway.client.identity import IdentityUnreadable, load_identity, v3_payload
from openclaw_gateway.protocol.connect import ConnectParams, decode_connect
from openclaw_gateway.protocol.device import Challenge, verify_device


def test_created_once_private_and_stable(tmp_path: Path) -> None:
    path = tmp_path / "identity" / "device.json"
    assert load_identity(path) is None
    first = load_or_create_identity(path)
    assert load_or_create_identity(path).device_id == first.device_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["device.json"]
    assert len(first.device_id) == 64
    assert len(first.public_key) == 43


def test_two_that_start_at_once_end_with_one_identity(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    winner = DeviceIdentity.generate()
    winner.save_new(path)
    with pytest.raises(FileExistsError):
        DeviceIdentity.generate().save_new(path)
    assert load_or_create_identity(path).device_id == winner.device_id


@pytest.mark.parametrize("content", [b"", b"{}", b"not json", b'{"privateKey":"short"}', b'{"privateKey":5}', b"\xff"])
def test_state1_an_unreadable_key_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "device.json"
    path.write_bytes(content)
    with pytest.raises(IdentityUnreadable):
        load_or_create_identity(path)
    assert path.read_bytes() == content


def test_the_private_key_shows_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "device.json"
    identity = load_or_create_identity(path)
    secret = msgspec.json.decode(path.read_bytes())["privateKey"]
    assert secret not in repr(identity)


def test_v3_payload_is_the_one_observed() -> None:
    payload = v3_payload(
        device_id="6a89", client_id="cli", mode="cli", role="operator", scopes=["operator.read", "operator.write"],
        signed_at_ms=1795413676492, token="tok2", nonce="65904209", platform=" Linux ", device_family="LINUX",
    )  # fmt: skip
    assert payload == b"v3|6a89|cli|cli|operator|operator.read,operator.write|1795413676492|tok2|65904209|linux|linux"


@pytest.mark.parametrize(
    "auth",
    [
        Credentials(token="t"),
        Credentials(device_token="d"),
        Credentials(bootstrap_token="b"),
        Credentials(password="p"),
        Credentials(),
    ],
)
@pytest.mark.parametrize(("role", "scopes"), [("operator", ("operator.read",)), ("node", ())])
def test_the_gateway_accepts_our_signature(auth: Credentials, role: str, scopes: tuple[str, ...]) -> None:
    identity = DeviceIdentity.generate()
    who = Introduction(
        auth=auth, identity=identity, role=role, scopes=scopes, client_id="cli", mode="cli", version="0.1.0"
    )
    raw = msgspec.Raw(msgspec.json.encode(connect_params(who, nonce="n1", ts_ms=1234567)))
    params = decode_connect(raw)
    assert isinstance(params, ConnectParams), params
    assert params.device is not None
    verdict = verify_device(
        params.device, params, Challenge(nonce="n1", ts_ms=1234567), now_ms=9_999_999_999, challenge_age=0.1
    )
    assert verdict.ok, verdict
    assert verdict.payload_version == "v3"
    assert verdict.device_id == identity.device_id


def test_credentials_do_not_show_their_secrets() -> None:
    shown = repr(Credentials(token="s1", password="s2", device_token="s3", bootstrap_token="s4"))
    assert not any(secret in shown for secret in ("s1", "s2", "s3", "s4"))
