"""The greeting: both sides end up with each other's proven identity and one channel, or with a fault."""

from __future__ import annotations

from typing import Any

import attrs
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.keystatement import KeyStatement, KeySubject, make_key_statement
from openclaw_gateway.protocol.noise import NoiseFault, public_key
from openclaw_gateway.protocol.noisegreeting import (
    OFFER,
    ClientGreeting,
    KnownGateway,
    ServerGreeting,
    bound_nonce,
    is_greeting,
    offers,
)

NODE_KEY, GATEWAY_KEY, OTHER_KEY = (bytes([number]) * 32 for number in (1, 2, 3))
NONCE = "1f0c6d4e-0000-4000-8000-000000000000"


def said(private: bytes, subject: KeySubject, seed: int) -> KeyStatement:
    identity = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return make_key_statement(
        identity.sign, public_key=identity.public_key().public_bytes_raw(), key=public_key(private), subject=subject,
        created_at_ms=1,
    )  # fmt: skip


NODE, GATEWAY = said(NODE_KEY, "node", 7), said(GATEWAY_KEY, "gateway", 8)
KNOWN = KnownGateway(GATEWAY.device_id, GATEWAY.raw_key)


def client(**changes: Any) -> ClientGreeting:
    given: dict[str, Any] = {"private": NODE_KEY, "statement": NODE, "nonce": NONCE, "ephemeral": b"\x0c" * 32}
    return ClientGreeting(**{**given, **changes})


def server(**changes: Any) -> ServerGreeting:
    given: dict[str, Any] = {"private": GATEWAY_KEY, "statement": GATEWAY, "nonce": NONCE, "ephemeral": b"\x0d" * 32}
    return ServerGreeting(**{**given, **changes})


def greet(ours: ClientGreeting, theirs: ServerGreeting) -> list[bytes]:
    sent = [ours.begin()]
    while True:
        answer = theirs.read(sent[-1])
        if answer is None:
            return sent
        sent.append(answer)
        reply = ours.read(answer)
        if reply is None:
            return sent
        sent.append(reply)


@pytest.mark.parametrize("known", [None, KNOWN], ids=["XX", "IK"])
def test_s096_both_learn_who_the_other_is_and_share_one_channel(known: KnownGateway | None) -> None:
    ours, theirs = client(known=known), server()
    sent = greet(ours, theirs)
    assert all(is_greeting(message) for message in sent)
    assert len(sent) == (3 if known is None else 2)
    assert ours.finished
    assert theirs.finished
    assert theirs.client == NODE
    assert ours.gateway == GATEWAY
    one, other = ours.channel(0.0), theirs.channel(0.0)
    assert one.name == other.name
    assert other.open(one.seal(b"connect", 0.0), limit=100) == b"connect"
    assert one.open(other.seal(b"hello", 0.0), limit=100) == b"hello"
    for message in sent:  # nobody who listens learns who talks
        assert NODE.device_id.encode() not in message
        assert GATEWAY.key.encode() not in message


def test_the_offer_is_recognised_and_nothing_else_is() -> None:
    assert offers({"nonce": "x", "ts": 1, "secureChannel": list(OFFER)})
    others: tuple[object, ...] = ("noise.v1", ["noise.v2"], {}, None, 1)
    nothing: tuple[object, ...] = ({}, None, [])
    for payload in (*nothing, *({"secureChannel": other} for other in others)):
        assert not offers(payload)
    for text in (b'{"type":"req"}', b" {}", b"\t[", b"", b"\x10", b"\xef\xbb\xbf{"):
        assert not is_greeting(text)


def test_s096_a_replayed_handshake_fits_no_other_nonce() -> None:
    recorded = client(known=KNOWN).begin()
    with pytest.raises(NoiseFault):
        server(nonce="another nonce").read(recorded)


def test_s096_a_gateway_with_a_swapped_key_is_refused() -> None:
    with pytest.raises(NoiseFault):
        greet(client(known=KNOWN), server(private=OTHER_KEY, statement=said(OTHER_KEY, "gateway", 8)))
    # The identity that is told in a setup code is held against a first contact too.
    other = said(OTHER_KEY, "gateway", 9)
    with pytest.raises(NoiseFault, match="another gateway"):
        greet(client(expected_id=GATEWAY.device_id), server(private=OTHER_KEY, statement=other))


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (said(OTHER_KEY, "node", 7), "another key"),
        (attrs.evolve(NODE, created_at_ms=2), "does not hold"),
        (GATEWAY, "another key"),
        (said(NODE_KEY, "gateway", 7), "no client"),
    ],
)
@pytest.mark.parametrize("known", [None, KNOWN], ids=["XX", "IK"])
def test_s096_a_client_must_state_the_key_that_it_used(
    statement: KeyStatement, fault: str, known: KnownGateway | None
) -> None:
    with pytest.raises(NoiseFault, match=fault):
        greet(client(statement=statement, known=known), server())


def test_s096_a_node_cannot_play_the_gateway() -> None:
    with pytest.raises(NoiseFault, match="does not say that it is a gateway"):
        greet(client(), server(private=OTHER_KEY, statement=said(OTHER_KEY, "node", 7)))


def test_s096_the_same_device_with_another_identity_is_not_the_known_gateway() -> None:
    with pytest.raises(NoiseFault, match="another gateway"):
        greet(client(known=KNOWN), server(statement=said(GATEWAY_KEY, "gateway", 9)))


def test_the_name_of_a_channel_is_in_the_nonce() -> None:
    ours, theirs = client(), server()
    greet(ours, theirs)
    name = ours.channel(0.0).name
    assert bound_nonce(NONCE, name) == f"{NONCE}.{name.hex()}"
    assert len(bound_nonce(NONCE, name)) <= 256
    again = client(ephemeral=b"\x0e" * 32)
    greet(again, server())
    assert again.channel(0.0).name != name


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_give_a_step_or_a_fault(data: bytes, second: bool) -> None:
    theirs = server()
    if second:
        theirs.read(client().begin())
    try:
        answer = theirs.read(data)
    except NoiseFault:
        assert not theirs.finished
        return
    assert not second
    assert data[0] == 1
    assert answer is not None
    ours = client()
    ours.begin()
    with pytest.raises(NoiseFault):
        ours.read(data)


@given(
    st.recursive(st.none() | st.text() | st.integers(), lambda inner: st.dictionaries(st.text(), inner), max_leaves=5)
)
def test_any_payload_in_the_place_of_a_statement_gives_a_fault(value: Any) -> None:
    ours = client(known=KNOWN)
    ours._said = msgspec.json.encode(value)
    with pytest.raises(NoiseFault, match="statement"):
        server().read(ours.begin())


def test_a_greeting_is_small_and_is_not_repeated() -> None:
    with pytest.raises(NoiseFault):
        server().read(b"\x01" + bytes(5000))
    theirs = server()
    greet(client(known=KNOWN), theirs)
    with pytest.raises(NoiseFault):
        theirs.read(client(known=KNOWN).begin())
    theirs = server()
    theirs.read(client().begin())
    with pytest.raises(NoiseFault, match="changed"):
        theirs.read(client(known=KNOWN).begin())
