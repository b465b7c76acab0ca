"""Session keys: nobody can spell somebody else's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.agents.keys import agent_of, channel_key, hook_key, main_key, normal_key

TEXT = st.text(min_size=1, max_size=80)


@given(TEXT, TEXT, TEXT, TEXT, st.sampled_from(["dm", "group"]))
def test_s028_a_peer_cannot_leave_its_place_in_a_key(
    channel: str, account: str, peer: str, thread: str, context: Any
) -> None:
    key = channel_key("main", channel=channel, account=account, context=context, peer=peer, thread=thread)
    assert key.split(":")[2] != "main" or len(key.split(":")) > 3
    assert len(key.split(":")) == 7
    assert normal_key(key, "other") == key
    assert agent_of(key) == "main"


@given(st.lists(TEXT, min_size=2, max_size=2, unique=True))
def test_v27_two_peers_never_share_a_session(peers: list[str]) -> None:
    keys = {channel_key("main", channel="telegram", account="a", context="dm", peer=peer) for peer in peers}
    assert len(keys) == 2


def test_v27_a_peer_cannot_take_the_digest_of_another_as_its_name() -> None:
    long = channel_key("main", channel="x", account="a", context="dm", peer="Ada Lovelace")
    digest = long.rsplit(":", 1)[1]
    assert channel_key("main", channel="x", account="a", context="dm", peer=digest) != long


def test_s028_scopes_say_who_shares() -> None:
    def key(scope: Any, **more: Any) -> str:
        given_ = {"channel": "telegram", "account": "bot1", "context": "dm", "peer": "42", **more}
        return channel_key("main", scope=scope, **given_)

    assert key("main") == main_key("main") == "agent:main:main"
    assert key("per-peer") == "agent:main:direct:42"
    assert key("per-channel-peer") == "agent:main:telegram:direct:42"
    assert key("per-account-channel-peer") == "agent:main:telegram:bot1:direct:42"
    assert key("main", context="group") == "agent:main:telegram:group:42"
    assert key("main", thread="7") == "agent:main:main:thread:7"
    assert hook_key("main", "gmail") == "agent:main:hook:gmail"


def test_keys_that_are_none_are_refused() -> None:
    assert normal_key("main", "ops") == "agent:ops:main"
    for wrong in ("", " ", "a b", "x" * 257, "agent:", "agent:UPPER:main", "agent:main:", "a\nb"):
        with pytest.raises(ValueError, match="session key"):
            normal_key(wrong, "main")
