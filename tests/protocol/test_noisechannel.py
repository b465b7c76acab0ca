"""Records of the secure channel: frames come out whole and in order, or nothing does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.noise import MAX_MESSAGE, CipherState, NoiseFault
from openclaw_gateway.protocol.noisechannel import (
    PIECE,
    REKEY_AFTER,
    REKEY_SECONDS,
    FrameTooBig,
    SecureChannel,
    sealed_size,
)

LIMIT = 1 << 20


def channels() -> tuple[SecureChannel, SecureChannel]:
    there, back = bytes(32), b"\1" * 32
    return (
        SecureChannel(CipherState(there), CipherState(back), name=b"n" * 32, now=0.0),
        SecureChannel(CipherState(back), CipherState(there), name=b"n" * 32, now=0.0),
    )


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=20), st.randoms())
def test_frames_come_out_as_they_went_in_both_ways(frames: list[bytes], random: object) -> None:
    one, other = channels()
    for frame in frames:
        assert other.open(one.seal(frame, 1.0), limit=LIMIT) == frame
        assert one.open(other.seal(frame, 1.0), limit=LIMIT) == frame


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 17])
def test_any_size_is_split_and_joined_and_its_size_is_known(size: int) -> None:
    one, other = channels()
    frame = bytes(range(256)) * (size // 256) + bytes(size % 256)
    sealed = one.seal(frame, 0.0)
    assert len(sealed) == sealed_size(size)
    assert other.open(sealed, limit=size) == frame


def test_a_sealed_frame_shows_nothing_of_itself() -> None:
    one, _ = channels()
    frame = b'{"type":"req","id":"1","method":"connect","params":{"auth":{"token":"secret-token"}}}'
    first, second = one.seal(frame, 0.0), one.seal(frame, 0.0)
    assert first != second
    for word in (b"connect", b"secret", b"token", b"req", b"{", b'"id"'):
        assert word not in first[2:] or len(word) == 1


def test_a_frame_over_the_limit_is_refused_before_it_is_opened() -> None:
    one, other = channels()
    sealed = one.seal(bytes(1001), 0.0)
    with pytest.raises(FrameTooBig):
        other.open(sealed, limit=1000)


def test_s096_rekeying_by_count_on_both_sides() -> None:
    one, other = channels()
    for number in range(2 * REKEY_AFTER + 3):
        sealed = one.seal(b"x", 0.0)
        assert bool(sealed[1] & 2) == (number % REKEY_AFTER == REKEY_AFTER - 1)
        assert other.open(sealed, limit=LIMIT) == b"x"


def test_s096_a_peer_that_does_not_rekey_is_refused() -> None:
    one, other = channels()
    one._sealed = -10  # a sender that counts wrong
    for _ in range(REKEY_AFTER - 1):
        other.open(one.seal(b"x", 0.0), limit=LIMIT)
    with pytest.raises(NoiseFault, match="too long"):
        other.open(one.seal(b"x", 0.0), limit=LIMIT)


def test_s096_rekeying_by_time() -> None:
    one, other = channels()
    early = one.seal(b"a", REKEY_SECONDS - 1)
    due = one.seal(b"b", REKEY_SECONDS)
    after = one.seal(b"c", REKEY_SECONDS + 1)
    assert [early[1], due[1], after[1]] == [0, 2, 0]
    assert [other.open(message, limit=LIMIT) for message in (early, due, after)] == [b"a", b"b", b"c"]


SPOILED: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "replayed": lambda sealed: [sealed[0], sealed[0]],
    "left out": lambda sealed: [sealed[1]],
    "out of order": lambda sealed: [sealed[1], sealed[0]],
    "cut by a byte": lambda sealed: [sealed[2][:-1]],
    "cut at a piece": lambda sealed: [sealed[2][: 2 + MAX_MESSAGE]],
    "cut to the kind": lambda sealed: [sealed[0][:1]],
    "empty": lambda sealed: [b""],
    "plain text": lambda sealed: [b'{"type":"req"}'],
    "longer": lambda sealed: [sealed[0] + b"\0"],
    "more flag": lambda sealed: [sealed[0][:1] + bytes([sealed[0][1] ^ 1]) + sealed[0][2:]],
    "rekey flag": lambda sealed: [sealed[0][:1] + bytes([sealed[0][1] ^ 2]) + sealed[0][2:]],
    "unknown flag": lambda sealed: [sealed[0][:1] + bytes([sealed[0][1] ^ 4]) + sealed[0][2:]],
    "two joined": lambda sealed: [sealed[0] + sealed[1][1:]],
    "reflected": lambda sealed: [channels()[1].seal(b"one", 0.0)],
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=list(SPOILED))
def test_s096_what_was_tampered_with_is_refused_and_ends_the_channel(
    spoil: Callable[[list[bytes]], list[bytes]],
) -> None:
    one, other = channels()
    sealed = [one.seal(b"one", 0.0), one.seal(b"two", 0.0)]
    if spoil in (SPOILED["cut by a byte"], SPOILED["cut at a piece"]):
        one, other = channels()
        sealed += [one.seal(bytes(2 * PIECE), 0.0)]
    refused = 0
    for message in spoil(sealed):
        try:
            other.open(message, limit=LIMIT)
        except NoiseFault:
            refused += 1
            break
    assert refused == 1
    with pytest.raises(NoiseFault, match="broken"):
        other.open(one.seal(b"later", 0.0), limit=LIMIT)


@given(st.binary(max_size=100))
def test_any_bytes_give_a_fault(data: bytes) -> None:
    _, other = channels()
    with pytest.raises(NoiseFault):
        other.open(data, limit=LIMIT)


@given(st.integers(0, 1000), st.integers(1, 255))
def test_no_flipped_bit_passes(at: int, flip: int) -> None:
    one, other = channels()
    sealed = bytearray(one.seal(b"a frame of some length", 0.0))
    sealed[at % len(sealed)] ^= flip
    with pytest.raises(NoiseFault):
        other.open(bytes(sealed), limit=LIMIT)
