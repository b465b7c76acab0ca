"""Which channel a device may come by (S096): the whole table."""

from __future__ import annotations

from typing import get_args

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from openclaw_gateway.policy.channel import SecureMode, judge_channel
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.errors import ERRORS
from openclaw_gateway.protocol.keystatement import KeyStatement, make_key_statement

IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes(32))
NODE = make_key_statement(
    IDENTITY.sign, public_key=IDENTITY.public_key().public_bytes_raw(), key=b"\1" * 32, subject="node", created_at_ms=1
)
OPERATOR = attrs.evolve(NODE, subject="operator")
ME = NODE.device_id


def judge(
    mode: SecureMode = "on", role: str = "node", opened_by: KeyStatement | None = None, registered: str | None = None
) -> str | None:
    return judge_channel(mode, role=role, device_id=ME, opened_by=opened_by, registered=registered)


@pytest.mark.parametrize("mode", get_args(SecureMode))
def test_s096_through_the_channel_the_same_device_role_and_key_are_asked_for(mode: SecureMode) -> None:
    assert judge(mode, opened_by=NODE) is None
    assert judge(mode, opened_by=NODE, registered=NODE.key) is None
    assert judge(mode, role="operator", opened_by=OPERATOR, registered=NODE.key) is None
    assert judge(mode, opened_by=NODE, registered="another") == "secure-key-changed"
    assert judge(mode, opened_by=attrs.evolve(NODE, device_id="f" * 64)) == "secure-channel-device"
    assert judge(mode, opened_by=OPERATOR) == "secure-channel-device"
    assert judge(mode, role="operator", opened_by=NODE) == "secure-channel-device"


def test_s096_in_the_clear() -> None:
    assert judge() is None  # who never used the channel: official clients
    assert judge(registered=NODE.key) == "secure-channel-required"
    assert judge(role="operator", registered=NODE.key) == "secure-channel-required"
    assert judge("required") == "secure-channel-mandatory"
    assert judge("required", role="operator") is None
    assert judge("required", registered=NODE.key) == "secure-channel-required"
    assert judge("off", registered=NODE.key) is None  # what is not offered cannot be asked for


def test_each_verdict_is_a_row_that_closes() -> None:
    keys = ("secure-channel-required", "secure-channel-mandatory", "secure-channel-device", "secure-key-changed")
    assert [ERRORS[key].close for key in keys] == [CloseCode.POLICY] * 4
