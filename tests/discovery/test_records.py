"""The laws of names and TXT, in both directions."""

from __future__ import annotations

import unicodedata

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.discovery.records import (
    MAX_LABEL_BYTES,
    MAX_TXT_BYTES,
    OPENCLAW_TYPE,
    SEED_TYPE,
    SERVICE_TYPES,
    Advert,
    Announcement,
    Beacon,
    Mode,
    clean_text,
    decode_txt,
    encode_txt,
    host_name,
    instance_name,
    read_advert,
    stable_id,
    txt_of,
)

DEVICE = "ab12cd34ef56" + "0" * 52
SAID = Announcement(
    device_id=DEVICE,
    instance=instance_name(DEVICE),
    host=host_name(DEVICE),
    port=18789,
    version="3.0.0",
    capabilities=("gateway", "agent", "channels"),
    auth="token",
    tls=True,
    tls_sha256="c" * 64,
    display_name="Jane's laptop",
    tailnet_dns="jane.tail1234.ts.net",
    ssh_port=22,
    cli_path="/home/jane/bin/openclaw",
    beacon=Beacon(public_key="A" * 43, signed_at=1_700_000_000, signature="B" * 86),
)
KEYS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="="), min_size=1, max_size=20)


@given(st.dictionaries(KEYS, st.text(max_size=40), max_size=8))
def test_what_is_encoded_is_decoded(pairs: dict[str, str]) -> None:
    if len({key.lower() for key in pairs}) == len(pairs):
        pairs = {key: value.encode("utf-8", "replace").decode() for key, value in pairs.items()}
        assert decode_txt(encode_txt(pairs)) == pairs


@given(st.binary(max_size=4000))
def test_v39_any_bytes_are_some_pairs_and_some_advert(data: bytes) -> None:
    advert = read_advert(decode_txt(data))
    for field in attrs.fields(Advert):
        value = getattr(advert, field.name)
        texts = value if isinstance(value, tuple) else (value,)
        for text in texts:
            if isinstance(text, str):
                assert len(text) <= 128
                assert all(unicodedata.category(char) not in {"Cc", "Cf", "Cs"} for char in text)


@pytest.mark.parametrize("value", ["\x1b[2J\x1b[31mred", "a\nHost: b", "x\u202egnp.exe", "\x07\x9b5n", "\u2028"])
def test_v39_a_name_cannot_steer_a_terminal(value: str) -> None:
    name = read_advert({"displayName": value}).display_name
    assert name is None or (name.isprintable() and "\n" not in name)


def test_v39_no_more_than_a_packet_is_looked_at() -> None:
    many = b"".join(b"\x04k%02d=" % number for number in range(99))
    assert len(decode_txt(many)) == 64
    assert decode_txt(b"\x02a=" + b"\xff" + b"x" * 300) == {"a": ""}
    assert decode_txt(b"\x03a=1" * 2 + b"\x03A=2") == {"a": "1"}
    assert len(str(decode_txt(b"\xfe" + b"k=" + b"x" * 252 + b"\0" * 70_000))) < MAX_TXT_BYTES


def test_s109_s110_s111_the_seeds_type_has_the_seeds_txt() -> None:
    txt = txt_of(SEED_TYPE, SAID, "minimal")
    assert (txt["version"], txt["capabilities"], txt["auth"]) == ("3.0.0", "gateway,agent,channels", "token")


def test_c3_openclaws_type_has_openclaws_txt() -> None:
    txt = txt_of(OPENCLAW_TYPE, SAID, "minimal")
    assert txt["role"] == txt["transport"] == "gateway"
    assert txt["gatewayPort"] == "18789"
    assert txt["lanHost"] == "openclaw-ab12cd34ef56.local"
    assert txt["displayName"] == "OpenClaw (ab12cd34ef56)"
    assert (txt["gatewayTls"], txt["gatewayTlsSha256"]) == ("1", "c" * 64)
    assert "gatewayTls" not in txt_of(OPENCLAW_TYPE, attrs.evolve(SAID, tls=False), "minimal")


@pytest.mark.parametrize("service", SERVICE_TYPES)
def test_disc3_minimal_txt_names_nobody(service: str) -> None:
    minimal = " ".join(txt_of(service, SAID, "minimal").values())
    for private in ("jane", "Jane", "/home", "22 ", "ts.net"):
        assert private not in minimal
    full = txt_of(OPENCLAW_TYPE, SAID, "full")
    assert (full["displayName"], full["sshPort"], full["cliPath"]) == ("Jane's laptop", "22", "/home/jane/bin/openclaw")


@pytest.mark.parametrize("service", SERVICE_TYPES)
@pytest.mark.parametrize("mode", ["minimal", "full"])
def test_what_we_say_fits_and_is_read_back(service: str, mode: Mode) -> None:
    data = encode_txt(txt_of(service, SAID, mode))
    assert len(data) <= MAX_TXT_BYTES
    advert = read_advert(decode_txt(data))
    assert advert.id == stable_id(DEVICE)
    assert advert.beacon == SAID.beacon
    assert (advert.tls, advert.tls_sha256) == (True, "c" * 64)
    if service == SEED_TYPE:
        assert advert.capabilities == SAID.capabilities
    else:
        assert (advert.port, advert.direct_reachable) == (18789, True)


@given(st.text(max_size=200), st.integers(1, 4))
def test_disc2_the_instance_name_fits_and_keeps_the_stable_id(name: str, number: int) -> None:
    label = instance_name(DEVICE, name.encode("utf-8", "replace").decode(), number=number)
    assert len(label.encode()) <= MAX_LABEL_BYTES
    assert "(ab12cd34ef56)" in label
    assert "." not in label
    assert clean_text(label) == label
    assert (number == 1) == label.endswith("(ab12cd34ef56)")


def test_a_pair_that_does_not_fit_is_refused() -> None:
    for pairs in ({"a=b": "c"}, {"": "x"}, {"k": "x" * 254}, {f"k{number}": "x" * 200 for number in range(7)}):
        with pytest.raises(ValueError, match=r"TXT"):
            encode_txt(pairs)
