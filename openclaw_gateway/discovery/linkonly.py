"""Multicast DNS sockets that hear nothing but multicast DNS's own group.

Owns one kernel filter. python-zeroconf also answers a question that was sent to this host's own address, from wherever
it came, with ten times its size: RFC 6762 section 11 forbids that beyond the link, because it tells the Internet who is
here (OpenClaw PR1882, found on Shodan) and makes the gateway a mirror for floods. What is addressed to the group never
passes a router, so it came from the link. For responders only: a browser asks for answers to its own address too.

Invariant: where the system has no such filter (other than Linux) the socket is left as it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys
from typing import Final

__all__ = ["hear_link_only"]

_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
# linux/filter.h: load relative to the network header, whatever the socket's own offset is
_NET: Final = 0xFFF00000
_LOAD_BYTE, _LOAD, _AND, _EQUAL, _RETURN = 0x30, 0x20, 0x54, 0x15, 0x06
_GROUP4: Final = 0xE00000FB  # 224.0.0.251
_GROUP6: Final = (0xFF020000, 0, 0, 0xFB)  # ff02::fb

# (code, jump where equal, jump where not, operand); both versions, for a socket may take both
_PROGRAM: Final = (
    (_LOAD_BYTE, 0, 0, _NET),
    (_AND, 0, 0, 0xF0),
    (_EQUAL, 0, 2, 0x40),
    (_LOAD, 0, 0, _NET + 16),
    (_EQUAL, 8, 9, _GROUP4),
    (_LOAD, 0, 0, _NET + 24),
    (_EQUAL, 0, 7, _GROUP6[0]),
    (_LOAD, 0, 0, _NET + 28),
    (_EQUAL, 0, 5, _GROUP6[1]),
    (_LOAD, 0, 0, _NET + 32),
    (_EQUAL, 0, 3, _GROUP6[2]),
    (_LOAD, 0, 0, _NET + 36),
    (_EQUAL, 0, 1, _GROUP6[3]),
    (_RETURN, 0, 0, 0xFFFFFFFF),
    (_RETURN, 0, 0, 0),
)


def hear_link_only(sock: socket.socket) -> None:
    """Let ``sock`` hear what is addressed to the group alone."""
    if sys.platform == "linux":
        code = b"".join(struct.pack("=HBBI", *step) for step in _PROGRAM)
        kept = ctypes.create_string_buffer(code, len(code))
        with contextlib.suppress(OSError):
            sock.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(_PROGRAM), ctypes.addressof(kept))
            )
