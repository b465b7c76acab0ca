"""V46 and V48: attackers that want memory, sockets or table rows instead of a way in."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from openclaw_gateway import Gateway
from openclaw_gateway.events import presence
from openclaw_gateway.pairing import requestrows
from openclaw_gateway.policy.lockout import CredentialClass, FailureKey, FailureLedger
from openclaw_gateway.rpc import dispatch
from openclaw_gateway.server import handshake, peers, registry
from tests.websocket.rawclient import CONTINUATION, PING, TEXT, frame

from .attacker import TOKEN, Attacker, Device, legit_client_works, open_victim, remote_door

ROOT = Path(__file__).resolve().parents[2]
IDLE = 10_000
MIB = 1024 * 1024


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """A gateway in a process of its own: its port and its process id."""
    tmp_path.chmod(0o700)
    (tmp_path / "openclaw.json").write_text(json.dumps({"gateway": {"auth": {"type": "token", "token": TOKEN}}}))
    (tmp_path / "openclaw.json").chmod(0o600)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "out").open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "openclaw_gateway", "gateway", "run", "--port", str(port), "--detached"],
            env={
                "OPENCLAW_STATE_DIR": str(tmp_path), "HOME": str(tmp_path), "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
            },
            stdout=out, stderr=out,
        )  # fmt: skip
    try:
        until = time.monotonic() + 15
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert child.poll() is None, (tmp_path / "out").read_text()
            assert time.monotonic() < until
            time.sleep(0.02)
        yield port, child.pid
    finally:
        child.terminate()
        assert child.wait(10) == 0


def _upgrade(port: int, source: str) -> socket.socket:
    """An upgrade that is answered with the challenge, and then says nothing."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=5, source_address=(source, 0))
    sock.sendall(
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    assert sock.recv(4096).startswith(b"HTTP/1.1 101 ")
    return sock


async def _honest(port: int, source: str) -> float:
    """Seconds until an honest client has its hello and an answer."""
    started = time.monotonic()
    await legit_client_works(port, source=source)
    return time.monotonic() - started


def _rss(pid: int) -> int:
    """Resident bytes (proc(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _sockets(pid: int) -> int:
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed while we looked
            found += str(entry.readlink()).startswith("socket:")
    return found


async def _own_sockets(pid: int) -> int:
    """How many sockets the gateway has without any client: the number that stays when those before have gone."""
    least = _sockets(pid)
    for _ in range(20):
        await trio.sleep(0.02)
        least = min(least, _sockets(pid))
    return least


@pytest.mark.deadline(240)  # ten thousand handshakes of work, not of waiting
async def test_v46_ten_thousand_idle_upgrades_from_one_address(process: tuple[int, int]) -> None:
    port, pid = process
    for source in ("127.0.0.1", "127.0.0.2"):
        await legit_client_works(port, source=source)
    # What the first connections of every kind allocate for good is not the flood's.
    for sock in [_upgrade(port, "127.0.0.2") for _ in range(64)]:
        sock.close()
    before, own = _rss(pid), await _own_sockets(pid)
    held: deque[socket.socket] = deque()
    most = 0
    waits = []
    try:
        for number in range(IDLE):
            held.append(_upgrade(port, "127.0.0.2"))
            if len(held) > 200:  # long evicted; ours to close, so that this process does not run out of them
                held.popleft().close()
            if number % 1000 == 999:
                most = max(most, _sockets(pid) - own)
                waits += [await _honest(port, "127.0.0.1"), await _honest(port, "127.0.0.2")]
        assert most <= 32
        assert max(waits) < 5.0  # nothing waits for a deadline of the flood, the shortest of which is 15 s
        grown = _rss(pid) - before
        assert grown < 20 * MIB, f"{grown / MIB:.1f} MiB"
        # The newest 32 are there, all older ones are gone.
        held[-1].settimeout(0.2)
        with pytest.raises(TimeoutError):
            held[-1].recv(1)
        held[0].settimeout(2)
        with contextlib.suppress(ConnectionResetError):
            assert held[0].recv(1) == b""
    finally:
        for sock in held:
            sock.close()


async def test_v46_the_oldest_stranger_of_the_address_makes_room_and_no_other(victim: Gateway) -> None:
    strangers = victim._core.registry.strangers
    assert strangers.per_address == 32
    async with contextlib.AsyncExitStack() as stack:
        bystander = await stack.enter_async_context(await Attacker.at(victim.port, source="127.0.0.3"))
        await bystander.open()
        admitted = await stack.enter_async_context(await Attacker.at(victim.port, source="127.0.0.2"))
        assert (await admitted.connect(token=TOKEN)).admitted
        flood = []
        for _ in range(100):
            client = await stack.enter_async_context(await Attacker.at(victim.port, source="127.0.0.2"))
            await client.open()
            flood.append(client)
            assert strangers.count("127.0.0.2") <= 32
        for index, client in enumerate(flood):
            assert await _is_there(client) is (index >= 68), index
        assert await _is_there(bystander)
        await admitted.assert_alive()


async def test_v46_strangers_of_many_addresses_are_capped_together(victim: Gateway) -> None:
    strangers = victim._core.registry.strangers
    assert strangers.total == registry.MAX_STRANGERS == 512
    async with contextlib.AsyncExitStack() as stack:
        for number in range(600):
            client = await stack.enter_async_context(
                await Attacker.at(victim.port, source=f"127.0.{1 + number % 40}.{1 + number // 40}")
            )
            await client.open()
        assert len(strangers) == 512
        await legit_client_works(victim.port)


async def test_v46_one_host_with_a_whole_ipv6_subnet_is_one_address(victim: Gateway) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number in range(40):
            door = await stack.enter_async_context(remote_door(victim, f"2001:db8:1:2::{number + 1:x}"))
            client = await stack.enter_async_context(await Attacker.at(door))
            await client.open()
        assert len(victim._core.registry.strangers) == 32


async def _is_there(client: Attacker) -> bool:
    try:
        await client.send(frame(PING, b"?"))
        return await client.read_frame() is not None
    except (trio.BrokenResourceError, AssertionError):
        return False


async def test_v46_what_a_stranger_may_send_is_bounded(victim: Gateway) -> None:
    half = b"x" * 33_000
    for sent in (
        frame(TEXT, b" " * 65_537),
        frame(TEXT, half, fin=False) + frame(CONTINUATION, half),
        frame(TEXT, b"", length=1 << 40),
    ):
        async with await Attacker.at(victim.port) as client:
            await client.open()
            await client.send(sent)
            assert (await client.read_close()).close_code == 1009
    async with await Attacker.at(victim.port) as client:
        await client.open()
        parked = frame(TEXT, client.request("health")) * (handshake.MAX_PARKED + 1)
        await client.send(frame(TEXT, client.connect_request("wrong")) + parked)
        close = await client.read_close()
        assert (close.close_code, close.payload[2:]) == (1008, b"too many pending handshake frames")


async def test_v46_a_ping_flood_of_a_stranger_ends_at_the_deadline() -> None:
    from openclaw_gateway.config.schema import TransportsConfig, WebSocketConfig

    short = TransportsConfig(websocket=WebSocketConfig(handshake_timeout_ms=400))
    async with open_victim(transports=short) as gateway, await Attacker.at(gateway.port) as client:
        await client.open()

        async def flood() -> None:
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                while True:
                    await client.send(frame(PING, b"x" * 100) * 20)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
                while await client.read_frame() is not None:
                    pass
            nursery.cancel_scope.cancel()
        gateway.apply(attrs.evolve(gateway.config, transports=TransportsConfig()), gateway.auth)  # as long as ever
        await legit_client_works(gateway.port)


# --- V48


async def test_v48_proofs_of_any_size_are_refused_before_they_are_decoded(
    victim: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    import base64

    decoded: list[int] = []
    real = base64.urlsafe_b64decode

    def spy(text: Any) -> bytes:
        decoded.append(len(text))
        return real(text)

    monkeypatch.setattr(base64, "urlsafe_b64decode", spy)
    for field in ("publicKey", "signature", "id", "nonce"):
        for size in (100, 257, 60_000):
            async with await Attacker.at(victim.port) as client:
                challenge = await client.open()
                params = client.params(token=TOKEN)
                params["device"] = {**Device().prove(params, challenge), field: "A" * size}
                await client.send(frame(TEXT, client.request("connect", params)))
                assert not (await client.outcome()).admitted
    for size in (8_300, 60_000):  # a token that poses as a setup code
        async with await Attacker.at(victim.port) as client:
            assert not (await client.connect(token="eyJ" + "A" * size)).admitted
    assert set(decoded) <= {44, 88}  # a key and a signature of the right size, with padding
    assert decoded


async def test_v48_tables_keyed_by_what_a_peer_sends_are_capped(victim: Gateway) -> None:
    ledger = FailureLedger(capacity=victim.gatekeeper.ledger._capacity)
    for number in range(10_000):
        ledger.failed(
            FailureKey(f"198.51.{number // 250}.{number % 250}", "operator", CredentialClass.SHARED_SECRET, True),
            now=1.0,
        )
    assert len(ledger) == victim.gatekeeper.ledger._capacity == 4096
    async with await Attacker.at(victim.port) as client:
        assert (await client.connect(token=TOKEN)).admitted
        for number in range(presence.MAX_ENTRIES + 40):
            assert (await client.call("system-event", {"text": "x", "instanceId": f"ghost-{number}"}))["ok"]
        assert len(victim.presence.entries()) <= presence.MAX_ENTRIES + 1
    for number in range(peers._HINTED_PEERS + 40):
        headers = ((b"x-forwarded-for", b"1.2.3.4"),)
        victim.gatekeeper.describe(
            f"198.51.100.{number % 250}" if number < 250 else f"203.0.113.{number % 250}", headers
        )
    assert len(victim.gatekeeper.peers._said) <= peers._HINTED_PEERS


async def test_v48_pending_requests_of_one_source_are_capped(victim: Gateway, far_port: int) -> None:
    asked = set()
    for _ in range(requestrows.MAX_PENDING_PER_SOURCE + 10):
        async with await Attacker.at(far_port) as client:
            outcome = await client.connect(token=TOKEN, device=Device())
            asked.add(outcome.error["details"]["requestId"])
    assert len(asked) == requestrows.MAX_PENDING_PER_SOURCE + 10
    assert len(victim._book.pending()) <= requestrows.MAX_PENDING_PER_SOURCE == 16


async def test_v48_idempotency_keys_are_capped(victim: Gateway) -> None:
    import attrs

    @attrs.frozen
    class Keyed:
        idempotency_key: str = ""

    async def handler(context: Any, params: Any) -> dict[str, bool]:
        return {"ok": True}

    victim.rpc.method("keyed", scope="operator.write", params=Keyed, idempotent=True)(handler)
    async with await Attacker.at(victim.port) as client:
        assert (await client.connect(token=TOKEN)).admitted
        for number in range(dispatch.MAX_KEYS + 50):
            assert (await client.call("keyed", {"idempotencyKey": f"key-{number}"}))["ok"]
    assert len(victim._core.dispatcher._once) <= dispatch.MAX_KEYS == 1000


async def test_v48_views_of_methods_do_not_grow_with_invented_scopes(victim: Gateway) -> None:
    for number in range(50):
        async with await Attacker.at(victim.port) as client:
            assert (await client.connect(token=TOKEN, scopes=["operator.read", f"operator.x{number}"])).admitted
    assert len(victim.rpc._views) <= 2
