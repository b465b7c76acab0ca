"""A LAN neighbour that means harm: raw multicast answers, as many and as wrong as it can make them.

Run as a program in a namespace: ``python hostile.py ADDRESS SECONDS INSTANCES``. Owns packets only; it answers no
questions, it just tells. What it sends: instances without end, TXT records near the packet limit and cut ones, names
with control characters, escape sequences and bidirectional marks, wrong types, compression loops, and rubbish.
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time

GROUP = ("224.0.0.251", 5353)
TYPES = (b"_openclaw-gw", b"_openclaw")
EVIL = ("\x1b[2J\x1b[31mroot", "a\rb\nc", "\u202eevil\u202c", "x" * 63, "dot.dot", '"quote";', "\x00\x07")


def name(*labels: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def record(owner: bytes, kind: int, data: bytes, flush: int = 0x8000) -> bytes:
    return owner + struct.pack("!HHIH", kind, 1 | flush, 120, len(data)) + data


def announcement(number: int, chance: random.Random) -> bytes:
    service = TYPES[number % 2]
    odd = number % 10 == 0
    label = (EVIL[number // 10 % len(EVIL)] + str(number) if odd else f"gw-{number}").encode()[:63]
    kind = name(service, b"_tcp", b"local")
    instance = name(label, service, b"_tcp", b"local")
    host = name(f"h{number}".encode(), b"local")
    strings = [
        f"displayName={EVIL[number % len(EVIL)]}".encode(),
        b"gatewayTls=1",
        b"id=0123456789ab" if number % 3 == 0 else b"role=gateway",
        b"sig=" + b"A" * 86,
        b"capabilities=" + b"a\x1b[0m," * 20,
        *[b"k%d=" % index + b"v" * 200 for index in range(30 if number % 50 == 0 else 1)],
    ]
    txt = b"".join(bytes([len(one)]) + one for one in strings)
    answers = [
        record(kind, 12, instance, 0),
        record(instance, 33, struct.pack("!HHH", 0, 0, chance.choice([18789, 1, 65535])) + host),
        record(instance, 16, txt if number % 7 else txt + b"\xff"),
        record(host, 1, socket.inet_aton("10.77.0.66")),
        record(host, 28, b"\xfe\x80" + b"\0" * 13 + b"\x66"),
    ]
    return struct.pack("!HHHHHH", 0, 0x8400, 0, len(answers), 0, 0) + b"".join(answers)


def rubbish(number: int, chance: random.Random) -> bytes:
    if number % 3 == 0:
        return struct.pack("!HHHHHH", 0, 0x8400, 0, 9, 0, 0) + b"\xc0\x0c" * 20
    if number % 3 == 1:
        return struct.pack("!HHHHHH", 0, 0x8400, 0, 65535, 0, 0)
    return chance.randbytes(300)


def main(address: str, seconds: float, instances: int) -> None:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
    sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(address))
    sender.bind(("0.0.0.0", 5353))
    chance = random.Random(5)
    print("sending", flush=True)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for number in range(instances):
            sender.sendto(announcement(number, chance), GROUP)
            if number % 20 == 0:
                sender.sendto(rubbish(number // 20, chance), GROUP)
                time.sleep(0.002)
            if time.monotonic() > until:
                break


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
