"""connect.params: what official clients send is read, faults are worded as clients know them, everything is capped."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.connect import (
    CLIENT_IDS,
    CLIENT_MODES,
    MAX_LIST,
    MAX_SCOPES,
    MAX_TEXT,
    ConnectAuth,
    ConnectParams,
    bearer_params,
    decode_connect,
)

MINIMAL: dict[str, Any] = {
    "minProtocol": 4,
    "maxProtocol": 4,
    "client": {"id": "cli", "mode": "cli", "version": "2026.9.6", "platform": "linux"},
}
DEVICE: dict[str, Any] = {"id": "d", "publicKey": "k", "signature": "s", "signedAt": 1, "nonce": "n"}


def decode(value: object) -> ConnectParams | str:
    return decode_connect(msgspec.Raw(json.dumps(value).encode()))


def good(value: object) -> ConnectParams:
    params = decode(value)
    assert isinstance(params, ConnectParams), params
    return params


def test_minimal_connect_is_an_operator_without_scopes() -> None:
    params = good(MINIMAL)
    assert (params.role, params.scopes, params.device, params.auth) == ("operator", (), None, ConnectAuth())


def test_control_ui_connect_is_read_with_what_the_schema_does_not_know() -> None:
    params = good(
        MINIMAL
        | {
            "client": {
                "id": "openclaw-control-ui",
                "mode": "webchat",
                "version": "1",
                "platform": "Linux x86_64",
                "buildId": "b",
                "timeZone": "Europe/Berlin",
                "instanceId": "i",
            },
            "role": "operator",
            "scopes": ["operator.admin", "operator.read"],
            "caps": ["tool-events"],
            "auth": {"token": "t", "password": "t"},
            "device": DEVICE,
            "locale": "de",
            "userAgent": "Mozilla/5.0",
            "modelCatalog": {"sessionKey": "main"},
        }
    )
    assert params.client.time_zone == "Europe/Berlin"
    assert params.scopes == ("operator.admin", "operator.read")
    assert (params.auth.token, params.auth.password) == ("t", "t")
    assert params.device is not None
    assert params.device.public_key == "k"


def test_node_connect_is_read() -> None:
    params = good(
        MINIMAL
        | {
            "role": "node",
            "scopes": [],
            "caps": ["system"],
            "commands": ["system.run"],
            "permissions": {"screen": False},
            "pathEnv": "/usr/bin:/bin",
            "auth": {"bootstrapToken": "b"},
        }
    )
    assert (params.role, params.commands, params.permissions["screen"]) == ("node", ("system.run",), False)
    assert params.path_env == "/usr/bin:/bin"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"client": MINIMAL["client"] | {"id": "evil"}}, "at /client/id: must be equal to one of the allowed values"),
        ({"client": MINIMAL["client"] | {"mode": 4}}, "at /client/mode: must be equal to one of the allowed values"),
        ({"client": MINIMAL["client"] | {"x": 1}}, "at /client: unexpected property 'x'"),
        ({"client": MINIMAL["client"] | {"version": ""}}, "at /client/version: must NOT have fewer than 1 characters"),
        ({"client": []}, "at /client: must be object"),
        ({"client": {"id": "cli"}}, "at /client: must have required property 'version'"),
        ({"zzz": 1}, "at root: unexpected property 'zzz'"),
        ({"minProtocol": "4"}, "at /minProtocol: must be integer"),
        ({"minProtocol": True}, "at /minProtocol: must be integer"),
        ({"minProtocol": 1.5}, "at /minProtocol: must be integer"),
        ({"maxProtocol": 0}, "at /maxProtocol: must be >= 1"),
        ({"role": ""}, "at /role: must NOT have fewer than 1 characters"),
        ({"scopes": "operator.read"}, "at /scopes: must be array"),
        ({"scopes": [1]}, "at /scopes/0: must be string"),
        ({"scopes": ["operator.read", ""]}, "at /scopes/1: must NOT have fewer than 1 characters"),
        ({"permissions": {"a": 1}}, "at /permissions/a: must be boolean"),
        ({"auth": "token"}, "at /auth: must be object"),
        ({"auth": {"token": 5}}, "at /auth/token: must be string"),
        ({"auth": {"secret": "x"}}, "at /auth: unexpected property 'secret'"),
        ({"device": DEVICE | {"signedAt": -1}}, "at /device/signedAt: must be >= 0"),
        ({"device": {"id": "d"}}, "at /device: must have required property 'publicKey'"),
    ],
)
def test_schema_faults_are_worded_as_clients_know_them(change: dict[str, Any], fault: str) -> None:
    assert decode(MINIMAL | change) == fault


@pytest.mark.parametrize("raw", [b"", b"null", b"[]", b'"x"', b"{", b"[" * 50_000])
def test_what_is_no_object_is_a_fault(raw: bytes) -> None:
    assert decode_connect(msgspec.Raw(raw)) == "at root: must be object"


def test_missing_protocol_is_named() -> None:
    assert decode({"client": MINIMAL["client"]}) == "at root: must have required property 'minProtocol'"


@pytest.mark.parametrize(
    ("key", "most"),
    [("scopes", MAX_SCOPES), ("caps", MAX_LIST), ("commands", MAX_LIST)],
    ids=["scopes", "caps", "commands"],
)
def test_lists_are_capped(key: str, most: int) -> None:
    assert isinstance(decode(MINIMAL | {key: ["x"] * most}), ConnectParams)
    assert decode(MINIMAL | {key: ["x"] * (most + 1)}) == f"at /{key}: must NOT have more than {most} items"
    assert decode(MINIMAL | {key: ["x" * (MAX_TEXT + 1)]}) == f"at /{key}/0: must NOT have more than 256 characters"


def test_texts_and_permissions_are_capped() -> None:
    too_long = MINIMAL | {"client": MINIMAL["client"] | {"displayName": "x" * 257}}
    assert decode(too_long) == "at /client/displayName: must NOT have more than 256 characters"
    many = {str(number): True for number in range(MAX_LIST + 1)}
    assert decode(MINIMAL | {"permissions": many}) == "at /permissions: must NOT have more than 512 properties"
    assert (
        decode(MINIMAL | {"auth": {"token": "x" * 4097}}) == "at /auth/token: must NOT have more than 4096 characters"
    )


def test_v52_a_key_of_the_peer_comes_back_short_and_printable() -> None:
    fault = decode(MINIMAL | {"\x1b[31m\r\n" + "x" * 500: 1})
    assert isinstance(fault, str)
    assert fault.isprintable()
    assert len(fault) < 120


def test_blank_and_absent_nonce_are_left_to_the_device_check() -> None:
    blank = good(MINIMAL | {"device": DEVICE | {"nonce": ""}}).device
    absent = good(MINIMAL | {"device": {key: value for key, value in DEVICE.items() if key != "nonce"}}).device
    assert blank is not None
    assert absent is not None
    assert blank.nonce == absent.nonce == ""


def test_secrets_are_not_in_the_repr() -> None:
    params = good(MINIMAL | {"auth": {"token": "S3CRET", "password": "S3CRET", "deviceToken": "S3CRET"}})
    assert "S3CRET" not in repr(params)


@pytest.mark.parametrize(
    ("auth", "signed"),
    [
        (ConnectAuth(), ""),
        (ConnectAuth(password="p"), ""),
        (ConnectAuth(token="t", device_token="d", bootstrap_token="b"), "t"),
        (ConnectAuth(device_token="d", bootstrap_token="b"), "d"),
        (ConnectAuth(bootstrap_token="b"), "b"),
        (ConnectAuth(token="", device_token="d"), ""),
    ],
)
def test_the_signed_token_is_the_first_that_is_there(auth: ConnectAuth, signed: str) -> None:
    assert auth.signed_token == signed


def test_all_official_ids_and_modes_are_taken() -> None:
    assert (len(CLIENT_IDS), len(CLIENT_MODES)) == (17, 8)
    for id_ in CLIENT_IDS:
        for mode in CLIENT_MODES:
            assert good(MINIMAL | {"client": MINIMAL["client"] | {"id": id_, "mode": mode}}).client.id == id_


def test_bearer_params_are_well_formed() -> None:
    params = bearer_params(protocol=4, scopes=("operator.read",))
    assert (params.min_protocol, params.max_protocol, params.role, params.device) == (4, 4, "operator", None)
    assert params.client.id in CLIENT_IDS


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["scopes", "caps", "role", "device", "auth", "permissions", "locale"]), JSON_VALUES
    ),
    st.dictionaries(st.sampled_from(["id", "mode", "version", "displayName", "timeZone"]), JSON_VALUES),
)
def test_any_json_gives_params_or_a_printable_fault(root: dict[str, Any], client: dict[str, Any]) -> None:
    value = MINIMAL | root | {"client": MINIMAL["client"] | client}
    result = decode_connect(msgspec.Raw(json.dumps(value).encode()))
    if isinstance(result, str):
        assert result.startswith("at ")
        assert result.isprintable()
    else:
        assert len(result.scopes) <= MAX_SCOPES


@given(st.binary(max_size=100))
def test_any_bytes_give_params_or_a_fault(data: bytes) -> None:
    assert isinstance(decode_connect(msgspec.Raw(data)), ConnectParams | str)
