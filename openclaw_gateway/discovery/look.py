"""Asking one network for one instance name: do others have it, and are we seen ourselves?

Owns one question and the reading of its answers: a one-shot query (RFC 6762 section 5.1) from a port of its own, so
that every responder, ours among them, answers straight back (section 6.7). It must not know zeroconf, and decides
nothing. No name is looked up, nothing is kept.

Invariants: reading is total and bounded (any bytes give answers or none); at most `MAX_ANSWERS` are kept; one look is
at most two packets on the network.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

import attrs
import trio

from openclaw_gateway.discovery.lans import Lan
from openclaw_gateway.value import Value

__all__ = ["MAX_ANSWERS", "Answer", "look_for", "question", "read_answers"]

GROUP4: Final = ("224.0.0.251", 5353)
GROUP6: Final = ("ff02::fb", 5353)
MAX_ANSWERS: Final = 16
_MAX_PACKET: Final = 9000  # RFC 6762 section 17
_MAX_RECORDS: Final = 64
_MAX_JUMPS: Final = 16
_SRV, _IN = 33, 1


@attrs.frozen(eq=False, repr=False)
class Answer(Value):
    """``source``: the address that it came from, without zone; ``port`` and ``target``: what SRV says."""

    source: str
    port: int
    target: str


def question(names: tuple[str, ...]) -> bytes:
    """A query for the SRV record of each name, given as ``instance.type.domain.``: the instance is one label, the three
    behind it are one each.
    """
    out = struct.pack(">HHHHHH", 0, 0, len(names), 0, 0, 0)
    for name in names:
        for label in _labels(name):
            out += bytes([len(label)]) + label
        out += b"\0" + struct.pack(">HH", _SRV, _IN)
    return out


def _labels(name: str) -> list[bytes]:
    instance, *rest = name.rstrip(".").rsplit(".", 3)
    return [part.encode() for part in (instance, *rest)]


def read_answers(data: bytes, names: tuple[str, ...]) -> list[tuple[int, str]]:
    """(port, target) of each SRV record in a response that is about one of ``names``; total. A record that was taken
    back (TTL 0) is none.
    """
    try:
        return _read(data[:_MAX_PACKET], {b".".join(_labels(name)).lower() for name in names})
    except (struct.error, IndexError, ValueError):
        return []


def _read(data: bytes, wanted: set[bytes]) -> list[tuple[int, str]]:
    _, flags, questions, *counts = struct.unpack_from(">HHHHHH", data)
    if not flags & 0x8000:
        return []
    at = 12
    for _ in range(min(questions, _MAX_RECORDS)):
        _, at = _name(data, at)
        at += 4
    found = []
    for _ in range(min(sum(counts), _MAX_RECORDS)):
        owner, at = _name(data, at)
        kind, _, ttl, size = struct.unpack_from(">HHIH", data, at)
        at += 10
        if kind == _SRV and ttl > 0 and owner.lower() in wanted:
            (port,) = struct.unpack_from(">H", data, at + 4)
            target, _ = _name(data, at + 6)
            found.append((port, target.decode("utf-8", "replace") + "."))
        at += size
    return found


def _name(data: bytes, at: int) -> tuple[bytes, int]:
    """A name (labels joined by dots) and where reading goes on (RFC 1035 section 4.1.4)."""
    labels: list[bytes] = []
    after = -1
    for _ in range(_MAX_JUMPS * 8):
        size = data[at]
        if size & 0xC0 == 0xC0:
            after = at + 2 if after < 0 else after
            at = (size & 0x3F) << 8 | data[at + 1]
        elif size & 0xC0:
            raise ValueError("a label of no kind that is known")
        elif size == 0:
            return b".".join(labels), at + 1 if after < 0 else after
        else:
            labels.append(data[at + 1 : at + 1 + size])
            at += 1 + size
    raise ValueError("a name without end")


async def look_for(lan: Lan, names: tuple[str, ...], *, seconds: float) -> tuple[Answer, ...]:
    """Ask ``lan`` for ``names`` and give every answer that comes within half of ``seconds``; where none does, ask once
    more for the other half.

    Raises OSError where the network cannot be asked. Cancelling is safe anywhere.
    """
    found: dict[Answer, None] = {}
    group = GROUP4 if lan.speak4 is not None else GROUP6
    with _socket(lan) as sock:
        for _ in range(2):
            await sock.sendto(question(names), group)
            with trio.move_on_after(seconds / 2):
                while len(found) < MAX_ANSWERS:
                    data, source = await sock.recvfrom(_MAX_PACKET)
                    for port, target in read_answers(data, names):
                        found[Answer(str(source[0]).partition("%")[0], port, target)] = None
            if found:
                break
    return tuple(found)[:MAX_ANSWERS]


def _socket(lan: Lan) -> trio.socket.SocketType:
    family = socket.AF_INET if lan.speak4 is not None else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if lan.speak4 is not None:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(lan.speak4))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            sock.bind((lan.speak4, 0))
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, lan.index)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        return trio.socket.from_stdlib_socket(sock)
    except BaseException:
        sock.close()
        raise
