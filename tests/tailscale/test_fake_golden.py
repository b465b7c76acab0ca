"""The fake against recordings of a genuine tailscaled 1.90 (golden/): byte for byte."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from openclaw_gateway.testing import fake_tailscale
from openclaw_gateway.testing.fake_tailscaled import FakeTailscaled, open_fake_tailscaled
from openclaw_gateway.testing.tailscale_model import TailnetModel

GOLDEN = Path(__file__).parent / "golden"
RECORDED = "1.90.0-local"


async def exchange(path: Path, request: bytes) -> bytes:
    async with await trio.open_unix_socket(str(path)) as stream:
        await stream.send_all(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await stream.receive_some(65_536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
        while len(body) < length:
            body += await stream.receive_some(65_536)
        return head + b"\r\n\r\n" + body


def get(name: str, *more: str) -> bytes:
    return "\r\n".join([f"GET /localapi/v0/{name} HTTP/1.1", "Host: local-tailscaled.sock", *more, "", ""]).encode()


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("request_name", "golden"),
    [
        ("status?peers=false", "status_running_nopeers.json"),
        ("status", "status_running_peers.json"),
        ("whois?addr=100.64.0.2", "whois_user.json"),
    ],
)
async def test_the_fake_answers_what_was_recorded(tmp_path: Path, request_name: str, golden: str) -> None:
    with trio.fail_after(5):
        async with open_fake_tailscaled(tmp_path / "d.sock", TailnetModel(version=RECORDED), tls=False) as daemon:
            answer = await exchange(daemon.path, get(request_name))
    assert body_of(answer) == (GOLDEN / golden).read_bytes()


async def test_the_fake_logged_out_answers_what_was_recorded(tmp_path: Path) -> None:
    url = "http://10.99.0.1:9911/auth/900ac436f2cbe5f39eef"
    model = TailnetModel(version=RECORDED, state="NeedsLogin", auth_url=url)
    with trio.fail_after(5):
        async with open_fake_tailscaled(tmp_path / "d.sock", model, tls=False) as daemon:
            answer = await exchange(daemon.path, get("status?peers=false"))
    assert body_of(answer) == (GOLDEN / "status_needslogin.json").read_bytes()


async def test_a_claim_and_its_etag_read_back_as_recorded(tmp_path: Path) -> None:
    recorded = (GOLDEN / "serve_config_fg.http").read_bytes().replace(b"\r\n", b"\n")
    claim = json.loads(recorded.partition(b"\n\n")[2])
    with trio.fail_after(5):
        async with open_fake_tailscaled(tmp_path / "d.sock", TailnetModel(version=RECORDED), tls=False) as daemon:
            daemon.model.config = claim
            answer = await exchange(daemon.path, get("serve-config"))
    dated = re.sub(rb"Date: [^\n]*", b"", answer.replace(b"\r\n", b"\n"))
    assert dated == re.sub(rb"Date: [^\n]*", b"", recorded)


async def test_the_bus_begins_as_recorded(tmp_path: Path) -> None:
    with trio.fail_after(5):
        async with (
            open_fake_tailscaled(tmp_path / "d.sock", TailnetModel(version=RECORDED), tls=False) as daemon,
            await trio.open_unix_socket(str(daemon.path)) as stream,
        ):
            await stream.send_all(get("watch-ipn-bus?mask=258"))
            seen = b""
            while b"DriveShares" not in seen:
                seen += await stream.receive_some(65_536)
    line = re.search(rb"\{.*\}\n", seen)
    assert line is not None
    session = re.compile(rb'"SessionID":"[0-9a-f]{16}"')
    assert session.sub(b"", line[0]) == session.sub(b"", (GOLDEN / "watch_first.ndjson").read_bytes())


async def test_the_fake_command_prints_what_was_recorded(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with open_fake_tailscaled(tmp_path / "d.sock", TailnetModel(version=RECORDED), tls=False) as daemon:
            argv = [sys.executable, "-I", fake_tailscale.__file__, f"--socket={daemon.path}"]
            argv += ["serve", "--yes", "--bg=false", "18789"]
            process = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert process.stdout is not None
            said = b""
            while b"exit.\n" not in said:
                said += await process.stdout.receive_some(65_536)
            daemon.reset()  # somebody's `serve reset`: the command ends with 0 and without a word
            assert await process.wait() == 0
            await process.stdout.aclose()
    assert said == (GOLDEN / "cli_serve_fg.stdout").read_bytes()


async def line_of(stream: trio.abc.ReceiveStream) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        line += await stream.receive_some(1)
    return line


async def test_the_fake_is_a_process_too(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "openclaw_gateway.testing.fake_tailscaled", "--socket", str(tmp_path / "d.sock")]
    with trio.fail_after(20):
        process = await trio.lowlevel.open_process(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert json.loads(await line_of(process.stdout))["dnsName"] == "gw.tail-test.ts.net"
            await process.stdin.send_all(b'{"state": "Stopped"}\n')
            assert json.loads(await line_of(process.stdout))["config"] == {}
            status = json.loads(body_of(await exchange(tmp_path / "d.sock", get("status?peers=false"))))
            assert status["BackendState"] == "Stopped"
            assert (tmp_path / "d.sock").stat().st_mode & 0o777 == 0o666
            await process.stdin.aclose()
            assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await process.stdout.aclose()


def refusals() -> list[tuple[bytes, int, bytes]]:
    return [
        (get("status", "Origin: https://evil.example"), 403, b"invalid localapi request\n"),
        (get("status", "Referer: https://evil.example/"), 403, b"invalid localapi request\n"),
        (get("status").replace(b"local-tailscaled.sock", b"localhost"), 403, b"invalid localapi request\n"),
        (get("whois"), 400, b"missing 'addr' parameter\n"),
        (get("whois?addr=nobody"), 400, b"invalid 'addr' parameter\n"),
        (get("whois?addr=100.64.9.9"), 404, b"no match for IP:port\n"),
    ]


@pytest.mark.parametrize(("request_bytes", "status", "text"), refusals())
async def test_the_fake_refuses_in_the_genuine_words(
    tmp_path: Path, request_bytes: bytes, status: int, text: bytes
) -> None:
    with trio.fail_after(5):
        async with open_fake_tailscaled(tmp_path / "d.sock", tls=False) as daemon:
            answer = await exchange(daemon.path, request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert body_of(answer) == text


def post(config: object, etag: str) -> bytes:
    body = json.dumps(config).encode()
    head = f"POST /localapi/v0/serve-config HTTP/1.1\r\nHost: local-tailscaled.sock\r\nIf-Match: {etag}\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def test_etag_and_conflicts_are_the_daemons_since_1_92(tmp_path: Path) -> None:
    def claim(sid: str) -> dict[str, object]:
        return {sid: {"TCP": {"443": {"HTTPS": True}}}}

    with trio.fail_after(5):
        async with open_fake_tailscaled(tmp_path / "d.sock", tls=False) as daemon:
            assert b"412" in (await exchange(daemon.path, post({}, "bogus")))[:20]
            etag = daemon.model.etag
            top = {"TCP": {"443": {"TCPForward": "127.0.0.1:1"}}}
            assert b"200" in (await exchange(daemon.path, post(top, etag)))[:20]
            both = {**top, "Foreground": claim("a")}
            refused = await exchange(daemon.path, post(both, daemon.model.etag))
            assert b"500" in refused[:20]
            assert json.loads(body_of(refused))["error"].endswith("listener already exists for port 443")
            kind = await exchange(daemon.path, post({"TCP": {"443": {"HTTPS": True}}}, daemon.model.etag))
            text = json.loads(body_of(kind))["error"]
            assert text.endswith('want to serve "https", but port 443 is already serving "tcp"')
            daemon.model.version = "1.90.0"
            assert b"200" in (await exchange(daemon.path, post(both, daemon.model.etag)))[:20]


async def test_a_stream_that_ends_takes_its_claim_with_it(tmp_path: Path) -> None:
    with trio.fail_after(5):
        async with open_fake_tailscaled(tmp_path / "d.sock", tls=False) as daemon:
            async with await trio.open_unix_socket(str(daemon.path)) as stream:
                await stream.send_all(get("watch-ipn-bus?mask=2"))
                await daemon.api.wait_watched()
                (sid,) = daemon.model.sessions
                foreign = {"TCP": {"80": {"HTTP": True}}}
                daemon.model.set_config({**foreign, "Foreground": {sid: {"TCP": {"443": {"HTTPS": True}}}}}, "")
            await daemon.api.wait_unwatched()
            assert daemon.model.config == foreign


async def test_only_root_and_the_operator_write(tmp_path: Path) -> None:
    daemon: FakeTailscaled
    with trio.fail_after(5):
        async with open_fake_tailscaled(tmp_path / "d.sock", tls=False) as daemon:
            daemon.model.operator, daemon.model.root_writes = None, False  # we are nobody to it
            answer = await exchange(daemon.path, post({}, daemon.model.etag))
            assert b"403" in answer[:20]
            assert body_of(answer) == b"serve config denied\n"
            assert body_of(await exchange(daemon.path, get("serve-config"))) == b"{}"
