"""`openclaw qr` and `openclaw devices join-code`, run as programs; what is drawn is read back by another decoder."""

from __future__ import annotations

import base64
import json
import struct
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zxingcpp

from openclaw_gateway.cli.qr import BORDER, matrix_of, terminal_lines
from openclaw_gateway.policy.setup import encode_setup_code, setup_payload
from tests.cli.program import Program

PUBLIC = "wss://gw.example"
CODE = encode_setup_code(setup_payload(["wss://gw.example", "ws://192.168.1.2:18789"], "t" * 43, 1_800_000_000_000))
_LIGHT = {" ": (False, False), "▀": (True, False), "▄": (False, True), "█": (True, True)}


def scan(light: list[list[bool]], scale: int = 4) -> str:
    """What a decoder that we did not write reads from a picture of modules."""
    rows = [bytes(255 if module else 0 for module in row for _ in range(scale)) for row in light]
    pixels = b"".join(row for row in rows for _ in range(scale))
    picture = memoryview(pixels).cast("B", shape=[len(rows) * scale, len(rows[0])])
    (found,) = zxingcpp.read_barcodes(picture)
    return str(found.text)


def seen_in_terminal(lines: list[str]) -> list[list[bool]]:
    """The modules of half blocks, as light ones on a dark terminal."""
    rows: list[list[bool]] = []
    for line in lines:
        rows += [[_LIGHT[char][half] for char in line] for half in (0, 1)]
    return rows


def seen_in_png(data: bytes) -> list[list[bool]]:
    """The pixels of a one-bit greyscale PNG (RFC 2083), True for light."""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", data[16:29])
    assert (depth, colour) in {(1, 0), (1, 3)}
    packed, position = b"", 8
    while position < len(data):
        (size,) = struct.unpack(">I", data[position : position + 4])
        if data[position + 4 : position + 8] == b"IDAT":
            packed += data[position + 8 : position + 8 + size]
        position += size + 12
    raw, stride = zlib.decompress(packed), 1 + (width + 7) // 8
    rows: list[bytes] = []
    for n in range(height):
        kind, *packed_row = raw[n * stride : (n + 1) * stride]
        assert kind in {0, 2}  # none, or the difference to the row above (RFC 2083 section 6)
        above = rows[-1] if kind == 2 and rows else bytes(stride - 1)
        rows.append(bytes((byte + up) & 0xFF for byte, up in zip(packed_row, above, strict=True)))
    return [[bool(row[x // 8] >> (7 - x % 8) & 1) for x in range(width)] for row in rows]


def decode(code: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    return value


# --- the drawing


@pytest.mark.parametrize("text", [CODE, "oc-pair://" + CODE, "a", CODE * 3])
def test_c23_another_decoder_reads_the_terminals_drawing(text: str) -> None:
    matrix = matrix_of(text)
    lines = terminal_lines(matrix)
    assert {len(line) for line in lines} == {len(matrix) + 2 * BORDER}
    assert scan(seen_in_terminal(lines)) == text


def test_c23_an_ordinary_code_fits_into_80_columns() -> None:
    assert len(terminal_lines(matrix_of(CODE))[0]) <= 80


def test_the_border_is_light_on_every_side() -> None:
    rows = seen_in_terminal(terminal_lines(matrix_of(CODE)))
    size = len(matrix_of(CODE)) + 2 * BORDER
    assert all(all(row) for row in rows[:BORDER])
    assert all(all(row) for row in rows[size - BORDER : size])
    assert all(all(row[:BORDER]) and all(row[-BORDER:]) for row in rows[:size])


# --- the commands


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return Program(tmp_path_factory.mktemp("qr") / "state")


@pytest.fixture(scope="module")
def port(program: Program) -> Iterator[int]:
    with program.started() as port:
        yield port


def qr(program: Program, port: int, *arguments: str) -> str:
    done = program("qr", "--port", str(port), *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def test_c23_qr_draws_what_it_prints(program: Program, port: int) -> None:
    out = qr(program, port, "--public-url", PUBLIC)
    drawn = [line for line in out.splitlines() if line and set(line) <= set(_LIGHT)]
    (code,) = [line.split()[2] for line in out.splitlines() if line.startswith("Setup code:")]
    assert scan(seen_in_terminal(drawn)) == code
    assert decode(code)["url"] == PUBLIC
    assert "Access:     full" in out
    assert PUBLIC in out
    assert program.secret not in out


def test_c23_qr_writes_a_picture_that_only_its_owner_reads(program: Program, port: int, tmp_path: Path) -> None:
    path = tmp_path / "pictures" / "code.png"
    out = qr(program, port, "--public-url", PUBLIC, "--no-ascii", "--png", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert "█" not in out
    (code,) = [line.split()[2] for line in out.splitlines() if line.startswith("Setup code:")]
    assert scan(seen_in_png(path.read_bytes()), scale=1) == code


def test_qr_prints_only_the_code_or_json(program: Program, port: int) -> None:
    code = qr(program, port, "--url", PUBLIC, "--setup-code-only")
    assert code == code.strip() + "\n"
    assert set(decode(code.strip())) == {"url", "bootstrapToken", "expiresAtMs"}
    answer = json.loads(qr(program, port, "--public-url", PUBLIC, "--json", "--setup-code-only"))
    assert {"setupId", "setupCode", "gatewayUrl", "auth", "urlSource", "access", "expiresAtMs"} == set(answer)
    assert json.loads(qr(program, port, "--public-url", PUBLIC, "--json", "--node"))["access"] == "node"
    assert json.loads(qr(program, port, "--public-url", PUBLIC, "--json", "--limited"))["access"] == "limited"


def test_v24_qr_says_where_plaintext_took_administration_away(program: Program, port: int) -> None:
    out = qr(program, port, "--public-url", "ws://192.168.1.2:18789", "--no-ascii")
    assert "Access:     limited" in out
    assert "openclaw config set gateway.publicUrl" in out


def test_pair11_qr_of_a_loopback_gateway_says_why_not_and_what_to_do(program: Program, port: int) -> None:
    done = program("qr", "--port", str(port))
    assert done.returncode == 1
    assert "Gateway is only bound to loopback" in done.stderr
    assert "openclaw config set gateway.bind lan" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments", [("--limited", "--node"), ("--public-url", PUBLIC, "--remote"), ("--token", "a", "--password", "b")]
)
def test_options_that_exclude_each_other(program: Program, arguments: tuple[str, ...]) -> None:
    done = program("qr", *arguments)
    assert done.returncode == 2
    assert "exclude each other" in done.stderr


def test_qr_of_a_stopped_gateway_says_how_to_start_it(tmp_path: Path) -> None:
    for arguments in (("qr",), ("devices", "join-code")):
        done = Program(tmp_path / "state")(*arguments, "--port", "1")
        assert done.returncode == 1
        assert "openclaw gateway start" in done.stderr
        assert done.stdout == ""


def test_c23_join_code_makes_an_address_that_answers_once(tmp_path: Path) -> None:
    program = Program(tmp_path / "state")
    with program.started() as port:
        refused = program("devices", "join-code", "--port", str(port))
        assert refused.returncode == 1
        assert "Gateway is only bound to loopback" in refused.stderr
    program.config(json.dumps({"gateway": {"publicUrl": f"http://127.0.0.1:{port}"}}))
    done = program("gateway", "start", "--port", str(port))
    assert done.returncode == 0, done.stderr
    try:
        out = program("devices", "join-code", "--port", str(port))
        assert out.returncode == 0, out.stderr
        url = out.stdout.splitlines()[0].split()[-1]
        assert f"openclaw connect {url}" in out.stdout
        assert f"openclaw node run --pair {url}" in out.stdout
        with urllib.request.urlopen(url, timeout=5) as answer:
            assert set(json.load(answer)) == {"url", "bootstrapToken", "expiresAtMs"}
        with pytest.raises(urllib.error.HTTPError) as gone:
            urllib.request.urlopen(url, timeout=5)
        assert gone.value.code == 404
        gone.value.close()
        as_json = json.loads(program("devices", "join-code", "--json", "--port", str(port)).stdout)
        assert as_json["access"] == "node"
        assert as_json["joinUrl"].startswith(f"http://127.0.0.1:{port}/j/")
    finally:
        program("gateway", "stop", "--force")
