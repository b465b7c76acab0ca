"""The watchdog under a clock moved by hand: ping at 30 s, the pong window from the flush (C12, LIVE-1, LIVE-3)."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.server.closing import CloseScope
from openclaw_gateway.server.heartbeat import Heartbeat
from openclaw_gateway.server.registry import SessionRegistry, Strangers


@attrs.define
class Wire:
    unacknowledged: int = 0
    unsent: int = 0


@attrs.define
class Writer:
    queued: int = 0
    sent: int = 0

    @property
    def size(self) -> int:
        return self.queued - self.sent


@attrs.define
class Peer:
    """What the watchdog reads and writes of a session. ``taken``: whether the kernel takes what is queued."""

    wire: Wire = attrs.field(factory=Wire)
    writer: Writer = attrs.field(factory=Writer)
    scope: CloseScope = attrs.field(factory=CloseScope)
    conn_id: str = "conn"
    received: int = 0
    ping_at: float = 0.0
    ping_mark: int | None = None
    pong_by: float | None = None
    progress: tuple[int, int] = (0, 0)
    moved_at: float = 0.0
    taken: bool = True
    pings: int = 0

    def ping(self) -> int:
        self.pings += 1
        self.queue(2)
        return self.writer.queued

    def queue(self, count: int) -> None:
        self.writer.queued += count
        if self.taken:
            self.writer.sent = self.writer.queued

    def pong(self) -> None:
        self.received += 6
        self.ping_mark = self.pong_by = None

    @property
    def closed_with(self) -> tuple[CloseCode, str] | None:
        cause = self.scope.cause
        return (cause.close.code, cause.close.reason) if cause is not None else None


@pytest.fixture
def look() -> Callable[[Peer, float], None]:
    registry = SessionRegistry(limit=1, strangers=Strangers(1))
    return Heartbeat(registry, interval=30.0, timeout=10.0).look  # type: ignore[return-value]


Look = Callable[[Peer, float], None]


def run(look: Look, peer: Peer, start: int, stop: int, each: Callable[[int], None] = lambda now: None) -> float | None:
    """Look once a second; the time of the close, if one came."""
    for now in range(start, stop):
        each(now)
        look(peer, float(now))
        if peer.closed_with is not None:
            return float(now)
    return None


def test_s047_ping_every_30_seconds(look: Look) -> None:
    peer = Peer()
    seen: list[int] = []

    def answer(now: int) -> None:
        if peer.ping_mark is not None:
            seen.append(now)
            peer.pong()

    assert run(look, peer, 0, 100, answer) is None
    assert (peer.pings, seen) == (3, [31, 61, 91])


def test_s048_no_pong_ends_it_10_seconds_after_the_flush(look: Look) -> None:
    peer = Peer()
    closed = run(look, peer, 0, 100)
    assert closed is not None
    assert 40 <= closed <= 42
    assert peer.closed_with == (CloseCode.ABNORMAL, "ping timeout")


def test_c12_the_window_opens_when_the_ping_was_flushed_not_when_it_was_queued(look: Look) -> None:
    peer = Peer()
    run(look, peer, 0, 29)
    peer.taken = False  # the kernel's buffer is full: the ping waits behind other bytes
    assert run(look, peer, 29, 55) is None
    peer.taken = True
    peer.queue(0)
    closed = run(look, peer, 55, 100)
    assert closed is not None
    assert 65 <= closed <= 67


def test_live3_bytes_that_move_are_a_sign_of_life(look: Look) -> None:
    incoming = Peer()

    def drip(now: int) -> None:
        incoming.received += 1

    assert run(look, incoming, 0, 300, drip) is None
    outgoing = Peer()
    outgoing.queue(8_000_000)
    outgoing.wire.unacknowledged = 8_000_000

    def acknowledge(now: int) -> None:
        outgoing.wire.unacknowledged -= 1000

    assert run(look, outgoing, 0, 300, acknowledge) is None


def test_live3_a_closed_window_is_a_slow_reader_and_not_a_missing_pong(look: Look) -> None:
    """The kernel took the ping, but may not send it: the peer's window opens every 20 s only."""
    peer = Peer()
    peer.queue(1_000_000)
    peer.wire.unacknowledged = peer.wire.unsent = 1_000_000

    def read_on(now: int) -> None:
        if now % 20 == 0:
            peer.wire.unacknowledged -= 6000
            peer.wire.unsent -= 6000

    assert run(look, peer, 0, 600, read_on) is None
    closed = run(look, peer, 600, 700)
    assert closed is not None
    assert 600 + 21 <= closed <= 600 + 42
    assert peer.closed_with == (CloseCode.POLICY, "slow consumer")


def test_live1_what_the_kernel_takes_is_no_sign_of_life(look: Look) -> None:
    """A blackholed peer to whom an event goes each second: the socket's buffer takes it, nobody confirms it."""
    peer = Peer()

    def publish(now: int) -> None:
        peer.queue(100)
        peer.wire.unacknowledged += 100

    closed = run(look, peer, 0, 100, publish)
    assert closed is not None
    assert closed <= 60
    assert peer.closed_with == (CloseCode.ABNORMAL, "ping timeout")


def test_ws2_a_peer_that_takes_nothing_is_a_slow_consumer(look: Look) -> None:
    peer = Peer()
    run(look, peer, 0, 5)
    peer.taken = False
    peer.queue(1_000_000)
    closed = run(look, peer, 5, 200)
    assert closed is not None
    assert 44 <= closed <= 50
    assert peer.closed_with == (CloseCode.POLICY, "slow consumer")


def test_s113_s114_intervals_can_be_changed_while_it_runs(look: Look) -> None:
    heartbeat = Heartbeat(SessionRegistry(limit=1, strangers=Strangers(1)), interval=30.0, timeout=10.0)
    assert heartbeat.step == 1.0
    heartbeat.configure(interval=2.0, timeout=0.4)
    assert heartbeat.step == pytest.approx(0.1)
    peer = Peer()
    closed = run(heartbeat.look, peer, 0, 10)  # type: ignore[arg-type]
    assert closed == 4
