"""V51: every secret setting of a channel is hidden wherever the configuration is shown."""

from __future__ import annotations

import pytest

from openclaw_gateway.config.redact import MARKER, redact

SETTINGS = [
    ("telegram", "botToken"),
    ("telegram", "webhookSecret"),
    ("discord", "token"),
    ("whatsapp", "accessToken"),
    ("whatsapp", "appSecret"),
    ("whatsapp", "verifyToken"),
]


@pytest.mark.parametrize(("channel", "setting"), SETTINGS)
def test_v51_a_secret_is_hidden_beside_dm_and_in_an_account(channel: str, setting: str) -> None:
    block = {setting: "secret-1", "accounts": {"work": {setting: "secret-2", "apiRoot": "http://127.0.0.1:1"}}}
    shown = redact({"channels": {channel: block}})["channels"][channel]
    assert shown == {setting: MARKER, "accounts": {"work": {setting: MARKER, "apiRoot": "http://127.0.0.1:1"}}}
