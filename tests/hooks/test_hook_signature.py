"""Signatures, held against examples that the services publish and against other implementations."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess

import pytest

from openclaw_gateway.hooks.signature import SignatureRules, key_of, read_claim, sign_headers, signed_id

NOW = 1_614_265_330
BODY = b'{"test": 2432232314}'


def check(rules: SignatureRules, headers: dict[str, str], secret: str, body: bytes = BODY, now: float = NOW) -> bool:
    claim = read_claim(rules, headers, now)
    return claim is not None and signed_id(rules, claim, secret, body) is not None


def test_githubs_published_example() -> None:
    headers = {"x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
    rules = SignatureRules(scheme="body")
    assert check(rules, headers, "It's a Secret to Everybody", b"Hello, World!")
    assert not check(rules, headers, "It's a Secret to Everybody", b"Hello, World?")
    assert not check(rules, headers, "it's a secret to everybody", b"Hello, World!")


def test_standard_webhooks_published_example() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }
    rules = SignatureRules(scheme="standard")
    assert sign_headers(rules, secret, BODY, id_=headers["webhook-id"], now=NOW) == headers
    assert check(rules, headers, secret)
    while_changing = {**headers, "webhook-signature": "v1,AAAA v2,x " + headers["webhook-signature"]}
    assert check(rules, while_changing, secret)
    assert not check(rules, {**headers, "webhook-id": "msg_other"}, secret)
    assert not check(rules, {**headers, "webhook-timestamp": "1614265331"}, secret)


def test_slacks_published_example() -> None:
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&"
        b"channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&"
        b"response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    rules = SignatureRules(scheme="slack")
    assert check(rules, headers, "8f742231b10e8888abcd99yyyzzz85a5", body, 1531420618)
    assert not check(rules, headers, "8f742231b10e8888abcd99yyyzzz85a5", body, 1531420618 + 301)


def test_stripe_and_timestamped_as_openssl_signs_them() -> None:
    signed = b"1614265330." + BODY
    run = ["openssl", "dgst", "-sha256", "-hmac", "a-secret", "-r"]
    digest = subprocess.run(run, input=signed, capture_output=True, check=True).stdout.split()[0].decode()
    stripe = {"stripe-signature": f"t=1614265330,v1={'0' * 64},v1={digest},v0={'1' * 64}"}
    assert check(SignatureRules(scheme="stripe"), stripe, "a-secret")
    own = SignatureRules(scheme="timestamped", header="x-mine", timestamp_header="x-when")
    assert check(own, {"x-mine": digest, "x-when": "1614265330"}, "a-secret")
    assert check(own, {"x-mine": f"sha256={digest}", "x-when": "1614265330"}, "a-secret")
    assert not check(own, {"x-mine": digest, "x-when": "1614265329"}, "a-secret")


@pytest.mark.parametrize("scheme", ["timestamped", "standard", "slack", "stripe"])
def test_v44_an_old_signature_is_none(scheme: str) -> None:
    stamp = str(NOW)
    signed = {
        "timestamped": f"{stamp}.", "standard": f"id1.{stamp}.", "slack": f"v0:{stamp}:", "stripe": f"{stamp}.",
    }[scheme].encode() + BODY  # fmt: skip
    digest = hmac.new(b"key", signed, hashlib.sha256).digest()
    headers = {
        "x-signature-256": digest.hex(), "x-signature-timestamp": stamp, "webhook-id": "id1",
        "webhook-timestamp": stamp, "webhook-signature": "v1," + base64.b64encode(digest).decode(),
        "x-slack-signature": "v0=" + digest.hex(), "x-slack-request-timestamp": stamp,
        "stripe-signature": f"t={stamp},v1={digest.hex()}",
    }  # fmt: skip
    rules = SignatureRules(scheme=scheme, tolerance=60)  # type: ignore[arg-type]
    assert check(rules, headers, "key")
    assert check(rules, headers, "key", now=NOW + 60)
    assert not check(rules, headers, "key", now=NOW + 61)
    assert not check(rules, headers, "key", now=NOW - 61)


def test_v44_what_names_a_request_was_signed() -> None:
    headers = {"x-hub-signature-256": hmac.new(b"k", BODY, hashlib.sha256).hexdigest(), "x-github-delivery": "one"}
    rules = SignatureRules(scheme="body")
    claim = read_claim(rules, headers, NOW)
    other = read_claim(rules, {**headers, "x-github-delivery": "two"}, NOW)
    assert claim is not None
    assert other is not None
    assert signed_id(rules, claim, "k", BODY) == signed_id(rules, other, "k", BODY) != None  # noqa: E711


@pytest.mark.parametrize("text", ["", "sha256=", "sha256=zz", "0" * 63, "0" * 65, "sha1=" + "0" * 40, "٣" * 64])
def test_v47_what_can_be_no_signature_is_refused_by_its_headers(text: str) -> None:
    assert read_claim(SignatureRules(scheme="body"), {"x-hub-signature-256": text}, NOW) is None


def test_keys() -> None:
    assert key_of("whsec_" + base64.b64encode(b"raw").decode()) == b"raw"
    assert key_of("whsec_***") == b"whsec_***"
    assert key_of("plain") == b"plain"


@pytest.mark.parametrize("scheme", ["body", "timestamped", "standard", "slack", "stripe"])
def test_what_is_signed_here_is_taken_here(scheme: str) -> None:
    rules = SignatureRules(scheme=scheme)  # type: ignore[arg-type]
    headers = sign_headers(rules, "key", BODY, id_="msg_1", now=NOW)
    assert check(rules, headers, "key")
    assert not check(rules, headers, "kex")
    assert not check(rules, headers, "key", BODY + b" ")
