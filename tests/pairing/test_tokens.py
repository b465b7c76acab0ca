"""Device tokens: the same at each connect, never stored, dead after a new generation."""

from __future__ import annotations

import hmac
import re
from pathlib import Path

import pytest

from openclaw_gateway.pairing import DeviceBook, DeviceTokens, PairedDevice, load_device_tokens
from openclaw_gateway.pairing.tokens import CredentialDamaged
from openclaw_gateway.store import Store
from tests.pairing.conftest import START_MS, MakeAsk


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def approve(
    book: DeviceBook, make_ask: MakeAsk, name: str = "a", role: str = "operator"
) -> tuple[PairedDevice, str]:
    device = (await book.approve_silently(make_ask(name, role=role), "local", START_MS)).device
    token = book.tokens.issue(device)
    assert token is not None
    return device, token


async def test_a_token_is_opaque_stable_and_its_devices_alone(
    book: DeviceBook, make_ask: MakeAsk, state_dir: Path
) -> None:
    device, token = await approve(book, make_ask)
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    assert book.tokens.issue(device) == token
    assert load_device_tokens(state_dir).issue(device) == token  # after a restart
    assert book.tokens.verify(device, token)
    node, node_token = await approve(book, make_ask, role="node")
    other, other_token = await approve(book, make_ask, "b")
    assert len({token, node_token, other_token}) == 3
    for record, wrong in ((device, node_token), (device, other_token), (node, token), (other, token)):
        assert not book.tokens.verify(record, wrong)
    for wrong in ("", token[:-1], token + "A", token + "=", token.swapcase(), "\ud800", "x" * 10_000_000):
        assert not book.tokens.verify(device, wrong)


async def test_the_store_never_holds_a_token(
    book: DeviceBook, store: Store, make_ask: MakeAsk, state_dir: Path
) -> None:
    _, token = await approve(book, make_ask)
    await store.run(lambda db: db.execute("SELECT 1").fetchone())
    assert token.encode() not in everything_in(state_dir)


async def test_v16_a_new_generation_ends_the_old_token(book: DeviceBook, make_ask: MakeAsk) -> None:
    device, old = await approve(book, make_ask)
    renewed = await book.reissue(device.device_id, "operator", START_MS + 7)
    assert renewed is not None
    assert (renewed.token_generation, renewed.token_issued_at_ms) == (2, START_MS + 7)
    new = book.tokens.issue(renewed)
    assert new is not None
    assert new != old
    assert book.lookup(device.device_id, "operator") == renewed
    assert book.tokens.verify(renewed, new)
    assert not book.tokens.verify(renewed, old)
    assert book.to_wire()["paired"][0]["tokens"][0]["rotatedAtMs"] == START_MS + 7


async def test_v26_removing_and_pairing_again_does_not_revive_the_old_token(
    book: DeviceBook, store: Store, make_ask: MakeAsk
) -> None:
    _, old = await approve(book, make_ask)
    await store.run(lambda db: db.execute("DELETE FROM devices"), revokes=True)
    await book.reload()
    again, new = await approve(book, make_ask)
    assert again.token_generation == 1  # the same generation, the same moment, and yet another token
    assert new != old
    assert not book.tokens.verify(again, old)


async def test_a_lost_key_keeps_the_devices_tokens_good_and_hands_out_no_wrong_one(
    book: DeviceBook, make_ask: MakeAsk, state_dir: Path
) -> None:
    device, token = await approve(book, make_ask)
    (state_dir / "credentials" / "device-token.key").unlink()
    fresh = load_device_tokens(state_dir)
    assert fresh.verify(device, token)
    assert fresh.issue(device) is None


def test_state1_a_damaged_key_is_told_and_not_replaced(state_dir: Path) -> None:
    load_device_tokens(state_dir)
    path = state_dir / "credentials" / "device-token.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.write_bytes(b"short")
    with pytest.raises(CredentialDamaged, match="5 bytes"):
        load_device_tokens(state_dir)
    assert path.read_bytes() == b"short"


async def test_v15_tokens_are_compared_by_digests_in_constant_time(
    book: DeviceBook, make_ask: MakeAsk, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, token = await approve(book, make_ask)
    lengths = []
    real = hmac.compare_digest

    def watching(a: bytes, b: bytes) -> bool:
        lengths.append((len(a), len(b)))
        return real(a, b)

    monkeypatch.setattr(hmac, "compare_digest", watching)
    for presented in (token, "", "short", "x" * 5000):
        book.tokens.verify(device, presented)
    assert lengths == [(32, 32)] * 4


def test_a_key_has_its_length() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        DeviceTokens(b"short")
